"""Training of the built-in speech encoder: recipes of kind "encoder".

From the quantised tokens the heads predict emotion, gender and pace, and rebuild the signal
(level, pitch, voicing and a coarse spectrum); what they need is what the tokens must carry.
Augmentation turns the few recorded voices, rooms and microphones into others: it works on measured
features, so that a voice shifted up has a higher pitch *and* a shorter vocal tract. Batches depend
on their number only.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, NamedTuple, Self

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from aligncap.audio.files import load
from aligncap.data.manifest import Utterance, labelled, read_manifest
from aligncap.data.splits import validation_split
from aligncap.errors import DataError
from aligncap.prosody.measurement import HIGHEST_HZ, LOWEST_HZ, MELS, hz_to_mel, mel_to_hz
from aligncap.recipes import Share, Trainer, recipe_section
from aligncap.storage import hash_of_file
from aligncap.tokenizers import builtin
from aligncap.tokenizers.cache import FeatureStore, store_features
from aligncap.tokenizers.encoder import EncoderConfig, EncoderOutput, SpeechEncoder, save_encoder
from aligncap.training import dry_run
from aligncap.training.checkpoints import WeightAverage
from aligncap.training.devices import first_process_first, is_first_process
from aligncap.training.loop import evaluating, every, fit
from aligncap.training.settings import FitSettings
from aligncap.values import EMOTIONS

FRAMES_PER_S = 100
UNKNOWN = -1
"""A label that a clip does not have."""

_CENTRES_MEL = np.linspace(hz_to_mel(LOWEST_HZ), hz_to_mel(HIGHEST_HZ), MELS + 2)[1:-1]
_SAME_GENDER = 0.07
_AXIS = np.linspace(0.0, 1.0, MELS, dtype=np.float32)
_EMA_DECAY = 0.998
_BATCHES_A_GROUP = 8


@recipe_section
class Augmentation:
    """How strongly features are varied; 0 switches a variation off."""

    voice: float = 0.12
    """Standard deviation of the logarithm of the frequency ratio (pitch and formants)."""
    pace: float = 0.22
    """Largest logarithm of the ratio of durations, uniform."""
    channel: Share = 0.7
    """Share of clips that get another frequency response."""
    level: float = 1.2
    """Standard deviation of the level in nats of power (1 nat = 4.3 dB)."""
    noise: Share = 0.5
    """Share of clips that get steady coloured noise."""
    cut: Share = 0.3
    """Share of clips whose beginning is cut off, up to a sixth."""


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
    """The share of each corpus in a batch, by name; normalised to sum to 1."""
    features: Path
    """Folder that keeps measured features from one run to the next."""
    hold_out: tuple[str, ...] = ()
    """Speakers left out of training for choosing settings, besides the validation speakers."""
    batch_size: int = 32
    longest_s: float = 4.2
    """Longer clips are cut at random places."""
    mixup: float = 0.3
    masks: int = 2
    quantize_after: int = 300
    """Steps after which the heads see quantised vectors only."""
    prior_weight: float = 0.5
    """How far the emotion logits are adjusted to equal priors, 0 to 1 (`balanced`)."""
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
    def _not_sharded(self) -> Self:
        if self.training.sharding != "none":
            raise ValueError(
                "the speech encoder is small and is trained whole: set training.sharding to none"
            )
        return self


def plan(settings: EncoderSettings, output: Path) -> Mapping[str, object]:
    """The plan of a dry run; DataError where the manifests do not fit."""
    del output
    train: list[Utterance] | None = None
    if all(path.exists() for path in settings.data):
        train, _ = validation_split(one for path in settings.data for one in read_manifest(path))
        label_clips(train, settings)
    held_out = sum(one.speaker in settings.hold_out for one in train or ())
    note = "a manifest is not here, so it is not known how many clips there are"
    if train is not None:
        note = f"{len(train) - held_out:,} clips to train on, {held_out:,} held out"
    model = SpeechEncoder(settings.model)
    return dry_run.plan_table(
        [
            dry_run.needed_path("manifest", path, hint=dry_run.MANIFEST_HINT)
            for path in settings.data
        ],
        parameters=dry_run.count_parameters(
            {"encoder": sum(p.numel() for p in model.parameters())}, model
        ),
        memory=dry_run.training_memory(model, average=True),
        disk={
            "checkpoints": dry_run.checkpoints_bytes(model, average=True),
            "encoder": dry_run.weight_bytes(model),
            "features": None if train is None else feature_bytes(train),
        },
        notes=[note, f"features are kept in {settings.features}, and measured where they are not"],
    )


def feature_bytes(clips: Iterable[Utterance]) -> int | None:
    """An upper bound of the size of a `FeatureStore` of clips: spectrum, pitch and its strength in
    float16, silence included. None where a clip's length is not known."""
    total_s = 0.0
    for one in clips:
        if one.duration_s is None:
            return None
        total_s += one.duration_s
    return round(FRAMES_PER_S * total_s) * 2 * (MELS + 2)


