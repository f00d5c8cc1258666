"""PPO's arithmetic against numbers worked by hand."""

import numpy as np
import pytest
import torch

from aligncap.preference.ppo import (
    advantages_of,
    clipped_policy_loss,
    clipped_value_loss,
    next_coefficient,
    token_rewards,
    whitened,
)


def test_a_token_costs_its_distance_and_the_last_one_brings_the_score() -> None:
    found = token_rewards(
        np.array([1.0, -2.0]), np.array([0.5, -0.25, 1.0]), [2, 1], coefficient=0.2
    )
    # -0.2·0.5; -0.2·-0.25 + 1; -0.2·1 - 2.
    np.testing.assert_allclose(found, [-0.1, 1.05, -2.2])


def test_advantages_by_hand() -> None:
    """γ = 0.9, λ = 0.5; a response of three tokens, then one of a single token."""
    rewards, values = np.array([0.0, 0.0, 1.0, 2.0]), np.array([0.5, 0.4, 0.2, 1.0])
    # δ: 0.9·0.4-0.5 = -0.14, 0.9·0.2-0.4 = -0.22, 1-0.2 = 0.8; and 2-1 = 1, with nothing after.
    # A3 = 0.8, A2 = -0.22+0.45·0.8 = 0.14, A1 = -0.14+0.45·0.14 = -0.077.
    found = advantages_of(rewards, values, [3, 1], discount=0.9, decay=0.5)
    np.testing.assert_allclose(found, [-0.077, 0.14, 0.8, 1.0])


def test_with_all_decays_at_one_advantages_are_returns_less_values() -> None:
    chance = np.random.default_rng(0)
    rewards, values = chance.normal(size=7), chance.normal(size=7)
    found = advantages_of(rewards, values, [4, 3], discount=1.0, decay=1.0)
    to_come = np.concatenate([rewards[:4][::-1].cumsum()[::-1], rewards[4:][::-1].cumsum()[::-1]])
    np.testing.assert_allclose(found, to_come - values)


def test_whitened_by_hand() -> None:
    np.testing.assert_allclose(whitened(np.array([1.0, 3.0])), [-1.0, 1.0], atol=1e-6)


def test_the_policy_loss_is_clipped_where_it_would_gain_too_much() -> None:
    log_probs = torch.log(torch.tensor([1.5, 0.5, 1.5, 1.1])).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, -1.0, 2.0])
    loss, clipped = clipped_policy_loss(log_probs, torch.zeros(4), advantages, clip=0.2)
    # min(1.5, 1.2) = 1.2; min(-0.5, -0.8) = -0.8; min(-1.5, -1.2) = -1.5; 2.2.
    assert loss.item() == pytest.approx(-(1.2 - 0.8 - 1.5 + 2.2) / 4)
    assert clipped.item() == 0.5
    loss.backward()
    assert log_probs.grad is not None
    # What was clipped pulls no further; the others by -ρA/4.
    torch.testing.assert_close(log_probs.grad, torch.tensor([0.0, 0.0, 1.5 / 4, -2.2 / 4]))


def test_the_value_loss_takes_the_worse_of_moved_and_held() -> None:
    values, old = torch.tensor([2.0, 0.1]), torch.tensor([0.0, 0.0])
    # Held at 0.2: (0.2-3)² = 7.84 > (2-3)²; 0.1 moves freely: (0.1-1)² = 0.81.
    found = clipped_value_loss(values, old, torch.tensor([3.0, 1.0]), clip=0.2)
    assert found.item() == pytest.approx(0.5 * (7.84 + 0.81) / 2)


@pytest.mark.parametrize(
    ("kl", "expected"),
    # Twice the target is clipped to +0.2; half of it to -0.2; 6.6 is an error of 0.1.
    [(12.0, 0.204), (3.0, 0.196), (6.6, 0.202), (6.0, 0.2)],
)
def test_the_controller_by_hand(kl: float, expected: float) -> None:
    assert next_coefficient(0.2, kl, target=6.0, rate=0.1) == pytest.approx(expected)
