"""π_ref: the policy as it was before its first step, whose log-probabilities are constants.

They are computed once, with the very weights that training is about to change, and kept on disk:
no second copy of the model is loaded, and an adapter that is trained further needs no care
(switching it off would take its learnt speech rows away as well; decision 12).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aligncap.alignment.prompting import Example
from aligncap.alignment.store import FrozenCache
from aligncap.alignment.teacher import (
    Teacher,
    batch_of,
    fingerprint_of,
    shared_rows,
)
from aligncap.captioner.batches import SharedPromptRow
from aligncap.captioner.model import CaptionModel, target_log_probs
from aligncap.training import evaluating, first_process_first, training_device


class StartingPolicy:
    """A model that is about to be trained, as a teacher: to be asked before the first step only."""

    def __init__(self, model: CaptionModel) -> None:
        self._model = model.to(training_device())
        self.fingerprint = fingerprint_of(model.named_parameters())
        self.text_rows = model.vocabulary.text_rows

    def text_logits(self, rows: Sequence[SharedPromptRow]) -> Tensor:
        """Logits [N, text_rows] of every token of every response."""
        with evaluating(self._model):
            return self._model.text_logits(batch_of(self._model, rows))


class ReferenceCache:
    """log π_ref of each of a fixed list of examples, summed over its tokens.

    In a folder of `root` named by a hash of the reference's weights and the examples.
    """

    def __init__(self, root: Path, reference: Teacher, examples: Sequence[Example]) -> None:
        self._reference, self._examples = reference, examples
        self._cache = FrozenCache(
            root,
            examples,
            described=reference.fingerprint,
            arrays={"log_probs": (np.float32, ())},
            rows_of=lambda _: 1,
        )
        self.folder = self._cache.folder

    def fill(self) -> int:
        """Compute what is missing; returns how many were. Safe to stop and repeat."""
        with first_process_first():
            return self._cache.fill(self._examples, self._compute)

    def lookup(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """The log-probability of each example's response, [examples]."""
        return self._cache.get("log_probs", examples)

    def _compute(self, groups: Sequence[Sequence[Example]]) -> None:
        examples = [example for group in groups for example in group]
        logits = self._reference.text_logits(shared_rows(groups))
        targets = [i for example in examples for i in example.response_ids]
        tokens = target_log_probs(logits, torch.tensor(targets, device=logits.device)).cpu()
        ends = np.cumsum([len(example.response_ids) for example in examples])[:-1]
        parts = np.split(tokens.double().numpy(), ends)
        for example, part in zip(examples, parts, strict=True):
            self._cache.put(example, {"log_probs": part.sum()})
