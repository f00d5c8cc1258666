"""The losses against torch.distributions, numbers worked by hand, and each other."""

import math
from itertools import pairwise

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

TEXT, TOKENS = 11, 6


def logits(seed: int) -> Tensor:
    return 3 * torch.randn(TOKENS, TEXT, generator=torch.Generator().manual_seed(seed))


def cached(teacher: Tensor, k: int, temperature: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """A teacher's top k and remainder, by plain arithmetic on probabilities."""
    probabilities = (teacher.double() / temperature).softmax(1)
    top, ids = probabilities.sort(1, descending=True)
    return ids[:, :k], top[:, :k].log().float(), top[:, k:].sum(1).log().float()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_kl_is_that_of_torch_and_equation_5_that_and_the_teachers_entropy(temperature) -> None:
    """And a cache of all tokens gives the same; so do the gradients of all three."""
    teacher = logits(1).requires_grad_()
    p, q = (Categorical(logits=one / temperature) for one in (teacher.detach(), logits(0)))
    expected = kl_divergence(p, q).mean()
    everything = cached(teacher.detach(), TEXT, temperature)
    gradients = []
    for loss, told, value in (
        (kl_to_teacher, [teacher], expected),
        (kl_to_cached_teacher, everything, expected),
        (cross_entropy_to_teacher, [teacher], expected + p.entropy().mean()),
    ):
        student = logits(0).requires_grad_()
        found = loss(student, *told, temperature=temperature)
        found.backward()
        torch.testing.assert_close(found.detach(), value)
        gradients.append(student.grad)
    torch.testing.assert_close(gradients[1:], gradients[:1] * 2)
    assert teacher.grad is None


def test_kl_by_hand() -> None:
    # p = (3/4, 1/4), q = (1/2, 1/2): 3/4 ln 3/2 + 1/4 ln 1/2 = ln 2 - H(1/4).
    teacher = torch.tensor([[math.log(3.0), 0.0]])
    found = kl_to_teacher(torch.zeros(1, 2), teacher)
    assert found.item() == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2.0), abs=1e-6)
    assert kl_to_teacher(teacher + 5.0, teacher).item() == pytest.approx(0.0, abs=1e-6)


def test_the_remainder_counts_as_one_outcome() -> None:
    """By another road: both distributions merged to k + 1 outcomes, then torch.distributions."""
    student, teacher = logits(0), logits(1)
    ids, top, rest = cached(teacher, 4)
    q_top = student.softmax(1).gather(1, ids)
    merged_q = torch.cat([q_top, 1 - q_top.sum(1, keepdim=True)], 1)
    merged_p = torch.cat([top, rest[:, None]], 1).exp()
    expected = kl_divergence(Categorical(probs=merged_p), Categorical(probs=merged_q)).mean()
    found = kl_to_cached_teacher(student, ids, top, rest)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_more_of_the_teacher_never_lowers_the_loss_and_never_exceeds_the_full_form() -> None:
    student, teacher = logits(0), logits(1)
    values = [kl_to_cached_teacher(student, *cached(teacher, k)).item() for k in range(1, TEXT + 1)]
    assert all(more >= fewer - 1e-5 for fewer, more in pairwise([0.0, *values]))
    assert values[-1] == pytest.approx(kl_to_teacher(student, teacher).item())


def test_a_certain_teacher_gives_the_cross_entropy_and_finite_gradients() -> None:
    student, targets = logits(0).requires_grad_(), torch.tensor([0, 3, 9, 4, 4, 1])
    ids = torch.stack([targets, targets + 1], 1)
    # A second token of probability 0 stands for what float16 rounds away.
    top = torch.tensor([0.0, -100.0]).expand(TOKENS, 2)
    found = kl_to_cached_teacher(student, ids, top, torch.full((TOKENS,), -math.inf))
    found.backward()
    cross = caption_cross_entropy(student, targets)
    torch.testing.assert_close(found, cross)
    each = -Categorical(logits=student).log_prob(targets)
    torch.testing.assert_close(cross, each.mean())
    table = torch.linspace(1, 3, TEXT)
    weighted = (table[targets] * each).sum() / table[targets].sum()
    torch.testing.assert_close(caption_cross_entropy(student, targets, weights=table), weighted)
    assert torch.isfinite(student.grad).all()
