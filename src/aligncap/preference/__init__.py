"""Preferences (§3.2): candidates of a clip, judges of them, the pairs that follow, and what is
learnt from those: direct preference optimisation, a reward model, and PPO.
"""