def train_encoder(settings: EncoderSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Train the encoder; the averaged weights go to `output`/encoder. Returns macro recalls on
    the speakers held out, where there are any."""
    corpus = prepare(settings)
    torch.manual_seed(settings.training.seed)
    model = SpeechEncoder(settings.model)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = WeightAverage(model, settings.training.ema_decay or _EMA_DECAY)
    hooks = []
    if corpus.held_out:
        hooks.append(every(settings.evaluate_every, lambda: recalls(model, corpus)))

    def step(batch: EncoderBatch) -> Mapping[str, Tensor]:
        return encoder_losses(model, batch, settings)

    batches = EncoderBatches(
        store=corpus.store,
        clips=corpus.clips,
        weights=corpus.weights,
        augmentation=settings.augmentation,
        size=settings.batch_size,
        longest_frames=settings.longest_frames,
        mixup=settings.mixup,
        masks=settings.masks,
        seed=settings.training.seed,
    )
    fit(
        model,
        step,
        batches,
        settings.training,
        output,
        resume=resume,
        hooks=hooks,
        average=average,
        inputs={str(path): hash_of_file(path) for path in settings.data},
    )
    with average.applied():
        finished = balanced(model, corpus.emotion_shares, settings.prior_weight)
    with first_process_first():
        if is_first_process():
            save_encoder(output / "encoder", finished)
    return recalls(finished, corpus)


def balanced(model: SpeechEncoder, shares: NDArray[np.float64], weight: float) -> SpeechEncoder:
    """A copy whose emotion logits are lowered by `weight` · log share, `shares` [8] being those of
    the emotions in training (post-hoc logit adjustment, Menon et al. 2021).

    This favours macro recall, in which a rare emotion counts like any other. An emotion that was
    not in training keeps its logit.
    """
    copied = deepcopy(model)
    priors = torch.from_numpy(np.where(shares > 0, shares, 1.0)).float()
    with torch.no_grad():
        copied.emotion.bias.sub_(weight * priors.log())
    return copied


@dataclass(frozen=True, slots=True)
class EncoderExample:
    """The labels of one utterance."""

    corpus: str
    emotion: int
    """Index into EMOTIONS, or UNKNOWN."""
    gender: int
    """1 female, 0 male, or UNKNOWN."""


class EncoderBatch(NamedTuple):
    """A padded batch; see `SpeechEncoder.forward` for the shapes of the first three."""

    views: Tensor
    prosody: Tensor
    mask: Tensor
    emotion: Tensor
    """Probability of each emotion, shape [batch, 8]; rows of zeros where it is unknown."""
    gender: Tensor
    """Probability of a female voice, shape [batch]; UNKNOWN where it is not known."""
    pace: Tensor
    """Logarithm of syllables a second, shape [batch]; NaN where it is not known."""
    number: int = 0
    """Which batch of the run it is."""


@dataclass(frozen=True)
class EncoderCorpus:
    """The clips of a run, with features and labels; no validation speaker is among them."""

    store: FeatureStore
    clips: Sequence[EncoderExample]
    weights: NDArray[np.float64]
    """The probability of sampling each clip; 0 for those held out."""
    held_out: Sequence[int]
    """Clips of the speakers held out."""

    @property
    def emotion_shares(self) -> NDArray[np.float64]:
        """The probability of each emotion among sampled clips with a label, [8]."""
        emotions = np.array([clip.emotion for clip in self.clips])
        labelled_weights = self.weights * (emotions != UNKNOWN)
        sums = np.bincount(emotions.clip(min=0), labelled_weights, len(EMOTIONS))
        shares: NDArray[np.float64] = sums / max(sums.sum(), 1e-12)
        return shares


def prepare(settings: EncoderSettings) -> EncoderCorpus:
    """Read the labels of a recipe's clips, and measure (or read) their features."""
    utterances = [one for path in settings.data for one in read_manifest(path)]
    train, _ = validation_split(utterances)
    clips, weights, held_out = label_clips(train, settings)
    store = store_features(settings.features, [one.path for one in train], measure_file)
    return EncoderCorpus(store, clips, weights, held_out)


def measure_file(path: Path) -> builtin.Features:
    """The features of a sound file."""
    return builtin.measure_features(load(path))


def label_clips(
    train: Sequence[Utterance], settings: EncoderSettings
) -> tuple[list[EncoderExample], NDArray[np.float64], list[int]]:
    """The labels of each clip as far as they are known and relied on, its sampling probability,
    and which clips are held out; DataError where none is left or a corpus has no share."""
    clips = []
    for one in train:
        known = labelled(one)
        emotion = UNKNOWN if known.emotion is None else EMOTIONS.index(known.emotion)
        gender = {"female": 1, "male": 0}.get(known.gender or "", UNKNOWN)
        clips.append(EncoderExample(one.corpus or "", emotion, gender))
    kept = np.array([one.speaker not in settings.hold_out for one in train], dtype=bool)
    weights = np.zeros(len(clips))
    in_training = [clip for clip, keep in zip(clips, kept, strict=True) if keep]
    if not in_training:
        raise DataError("no clip is left to train on; shorten hold_out or list another manifest")
    weights[kept] = sampling_weights(in_training, settings.shares)
    return clips, weights, np.flatnonzero(~kept).tolist()


def encoder_losses(
    model: SpeechEncoder, batch: EncoderBatch, settings: EncoderSettings
) -> Mapping[str, Tensor]:
    """Scalars: "loss" and the parts that it is the weighted sum of."""
    quantize = batch.number >= settings.quantize_after
    output = model(batch.views, batch.prosody, batch.mask, quantize=quantize)
    weights = settings.losses
    parts = {
        "emotion": emotion_loss(output.emotion, batch.emotion, weights.label_smoothing),
        "gender": gender_loss(output.gender, batch.gender),
        "pace": pace_loss(output.pace, batch.pace),
        "signal": signal_loss(output, batch),
        "commitment": output.commitment,
    }
    total = sum((getattr(weights, name) * part for name, part in parts.items()), torch.zeros(()))
    return {"loss": total, **parts}


def recalls(model: SpeechEncoder, corpus: EncoderCorpus) -> dict[str, float]:
    """Macro recall of emotion and accuracy of gender by corpus, over the speakers held out."""
    emotion: dict[str, dict[int, list[bool]]] = defaultdict(lambda: defaultdict(list))
    gender: dict[str, list[bool]] = defaultdict(list)
    ordered = sorted(corpus.held_out, key=corpus.store.frames)
    with evaluating(model):
        for start in range(0, len(ordered), 64):
            chosen = ordered[start : start + 64]
            clips = [corpus.clips[n] for n in chosen]
            batch = make_batch(
                [builtin.encoder_input(corpus.store[n]) for n in chosen],
                clips,
                [math.nan] * len(clips),
            )
            output = model(batch.views, batch.prosody, batch.mask)
            predicted = output.emotion.argmax(1).tolist()
            female = (output.gender > 0).tolist()
            for clip, guess, is_female in zip(clips, predicted, female, strict=True):
                if clip.emotion != UNKNOWN:
                    emotion[clip.corpus][clip.emotion].append(guess == clip.emotion)
                if clip.gender != UNKNOWN:
                    gender[clip.corpus].append(is_female == bool(clip.gender))
    found = {
        f"recall_{name}": float(np.mean([np.mean(hits) for hits in classes.values()]))
        for name, classes in emotion.items()
    }
    found |= {f"gender_{name}": float(np.mean(hits)) for name, hits in gender.items()}
    return found


def emotion_loss(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy against smoothed probabilities, both [batch, 8]; unlabelled rows are 0."""
    labelled = target.sum(1, keepdim=True)
    smooth = (1 - smoothing) * target + smoothing / target.shape[1] * labelled
    return -(smooth * logits.log_softmax(1)).sum(1).mean()


def gender_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy over clips whose gender is known; both [batch]."""
    known = (target >= 0).to(logits)
    each = functional.binary_cross_entropy_with_logits(logits, target.clamp(0, 1), reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def pace_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Absolute error of the logarithm of the pace where it could be measured; both [batch]."""
    known = ~target.isnan()
    return (predicted - target.nan_to_num()).abs().mul(known).sum() / known.sum().clamp(min=1)


def signal_loss(output: EncoderOutput, batch: EncoderBatch) -> Tensor:
    """Squared error of each token's mean input: first view and prosody."""
    spectrum = functional.avg_pool2d(batch.views[:, :1], (builtin.FRAMES_A_TOKEN, 1))[:, 0]
    prosody = functional.avg_pool1d(
        batch.prosody.transpose(1, 2), builtin.FRAMES_A_TOKEN
    ).transpose(1, 2)
    error = (output.signal - torch.cat((spectrum, prosody), 2)).square().mean(2)
    return (error * output.mask).sum() / output.mask.sum()


def sampling_weights(
    clips: Sequence[EncoderExample], shares: Mapping[str, float]
) -> NDArray[np.float64]:
    """The probability of sampling each clip, shape [clips].

    Each corpus gets its share; within it a class counts with the square root of its size, so
    that rare emotions are sampled more, but not as often as frequent ones. DataError for a corpus
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
    """Bands and time spans that are masked in each clip."""
    seed: int

    def __call__(self, number: int) -> EncoderBatch:
        """Batch `number`, from 0."""
        group, place = divmod(number, _BATCHES_A_GROUP)
        sampler = np.random.default_rng((self.seed, group))
        sampled = sampler.choice(len(self.clips), self.size * _BATCHES_A_GROUP, p=self.weights)
        # Clips of like length share a batch, so little is padded.
        sampled = sampled[np.argsort([self.store.frames(n) for n in sampled], kind="stable")]
        bucket = int(sampler.permutation(_BATCHES_A_GROUP)[place])
        chosen = sampled[bucket * self.size : (bucket + 1) * self.size]
        random = np.random.default_rng((self.seed, number, 1))
        inputs, clips, paces = [], [], []
        for index in chosen:
            features = crop(self.store[int(index)], self.longest_frames, random)
            varied = vary(features, self.augmentation, random)
            inputs.append(mask_frames(builtin.encoder_input(varied.features), self.masks, random))
            paces.append(builtin.nuclei_per_s(varied.features))
            clip = self.clips[int(index)]
            clips.append(clip if varied.same_gender else replace(clip, gender=UNKNOWN))
        batch = make_batch(inputs, clips, paces)
        if self.mixup > 0 and random.random() < 0.5:
            batch = mix(batch, self.mixup, random)
        return batch._replace(number=number)


def crop(features: builtin.Features, longest_frames: int, random: Generator) -> builtin.Features:
    """At most `longest_frames` of the features, from a random place."""
    spare = len(features) - longest_frames
    if spare <= 0:
        return features
    here = slice(start := int(random.integers(0, spare + 1)), start + longest_frames)
    return builtin.Features(features.mel[here], features.pitch_hz[here], features.strength[here])


def mask_frames(
    inputs: builtin.EncoderInput, masks: int, random: Generator
) -> builtin.EncoderInput:
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
    return builtin.EncoderInput(views, prosody)


def make_batch(
    inputs: Sequence[builtin.EncoderInput], clips: Sequence[EncoderExample], paces: Sequence[float]
) -> EncoderBatch:
    """Inputs of different length padded to a multiple of 8 frames, with their labels."""
    longest = max(len(one.prosody) for one in inputs)
    longest = -(-longest // builtin.FRAMES_A_TOKEN) * builtin.FRAMES_A_TOKEN
    views = np.zeros((len(inputs), builtin.VIEWS, longest, MELS), np.float32)
    prosody = np.zeros((len(inputs), longest, builtin.PROSODY), np.float32)
    mask = np.zeros((len(inputs), longest), np.float32)
    for row, one in enumerate(inputs):
        frames = len(one.prosody)
        views[row, :, :frames], prosody[row, :frames] = one.views, one.prosody
        mask[row, :frames] = 1.0
    emotion = torch.zeros(len(clips), len(EMOTIONS))
    for row, clip in enumerate(clips):
        if clip.emotion != UNKNOWN:
            emotion[row, clip.emotion] = 1.0
    gender = torch.tensor([float(clip.gender) for clip in clips])
    pace = torch.tensor(paces).log()
    to = torch.from_numpy
    return EncoderBatch(to(views), to(prosody), to(mask), emotion, gender, pace)


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
        torch.maximum(batch.mask, batch.mask[other]),
        blend(batch.emotion),
        torch.where(known, blend(batch.gender), batch.gender),
        batch.pace,
    )


@dataclass(frozen=True, slots=True)
class Varied:
    """Augmented features, and how they were changed."""

    features: builtin.Features
    voice_ratio: float
    """Frequencies of the copy over those of the original."""
    pace_ratio: float
    """Syllables a second of the copy over those of the original."""
    level_nats: float
    """Added to the level."""

    @property
    def same_gender(self) -> bool:
        """Whether the voice moved so little that it cannot pass for the other gender."""
        return abs(math.log(self.voice_ratio)) <= _SAME_GENDER


def vary(features: builtin.Features, settings: Augmentation, random: Generator) -> Varied:
    """A copy of the features as another speaker, room or microphone might have given it."""
    ratio = float(np.clip(math.exp(random.normal(0.0, settings.voice)), 0.72, 1.4))
    stretch = math.exp(random.uniform(-settings.pace, settings.pace))
    mel = shift_voice(features.mel, ratio)
    places = np.linspace(0, len(mel) - 1, max(20, round(len(mel) * stretch)))
    before = np.minimum(places.astype(np.intp), max(0, len(mel) - 2))
    share = (places - before).astype(np.float32)[:, None]
    mel = mel[before] * (1 - share) + mel[np.minimum(before + 1, len(mel) - 1)] * share
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
    varied = builtin.Features(mel[start:].astype(np.float32), pitch[start:], strength[start:])
    return Varied(varied, ratio, 1.0 / stretch, level)


def shift_voice(mel: builtin.Floats, ratio: float) -> builtin.Floats:
    """Log-mel frames with every frequency multiplied by `ratio`, shape [frames, 64] kept."""
    source = hz_to_mel(mel_to_hz(_CENTRES_MEL) / ratio)
    step = _CENTRES_MEL[1] - _CENTRES_MEL[0]
    place = np.clip((source - _CENTRES_MEL[0]) / step, 0, MELS - 1)
    below = np.minimum(place.astype(np.intp), MELS - 2)
    share = (place - below).astype(np.float32)
    shifted: builtin.Floats = mel[:, below] * (1 - share) + mel[:, below + 1] * share
    return shifted


def _response(random: Generator) -> builtin.Floats:
    """A smooth frequency response in nats, shape [64]: room, distance, microphone, telephone."""
    curve = np.zeros(MELS, dtype=np.float32)
    for waves in (0.5, 1, 2, 3):
        phase = random.uniform(0, 2 * math.pi)
        curve += np.float32(random.normal(0, 0.9)) * np.cos(math.pi * waves * _AXIS + phase)
    return curve


def _noise(mel: builtin.Floats, random: Generator) -> builtin.Floats:
    """Steady coloured noise with its flutter, in nats, of the shape of `mel`."""
    level = float(mel.mean()) + random.uniform(-4.0, 1.0)
    tilt = random.normal(0, 1.5) * (2 * _AXIS - 1)
    hump = random.normal(0, 1.0) * np.cos(2 * math.pi * _AXIS + random.uniform(0, 2 * math.pi))
    flutter = 0.5 * random.standard_normal(mel.shape, dtype=np.float32)
    noise: builtin.Floats = (level + tilt + hump + flutter).astype(np.float32)
    return noise


ENCODER = Trainer(EncoderSettings, plan, train_encoder)
