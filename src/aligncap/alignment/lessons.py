"""A lesson: what a stage teaches, batch by batch, and how far it is learnt on validation rows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from torch import nn

from aligncap.alignment.draws import Draw
from aligncap.alignment.objective import Beside, LessonBatch, Objective
from aligncap.captioner.batches import SharedPromptRow, collate
from aligncap.training import evaluating


@dataclass(frozen=True, slots=True)
class Lesson(Generic[Beside]):
    """The rows of ids of a draw, what is known beside them, and the objective."""

    rows_of: Callable[[Draw], Sequence[SharedPromptRow]]
    objective: Objective[Beside]
    beside: Callable[[Sequence[Draw]], Beside]
    """Of the draws' responses, in order: a teacher's distributions, which are pairs, …"""

    def batch(self, draws: Sequence[Draw]) -> LessonBatch[Beside]:
        """The batch of some draws."""
        rows = [row for draw in draws for row in self.rows_of(draw)]
        # Any id pads: nothing ever attends to it.
        return LessonBatch(collate(rows, pad_id=0), self.beside(draws))

    def length_of(self, draw: Draw) -> int:
        """Tokens of a draw's longest row: what batches are sorted by."""
        return max(row.length for row in self.rows_of(draw))


def no_teacher(_: Sequence[Draw]) -> None:
    """What stands beside captions that are learnt by themselves."""


def validation_means(
    module: nn.Module, objective: Objective[Any], batches: Iterable[LessonBatch[Any]]
) -> dict[str, float]:
    """{"validation_loss", …}: means over everything that the batches hold (`Objective.count`)."""
    sums: dict[str, float] = {}
    total = 0
    with evaluating(module):
        for batch in batches:
            count = objective.count(batch)
            total += count
            for name, value in objective.validation_losses(module, batch).items():
                sums[name] = sums.get(name, 0.0) + float(value) * count
    return {f"validation_{name}": value / total for name, value in sums.items()}
