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
from aligncap.alignment.store import digest_of
from aligncap.alignment.teacher import (
    ROWS_AT_ONCE,
    Teacher,
    batch_of,
    by_prompt,
    fingerprint_of,
    shared_rows,
)
from aligncap.captioner.batches import SharedPromptRow
from aligncap.captioner.model import CaptionModel, target_log_probs
from aligncap.storage import open_arrays
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
        self._reference = reference
        self._place = {example: place for place, example in enumerate(dict.fromkeys(examples))}
        described = f"1|{reference.fingerprint}|{digest_of(self._place)}"
        count = len(self._place)
        self.folder, self._arrays = open_arrays(
            root, described, {"log_probs": (np.float32, (count,)), "done": (np.uint8, (count,))}
        )

    def fill(self) -> int:
        """Compute what is missing; returns how many were. Safe to stop and repeat."""
        with first_process_first():
            done = self._arrays["done"]
            missing = [example for example, place in self._place.items() if not done[place]]
            groups = by_prompt(missing)
            for start in range(0, len(groups), ROWS_AT_ONCE):
                self._ask(groups[start : start + ROWS_AT_ONCE])
            return len(missing)

    def lookup(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """The log-probability of each example's response, [examples]."""
        places = [self._place[example] for example in examples]
        values: NDArray[np.float32] = self._arrays["log_probs"][places]
        return values

    def _ask(self, groups: Sequence[Sequence[Example]]) -> None:
        examples = [example for group in groups for example in group]
        logits = self._reference.text_logits(shared_rows(groups))
        targets = [i for example in examples for i in example.response_ids]
        tokens = target_log_probs(logits, torch.tensor(targets, device=logits.device)).cpu()
        ends = np.cumsum([len(example.response_ids) for example in examples])[:-1]
        parts = np.split(tokens.double().numpy(), ends)
        for example, part in zip(examples, parts, strict=True):
            place = self._place[example]
            self._arrays["log_probs"][place] = part.sum()
            self._arrays["done"][place] = 1
