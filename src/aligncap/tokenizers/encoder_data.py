"""Other voices, rooms and microphones out of the few that were recorded.

Everything works on measured features, so that pitch, pace and spectrum change together: a voice
shifted up has a higher pitch *and* a shorter vocal tract. A pure function of features and random
generator.

The recipe of kind "encoder".

Features of whole corpora, measured once and kept on disk.

What the built-in encoder is taught, in augmented batches that depend on their number only.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, NamedTuple, Self

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field, model_validator
from rich.console import Console
from rich.progress import track
from torch import Tensor

from aligncap.data.manifest import Utterance
from aligncap.errors import DataError
from aligncap.prosody.measurement import HIGHEST_HZ, LOWEST_HZ, MELS, hz_to_mel, mel_to_hz
from aligncap.recipes import Share, recipe_section
from aligncap.storage import write_atomic
from aligncap.tokenizers.builtin import (
    FRAMES_A_TOKEN,
    PROSODY,
    VIEWS,
    EncoderInput,
    Features,
    Floats,
    encoder_input,
    nuclei_per_s,
)
from aligncap.tokenizers.encoder import EncoderConfig
from aligncap.training.settings import FitSettings
from aligncap.values import EMOTIONS

_CENTRES_MEL = np.linspace(hz_to_mel(LOWEST_HZ), hz_to_mel(HIGHEST_HZ), MELS + 2)[1:-1]
_SAME_GENDER = 0.07
_AXIS = np.linspace(0.0, 1.0, MELS, dtype=np.float32)


@recipe_section
class Augmentation:
    """How strongly features are varied; 0 switches a variation off."""

    voice: float = 0.12
    """Standard deviation of the logarithm of the frequency ratio (pitch and formants)."""
    pace: float = 0.22
    """Largest logarithm of the ratio of durations, uniformly drawn."""
    channel: Share = 0.7
    """Share of clips that get another frequency response."""
    level: float = 1.2
    """Standard deviation of the level in nats of power (1 nat = 4.3 dB)."""
    noise: Share = 0.5
    """Share of clips that get steady coloured noise."""
    cut: Share = 0.3
    """Share of clips whose beginning is cut off, up to a sixth."""


@dataclass(frozen=True, slots=True)
class Varied:
    """Augmented features, and what was done to them."""

    features: Features
    voice_ratio: float
    """Frequencies of the copy over those of the original."""
    pace_ratio: float
    """Syllables a second of the copy over those of the original."""
    level_nats: float
    """What was added to the level."""

    @property
    def same_gender(self) -> bool:
        """Whether the voice moved so little that it cannot pass for the other gender."""
        return abs(math.log(self.voice_ratio)) <= _SAME_GENDER


def vary(features: Features, settings: Augmentation, random: Generator) -> Varied:
    """A copy of the features as another speaker, room or microphone might have given it."""
    ratio = float(np.clip(math.exp(random.normal(0.0, settings.voice)), 0.72, 1.4))
    stretch = math.exp(random.uniform(-settings.pace, settings.pace))
    mel = shift_voice(features.mel, ratio)
    places = np.linspace(0, len(mel) - 1, max(20, round(len(mel) * stretch)))
    mel = _stretch(mel, places)
    nearest = np.rint(places).astype(np.intp)
    pitch = features.pitch_hz[nearest] * np.float32(ratio)
    strength = features.strength[nearest]
    if random.random() < settings.channel:
        mel = mel + _response(random)
    level = random.normal(0.0, settings.level)
    mel = mel + np.float32(level)
    if random.random() < settings.noise:
        mel = np.logaddexp(mel, _noise(mel, random))
    start = int(random.integers(0, len(mel) // 6 + 1)) if random.random() < settings.cut else 0
    varied = Features(mel[start:].astype(np.float32), pitch[start:], strength[start:])
    return Varied(varied, ratio, 1.0 / stretch, level)


def shift_voice(mel: Floats, ratio: float) -> Floats:
    """Log-mel frames with every frequency multiplied by `ratio`, shape [frames, 64] kept."""
    wanted = hz_to_mel(mel_to_hz(_CENTRES_MEL) / ratio)
    step = _CENTRES_MEL[1] - _CENTRES_MEL[0]
    place = np.clip((wanted - _CENTRES_MEL[0]) / step, 0, MELS - 1)
    below = np.minimum(place.astype(np.intp), MELS - 2)
    share = (place - below).astype(np.float32)
    shifted: Floats = mel[:, below] * (1 - share) + mel[:, below + 1] * share
    return shifted


def _stretch(mel: Floats, places: np.ndarray) -> Floats:
    before = np.minimum(places.astype(np.intp), max(0, len(mel) - 2))
    after = np.minimum(before + 1, len(mel) - 1)
    share = (places - before).astype(np.float32)[:, None]
    stretched: Floats = mel[before] * (1 - share) + mel[after] * share
    return stretched


def _response(random: Generator) -> Floats:
    """A smooth frequency response in nats, shape [64]: room, distance, microphone, telephone."""
    curve = np.zeros(MELS, dtype=np.float32)
    for waves in (0.5, 1, 2, 3):
        phase = random.uniform(0, 2 * math.pi)
        curve += np.float32(random.normal(0, 0.9)) * np.cos(math.pi * waves * _AXIS + phase)
    return curve


def _noise(mel: Floats, random: Generator) -> Floats:
    """Steady coloured noise with its flutter, in nats, of the shape of `mel`."""
    level = float(mel.mean()) + random.uniform(-4.0, 1.0)
    tilt = random.normal(0, 1.5) * (2 * _AXIS - 1)
    hump = random.normal(0, 1.0) * np.cos(2 * math.pi * _AXIS + random.uniform(0, 2 * math.pi))
    flutter = 0.5 * random.standard_normal(mel.shape, dtype=np.float32)
    noise: Floats = (level + tilt + hump + flutter).astype(np.float32)
    return noise


FRAMES_PER_S = 100


@recipe_section
class LossWeights:
    """Weights of the parts of the loss."""

    emotion: float = 1.0
    gender: float = 0.3
    pace: float = 0.1
    signal: float = 0.5
    commitment: float = 0.25
    label_smoothing: float = 0.1


@recipe_section
class EncoderSettings:
    """A recipe that trains the built-in speech encoder."""

    data: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Manifests."""
    shares: Mapping[str, float]
    """How much of every batch each corpus gives, by name; made to sum to 1."""
    features: Path
    """Folder that keeps measured features from one run to the next."""
    hold_out: tuple[str, ...] = ()
    """Speakers kept for choosing between settings, besides the validation speakers."""
    batch_size: int = 32
    longest_s: float = 4.2
    """Longer clips are cut at random places."""
    mixup: float = 0.3
    masks: int = 2
    quantize_after: int = 300
    """Steps after which the heads see quantised vectors only."""
    prior_weight: float = 0.5
    """How far rare emotions are told as readily as frequent ones, 0 to 1 (`balanced`)."""
    evaluate_every: int = 500
    model: EncoderConfig = field(default_factory=EncoderConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    augmentation: Augmentation = field(default_factory=Augmentation)
    training: FitSettings

    @property
    def longest_frames(self) -> int:
        """Frames of the longest clip of a batch."""
        return round(self.longest_s * FRAMES_PER_S)

    @model_validator(mode="after")
    def _trains_whole(self) -> Self:
        if self.training.sharding != "none":
            raise ValueError(
                "the speech encoder is small and is trained whole: set training.sharding to none"
            )
        return self


_LISTING = "files.txt"


class FeatureStore:
    """The features of many clips in one float16 array each (.npy)."""

    def __init__(self, folder: Path) -> None:
        self._mel = np.load(folder / "mel.npy", mmap_mode="r", allow_pickle=False)
        self._pitch = np.load(folder / "pitch.npy", mmap_mode="r", allow_pickle=False)
        self._ends = np.load(folder / "ends.npy", allow_pickle=False)

    def __len__(self) -> int:
        return len(self._ends)

    def frames(self, number: int) -> int:
        """Frames of one clip."""
        return int(self._ends[number] - (self._ends[number - 1] if number else 0))

    def __getitem__(self, number: int) -> Features:
        end = int(self._ends[number])
        here = slice(end - self.frames(number), end)
        pitch = self._pitch[here].astype(np.float32)
        return Features(self._mel[here].astype(np.float32), pitch[:, 0], pitch[:, 1])


def feature_bytes(clips: Iterable[Utterance]) -> int | None:
    """What the features of clips take on disk, at most: a spectrum, pitch and its strength in
    float16; silence at both ends is not kept. None where a clip's length is not known."""
    total_s = 0.0
    for one in clips:
        if one.duration_s is None:
            return None
        total_s += one.duration_s
    return round(FRAMES_PER_S * total_s) * 2 * (MELS + 2)


def store_features(
    folder: Path,
    paths: Sequence[Path],
    measured: Callable[[Path], Features],
) -> FeatureStore:
    """The features of every file, read from `folder` where it lists the same files in the same
    order, else measured into it. Raises DataError for no files."""
    listing = "\n".join(str(path) for path in paths)
    done = folder / _LISTING
    if done.exists() and done.read_text(encoding="utf-8") == listing:
        return FeatureStore(folder)
    if not paths:
        raise DataError(f"{folder}: no clips to measure; name a manifest that is not empty")
    folder.mkdir(parents=True, exist_ok=True)
    # While the arrays are replaced, no listing vouches for them.
    done.unlink(missing_ok=True)
    ends = []
    with _Growing(folder / "mel.npy") as mel, _Growing(folder / "pitch.npy") as pitch:
        for path in track(paths, "measuring features", console=Console(stderr=True)):
            features = measured(path)
            mel.append(features.mel)
            pitch.append(np.stack((features.pitch_hz, features.strength), 1))
            ends.append(mel.rows)
    np.save(folder / "ends.npy", np.array(ends))
    # Written last: a folder without it was not finished.
    write_atomic(done, listing)
    return FeatureStore(folder)


class _Growing:
    """A float16 array on disk, written a few rows at a time; whole when it is left."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("wb")
        self._columns, self.rows = 0, 0

    def append(self, array: NDArray[np.float32]) -> None:
        """Add rows; all arrays have as many columns as the first."""
        if not self.rows:
            self._columns = array.shape[1]
            self._write_header()
        self._file.write(array.astype("<f2").tobytes())
        self.rows += len(array)

    def _write_header(self) -> None:
        # Numpy leaves room in it for a first axis that grows.
        shape = (self.rows, self._columns)
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()


UNKNOWN = -1
"""A label that a clip does not have."""

_BUCKET = 8


@dataclass(frozen=True, slots=True)
class EncoderExample:
    """What the encoder is taught about one utterance."""

    corpus: str
    emotion: int
    """Index into EMOTIONS, or UNKNOWN."""
    gender: int
    """1 female, 0 male, or UNKNOWN."""


class EncoderBatch(NamedTuple):
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


def sampling_weights(
    clips: Sequence[EncoderExample], shares: Mapping[str, float]
) -> NDArray[np.float64]:
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
    clips: Sequence[EncoderExample]
    weights: NDArray[np.float64]
    augmentation: Augmentation
    size: int
    longest_frames: int
    mixup: float
    """Parameter of the beta distribution; 0 never mixes."""
    masks: int
    """Bands and stretches of time that are hidden in each clip."""
    seed: int

    def __call__(self, number: int) -> EncoderBatch:
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
            inputs.append(mask_frames(encoder_input(varied.features), self.masks, random))
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


def mask_frames(inputs: EncoderInput, masks: int, random: Generator) -> EncoderInput:
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
    inputs: Sequence[EncoderInput], clips: Sequence[EncoderExample], paces: Sequence[float]
) -> EncoderBatch:
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
    return EncoderBatch(to(views), to(prosody), to(heard), emotion, gender, pace)


def mix(batch: EncoderBatch, strength: float, random: Generator) -> EncoderBatch:
    """Every clip mixed with another of the batch, and its labels likewise (mixup)."""
    share = float(random.beta(strength, strength))
    share = max(share, 1 - share)
    other = torch.from_numpy(random.permutation(len(batch.gender)))
    known = (batch.gender >= 0) & (batch.gender[other] >= 0)

    def blend(x: Tensor) -> Tensor:
        return share * x + (1 - share) * x[other]

    return EncoderBatch(
        blend(batch.views),
        blend(batch.prosody),
        torch.maximum(batch.heard, batch.heard[other]),
        blend(batch.emotion),
        torch.where(known, blend(batch.gender), batch.gender),
        batch.pace,
    )
