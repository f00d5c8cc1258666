"""Preferences (§3.2): candidates of a clip, judges of them, the pairs that follow, and what is
learnt from those: direct preference optimisation, a reward model, and PPO.

A store keeps all of it: `candidates` asks a model for captions, `judges` opens a judge that gives
each a score with its reasons, `pairs` sets the best against the rest, `exchange` writes them for
other trainers. None of that needs torch; `dpo`, `reward` and `ppo`, which learn, do.
"""

from aligncap.preference.store import Annotation
from aligncap.preference.values import (
    Candidate,
    Clip,
    ClipCandidates,
    Judge,
    Judgement,
    PreferencePair,
    Provenance,
    normal_form,
)

__all__ = [
    "Annotation",
    "Candidate",
    "Clip",
    "ClipCandidates",
    "Judge",
    "Judgement",
    "PreferencePair",
    "Provenance",
    "normal_form",
]
