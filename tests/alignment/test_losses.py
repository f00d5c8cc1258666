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
def test_kl_is_that_of_torch_distributions_and_a_cache_of_all_tokens_gives_the_same(
    temperature: float,
) -> None:
    teacher = logits(1)
    full, short = logits(0).requires_grad_(), logits(0).requires_grad_()
    whole = kl_to_teacher(full, teacher, temperature=temperature)
    p, q = (Categorical(logits=one / temperature) for one in (teacher, full.detach()))
    torch.testing.assert_close(whole.detach(), kl_divergence(p, q).mean())
    top_k = cached(teacher, TEXT, temperature)
    some = kl_to_cached_teacher(short, *top_k, temperature=temperature)
    whole.backward()
    some.backward()
    torch.testing.assert_close(some, whole)
    torch.testing.assert_close(short.grad, full.grad)


def test_kl_by_hand() -> None:
    # p = (3/4, 1/4), q = (1/2, 1/2): 3/4 ln 3/2 + 1/4 ln 1/2 = ln 2 - H(1/4).
    teacher = torch.tensor([[math.log(3.0), 0.0]])
    found = kl_to_teacher(torch.zeros(1, 2), teacher)
    assert found.item() == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2.0), abs=1e-6)
    assert kl_to_teacher(teacher + 5.0, teacher).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_equation_5_is_kl_plus_the_teachers_entropy_with_the_same_gradient(
    temperature: float,
) -> None:
    teacher = logits(1).requires_grad_()
    gradients = []
    values = []
    for loss in (kl_to_teacher, cross_entropy_to_teacher):
        student = logits(0).requires_grad_()
        value = loss(student, teacher, temperature=temperature)
        value.backward()
        gradients.append(student.grad)
        values.append(value.detach())
    torch.testing.assert_close(gradients[0], gradients[1])
    entropy = Categorical(logits=teacher.detach() / temperature).entropy().mean()
    torch.testing.assert_close(values[1], values[0] + entropy)
    assert teacher.grad is None


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
    assert all(more >= fewer - 1e-5 for fewer, more in pairwise(values))
    assert values[-1] == pytest.approx(kl_to_teacher(student, teacher).item())
    assert values[0] >= 0


def test_a_certain_teacher_gives_the_cross_entropy_and_finite_gradients() -> None:
    student = logits(0).requires_grad_()
    targets = torch.arange(TOKENS)
    top = torch.tensor([0.0, -math.inf]).expand(TOKENS, 2)
    ids = torch.stack([targets, targets + 1], 1)
    # A second token of probability 0 stands for what float16 rounds away.
    found = kl_to_cached_teacher(
        student, ids, top.clamp(min=-100.0), torch.full((TOKENS,), -math.inf)
    )
    found.backward()
    torch.testing.assert_close(found, caption_cross_entropy(student, targets))
    assert torch.isfinite(student.grad).all()


def test_caption_cross_entropy_is_the_mean_log_probability() -> None:
    student, targets = logits(0), torch.tensor([0, 3, 10, 4, 4, 1])
    expected = -Categorical(logits=student).log_prob(targets).mean()
    torch.testing.assert_close(caption_cross_entropy(student, targets), expected)
