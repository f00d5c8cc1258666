"""What one batch of a stage holds, and the losses on it."""

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from aligncap.alignment.losses import caption_cross_entropy, kl_to_cached_teacher
from aligncap.alignment.store import Distributions
from aligncap.captioner.batches import SharedPromptBatch, to_torch
from aligncap.captioner.model import CaptionModel

Beside = TypeVar("Beside")


@dataclass(frozen=True, slots=True)
class LessonBatch(Generic[Beside]):
    """Prompts with their responses, and what is known beside them."""

    shared: SharedPromptBatch[NDArray[Any]]
    beside: Beside
    """What the teacher says of each of the N targets, which responses are pairs, …"""

    @property
    def tokens(self) -> int:
        """Response tokens."""
        return len(self.shared.target_ids)


class Objective(Protocol[Beside]):
    """The losses of a stage."""

    def training_losses(self, model: Any, batch: LessonBatch[Beside]) -> dict[str, Tensor]:
        """{"loss", and its parts}: means over what the batch holds."""

    def validation_losses(self, model: Any, batch: LessonBatch[Beside]) -> dict[str, Tensor]:
        """The same, and whatever else can be told of rows that are not learnt from."""

    def count(self, batch: LessonBatch[Beside]) -> int:
        """What the losses are means over: response tokens, or pairs."""


@dataclass(frozen=True, slots=True)
class CaptionObjective:
    """kl_weight · KL(teacher ‖ student) + ce_weight · caption cross-entropy."""

    kl_weight: float = 0.0
    ce_weight: float = 1.0
    temperature: float = 1.0
    """That of the teacher's distributions; the student's are divided by it too."""

    def training_losses(
        self, model: CaptionModel, batch: LessonBatch[Distributions | None]
    ) -> dict[str, Tensor]:
        """{"loss", and "kl" and "ce" as far as they have a weight}: means per response token."""
        parts = {}
        logits = model.text_logits(to_torch(batch.shared, model.device))
        if self.kl_weight:
            parts["kl"] = self._kl(logits, batch)
        if self.ce_weight:
            parts["ce"] = _ce(logits, batch)
        return {"loss": self._sum(parts), **parts}

    def validation_losses(
        self, model: CaptionModel, batch: LessonBatch[Distributions | None]
    ) -> dict[str, Tensor]:
        """The same with every part that can be told, whatever its weight."""
        logits = model.text_logits(to_torch(batch.shared, model.device))
        parts = {"ce": _ce(logits, batch)}
        if batch.beside is not None:
            parts["kl"] = self._kl(logits, batch)
        return {"loss": self._sum(parts), **parts}

    def count(self, batch: LessonBatch[Distributions | None]) -> int:
        """Response tokens."""
        return batch.tokens

    def _sum(self, parts: dict[str, Tensor]) -> Tensor:
        weights = {"kl": self.kl_weight, "ce": self.ce_weight}
        return torch.stack([weights[name] * value for name, value in parts.items()]).sum()

    def _kl(self, logits: Tensor, batch: LessonBatch[Distributions | None]) -> Tensor:
        teacher = batch.beside
        assert teacher is not None
        ids, top, rest = (
            torch.from_numpy(array).to(logits.device)
            for array in (teacher.ids, teacher.log_probs, teacher.log_rest)
        )
        return kl_to_cached_teacher(logits, ids, top, rest, temperature=self.temperature)


def _ce(logits: Tensor, batch: LessonBatch[Distributions | None]) -> Tensor:
    return caption_cross_entropy(
        logits, torch.from_numpy(batch.shared.target_ids).to(logits.device)
    )
