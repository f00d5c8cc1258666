"""The reference's log-probabilities: computed once for the very weights, and for no others."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from aligncap.alignment.examples import Example
from aligncap.captioner.prompts import SharedPromptRow
from aligncap.preference.dpo import ReferenceCache

EXAMPLES = [Example((1, 2), (3, 4)), Example((1, 2), (0,)), Example((5,), (2, 2, 1))]


@dataclass
class Frozen:
    """The same logits for every token: log-probabilities can be worked out by hand."""

    fingerprint: str
    logits: tuple[float, ...]
    text_vocab_size: int = 5
    asked: list[int] = field(default_factory=list)

    def text_logits(self, rows: Sequence[SharedPromptRow]) -> Tensor:
        tokens = sum(len(response) for row in rows for response in row.responses)
        self.asked.append(len(rows))
        return torch.tensor(self.logits).expand(tokens, -1)


def test_each_response_has_the_sum_of_its_tokens_computed_once(tmp_path: Path) -> None:
    frozen = Frozen("a", (0.0, 1.0, 2.0, 3.0, 4.0))
    cache = ReferenceCache(tmp_path, frozen, EXAMPLES)
    assert cache.fill() == 3
    logs = np.arange(5) - np.log(np.exp(np.arange(5)).sum())
    expected = [logs[3] + logs[4], logs[0], 2 * logs[2] + logs[1]]
    assert cache.lookup(EXAMPLES) == pytest.approx(expected, abs=1e-5)
    again = ReferenceCache(tmp_path, frozen, EXAMPLES)
    assert again.fill() == 0
    assert again.lookup(EXAMPLES[::-1]) == pytest.approx(expected[::-1], abs=1e-5)
    assert again.lookup([]).shape == (0,)
    assert frozen.asked == [2]


def test_other_weights_never_meet_these_numbers(tmp_path: Path) -> None:
    first = ReferenceCache(tmp_path, Frozen("a", (0.0,) * 5), EXAMPLES)
    first.fill()
    other = ReferenceCache(tmp_path, Frozen("b", (9.0, 0.0, 0.0, 0.0, 0.0)), EXAMPLES)
    assert other.folder != first.folder
    assert other.fill() == 3
    assert other.lookup(EXAMPLES)[1] > first.lookup(EXAMPLES)[1] + 1.0
