"""The losses of alignment as pure functions: those after decoding take logits at response
positions (Eq. 5, Eq. 2), those before decoding vectors of a joint speech-text space (§5.2).

A function of logits takes one row of the text vocabulary for each response token (N of them:
prompt, speech and padding positions are never given) and returns the mean over those tokens
(decision 1).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def kl_to_teacher(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(teacher ‖ student), mean over response tokens, in nats (Eq. 5 as meant; decision 1).

    `student` [N, V] and `teacher` [N, V] are logits; both are divided by `temperature`. The
    teacher gets no gradient. Returns a scalar, at least 0.
    """
    p = (teacher.detach().float() / temperature).log_softmax(-1)
    q = (student.float() / temperature).log_softmax(-1)
    return functional.kl_div(q, p, reduction="batchmean", log_target=True)


def cross_entropy_to_teacher(
    student: Tensor, teacher: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """-Σ p_teacher log p_student, mean over response tokens: Eq. 5 as printed.

    Shapes as in `kl_to_teacher`, from which it differs by the teacher's entropy: the gradients
    are the same (decision 1).
    """
    p = (teacher.detach().float() / temperature).softmax(-1)
    q = (student.float() / temperature).log_softmax(-1)
    return -(p * q).sum(-1).mean()


def kl_to_cached_teacher(
    student: Tensor,
    top_ids: Tensor,
    top_log_probs: Tensor,
    rest_log_prob: Tensor,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """KL(teacher ‖ student) where of the teacher only the top k are known (decision 2).

    `student` [N, V] logits; `top_ids` [N, k]; `top_log_probs` [N, k] and `rest_log_prob` [N], the
    log of the mass of all other tokens, come from a teacher at the same temperature and sum to 1.
    All other tokens count as one outcome, so this is a lower bound of `kl_to_teacher`, tight as
    the remainder goes to 0, and equal to it where k is V.
    """
    logits = student.float() / temperature
    top = logits.gather(1, top_ids)
    total = top.logsumexp(1)
    p = top_log_probs.exp()
    entropy, expected = -(p * top_log_probs).sum(1), (p * top).sum(1)
    if top_ids.shape[1] < logits.shape[1]:
        # The remainder's own logsumexp: 1 - Σ top would lose it to rounding when it is small.
        rest = logits.scatter(1, top_ids, -float("inf")).logsumexp(1)
        total, p_rest = total.logaddexp(rest), rest_log_prob.exp()
        # A teacher that is certain leaves a remainder of exactly 0, whose log is -inf.
        entropy = entropy - p_rest * rest_log_prob.clamp(min=-1e4)
        expected = expected + p_rest * rest
    return (total - expected - entropy).mean()


def caption_cross_entropy(
    student: Tensor,
    target_ids: Tensor,
    *,
    smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """-log p_student(caption token), mean over response tokens: maximum likelihood (Eq. 2).

    `student` [N, V] logits, `target_ids` [N]. The loss of the warm-up, and of the baseline without
    a teacher. With label `smoothing`, that share of each target is spread over all V tokens. With
    `weights` [V] the mean is weighted by the target's.
    """
    logits = student.float()
    return functional.cross_entropy(logits, target_ids, weights, label_smoothing=smoothing)


def symmetric_infonce(speech: Tensor, text: Tensor, log_scale: Tensor | float) -> Tensor:
    """The contrastive loss of a joint speech-text space, in nats (§2, CL-Align; Radford et al.
    2021).

    `speech` [N, D] and `text` [N, D] are of unit length, row n of both belonging together; their
    cosines are multiplied by exp(log_scale), one over the temperature. Each clip is to find its
    text among the N, and each text its clip: the mean of the two cross-entropies. Returns a scalar.
    """
    scale = log_scale.exp() if isinstance(log_scale, Tensor) else math.exp(log_scale)
    logits = scale * speech.float() @ text.float().T
    target = torch.arange(len(logits), device=logits.device)
    return (
        functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
    ) / 2


def inject_noise(
    vectors: Tensor, variance: float, generator: torch.Generator | None = None
) -> Tensor:
    """x / |x| + N(0, variance · I), at unit length again: noise injection (§5.2, CL+NI-Align).

    `vectors` [..., D] of any length except 0.
    """
    unit = functional.normalize(vectors, dim=-1)
    noise = torch.randn(unit.shape, generator=generator, dtype=unit.dtype).to(unit.device)
    return functional.normalize(unit + variance**0.5 * noise, dim=-1)


def project_on_memory(queries: Tensor, memory: Tensor, *, temperature: float = 0.01) -> Tensor:
    """The mean of a memory of captions by their likeness to each query, at unit length:
    projection-based decoding (§2, §5.2, CL+Proj-Align; Kouzelis and Katsouros 2023).

    `queries` [N, D] and `memory` [M, D] are of unit length; the weights are a softmax over the
    cosines divided by `temperature`. Returns [N, D].
    """
    weights = (queries @ memory.T / temperature).softmax(-1)
    return functional.normalize(weights @ memory, dim=-1)
