"""Speech-text alignment (§3.1): caption-only warm-up, KD-Regularization, and plain cross-entropy.

`losses` are the equations; `data` is what is learnt from; `warmup`, `kd` and `ce` are the stages
that recipes name. Everything but `data` needs torch, so nothing is imported here.
"""
