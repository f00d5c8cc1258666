"""Speech tokens in, caption out: vocabulary, prompts, shared-prompt batches, the language model.

`vocabulary`, `prompts` and `batches` need no torch; `model`, `adapters` and the torch runtime do.
"""
