"""Training of the built-in speech encoder: recipes of kind "encoder".

It starts from a pretrained Whisper. A batch holds several clips of each of several speakers, each
clip varied twice (`augmentation`), once mildly and once strongly. Every readout predicts emotion,
gender, vocalisation and arousal, from the continuous vectors and from what the codebooks keep of
them; the two views of a clip must be read alike (Jensen–Shannon divergence). For half of the clips
the mean vector of the speaker's others is given as baseline. The sum of a rate over the tokens is
held to the syllables of the transcript. Batches depend on their number only.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from aligncap.audio import load, utterance
from aligncap.data.manifest import Utterance, labelled, read_manifest
from aligncap.data.splits import validation_split
from aligncap.data.syllables import count_syllables
from aligncap.errors import DataError
from aligncap.recipes import Count, Share, Trainer, recipe_section
from aligncap.storage import hash_of_file
from aligncap.tokenizers.augmentation import Augmentation, Recordings, Views, log_mel, vary
from aligncap.tokenizers.builtin import SILENCE_S
from aligncap.tokenizers.cache import WaveformStore, store_waveforms
from aligncap.tokenizers.encoder import (
    QUANTILES,
    Encoded,
    EncoderConfig,
    Reading,
    SpeechEncoder,
    save_encoder,
)
from aligncap.tokenizers.whisper import load_whisper
from aligncap.training import dry_run
from aligncap.training.checkpoints import WeightAverage
from aligncap.training.devices import first_process_first, is_first_process, processes
from aligncap.training.loop import evaluating, every, fit
from aligncap.training.settings import FitSettings, seed_of
from aligncap.values import EMOTIONS, RATE_HZ, VOCALIZATIONS, Waveform

UNKNOWN = -1
"""A label that a clip does not have."""

AROUSAL: Mapping[str, float] = {
    "angry": 0.75, "bored": -0.7, "disgusted": 0.1, "fearful": 0.45, "happy": 0.5,
    "neutral": -0.2, "sad": -0.5, "surprised": 0.6,
}  # fmt: skip
"""Usual arousal of acted emotions, -1 to 1 (after Russell 1980), where a corpus grades none."""
GRADED = {"low": -0.7, "neutral": 0.0, "high": 0.7}
"""Arousal of a corpus' own grades."""

_SAME_VOICE = 0.08
"""Largest change of the logarithm of pitch at which a gender is still believed."""
_LONGEST_EVALUATED_S = 14.0
_EMA_DECAY = 0.997


@recipe_section
class LossWeights:
    """Weights of the parts of the loss."""

    quantised: float = 0.6
    """Of each readout that reads codebooks, beside 1 for the continuous one."""
    consistency: float = 1.0
    """Of the divergence between the readings of a clip's two views."""
    gender: float = 0.25
    vocalization: float = 0.4
    arousal: float = 0.5
    syllables: float = 0.5
    commitment: float = 0.3
    label_smoothing: float = 0.1


