"""The losses of PO-Regularization as pure functions (§3.2, Eq. 6).

`margins` [pairs] is h = (log π(c) - log π_ref(c)) - (log π(r) - log π_ref(r)) of each pair, c the
chosen and r the rejected response, log-probabilities summed over the response's tokens (or their
mean, if so asked: `log_ratio_margins`). Each loss returns one value a pair; the batch's loss is
their mean.

The arithmetic of PPO as pure functions, over the N tokens of R responses in reading order.

`lengths` [R] says how many tokens each response has. Ziegler et al. 2019 for the rewards and the
controller, Schulman et al. 2016 and 2017 for advantages and clipping.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

PairLoss = Callable[[Tensor, float, float], Tensor]
"""(margins [pairs], β, smoothing) → losses [pairs]."""


def log_ratio_margins(
    policy: Tensor, reference: Tensor, chosen: Tensor, rejected: Tensor
) -> Tensor:
    """h of each pair, [pairs].

    `policy` and `reference` [responses] are log-probabilities of all responses of a batch,
    `chosen` and `rejected` [pairs] are places among them. The reference gets no gradient.
    """
    ratios = policy - reference.detach()
    return ratios[chosen] - ratios[rejected]


def dpo(margins: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """-log σ(β h): direct preference optimisation (Rafailov et al. 2023, Eq. 7).

    What Eq. 6 must mean (decision 12). `smoothing` has no part in it.
    """
    del smoothing
    return -logsigmoid(beta * margins)


def paper_eq6(margins: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """-β log σ(h): Eq. 6 as printed but for its sign, which would make chosen captions unlikely.

    β scales the loss instead of the margin: with AdamW, which divides by the gradient's size, it
    has next to no effect.
    """
    del smoothing
    return -beta * logsigmoid(margins)


def ipo(margins: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """(h - 1/(2β))²: identity preference optimisation (Azar et al. 2024, Eq. 17; τ is β here).

    Its authors take mean log-probabilities: use it with `length_normalised`.
    """
    del smoothing
    return (margins - 1 / (2 * beta)).square()


def cdpo(margins: Tensor, beta: float, smoothing: float = 0.0) -> Tensor:
    """-(1-ε) log σ(β h) - ε log σ(-β h): DPO where a share ε of the pairs is the wrong way round.

    Conservative DPO (Mitchell 2023); ε is `smoothing`, and 0 makes it `dpo`.
    """
    scaled = beta * margins
    return -(1 - smoothing) * logsigmoid(scaled) - smoothing * logsigmoid(-scaled)


LOSSES: dict[str, PairLoss] = {"dpo": dpo, "paper_eq6": paper_eq6, "ipo": ipo, "cdpo": cdpo}
"""What `kind = "dpo"` can minimise, by name."""


Floats = NDArray[np.float64]


def token_rewards(
    scores: Floats, log_ratios: Floats, lengths: Sequence[int], *, coefficient: float
) -> Floats:
    """The reward of each token, [N]: -coefficient · (log π - log π_ref), at a response's last
    token plus its score (Ziegler et al. 2019, Eq. 2).

    `scores` [R] are of whole responses, `log_ratios` [N] of tokens.
    """
    rewards = -coefficient * log_ratios
    rewards[np.cumsum(lengths) - 1] += scores
    return rewards


def advantages_of(
    rewards: Floats, values: Floats, lengths: Sequence[int], *, discount: float, decay: float
) -> Floats:
    """Generalised advantage estimates, [N] (Schulman et al. 2016, Eq. 16).

    δ_t = r_t + γ V_{t+1} - V_t and A_t = δ_t + γλ A_{t+1} within each response, whose end is worth
    nothing further; γ is `discount`, λ is `decay`.
    """
    found = np.empty_like(rewards)
    stop = 0
    for length in lengths:
        start, stop = stop, stop + length
        ahead, value_ahead = 0.0, 0.0
        for place in range(stop - 1, start - 1, -1):
            delta = rewards[place] + discount * value_ahead - values[place]
            ahead = delta + discount * decay * ahead
            value_ahead = values[place]
            found[place] = ahead
    return found


def whitened(values: Floats) -> Floats:
    """The same with mean 0 and standard deviation 1."""
    found: Floats = (values - values.mean()) / (values.std() + 1e-8)
    return found


def clipped_policy_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, *, clip: float
) -> tuple[Tensor, Tensor]:
    """-min(ρ A, clip(ρ, 1-ε, 1+ε) A), mean over tokens, and the share of tokens that were clipped
    (Schulman et al. 2017, Eq. 7).

    ρ = π/π_old of each token; `log_probs`, `old_log_probs` and `advantages` are [N], ε is `clip`.
    """
    ratios = (log_probs - old_log_probs).exp()
    plain = ratios * advantages
    held = ratios.clamp(1 - clip, 1 + clip) * advantages
    return -torch.minimum(plain, held).mean(), (held < plain).float().mean()


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float
) -> Tensor:
    """½ max((V - R)², (V_clipped - R)²), mean over tokens; V moves from V_old by `clip` at most.

    All are [N]. From the implementation of Ziegler et al. 2019.
    """
    held = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (held - returns).square()).mean()


def next_coefficient(coefficient: float, kl: float, *, target: float, rate: float) -> float:
    """The KL coefficient after a batch whose responses were `kl` nats from the reference.

    β ← β (1 + K clip((kl - target) / target, -0.2, 0.2)); K is `rate` (Ziegler et al. 2019, §2.2).
    """
    error = min(0.2, max(-0.2, (kl - target) / target))
    return coefficient * (1 + rate * error)
