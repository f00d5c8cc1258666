"""A second readout of emotion: how the vectors of Whisper's own lower layers are distributed over a
clip.

Layers that are fine-tuned get to know the corpora they are tuned on; layers as they came know none.
Of the outputs of the lowest, mean and deviation over the time in which somebody speaks are taken.
A network of one hidden layer reads them. Where a speaker's baseline is known (the mean of the same
over other clips), another reads their distance from it and nothing else: what a voice and a room
are like does not tell what a stranger feels. What they say is joined to what the encoder's own
readout says.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from aligncap.tokenizers.builtin import FRAMES_A_TOKEN
from aligncap.values import EMOTIONS

POOLED = FRAMES_A_TOKEN // 2
"""Vectors of Whisper, 50 a second, that are averaged to one."""

QUIETEST = 1e-3
"""Power of a span of 80 ms, over that of the loudest, below which nobody speaks in it: −30 dB."""

_FARTHEST = 6.0
"""Deviations from the mean at which a number is cut."""

_ALONE = 0.3
"""What the network that reads the clip itself counts beside the one that reads the distance."""


def width_of(layers: int, width: int) -> int:
    """Numbers in the statistics of so many layers of this width."""
    return 2 * layers * width


def pooled(vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The means of four vectors each of [batch, time, width], over those within the clip by `mask`
    [batch, time]: [batch, time / 4, width], and which hold any of the clip; a rest is cut off."""
    spans = mask.shape[1] // POOLED
    parts = mask[:, : spans * POOLED].unflatten(1, (spans, POOLED))  # type: ignore[no-untyped-call]
    x = vectors[:, : spans * POOLED].unflatten(1, (spans, POOLED))  # type: ignore[no-untyped-call]
    x = (x * parts[..., None]).sum(2) / parts.sum(2).clamp(min=1)[..., None]
    return x, parts.any(2)


def distribution(vectors: Tensor, mel: Tensor, mask: Tensor) -> Tensor:
    """Mean and deviation of `vectors` [batch, frames / 2, width] over the spans of 80 ms in which
    the clip is not more than 30 dB below its loudest; `mel` [batch, frames, 80] is Whisper's
    spectrogram, `mask` [batch, frames] True within the clip. [batch, 2 · width]."""
    spans = mel.shape[1] // FRAMES_A_TOKEN
    halves = mask[:, ::2][:, : spans * POOLED]
    x, kept = pooled(vectors[:, : spans * POOLED], halves)
    power = (10 ** (4 * mel[:, : spans * FRAMES_A_TOKEN] - 4)).sum(2)
    power = power.unflatten(1, (spans, FRAMES_A_TOKEN)).mean(2) * kept  # type: ignore[no-untyped-call]
    spoken = (power > QUIETEST * power.amax(1, keepdim=True)).to(x)
    share = (spoken / spoken.sum(1, keepdim=True).clamp(min=1))[..., None]
    mean = (x * share).sum(1)
    deviation = ((x - mean[:, None]).square() * share).sum(1).clamp(min=1e-12).sqrt()
    return torch.cat((mean, deviation), 1)


class StatisticsReadout(nn.Module):
    """Predicts emotion from a clip's statistics and a speaker's baseline."""

    centre: Tensor
    spread: Tensor
    within: Tensor
    share: Tensor

    def __init__(self, features: int, hidden: int, dropout: float = 0.5) -> None:
        super().__init__()
        # Of the clips trained on: mean and deviation, and the deviation within a speaker.
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.register_buffer("within", torch.ones(features))
        # Without and with a baseline, as of all that has two values.
        self.register_buffer("share", torch.ones(2))
        self.alone = _network(features, hidden, dropout)
        self.against = _network(features, hidden, dropout)

    def features(self, statistics: Tensor, baseline: Tensor) -> tuple[Tensor, Tensor]:
        """What the networks read of `statistics` and `baseline`, [batch, features] each as those:
        the statistics normalised, and their distance from the baseline."""
        own = (statistics - self.centre) / self.spread
        distance = (statistics - baseline) / self.within
        return own.clamp(-_FARTHEST, _FARTHEST), distance.clamp(-_FARTHEST, _FARTHEST)

    def forward(self, statistics: Tensor, baseline: Tensor, based: Tensor) -> Tensor:
        """The logits of emotions, [batch, 8], of `statistics` and `baseline` [batch, features],
        which is heeded where `based` [batch] is 1."""
        own, distance = self.features(statistics, baseline)
        alone = self.alone(own).log_softmax(1)
        both = self.against(distance).log_softmax(1) + _ALONE * alone
        return torch.where(based[:, None] > 0, both, alone)

    def joined(self, logits: Tensor, others: Tensor, based: Tensor) -> Tensor:
        """The logits of emotions by this readout and by the encoder's own, [batch, 8] each; the
        other counts for `share` of this."""
        share = of_two(self.share, based)[:, None]
        return logits.log_softmax(1) + share * others.log_softmax(1)


def of_two(values: Tensor, based: Tensor) -> Tensor:
    """The first of two values where `based` [batch] is 0 and the second where it is 1, [batch]."""
    return values[0] + based * (values[1] - values[0])


def _network(features: int, hidden: int, dropout: float) -> nn.Module:
    """From features to the logits of emotions."""
    return nn.Sequential(
        nn.Dropout(0.6 * dropout), nn.Linear(features, hidden), nn.LayerNorm(hidden), nn.SiLU(),
        nn.Dropout(dropout), nn.Linear(hidden, len(EMOTIONS)),
    )  # fmt: skip


class SyllableReadout(nn.Module):
    """Counts the syllables of a clip by Whisper's vectors, 50 a second: in tokens of 80 ms two of
    them can lie."""

    centre: Tensor
    spread: Tensor

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        # Of the vectors trained on.
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.enter = nn.Linear(width, hidden)
        self.around = nn.Conv1d(hidden, hidden, _AROUND, padding=_AROUND // 2)
        self.leave = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """`vectors` [batch, time, width], `mask` [batch, time] True within the clip; [batch]."""
        x = self.dropout((vectors - self.centre) / self.spread)
        x = functional.silu(self.enter(x)) * mask[..., None]
        x = functional.silu(self.around(x.transpose(1, 2))).transpose(1, 2)
        # A vector in which nothing is begun has next to nothing at first.
        steps = functional.softplus(self.leave(x)[..., 0] - _AT_FIRST) * mask
        return steps.sum(1)


_AROUND = 5  # vectors, 100 ms
_DROPOUT = 0.15
_AT_FIRST = 3.0