@recipe_section
class EncoderSettings:
    """A recipe that trains the built-in speech encoder."""

    data: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Manifests."""
    shares: Mapping[str, float]
    """How often each corpus is sampled, by name, relative to the others."""
    waveforms: Path
    """Folder that keeps the samples of all utterances from one run to the next."""
    start: str = "openai/whisper-tiny"
    """The Whisper it starts from: a name on the hub, a folder of transformers or of CTranslate2."""
    hold_out: tuple[str, ...] = ()
    """Corpora or speakers left out of training, by name, and evaluated as the validation speakers
    are."""
    speakers: Count = 12
    """Of a batch."""
    clips: Count = 8
    """Of each speaker in a batch."""
    longest_s: float = 4.0
    """With the silence around them; longer clips are cut at random places."""
    baselines: Share = 0.5
    """Share of clips that are read beside their speaker's baseline."""
    mild: Share = 0.5
    """Strength of the first view's variation; the second has all of it."""
    sounds: Path | None = None
    """Folder of wav files of what is no person (`benchmarks/sounds.py` writes some): novel."""
    temperature: float = 1.3
    """Of the emotion's probabilities, chosen on validation speakers."""
    evaluate_every: Count = 500
    model: EncoderConfig = field(default_factory=EncoderConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    augmentation: Augmentation = field(default_factory=Augmentation)
    training: FitSettings

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
        train, _ = read_clips(settings.data, settings.hold_out)
        Sampler(train, settings)
    note = "a manifest is not here, so it is not known how many clips there are"
    if train is not None:
        note = f"{len(train):,} clips to train on"
    model = SpeechEncoder(settings.model)
    return dry_run.plan_table(
        [
            *(
                dry_run.needed_path("manifest", path, hint=dry_run.MANIFEST_HINT)
                for path in settings.data
            ),
            dry_run.Needed("pretrained Whisper", settings.start),
        ],
        parameters=dry_run.count_parameters(
            {"encoder": sum(p.numel() for p in model.parameters())}, model
        ),
        memory=dry_run.training_memory(model, average=True),
        disk={
            "checkpoints": dry_run.checkpoints_bytes(model, average=True),
            "encoder": dry_run.weight_bytes(model),
            "waveforms": None if train is None else _waveform_bytes(train),
        },
        notes=[note, f"decoded samples are kept in {settings.waveforms}"],
    )


def _waveform_bytes(clips: Iterable[Utterance]) -> int | None:
    """The size of a `WaveformStore`; None where a clip's length is not known."""
    lengths = [one.duration_s for one in clips]
    known = [length for length in lengths if length is not None]
    return round(2 * RATE_HZ * sum(known)) if len(known) == len(lengths) else None


def read_clips(
    data: Iterable[Path], hold_out: Collection[str]
) -> tuple[list[Utterance], list[Utterance]]:
    """The clips of manifests to train on, and those to evaluate on: validation speakers and what is
    held out."""
    train, validation = validation_split(one for path in data for one in read_manifest(path))
    held = [one for one in train if {one.corpus, one.speaker} & set(hold_out)]
    kept = [one for one in train if not {one.corpus, one.speaker} & set(hold_out)]
    if not kept:
        raise DataError("no clip is left to train on; shorten hold_out or list another manifest")
    return kept, [*validation, *held]


def load_utterance(path: Path) -> Waveform:
    """The utterance of a sound file: what is varied, and is heard with silence around it."""
    return utterance(load(path))


def train_encoder(settings: EncoderSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Train the encoder; the averaged weights go to `output`/encoder. Returns macro recalls on the
    validation speakers and what is held out, where there are any."""
    train, evaluated = read_clips(settings.data, settings.hold_out)
    labels, others = labels_of(train), labels_of(evaluated)
    sampler = Sampler(train, settings)
    everyone = [*train, *evaluated]
    store = store_waveforms(settings.waveforms, [one.path for one in everyone], load_utterance)
    torch.manual_seed(settings.training.seed)
    model = new_encoder(settings)
    device = processes().device
    recordings = on_device(store, device)
    table = {name: value.to(device) for name, value in labels.items()}
    average = WeightAverage(model, settings.training.ema_decay or _EMA_DECAY)

    def step(batch: EncoderBatch) -> Mapping[str, Tensor]:
        return encoder_losses(model, batch, settings)

    def batch_at(number: int) -> EncoderBatch:
        chosen, groups = sampler(number)
        return make_batch(recordings, table, chosen, groups, settings)

    def recalls() -> dict[str, float]:
        places = range(len(train), len(everyone))
        return recalls_of(
            model, recordings, places, others, [one.corpus or "" for one in evaluated]
        )

    fit(
        model,
        step,
        batch_at,
        settings.training,
        output,
        resume=resume,
        hooks=[every(settings.evaluate_every, recalls)] if evaluated else [],
        average=average,
        inputs={str(path): hash_of_file(path) for path in settings.data},
    )
    with average.applied():
        found = recalls() if evaluated else {}
        spoken = others.get("syllables", torch.zeros(0))
        vectors, heard = vectors_of(model, recordings)
        familiarise(model, vectors, len(train), seed=settings.training.seed)
        model.syllable_scale.fill_(syllable_scale(spoken, heard[len(train) :]))
        if settings.sounds is not None:
            made = [load_utterance(path) for path in sorted(settings.sounds.glob("*.wav"))]
            sounds, _ = vectors_of(model, as_recordings(made, device))
            tell_sounds(model, vectors[: len(train)], sounds)
        model.temperature.fill_(settings.temperature)
        with first_process_first():
            if is_first_process():
                save_encoder(output / "encoder", model.cpu())
    return found


def new_encoder(settings: EncoderSettings) -> SpeechEncoder:
    """An encoder whose lower layers are the pretrained Whisper's; its convolutions stay as they
    are. DataError where the sizes do not fit."""
    model = SpeechEncoder(settings.model)
    whisper = load_whisper(settings.start, settings.model.layers)
    width = whisper.first.out_channels
    if width != settings.model.whisper_width:
        raise DataError(
            f"{settings.start}: has {width} channels, not {settings.model.whisper_width}; set "
            f"model.whisper_width = {width}"
        )
    model.whisper.load_state_dict(whisper.state_dict())
    model.whisper.first.requires_grad_(False)
    model.whisper.second.requires_grad_(False)
    return model


def on_device(store: WaveformStore, device: torch.device) -> Recordings:
    """All clips of a store, on a device; on the CPU they stay on disk until they are read."""
    samples = torch.from_numpy(store.samples)
    if device.type != "cpu":
        samples = samples.to(device)
    starts, lengths = torch.from_numpy(store.starts), torch.from_numpy(store.lengths)
    return Recordings(samples, starts.to(device), lengths.to(device))


Labels = Mapping[str, Tensor]
"""Of each clip, [clips] each: "emotion" and "vocalization" by their number, "female" (1 or 0),
UNKNOWN where they are not known; "arousal" and how far to rely on it, "arousal_weight"; "syllables"
of the transcript, 0 where not known."""


def labels_of(clips: Iterable[Utterance]) -> Labels:
    """The labels of clips as far as they are known and relied on."""
    columns: dict[str, list[float]] = defaultdict(list)
    for one in clips:
        gender = labelled(one).gender
        arousal, weight = _arousal(one)
        emotion = UNKNOWN if one.emotion is None else EMOTIONS.index(one.emotion)
        for name, value in (
            ("emotion", emotion),
            ("vocalization", VOCALIZATIONS.index(one.vocalization or VOCALIZATIONS[0])),
            ("female", {"female": 1, "male": 0}.get(gender or "", UNKNOWN)),
            ("arousal", arousal),
            ("arousal_weight", weight),
            ("syllables", count_syllables(one.text or "", one.language) or 0),
        ):
            columns[name].append(value)
    return {name: torch.tensor(values) for name, values in columns.items()}


def _arousal(clip: Utterance) -> tuple[float, float]:
    """The arousal of a clip by its corpus' grade, or by its emotion, and how far to rely on it."""
    if clip.arousal is not None:
        return GRADED[clip.arousal], 1.0
    if clip.emotion is None:
        return 0.0, 0.0
    level = AROUSAL[clip.emotion]
    level -= 0.3 * (clip.label == "calm") - 0.15 * (clip.intensity == "strong")
    return level, 0.5


class Sampler:
    """Which clips make a batch, by its number: a few of each of several speakers.

    Corpora are drawn by their shares, and a clip with the inverse root of how many its corpus has
    of its emotion, so that rare emotions are sampled more, but not as often as frequent ones.
    """

    def __init__(self, clips: Sequence[Utterance], settings: EncoderSettings) -> None:
        """DataError for a corpus that has no share."""
        self._settings = settings
        sizes = Counter((one.corpus, one.emotion) for one in clips)
        self._weights = np.array([sizes[one.corpus, one.emotion] ** -0.5 for one in clips])
        speakers: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for place, one in enumerate(clips):
            # A clip without a speaker is of a speaker of its own.
            speakers[one.corpus or ""][one.speaker or f"\0{one.id}"].append(place)
        for corpus in speakers:
            if corpus not in settings.shares:
                raise DataError(f"corpus {corpus!r} has no share; add it to [shares] of the recipe")
        self._speakers = [list(found.values()) for found in speakers.values()]
        shares = np.array([settings.shares[corpus] for corpus in speakers])
        self._shares = shares / shares.sum()

    def __call__(self, number: int) -> tuple[list[int], list[int]]:
        """The clips of batch `number` and the group of each: clips of one group are of one speaker
        and give each other a baseline; UNKNOWN where they are of several."""
        random = np.random.default_rng((self._settings.training.seed, 17, number))
        count, chosen, groups = self._settings.clips, [], []
        drawn = random.choice(len(self._shares), self._settings.speakers, p=self._shares)
        for group, corpus in enumerate(drawn.tolist()):
            speakers = self._speakers[corpus]
            own = speakers[random.integers(len(speakers))]
            of_one = len(own) >= count
            pool = own if of_one else [place for one in speakers for place in one]
            weights = self._weights[pool]
            chosen += random.choice(
                pool, count, replace=len(pool) < count, p=weights / weights.sum()
            ).tolist()
            groups += [group if of_one else UNKNOWN] * count
        return chosen, groups


class EncoderBatch(NamedTuple):
    """The mild and then the strong views of a batch of clips."""

    views: Views
    """2 · clips of them."""
    group: Tensor
    """[2 · clips]; views with the same number are of one speaker at one strength."""
    labels: Labels
    """[2 · clips] each."""


def make_batch(
    recordings: Recordings,
    labels: Labels,
    chosen: Sequence[int],
    groups: Sequence[int],
    settings: EncoderSettings,
) -> EncoderBatch:
    """Two views of each of the chosen clips."""
    places = torch.tensor(chosen, device=recordings.samples.device)
    samples = round(settings.longest_s * RATE_HZ)
    pair = [
        vary(recordings, places, samples, settings.augmentation, strength)
        for strength in (settings.mild, 1.0)
    ]
    views = Views(*(torch.cat(both) for both in zip(*pair, strict=True)))
    group = torch.tensor(groups, device=places.device)
    strong = torch.where(group == UNKNOWN, group, group + len(groups))
    twice = torch.cat((places, places))
    return EncoderBatch(
        views, torch.cat((group, strong)), {name: value[twice] for name, value in labels.items()}
    )


def encoder_losses(
    model: SpeechEncoder, batch: EncoderBatch, settings: EncoderSettings
) -> Mapping[str, Tensor]:
    """Scalars: "loss" and the parts that it is the weighted sum of."""
    weights, labels = settings.losses, batch.labels
    encoded: Encoded = model(batch.views.mel, batch.views.mask)
    same = speaker_mates(batch.group)
    # Both views of a clip are read with a baseline, or both without.
    half = torch.rand(len(same) // 2, device=same.device) < settings.baselines
    based = half.repeat(2) & (same.sum(1) > 2)
    parts: dict[str, Tensor] = {}
    total = weights.commitment * encoded.commitment
    for number, stage in enumerate(encoded.stages):
        readout = model.readouts[number]
        vector = readout.pool(stage, encoded.mask)  # type: ignore[operator]
        baseline = same.to(vector) @ vector / same.sum(1, keepdim=True).clamp(min=1)
        reading = Reading(*(one.float() for one in readout(vector, baseline, based.to(vector))))
        found = reading_losses(reading, labels, batch.views.voice_ratio, weights)
        total = total + (weights.quantised if number else 1.0) * found["loss"]
        parts |= {f"{name}_{number}": value for name, value in found.items() if name != "loss"}
    parts["syllables"] = syllable_loss(encoded.syllables, labels["syllables"], batch.views.whole)
    parts["commitment"] = encoded.commitment
    return {"loss": total + weights.syllables * parts["syllables"], **parts}


def speaker_mates(group: Tensor) -> Tensor:
    """Which clips give which a baseline: others of its group, [batch, batch]."""
    same = (group[:, None] == group[None]) & (group[:, None] != UNKNOWN)
    return same & ~torch.eye(len(group), dtype=torch.bool, device=group.device)


def reading_losses(
    reading: Reading, labels: Labels, voice_ratio: Tensor, weights: LossWeights
) -> Mapping[str, Tensor]:
    """The losses of one readout: "loss", and "emotion" and "consistency" of it."""
    emotion = functional.cross_entropy(
        reading.emotion,
        labels["emotion"],
        ignore_index=UNKNOWN,
        label_smoothing=weights.label_smoothing,
    )
    consistency = view_divergence(reading.emotion)
    same_voice = voice_ratio.log().abs() < _SAME_VOICE
    known = ((labels["female"] != UNKNOWN) & same_voice).float()
    gender = functional.binary_cross_entropy_with_logits(
        reading.female, labels["female"].clamp(min=0).float(), reduction="none"
    )
    arousal = functional.smooth_l1_loss(
        reading.arousal, labels["arousal"], reduction="none", beta=0.3
    )
    loss = (
        emotion
        + weights.consistency * consistency
        + weights.gender * (gender * known).mean()
        + weights.vocalization
        * functional.cross_entropy(reading.vocalization, labels["vocalization"])
        + weights.arousal * (arousal * labels["arousal_weight"]).mean()
    )
    return {"loss": loss, "emotion": emotion, "consistency": consistency}


def view_divergence(logits: Tensor) -> Tensor:
    """Mean Jensen–Shannon divergence, in nats, of the first half of a batch from the second."""
    first, second = logits.log_softmax(1).chunk(2)
    middle = torch.logaddexp(first, second) - torch.log(torch.tensor(2.0))
    parts = [(one.exp() * (one - middle)).sum(1) for one in (first, second)]
    return ((parts[0] + parts[1]) / 2).mean()


def syllable_loss(predicted: Tensor, syllables: Tensor, whole: Tensor) -> Tensor:
    """Absolute error of the logarithm of how many syllables are spoken, over whole clips of three
    or more; all [batch]."""
    counted = ((syllables > 2) & whole).float()
    error = (predicted.clamp(min=0.1).log() - syllables.clamp(min=1).log()).abs()
    return (error * counted).sum() / counted.sum().clamp(min=1)


def as_input(samples: Tensor) -> Tensor:
    """Whisper's spectrogram of one clip of int16 samples, [1, frames, 80]."""
    mel = log_mel(samples[None].float() / 32768)
    return (mel.maximum(mel.amax() - 8.0).transpose(1, 2) + 4) / 4


@torch.no_grad()
def recalls_of(
    model: SpeechEncoder,
    recordings: Recordings,
    places: Sequence[int],
    labels: Labels,
    corpora: Sequence[str],
) -> dict[str, float]:
    """Macro recall of emotion by corpus of the clips at `places`, whose labels and corpora are
    given, from the continuous vectors and from the exported codebooks."""
    hits: dict[tuple[str, str, int], list[bool]] = defaultdict(list)
    stages = {"": 0, "_tokens": model.config.exported}
    with evaluating(model):
        for place, emotion, corpus in zip(places, labels["emotion"].tolist(), corpora, strict=True):
            if emotion == UNKNOWN:
                continue
            encoded = _encode_whole(model, recordings, place)
            for name, stage in stages.items():
                found = model.read(encoded, stage).emotion.argmax()
                hits[name, corpus, emotion].append(int(found) == emotion)
    by_corpus: dict[str, list[float]] = defaultdict(list)
    for (name, corpus, _), right in hits.items():
        by_corpus[f"recall_{corpus}{name}"].append(float(np.mean(right)))
    return {name: float(np.mean(classes)) for name, classes in by_corpus.items()}


def _encode_whole(model: SpeechEncoder, recordings: Recordings, place: int) -> Encoded:
    """A clip as it is heard, up to 14 s of it."""
    start = int(recordings.starts[place])
    count = min(int(recordings.lengths[place]), round(_LONGEST_EVALUATED_S * RATE_HZ))
    silence = round(SILENCE_S * RATE_HZ)
    samples = functional.pad(recordings.samples[start : start + count], (silence, silence))
    mel = as_input(samples)
    encoded: Encoded = model(mel, torch.ones(mel.shape[:2], dtype=torch.bool, device=mel.device))
    return encoded


@torch.no_grad()
def read_whole(model: SpeechEncoder, recordings: Recordings, place: int) -> Reading:
    """The continuous readout of a clip as it is heard."""
    return model.read(_encode_whole(model, recordings, place))


@torch.no_grad()
def vectors_of(
    model: SpeechEncoder, recordings: Recordings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The vector of each clip, [clips, 2 · width], and how many syllables are heard, [clips]."""
    vectors, syllables = [], []
    with evaluating(model):
        readout: Any = model.readouts[0]
        for place in range(len(recordings.starts)):
            encoded = _encode_whole(model, recordings, place)
            vectors.append(readout.pool(encoded.stages[0], encoded.mask)[0].float().cpu().numpy())
            syllables.append(float(encoded.syllables))
    return np.stack(vectors), np.array(syllables, np.float32)


def as_recordings(waveforms: Sequence[Waveform], device: torch.device) -> Recordings:
    """Waveforms in memory as recordings on a device."""
    samples = [np.rint(one.samples * 32767).astype(np.int16) for one in waveforms]
    lengths = torch.tensor([len(one) for one in samples])
    starts = lengths.cumsum(0) - lengths
    return Recordings(
        *(t.to(device) for t in (torch.from_numpy(np.concatenate(samples)), starts, lengths))
    )


@torch.no_grad()
def familiarise(
    model: SpeechEncoder, vectors: NDArray[np.float32], train: int, *, seed: int
) -> None:
    """Set what the model calls familiar: k-means centres of the first `train` clips' vectors, and
    the quantiles of the other clips' distances to the nearest; of all, where there are no
    others."""
    from sklearn.cluster import KMeans

    count = min(model.config.landmarks, train)
    means = KMeans(count, n_init=1, max_iter=30, random_state=seed_of(seed) % 2**32)
    centres = means.fit(vectors[:train]).cluster_centers_
    centres = np.resize(centres, (model.config.landmarks, centres.shape[1])).astype(np.float32)
    others = vectors[train:] if len(vectors) > train else vectors
    distances = [np.square(centres - one).mean(1).min() for one in others]
    quantiles = np.quantile(distances, np.linspace(0, 1, QUANTILES))
    model.landmarks.copy_(torch.from_numpy(centres))
    model.distances.copy_(torch.from_numpy(quantiles))


def syllable_scale(spoken: Tensor, heard: NDArray[np.float32]) -> float:
    """The median of the syllables of transcripts, [clips], to those heard, over clips of three or
    more; 1 where there is none."""
    counted = spoken.numpy() > 2
    ratios = spoken.numpy()[counted] / np.maximum(heard[counted], 0.1)
    return float(np.median(ratios)) if len(ratios) else 1.0


@torch.no_grad()
def tell_sounds(
    model: SpeechEncoder, people: NDArray[np.float32], sounds: NDArray[np.float32]
) -> None:
    """Set the model's `lifeless`: a logistic regression of the vectors of sounds that no person
    makes against those of people, both weighing as much."""
    from sklearn.linear_model import LogisticRegression

    is_sound = np.arange(len(people) + len(sounds)) >= len(people)
    fitted = LogisticRegression(C=0.1, class_weight="balanced", max_iter=500)
    fitted.fit(np.concatenate((people, sounds)), is_sound)
    weights = np.append(fitted.coef_[0], fitted.intercept_)
    model.lifeless.copy_(torch.from_numpy(weights))


ENCODER = Trainer(EncoderSettings, plan, train_encoder)
