"""What DeepSpeed is told: a user's file, and the settings of the run, which it may not deny."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aligncap.errors import RecipeError
from aligncap.training.settings import FitSettings

STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}

AUTO = "auto"
"""In a file: as the recipe says."""


def engine_config(settings: FitSettings, *, share: int) -> dict[str, Any]:
    """DeepSpeed's configuration of a run; nothing of it is left to its defaults that matters.

    Its own clipping is 1.0 where nothing is said; 0.0 clips nothing. The rows of a batch are ours
    to count: of `train_micro_batch_size_per_gpu` only the product is read. RecipeError where the
    file of `settings.deepspeed` cannot be read, or says another thing than the recipe.
    """
    own = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": share,
        "gradient_clipping": settings.clip_norm or 0.0,
        "zero_optimization": {"stage": STAGES[settings.sharding]},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
    }
    if settings.deepspeed is None:
        return own
    return _joined(_read(settings.deepspeed), own, place=str(settings.deepspeed))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}); give DeepSpeed's JSON") from error
    if not isinstance(found, dict):
        raise RecipeError(f"{path}: is no JSON object; give DeepSpeed's JSON")
    return found


def _joined(told: Mapping[str, Any], own: Mapping[str, Any], *, place: str) -> dict[str, Any]:
    """Both, section by section; what both say must be the same."""
    found = dict(told)
    for key, value in own.items():
        other = told.get(key, AUTO)
        if isinstance(value, Mapping):
            section = {} if other == AUTO else other
            found[key] = _joined(section, value, place=f"{place}: {key}")
        elif other not in (AUTO, value):
            raise RecipeError(
                f"{place}: {key} is {other}, but the recipe makes it {value}; "
                f'leave it out of the file, or write "{AUTO}"'
            )
        else:
            found[key] = value
    return found
