"""The losses against torch.distributions, numbers worked by hand, and each other."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from aligncap.alignment.losses import (
    caption_cross_entropy,
    cross_entropy_to_teacher,
    kl_to_cached_teacher,
    kl_to_teacher,
)

TEXT, SPEECH, TOKENS = 11, 5, 6


def logits(seed: int, rows: int = TEXT + SPEECH) -> Tensor:
    return 3 * torch.randn(TOKENS, rows, generator=torch.Generator().manual_seed(seed))


def cached(teacher: Tensor, k: int, temperature: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """A teacher's top k and remainder, by plain arithmetic on probabilities."""
    probabilities = (teacher[:, :TEXT].double() / temperature).softmax(1)
    top, ids = probabilities.sort(1, descending=True)
    return ids[:, :k], top[:, :k].log().float(), top[:, k:].sum(1).log().float()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_kl_is_that_of_torch_distributions_over_text_rows(temperature: float) -> None:
    student, teacher = logits(0), logits(1)
    p = Categorical(logits=teacher[:, :TEXT] / temperature)
    q = Categorical(logits=student[:, :TEXT] / temperature)
    found = kl_to_teacher(student, teacher, text_rows=TEXT, temperature=temperature)
    torch.testing.assert_close(found, kl_divergence(p, q).mean())


def test_kl_by_hand() -> None:
    # p = (3/4, 1/4), q = (1/2, 1/2): 3/4 ln 3/2 + 1/4 ln 1/2 = ln 2 - H(1/4).
    teacher = torch.tensor([[math.log(3.0), 0.0]])
    found = kl_to_teacher(torch.zeros(1, 2), teacher)
    assert found.item() == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2.0), abs=1e-6)


def test_equation_5_is_kl_plus_the_teachers_entropy_with_the_same_gradient() -> None:
    teacher = logits(1)
    gradients = []
    values = []
    for loss in (kl_to_teacher, cross_entropy_to_teacher):
        student = logits(0).requires_grad_()
        value = loss(student, teacher, text_rows=TEXT)
        value.backward()
        gradients.append(student.grad)
        values.append(value.detach())
    torch.testing.assert_close(gradients[0], gradients[1])
    entropy = Categorical(logits=teacher[:, :TEXT]).entropy().mean()
    torch.testing.assert_close(values[1], values[0] + entropy)


def test_a_student_that_agrees_has_no_kl() -> None:
    teacher = logits(1, TEXT)
    student = torch.cat([teacher + 5.0, logits(2, SPEECH)], dim=1)
    assert kl_to_teacher(student, teacher, text_rows=TEXT).item() == pytest.approx(0.0, abs=1e-6)


def test_speech_rows_neither_count_nor_get_a_gradient() -> None:
    student = logits(0).requires_grad_()
    spoiled = logits(0)
    spoiled[:, TEXT:] = 1e4
    ids, top, rest = cached(logits(1), 3)
    targets = torch.arange(TOKENS)
    for loss in (
        lambda x: kl_to_teacher(x, logits(1), text_rows=TEXT),
        lambda x: cross_entropy_to_teacher(x, logits(1), text_rows=TEXT),
        lambda x: kl_to_cached_teacher(x, ids, top, rest, text_rows=TEXT),
        lambda x: caption_cross_entropy(x, targets, text_rows=TEXT),
    ):
        student.grad = None
        loss(student).backward()
        assert loss(spoiled) == loss(student)
        assert torch.count_nonzero(student.grad[:, TEXT:]) == 0
        assert torch.count_nonzero(student.grad[:, :TEXT]) > 0


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_cached_teacher_with_all_tokens_is_the_full_form(temperature: float) -> None:
    teacher = logits(1)
    full, short = logits(0).requires_grad_(), logits(0).requires_grad_()
    options = {"text_rows": TEXT, "temperature": temperature}
    whole = kl_to_teacher(full, teacher, **options)
    some = kl_to_cached_teacher(short, *cached(teacher, TEXT, temperature), **options)
    whole.backward()
    some.backward()
    torch.testing.assert_close(some, whole)
    torch.testing.assert_close(short.grad, full.grad)


def test_the_remainder_counts_as_one_outcome() -> None:
    """By another road: both distributions merged to k + 1 outcomes, then torch.distributions."""
    student, teacher = logits(0), logits(1)
    ids, top, rest = cached(teacher, 4)
    q = student[:, :TEXT].softmax(1)
    q_top = q.gather(1, ids)
    merged_q = torch.cat([q_top, 1 - q_top.sum(1, keepdim=True)], 1)
    merged_p = torch.cat([top, rest[:, None]], 1).exp()
    expected = kl_divergence(Categorical(probs=merged_p), Categorical(probs=merged_q)).mean()
    found = kl_to_cached_teacher(student, ids, top, rest, text_rows=TEXT)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_more_of_the_teacher_never_lowers_the_loss_and_never_exceeds_the_full_form() -> None:
    student, teacher = logits(0), logits(1)
    values = [
        kl_to_cached_teacher(student, *cached(teacher, k), text_rows=TEXT).item()
        for k in range(1, TEXT + 1)
    ]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(kl_to_teacher(student, teacher, text_rows=TEXT).item())
    assert values[0] >= 0


def test_a_certain_teacher_gives_the_cross_entropy_and_finite_gradients() -> None:
    student = logits(0).requires_grad_()
    targets = torch.arange(TOKENS)
    top = torch.tensor([0.0, -math.inf]).expand(TOKENS, 2)
    ids = torch.stack([targets, targets + 1], 1)
    # A second token of probability 0 stands for what float16 rounds away.
    found = kl_to_cached_teacher(
        student, ids, top.clamp(min=-100.0), torch.full((TOKENS,), -math.inf), text_rows=TEXT
    )
    found.backward()
    torch.testing.assert_close(found, caption_cross_entropy(student, targets, text_rows=TEXT))
    assert torch.isfinite(student.grad).all()


def test_caption_cross_entropy_is_the_mean_log_probability() -> None:
    student, targets = logits(0), torch.tensor([0, 3, 10, 4, 4, 1])
    expected = -Categorical(logits=student[:, :TEXT]).log_prob(targets).mean()
    torch.testing.assert_close(caption_cross_entropy(student, targets, text_rows=TEXT), expected)


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    (kl_to_teacher(student, teacher) + cross_entropy_to_teacher(student, teacher)).backward()
    assert teacher.grad is None
