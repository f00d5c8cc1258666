"""Speech tokens in, caption out (§3, Eq. 2-4): vocabulary, prompts, models, decoding, runtimes.

`captioner.load` gives a `Captioner`, which needs no torch where the model is exported.
"""
