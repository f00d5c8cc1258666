"""What one batch of a stage holds, and the losses on it."""

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from aligncap.alignment.losses import caption_cross_entropy, kl_to_cached_teacher
from aligncap.alignment.store import Distributions
from aligncap.captioner.batches import SharedPromptBatch, to_torch
from aligncap.captioner.model import CaptionModel


@dataclass(frozen=True, slots=True)
class LessonBatch:
    """Prompts with their captions, and what the teacher says of each caption token."""

    shared: SharedPromptBatch[NDArray[Any]]
    teacher: Distributions | None
    """Of the N targets of `shared`, in their order; None without a teacher."""

    @property
    def tokens(self) -> int:
        """Response tokens: what losses are means over."""
        return len(self.shared.target_ids)


@dataclass(frozen=True, slots=True)
class Objective:
    """kl_weight · KL(teacher ‖ student) + ce_weight · caption cross-entropy."""

    kl_weight: float = 0.0
    ce_weight: float = 1.0
    temperature: float = 1.0
    """That of the teacher's distributions; the student's are divided by it too."""

    def training_losses(self, model: CaptionModel, batch: LessonBatch) -> dict[str, Tensor]:
        """{"loss", and "kl" and "ce" as far as they have a weight}: means per response token."""
        parts = {}
        logits = model.text_logits(to_torch(batch.shared, model.device))
        if self.kl_weight:
            parts["kl"] = self._kl(logits, batch)
        if self.ce_weight:
            parts["ce"] = _ce(logits, batch)
        return {"loss": self._sum(parts), **parts}

    def validation_losses(self, model: CaptionModel, batch: LessonBatch) -> dict[str, Tensor]:
        """The same with every part that can be told, whatever its weight."""
        logits = model.text_logits(to_torch(batch.shared, model.device))
        parts = {"ce": _ce(logits, batch)}
        if batch.teacher is not None:
            parts["kl"] = self._kl(logits, batch)
        return {"loss": self._sum(parts), **parts}

    def _sum(self, parts: dict[str, Tensor]) -> Tensor:
        weights = {"kl": self.kl_weight, "ce": self.ce_weight}
        return torch.stack([weights[name] * value for name, value in parts.items()]).sum()

    def _kl(self, logits: Tensor, batch: LessonBatch) -> Tensor:
        assert batch.teacher is not None
        teacher = batch.teacher
        ids, top, rest = (
            torch.from_numpy(array).to(logits.device)
            for array in (teacher.ids, teacher.log_probs, teacher.log_rest)
        )
        return kl_to_cached_teacher(logits, ids, top, rest, temperature=self.temperature)


def _ce(logits: Tensor, batch: LessonBatch) -> Tensor:
    return caption_cross_entropy(
        logits, torch.from_numpy(batch.shared.target_ids).to(logits.device)
    )
