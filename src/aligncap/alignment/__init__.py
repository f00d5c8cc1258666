"""Speech-text alignment (§3.1): KD-Regularization (Eq. 5), its warm-up, and plain cross-entropy.

Read `losses` (the equations), `teacher`, and `kd` (the recipes) in this order. `examples` has the
training rows, the sampler and the prompts; `init_model` the language model; `trainer` what a run
of any stage does; `rows` makes training rows from corpora.
"""
