"""The cached teacher against the live one, and that nothing is computed twice."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from aligncap.alignment.examples import Example
from aligncap.alignment.teacher import (
    AdapterOffTeacher,
    Distributions,
    FrozenTeacher,
    TeacherCache,
    frozen_fingerprint,
    top_k_of,
)
from aligncap.captioner.model import AdapterSettings, CaptionModel, add_adapter
from aligncap.captioner.prompts import SharedPromptRow
from support.captioner import tiny_lm, tiny_vocabulary

VOCABULARY = tiny_vocabulary()
TEXT = VOCABULARY.text_vocab_size


def tiny_model(seed: int = 0) -> CaptionModel:
    model = CaptionModel(tiny_lm("llama", seed=seed), VOCABULARY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)  # a random model is too sure of nothing for a fair test
    return model


def some_examples(count: int = 6, *, seed: int = 0) -> list[Example]:
    """Three prompts, each with two ragged responses."""
    chance = np.random.default_rng(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(chance.integers(3, TEXT, int(chance.integers(low, high))).tolist())

    prompts = [ids(4, 9) for _ in range(count // 2)]
    return [Example(prompts[number // 2], ids(2, 7)) for number in range(count)]


def oracle(model: CaptionModel, example: Example) -> Tensor:
    """Logits of one response behind its own prompt, by one plain forward of the language model."""
    ids = torch.tensor([[*example.prompt_ids, *example.response_ids]])
    with torch.no_grad():
        logits = model.causal_lm(input_ids=ids).logits[0]
    return logits[len(example.prompt_ids) - 1 : -1, :TEXT]


class CountingTeacher:
    """A teacher that notes what it is asked."""

    def __init__(self, seed: int = 0) -> None:
        self._teacher = FrozenTeacher(tiny_model(seed))
        self.fingerprint = self._teacher.fingerprint
        self.text_vocab_size = self._teacher.text_vocab_size
        self.asked: list[SharedPromptRow] = []

    def text_logits(self, rows: Sequence[SharedPromptRow]) -> Tensor:
        self.asked += rows
        return self._teacher.text_logits(rows)

    @property
    def responses(self) -> list[int]:
        """How many were asked for in each row."""
        return [len(row.responses) for row in self.asked]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_what_is_cached_is_what_the_teacher_says(tmp_path: Path, temperature: float) -> None:
    model, examples = tiny_model(), some_examples()
    cache = TeacherCache(tmp_path, FrozenTeacher(model), examples, top_k=5, temperature=temperature)
    asked = [examples[4], examples[1], examples[0]]
    found = cache.lookup(asked)
    expected = torch.cat([oracle(model, example) for example in asked]) / temperature
    probabilities = expected.softmax(1).numpy()
    assert found.ids.shape == (sum(len(example.response_ids) for example in asked), 5)
    top = np.take_along_axis(probabilities, found.ids, 1)
    # The five most probable, whatever their order among equals.
    np.testing.assert_allclose(top, -np.sort(-probabilities, 1)[:, :5], rtol=1e-4)
    np.testing.assert_allclose(np.exp(found.log_probs), top, rtol=5e-3)
    np.testing.assert_allclose(np.exp(found.log_rest), 1 - top.sum(1), rtol=5e-3, atol=1e-5)
    whole = np.exp(found.log_probs).sum(1) + np.exp(found.log_rest)
    np.testing.assert_allclose(whole, 1.0, atol=1e-5)


def test_nothing_is_computed_twice_not_even_by_the_next_run(tmp_path: Path) -> None:
    examples, teacher = some_examples(), CountingTeacher()
    cache = TeacherCache(tmp_path, teacher, examples, top_k=5)
    first = cache.lookup(examples[:3])
    assert sum(teacher.responses) == 3
    cache.lookup(examples[1:3])
    assert sum(teacher.responses) == 3
    # As after a kill: a new process, the same folder.
    again = CountingTeacher()
    resumed = TeacherCache(tmp_path, again, examples, top_k=5)
    assert resumed.fill(examples) == 3
    assert sum(again.responses) == 3
    second = resumed.lookup(examples[:3])
    for name in ("ids", "log_probs", "log_rest"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    # Responses to one prompt are asked for in one row.
    TeacherCache(tmp_path / "other", teacher, examples, top_k=5).fill(examples)
    assert teacher.responses[-3:] == [2, 2, 2]


def test_another_teacher_prompt_caption_or_setting_has_another_place(tmp_path: Path) -> None:
    examples = some_examples()
    usual = {"teacher": CountingTeacher(), "examples": examples, "top_k": 5}
    last = examples[-1]
    changes = [
        {},
        {"teacher": CountingTeacher(seed=1)},
        {"examples": [*examples[:-1], Example(last.prompt_ids, (5, 6))]},
        {"examples": [*examples[:-1], Example((7, 8), last.response_ids)]},
        {"top_k": 6},
        {"temperature": 2.0},
    ]
    folders = [TeacherCache(tmp_path, **{**usual, **change}).folder for change in changes]
    assert len(set(folders)) == 6
    assert TeacherCache(tmp_path, **usual).folder == folders[0]


def test_top_k_by_hand() -> None:
    probabilities = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4]])
    found = top_k_of(probabilities.log(), 2)
    assert found.ids.tolist() == [[0, 1], [3, 2]]
    np.testing.assert_allclose(np.exp(found.log_probs), [[0.5, 0.3], [0.4, 0.3]], rtol=1e-5)
    np.testing.assert_allclose(np.exp(found.log_rest), [0.2, 0.3], rtol=1e-5)


def test_a_remainder_of_nothing_survives_float16(tmp_path: Path) -> None:
    examples = some_examples(2)
    cache = TeacherCache(tmp_path, CountingTeacher(), examples, top_k=2)
    tokens = len(examples[0].response_ids)
    certain = np.tile(np.array([[0.0, -200.0]], dtype=np.float32), (tokens, 1))
    nothing = np.full(tokens, -np.inf, dtype=np.float32)
    cache.put(examples[0], Distributions(np.zeros((tokens, 2), np.int64), certain, nothing))
    found = cache.lookup(examples[:1])
    assert np.isfinite([*found.log_probs.flat, *found.log_rest]).all()
    np.testing.assert_allclose(np.exp(found.log_probs[:, 0]), 1.0)
    np.testing.assert_allclose(np.exp(found.log_rest), 0.0)


def test_with_the_adapter_off_the_student_is_its_own_teacher() -> None:
    """However the adapter is trained, the teacher stays the base, and no gradient reaches it."""
    examples = some_examples()
    expected = torch.cat([oracle(tiny_model(), example) for example in examples])
    student = add_adapter(tiny_model(), AdapterSettings(rank=4))
    teacher = AdapterOffTeacher(student)
    before = teacher.fingerprint
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    student.train()
    rows = [SharedPromptRow(e.prompt_ids, (e.response_ids,)) for e in examples]
    found = teacher.text_logits(rows)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not found.requires_grad
    assert student.training
    assert frozen_fingerprint(student) == before


def test_a_frozen_teacher_cannot_train() -> None:
    model = tiny_model()
    teacher = FrozenTeacher(model)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    example = some_examples()[0]
    row = SharedPromptRow(example.prompt_ids, (example.response_ids,))
    assert not teacher.text_logits([row]).requires_grad
