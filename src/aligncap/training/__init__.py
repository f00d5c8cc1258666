"""The one training loop: settings, schedule, checkpoints that resume exactly, and the log.

Everything that is trained (speech encoder, warm-up, distillation, preference optimisation) hands
`fit` a model, a step and a batch for every number; only the step differs.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from aligncap.training.settings import FitSettings, learning_rate_at, seed_of

if TYPE_CHECKING:
    from aligncap.training.average import WeightAverage, load_average
    from aligncap.training.best import BestWeights
    from aligncap.training.checkpoints import latest_checkpoint, load_weights
    from aligncap.training.devices import (
        first_process_first,
        has_company,
        is_first_process,
        training_device,
    )
    from aligncap.training.hooks import Hook, evaluating, every
    from aligncap.training.loop import History, fit
    from aligncap.training.optimizer import make_optimizer

__all__ = [
    "BestWeights",
    "FitSettings",
    "History",
    "Hook",
    "WeightAverage",
    "evaluating",
    "every",
    "first_process_first",
    "fit",
    "has_company",
    "is_first_process",
    "latest_checkpoint",
    "learning_rate_at",
    "load_average",
    "load_weights",
    "make_optimizer",
    "seed_of",
    "training_device",
]

_LATER = {
    "BestWeights": "best",
    "History": "loop",
    "Hook": "hooks",
    "WeightAverage": "average",
    "evaluating": "hooks",
    "every": "hooks",
    "first_process_first": "devices",
    "fit": "loop",
    "has_company": "devices",
    "is_first_process": "devices",
    "latest_checkpoint": "checkpoints",
    "load_average": "average",
    "load_weights": "checkpoints",
    "make_optimizer": "optimizer",
    "training_device": "devices",
}


def __getattr__(name: str) -> object:
    # torch is imported by these modules, so they wait until they are asked for.
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
