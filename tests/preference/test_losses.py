"""The losses against numbers worked by hand, and against trl's own."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aligncap.preference.dpo import (
    LOSSES,
    cdpo,
    dpo,
    ipo,
    log_ratio_margins,
    paper_eq6,
)
from aligncap.preference.reward import bradley_terry

MARGINS = torch.tensor([0.0, 1.0, -2.0])


def test_margins_are_differences_of_log_ratios() -> None:
    policy, reference = torch.tensor([-3.0, -5.0, -4.0]), torch.tensor([-4.0, -5.5, -3.0])
    # Ratios 1, 0.5, -1: the first against the third, the second against the first.
    found = log_ratio_margins(policy, reference, torch.tensor([0, 1]), torch.tensor([2, 0]))
    torch.testing.assert_close(found, torch.tensor([2.0, -0.5]))


def test_the_reference_gets_no_gradient() -> None:
    policy = torch.tensor([-3.0, -5.0], requires_grad=True)
    reference = torch.tensor([-4.0, -5.5], requires_grad=True)
    one, other = torch.tensor([0]), torch.tensor([1])
    dpo(log_ratio_margins(policy, reference, one, other), 1.0).sum().backward()
    assert reference.grad is None
    # h = 1 - 0.5; the derivative of -log σ(h) is -σ(-h).
    slope = 1 / (1 + math.exp(0.5))
    torch.testing.assert_close(policy.grad, torch.tensor([-slope, slope]))


def test_each_loss_by_hand() -> None:
    """σ(0.5) = 0.622459, σ(1) = 0.731059, σ(-1) = 0.268941, σ(-2) = 0.119203."""
    # β = 0.5: margins become 0, 0.5, -1.
    torch.testing.assert_close(
        dpo(MARGINS, 0.5), torch.tensor([0.693147, 0.474077, 1.313262]), atol=1e-5, rtol=0
    )
    # 0.5 times -log σ of the margins as they are.
    torch.testing.assert_close(
        paper_eq6(MARGINS, 0.5), torch.tensor([0.346574, 0.156631, 1.063464]), atol=1e-5, rtol=0
    )
    # 1/(2β) = 1: (0-1)², (1-1)², (-2-1)².
    torch.testing.assert_close(ipo(MARGINS, 0.5), torch.tensor([1.0, 0.0, 9.0]))
    # 0.9 · 0.474077 + 0.1 · 0.974077 for the second.
    torch.testing.assert_close(
        cdpo(MARGINS, 0.5, 0.1)[1], torch.tensor(0.524077), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        bradley_terry(torch.tensor([2.0]), torch.tensor([1.0])),
        torch.tensor([0.313262]), atol=1e-5, rtol=0,
    )  # fmt: skip


@given(st.floats(-20, 20), st.floats(0.01, 5))
def test_all_but_ipo_fall_as_the_margin_rises(margin: float, beta: float) -> None:
    two = torch.tensor([margin, margin + 1.0], dtype=torch.float64)
    for name in ("dpo", "paper_eq6", "cdpo"):
        worse, better = LOSSES[name](two, beta, 0.0).tolist()
        assert better < worse
    lowest = torch.tensor([1 / (2 * beta)], dtype=torch.float64)
    assert LOSSES["ipo"](lowest, beta, 0.0).item() == pytest.approx(0.0, abs=1e-12)


def test_without_smoothing_conservative_dpo_is_dpo() -> None:
    torch.testing.assert_close(cdpo(MARGINS, 0.3, 0.0), dpo(MARGINS, 0.3))


def test_the_printed_sign_would_prefer_what_was_rejected() -> None:
    """Why Eq. 6 is not taken at its word: descending on it lowers the margin."""
    margin = torch.tensor([0.3], requires_grad=True)
    printed = 0.1 * torch.nn.functional.logsigmoid(margin)
    printed.sum().backward()
    assert margin.grad is not None
    assert margin.grad.item() > 0
    corrected = torch.tensor([0.3], requires_grad=True)
    paper_eq6(corrected, 0.1).sum().backward()
    assert corrected.grad is not None
    assert corrected.grad.item() == pytest.approx(-margin.grad.item())
