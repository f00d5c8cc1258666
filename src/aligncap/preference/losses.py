"""The losses of PO-Regularization and of the reward model as pure functions (§3.2, Eq. 6).

`margins` [pairs] is h = (log π(c) - log π_ref(c)) - (log π(r) - log π_ref(r)) of each pair, c the
chosen and r the rejected response, log-probabilities summed over the response's tokens (or their
mean, if so asked: `log_ratio_margins`). Each loss returns one value a pair; the batch's loss is
their mean.
"""

from collections.abc import Callable

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


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log σ(r_c - r_r) of each pair, [pairs]: the reward model's loss (Ouyang et al. 2022, Eq. 1).

    `chosen` and `rejected` [pairs] are scalar rewards; only their differences count.
    """
    return -logsigmoid(chosen - rejected)


LOSSES: dict[str, PairLoss] = {"dpo": dpo, "paper_eq6": paper_eq6, "ipo": ipo, "cdpo": cdpo}
"""What `kind = "dpo"` can minimise, by name."""
