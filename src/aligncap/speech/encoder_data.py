"""What the built-in encoder is taught, in augmented batches that depend on their number only."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from aligncap.acoustics.frontend import MELS
from aligncap.errors import DataError
from aligncap.speech.augmentation import Augmentation, vary
from aligncap.speech.feature_store import FeatureStore
from aligncap.speech.features import (
    FRAMES_A_TOKEN,
    PROSODY,
    VIEWS,
    EncoderInput,
    Features,
    encoder_input,
    nuclei_per_s,
)
from aligncap.values import EMOTIONS

UNKNOWN = -1
"""A label that a clip does not have."""

_BUCKET = 8


@dataclass(frozen=True, slots=True)
class Clip:
    """What the encoder is taught about one utterance."""

    corpus: str
    emotion: int
    """Index into EMOTIONS, or UNKNOWN."""
    gender: int
    """1 female, 0 male, or UNKNOWN."""


class Batch(NamedTuple):
    """A padded batch; see `SpeechEncoder.forward` for the shapes of the first three."""

    views: Tensor
    prosody: Tensor
    heard: Tensor
    emotion: Tensor
    """Probability of each emotion, shape [batch, 8]; rows of zeros where it is unknown."""
    gender: Tensor
    """Probability of a female voice, shape [batch]; UNKNOWN where it is not known."""
    pace: Tensor
    """Logarithm of syllables a second, shape [batch]; NaN where it is not known."""
    number: int = 0
    """Which batch of the run it is."""


def sampling_weights(clips: Sequence[Clip], shares: Mapping[str, float]) -> NDArray[np.float64]:
    """How often each clip is drawn, shape [clips], summing to 1.

    Each corpus gets its share; within it a class counts with the square root of its size, so
    that rare emotions are heard without being learnt by heart. Raises DataError for a corpus
    without a share.
    """
    sizes = Counter((clip.corpus, clip.emotion) for clip in clips)
    weights: NDArray[np.float64] = np.array(
        [sizes[clip.corpus, clip.emotion] ** -0.5 for clip in clips]
    )
    corpora = np.array([clip.corpus for clip in clips])
    for corpus in sorted(set(corpora.tolist())):
        if corpus not in shares:
            raise DataError(f"corpus {corpus!r} has no share; add it to [shares] of the recipe")
        weights[corpora == corpus] *= shares[corpus] / weights[corpora == corpus].sum()
    weights /= weights.sum()
    return weights


@dataclass(frozen=True, kw_only=True)
class EncoderBatches:
    """Augmented batches by number; the same number always gives the same batch."""

    store: FeatureStore
    clips: Sequence[Clip]
    weights: NDArray[np.float64]
    augmentation: Augmentation
    size: int
    longest_frames: int
    mixup: float
    """Parameter of the beta distribution; 0 never mixes."""
    masks: int
    """Bands and stretches of time that are hidden in each clip."""
    seed: int

    def __call__(self, number: int) -> Batch:
        """Batch `number`, from 0."""
        group, place = divmod(number, _BUCKET)
        draw = np.random.default_rng((self.seed, group))
        drawn = draw.choice(len(self.clips), self.size * _BUCKET, p=self.weights)
        # Clips of like length share a batch, so little is padded.
        drawn = drawn[np.argsort([self.store.frames(n) for n in drawn], kind="stable")]
        bucket = int(draw.permutation(_BUCKET)[place])
        chosen = drawn[bucket * self.size : (bucket + 1) * self.size]
        random = np.random.default_rng((self.seed, number, 1))
        inputs, clips, paces = [], [], []
        for index in chosen:
            features = crop(self.store[int(index)], self.longest_frames, random)
            varied = vary(features, self.augmentation, random)
            inputs.append(hide(encoder_input(varied.features), self.masks, random))
            paces.append(nuclei_per_s(varied.features))
            clip = self.clips[int(index)]
            clips.append(clip if varied.same_gender else replace(clip, gender=UNKNOWN))
        batch = make_batch(inputs, clips, paces)
        if self.mixup > 0 and random.random() < 0.5:
            batch = mix(batch, self.mixup, random)
        return batch._replace(number=number)


def crop(features: Features, longest_frames: int, random: Generator) -> Features:
    """At most `longest_frames` of the features, from a random place."""
    spare = len(features) - longest_frames
    if spare <= 0:
        return features
    here = slice(start := int(random.integers(0, spare + 1)), start + longest_frames)
    return Features(features.mel[here], features.pitch_hz[here], features.strength[here])


def hide(inputs: EncoderInput, masks: int, random: Generator) -> EncoderInput:
    """The input with some bands and some stretches of time set to zero (SpecAugment)."""
    views, prosody = inputs.views.copy(), inputs.prosody.copy()
    frames = len(prosody)
    for _ in range(masks):
        width = int(random.integers(0, 10))
        start = int(random.integers(0, MELS - width))
        views[:, :, start : start + width] = 0.0
        width = int(random.integers(0, min(30, frames // 5) + 1))
        start = int(random.integers(0, frames - width + 1))
        views[:, start : start + width] = 0.0
        prosody[start : start + width] = 0.0
    return EncoderInput(views, prosody)


def make_batch(
    inputs: Sequence[EncoderInput], clips: Sequence[Clip], paces: Sequence[float]
) -> Batch:
    """Inputs of different length padded to a multiple of 8 frames, with their labels."""
    longest = max(len(one.prosody) for one in inputs)
    longest = -(-longest // FRAMES_A_TOKEN) * FRAMES_A_TOKEN
    views = np.zeros((len(inputs), VIEWS, longest, MELS), np.float32)
    prosody = np.zeros((len(inputs), longest, PROSODY), np.float32)
    heard = np.zeros((len(inputs), longest), np.float32)
    for row, one in enumerate(inputs):
        frames = len(one.prosody)
        views[row, :, :frames], prosody[row, :frames] = one.views, one.prosody
        heard[row, :frames] = 1.0
    emotion = torch.zeros(len(clips), len(EMOTIONS))
    for row, clip in enumerate(clips):
        if clip.emotion != UNKNOWN:
            emotion[row, clip.emotion] = 1.0
    gender = torch.tensor([float(clip.gender) for clip in clips])
    pace = torch.tensor(paces).log()
    to = torch.from_numpy
    return Batch(to(views), to(prosody), to(heard), emotion, gender, pace)


def mix(batch: Batch, strength: float, random: Generator) -> Batch:
    """Every clip mixed with another of the batch, and its labels likewise (mixup)."""
    share = float(random.beta(strength, strength))
    share = max(share, 1 - share)
    other = torch.from_numpy(random.permutation(len(batch.gender)))
    known = (batch.gender >= 0) & (batch.gender[other] >= 0)

    def blend(x: Tensor) -> Tensor:
        return share * x + (1 - share) * x[other]

    return Batch(
        blend(batch.views),
        blend(batch.prosody),
        torch.maximum(batch.heard, batch.heard[other]),
        blend(batch.emotion),
        torch.where(known, blend(batch.gender), batch.gender),
        batch.pace,
    )
