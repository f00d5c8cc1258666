"""Preferences (§3.2, decisions 11 to 13): candidates of a clip, judges, pairs, and what is trained
on them: direct preference optimisation, a reward model, and PPO.

`candidates` asks a model for captions, `judges` score them with reasons, `pairs` sets the best
against the rest and writes pairs for other trainers; a `store` keeps all of it. `examples` makes
preference rows, from which `dpo`, `reward` and `ppo` train; `pipeline` is all of it in one recipe.
"""
