"""The best weights of a run by what its validations log, and when to stop waiting for better."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aligncap.errors import DataError, RecipeError
from aligncap.storage import atomic_folder
from aligncap.training.checkpoints import trained
from aligncap.training.devices import is_first_process
from aligncap.training.hooks import Hook, Report
from aligncap.training.log import read_log
from aligncap.training.whole import gathered

BEST_FOLDER = "best"
"""Of a run: the weights that did best in validation, and which step had them."""

WEIGHTS_FILE, STEP_FILE = "weights.safetensors", "step.json"


class BestWeights:
    """Watches one logged score, keeps the weights that had the best, and says when it is enough.

    All it knows comes from the log, so a resumed run decides as an uninterrupted one.
    """

    def __init__(
        self,
        output: Path,
        *,
        score: str,
        higher: bool,
        patience: int,
        weights: Callable[[], Mapping[str, Tensor]],
    ) -> None:
        """`score` is a name in the log, better when `higher` says so; `weights` are those that
        the score is of; with `patience` 0 there is always more to wait for."""
        self._output, self._score, self._patience = output, score, patience
        self._sign = 1.0 if higher else -1.0
        self._weights = weights
        self._enough: bool | None = None

    def watching(self, hook: Hook) -> Hook:
        """The same hook, with the score that it returns taken note of."""

        def watched(number: int, report: Report) -> Report | None:
            told = hook.call(number, report)
            if told:
                if self._score not in told:
                    raise RecipeError(
                        f"the validation rows tell no {self._score}, only {', '.join(told)}; "
                        "choose another validation.best"
                    )
                scores = {**self._scores(), number: self._sign * told[self._score]}
                self._decide(scores)
                first = is_first_process()
                weights = gathered(self._weights(), keep=first)
                if number == _best_of(scores) and first:
                    self._keep(number, weights)
            return told

        return Hook(hook.due, watched)

    def enough(self) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        if self._enough is None:
            self._decide(self._scores())
        return bool(self._enough)

    def restore(self, model: nn.Module) -> int | None:
        """Put the best weights into `model`; returns their step, None where none was validated.

        DataError where what was kept is of another step than the log says.
        """
        scores = self._scores()
        if not scores:
            return None
        folder, best = self._output / BEST_FOLDER, _best_of(scores)
        kept = json.loads((folder / STEP_FILE).read_text("utf-8"))["step"]
        if kept != best:
            raise DataError(
                f"{folder}: holds the weights of step {kept}, the log says {best} was best; "
                "train again in another folder"
            )
        stored = load_file(folder / WEIGHTS_FILE)
        with torch.no_grad():
            for name, parameter in trained(model).items():
                parameter.copy_(stored[name])
        return best

    def _scores(self) -> dict[int, float]:
        lines = [line for line in read_log(self._output) if self._score in line]
        return {int(line["step"]): self._sign * line[self._score] for line in lines}

    def _decide(self, scores: Mapping[int, float]) -> None:
        since = sum(step > _best_of(scores) for step in scores) if scores else 0
        self._enough = self._patience > 0 and since >= self._patience

    def _keep(self, number: int, weights: dict[str, Tensor]) -> None:
        with atomic_folder(self._output / BEST_FOLDER) as partial:
            save_file(weights, partial / WEIGHTS_FILE)
            (partial / STEP_FILE).write_text(json.dumps({"step": number}), encoding="utf-8")


def _best_of(scores: Mapping[int, float]) -> int:
    """The step with the best score, the first of equals."""
    return max(sorted(scores), key=lambda step: scores[step])
