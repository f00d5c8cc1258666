"""KD steps to be measured: ours as a stage takes them, and the rival's, on the same clips."""

import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain_kd import plain_kd_loss
from steps import Case, Ids, Measured, follow, optimizer_of, random_llama, random_rows

from aligncap.alignment.examples import Example
from aligncap.alignment.kd import CaptionObjective
from aligncap.alignment.teacher import (
    AdapterOffTeacher,
    Distributions,
    FrozenTeacher,
    TeacherCache,
    shared_rows,
    top_k_of,
)
from aligncap.alignment.trainer import TaskBatch
from aligncap.captioner.model import CaptionModel, add_adapter, seeded
from aligncap.captioner.prompts import SharedPromptRow, collate

SPEECH_IDS = 512
AROUND = 15, 15
"""Tokens of P_act and P_instruct, as long as mini's tokenizer makes them."""


def clips_of(case: Case) -> tuple[list[SharedPromptRow], list[Example]]:
    """What the student hears and says, and what the teacher reads and says."""
    chance = np.random.default_rng(0)
    texts = case.vocabulary - SPEECH_IDS
    rows = random_rows(case, chance, texts=texts)
    examples = []
    for row in rows:
        act, instruct = (tuple(chance.integers(5, texts, n).tolist()) for n in AROUND)
        # The paper's teacher reads P_sem too: the caption itself (decision 4).
        examples += [Example((*act, *said[:-1], *instruct), said) for said in row.responses]
    return rows, examples


def student_and_teacher(case: Case, *, lora: bool) -> tuple[CaptionModel, CaptionModel]:
    """The student, and the model its teacher is: another, or with an adapter the same."""
    ids: Any = Ids(case.vocabulary, case.vocabulary - SPEECH_IDS)
    student = CaptionModel(random_llama(case), ids)
    if not lora:
        return student.train(), CaptionModel(random_llama(case, seed=1), ids).eval()
    student = add_adapter(student)
    with seeded(1), torch.no_grad():  # an adapter that has learnt: at first it changes nothing
        for name, weight in student.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
    return student.train(), student


class KdTask:
    """A student, its teacher's cache, and the loss on one batch, as a stage has them."""

    def __init__(self, case: Case, *, lora: bool, top_k: int | None) -> None:
        """`top_k` None keeps the whole vocabulary."""
        self.rows, self.examples = clips_of(case)
        self.student, model = student_and_teacher(case, lora=lora)
        self.teacher = AdapterOffTeacher(self.student) if lora else FrozenTeacher(model)
        kept = top_k or self.teacher.text_vocab_size
        self._folder = tempfile.TemporaryDirectory()  # as long as the task
        root = Path(self._folder.name)
        self.cache = TeacherCache(root, self.teacher, self.examples, top_k=kept)
        self._objective = CaptionObjective(kl_weight=1.0, ce_weight=0.0)

    def loss(self, said: Distributions | None = None) -> torch.Tensor:
        """The mean over the batch; what the teacher said is looked up if not given."""
        # What `fit` does for each batch: rows are put together, the teacher's words looked up.
        targets = said or self.cache.lookup(self.examples)
        shared = collate(self.rows, pad_id=0)
        batch: TaskBatch[Distributions | None] = TaskBatch(shared, targets)
        return self._objective.training_losses(self.student, batch)["loss"]

    def as_said(self) -> Distributions:
        """What the teacher says over the whole vocabulary: nothing is rounded."""
        alone = [[example] for example in self.examples]
        return top_k_of(self.teacher.text_logits(shared_rows(alone)), self.teacher.text_vocab_size)


def ours(case: Case, *, lora: bool, top_k: int | None) -> Measured:
    """A step of ours; the outcome is the seconds that the teacher took, once."""
    task = KdTask(case, lora=lora, top_k=top_k)
    optimizer = optimizer_of(task.student)

    def fill() -> float:
        started = time.process_time()
        task.cache.fill(task.examples)
        return time.process_time() - started

    return Measured(step=lambda: follow(task.loss(), optimizer), outcome=fill)


def plain_loss(case: Case, *, lora: bool) -> tuple[CaptionModel, Callable[[], torch.Tensor]]:
    """The rival's student, and its loss on the same clips."""
    rows, examples = clips_of(case)
    student, teacher = student_and_teacher(case, lora=lora)
    heard = [row.prompt_ids for row in rows for _ in row.responses]
    read, said = zip(*((e.prompt_ids, e.response_ids) for e in examples), strict=True)

    def loss() -> torch.Tensor:
        return plain_kd_loss(
            student.causal_lm,
            teacher.causal_lm,
            heard,
            read,
            said,
            text_rows=student.vocabulary.text_vocab_size,
            as_teacher=student.causal_lm.disable_adapter() if lora else nullcontext(),
        )

    return student, loss


def plain(case: Case, *, lora: bool) -> Measured:
    """A step of the rival."""
    student, loss = plain_loss(case, lora=lora)
    optimizer = optimizer_of(student)
    return Measured(step=lambda: follow(loss(), optimizer), outcome=lambda: None)


@dataclass(frozen=True)
class Difference:
    """Largest differences from the rival's loss and gradient."""

    loss: float
    gradient: float
    largest: float
    """The rival's largest gradient."""

    def __str__(self) -> str:
        return f"{self.loss:.1e} | {self.gradient:.1e}"


def differences(case: Case, lora: bool) -> tuple[float, Difference, Difference]:
    """The rival's loss; what ours differs by where the teacher's words are exact, and as kept."""
    student, loss = plain_loss(case, lora=lora)
    value, expected = gradient_of(student, loss)
    largest = max(float(np.abs(g).max()) for g in expected.values())
    task = KdTask(case, lora=lora, top_k=None)
    found = [gradient_of(task.student, partial(task.loss, said)) for said in (task.as_said(), None)]
    exact, kept = (
        Difference(
            abs(one - value),
            max(float(np.abs(gradient[n] - g).max()) for n, g in expected.items()),
            largest,
        )
        for one, gradient in found
    )
    return value, exact, kept


def gradient_of(
    student: CaptionModel, loss: Callable[[], torch.Tensor]
) -> tuple[float, dict[str, Any]]:
    """A loss, and its gradient by parameter."""
    student.zero_grad()
    value = loss()
    value.backward()  # type: ignore[no-untyped-call]
    return float(value.detach()), {
        name: weight.grad.numpy()
        for name, weight in student.named_parameters()
        if weight.grad is not None
    }
