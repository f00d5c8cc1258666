"""Training of the encoder's second readout of emotion (`statistics`): recipes of kind "readout".

What the readout reads of every clip, as it is and varied (`augmentation`), is computed once by a
pretrained Whisper's lower layers, and kept. The readout then learns in minutes on a CPU: corpora
are drawn by their shares, clips are mixed with each other (Zhang et al. 2018), and of most the
distance from a baseline is read too, by a network of its own: the mean of some of the speaker's
other clips, now and then of neutral ones alone. Batches depend on their number only.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from aligncap.data.manifest import Utterance
from aligncap.errors import DataError
from aligncap.metrics.claims import macro_recall
from aligncap.recipes import Count, Share, Trainer, recipe_section
from aligncap.storage import hash_of, hash_of_file
from aligncap.tokenizers.augmentation import Augmentation, Recordings, Views, vary
from aligncap.tokenizers.builtin import SILENCE_S, WHISPER_HOP
from aligncap.tokenizers.cache import store_waveforms
from aligncap.tokenizers.encoder import SpeechEncoder, load_encoder, rebuilt, save_encoder
from aligncap.tokenizers.encoder_training import (
    load_utterance,
    on_device,
    read_clips,
    read_whole,
)
from aligncap.tokenizers.statistics import StatisticsReadout, distribution
from aligncap.tokenizers.whisper import load_whisper
from aligncap.training import dry_run
from aligncap.training.loop import fit
from aligncap.training.settings import FitSettings, seed_of
from aligncap.values import EMOTIONS, RATE_HZ

Floats = NDArray[np.float32]

AS_THEY_ARE = Augmentation(
    speed_share=0, tempo_share=0, response=0, room=0, telephone=0, low_pass=0, noise=0, level=0,
    floor=0, padding=0, masks=0,
)  # fmt: skip
_TOGETHER, _CHUNK = 8, 512
"""Clips of one pass through Whisper, and of one file."""
_AROUND_S = 1.0
"""Silence before and after a clip together, at most."""


@recipe_section
class ReadoutSettings:
    """A recipe that trains the encoder's second readout."""

    encoder: Path
    """Folder of a trained encoder."""
    data: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Manifests."""
    shares: Mapping[str, float]
    """How often each corpus is sampled, by name, relative to the others."""
    waveforms: Path
    """Folder that keeps the samples of all utterances from one run to the next, and what is heard
    of them."""
    start: str = "openai/whisper-tiny"
    """The Whisper whose layers are read: a name on the hub, a folder of transformers or of
    CTranslate2. Its convolutions must be those that the encoder started from."""
    hold_out: tuple[str, ...] = ()
    """Corpora or speakers left out of training, by name, and evaluated as validation speakers."""
    layers: Count = 2
    copies: tuple[Augmentation, ...] = (Augmentation(),)
    """How each training clip is varied; one copy of it for each, beside the clip as it is."""
    longest_s: float = 10.0
    """Longer clips are cut."""
    batch_size: Count = 256
    baselines: Share = 0.9
    """Share of clips that are read beside their speaker's baseline too."""
    neutral: Share = 0.25
    """Of these, the share whose baseline is made of neutral clips alone."""
    mixup: float = 0.4
    """Both parameters of the Beta distribution by which two clips are mixed."""
    label_smoothing: float = 0.1
    share: tuple[float, float] = (0.4, 0.3)
    """What the encoder's own readout counts beside this one, without a speaker's baseline and
    with."""
    temperature: tuple[float, float] = (1.0, 1.0)
    """Of the joined probabilities, without and with a baseline, chosen on validation speakers."""
    training: FitSettings


def plan(settings: ReadoutSettings, output: Path) -> Mapping[str, object]:
    """The plan of a dry run."""
    del output
    notes = ["what the readout reads is computed once, about 20 clips a second on a core"]
    return dry_run.plan_table(
        [
            dry_run.needed_path(
                "encoder", settings.encoder, hint="aligncap train recipes/mini/encoder.toml"
            ),
            *(
                dry_run.needed_path("manifest", path, hint=dry_run.MANIFEST_HINT)
                for path in settings.data
            ),
            dry_run.Needed("pretrained Whisper", settings.start),
        ],
        notes=notes,
    )


def train_readout(settings: ReadoutSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Train the readout; the encoder with it goes to `output`/encoder. Returns macro recalls on the
    validation speakers and what is held out, with and without a baseline."""
    train, evaluated = (
        [one for one in part if one.emotion is not None]
        for part in read_clips(settings.data, settings.hold_out)
    )
    # In an order that does not depend on what is held out: a clip is heard once for all trainings.
    everyone = sorted([*train, *evaluated], key=lambda one: str(one.path))
    learnt_from, apart = _places(train, everyone), _places(evaluated, everyone)
    store = store_waveforms(settings.waveforms, [one.path for one in everyone], load_utterance)
    recordings = on_device(store, torch.device("cpu"))
    encoder = _with_readout(load_encoder(settings.encoder), settings)
    clean, *copies = (
        statistics_of(encoder, recordings, store.fingerprint, settings, number)
        for number in range(len(settings.copies) + 1)
    )
    torch.manual_seed(settings.training.seed)
    readout = encoder.statistics
    assert readout is not None
    readout.share.copy_(torch.tensor(settings.share))
    batches = ReadoutBatches(train, [one[learnt_from] for one in (clean, *copies)], settings)
    normalise(readout, clean[learnt_from], batches.weights, [one.speaker for one in train])

    def step(batch: ReadoutBatch) -> Mapping[str, Tensor]:
        return {"loss": readout_loss(readout, batch)}

    inputs = {str(path): hash_of_file(path) for path in settings.data}
    fit(readout, step, batches, settings.training, output, resume=resume, inputs=inputs)
    encoder.temperature.copy_(torch.tensor(settings.temperature))
    save_encoder(output / "encoder", encoder.eval())
    if not evaluated:
        return {}
    others = torch.cat([read_whole(encoder, recordings, place).emotion for place in apart])
    return recalls(readout, clean[apart], others, evaluated)


def _places(some: Sequence[Utterance], everyone: Sequence[Utterance]) -> list[int]:
    """Where each of some clips is among all of them."""
    places = {one.path: place for place, one in enumerate(everyone)}
    return [places[one.path] for one in some]


def _with_readout(encoder: SpeechEncoder, settings: ReadoutSettings) -> SpeechEncoder:
    """The encoder with Whisper's layers as they came, and with a new readout of them."""
    whisper = load_whisper(settings.start, settings.layers)
    if not torch.equal(whisper.second.weight, encoder.whisper.second.weight):
        raise DataError(
            f"{settings.start}: is not the Whisper that {settings.encoder} started from; set start "
            "to that one"
        )
    found = rebuilt(encoder, ("pretrained.", "statistics."), statistics_layers=settings.layers)
    found.pretrained.load_state_dict(whisper.layers.state_dict())
    return found


@torch.inference_mode()
def statistics_of(
    encoder: SpeechEncoder,
    recordings: Recordings,
    clips: str,
    settings: ReadoutSettings,
    number: int,
) -> Floats:
    """What the readout reads of copy `number` of all clips, the first of which is as they are,
    [clips, width]; what was kept of `clips`, their store's fingerprint, is not computed again."""
    from rich.console import Console
    from rich.progress import track

    augmentation = (AS_THEY_ARE, *settings.copies)[number]
    kept_by = {
        "clips": clips, "start": settings.start,
        "layers": settings.layers, "longest_s": settings.longest_s, "silence_s": SILENCE_S,
        "copy": asdict(augmentation), "number": number, "seed": settings.training.seed,
    }  # fmt: skip
    folder = settings.waveforms / f"statistics-{hash_of(repr(kept_by))[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    order = recordings.lengths.argsort(stable=True)
    found: Floats | None = None
    chunks = torch.split(order, _CHUNK)
    for place, chunk in enumerate(
        track(chunks, f"statistics, copy {number}", console=Console(stderr=True))
    ):
        file = folder / f"{place:04}.npy"
        if not file.exists():
            torch.manual_seed(seed_of(settings.training.seed, number, place))
            parts = [
                _of_some(encoder, recordings, some, augmentation, settings.longest_s)
                for some in torch.split(chunk, _TOGETHER)
            ]
            unfinished = file.with_suffix(".part.npy")
            np.save(unfinished, torch.cat(parts).numpy())
            unfinished.replace(file)
        values = np.load(file, allow_pickle=False)
        found = np.zeros((len(order), values.shape[1]), np.float32) if found is None else found
        found[chunk.numpy()] = values
    assert found is not None
    return found


def _of_some(
    encoder: SpeechEncoder,
    recordings: Recordings,
    places: Tensor,
    augmentation: Augmentation,
    longest_s: float,
) -> Tensor:
    """The statistics of a few recordings of similar length."""
    views = varied_views(recordings, places, augmentation, longest_s)
    outputs = encoder.as_it_came(encoder.whisper.convolved(views.mel), views.mask[:, ::2])
    return distribution(torch.cat(outputs, 2), views.mel, views.mask)


def varied_views(
    recordings: Recordings, places: Tensor, augmentation: Augmentation, longest_s: float
) -> Views:
    """Recordings as they are heard, varied; what is longer than `longest_s` is cut."""
    longest = min(int(recordings.lengths[places].max()), round(longest_s * RATE_HZ))
    samples = -(-(longest + round(_AROUND_S * RATE_HZ)) // WHISPER_HOP) * WHISPER_HOP
    return vary(recordings, places, samples, augmentation, 1.0)


class ReadoutBatch(NamedTuple):
    """Some clips as the readout reads them."""

    statistics: Tensor
    """[batch, features]"""
    baseline: Tensor
    """[batch, features]; zeros where there is none."""
    based: Tensor
    """1 where there is a baseline, [batch]."""
    emotion: Tensor
    """Shares of the emotions, [batch, 8]."""
    partner: Tensor
    """The clip of the batch that each is mixed with, [batch]; with a baseline or without, as it."""
    portion: Tensor
    """Of the clip itself in the mixture, [batch]."""


class ReadoutBatches:
    """The batches of a training, by their number."""

    def __init__(
        self, clips: Sequence[Utterance], copies: Sequence[Floats], settings: ReadoutSettings
    ) -> None:
        """`copies` are the statistics of the clips as they are, [clips or more, features], and of
        each variation. DataError for a corpus without a share."""
        self._copies, self._settings = copies, settings
        self._emotions = np.array([EMOTIONS.index(str(one.emotion)) for one in clips])
        self.weights = sampling_weights(clips, settings.shares)
        speakers: dict[str, list[int]] = defaultdict(list)
        for place, one in enumerate(clips):
            if one.speaker is not None:
                speakers[one.speaker].append(place)
        found = {name: np.array(places) for name, places in speakers.items()}
        self._mates = [found.get(one.speaker or "", np.array([], int)) for one in clips]
        # The clip as it is is drawn twice as often as each of its copies.
        shares = np.array([2.0] + [1.0] * (len(copies) - 1))
        self._copy_shares = shares / shares.sum()

    def __call__(self, number: int) -> ReadoutBatch:
        """Batch `number`."""
        settings = self._settings
        random = np.random.default_rng((settings.training.seed, 23, number))
        size = settings.batch_size
        chosen = random.choice(len(self.weights), size, p=self.weights)
        copies = random.choice(len(self._copies), size, p=self._copy_shares)
        statistics = np.stack(
            [self._copies[copy][clip] for copy, clip in zip(copies, chosen, strict=True)]
        )
        baseline, based = np.zeros_like(statistics), np.zeros(size, np.float32)
        for place, (copy, clip) in enumerate(zip(copies, chosen, strict=True)):
            others = self._baseline_of(clip, random)
            if len(others):
                baseline[place], based[place] = self._copies[copy][others].mean(axis=0), 1
        smoothing = settings.label_smoothing
        emotion = (1 - smoothing) * np.eye(len(EMOTIONS))[self._emotions[chosen]]
        emotion = np.asarray(emotion + smoothing / len(EMOTIONS), np.float32)
        partner = np.arange(size)
        for kind in (0, 1):
            alike = np.flatnonzero(based == kind)
            partner[alike] = random.permutation(alike)
        portion = random.beta(settings.mixup, settings.mixup, size).astype(np.float32)
        arrays = (statistics, baseline, based, emotion, partner, portion)
        return ReadoutBatch(*map(torch.from_numpy, arrays))

    def _baseline_of(self, clip: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Some of the speaker's other clips, from two to all; none where they are few, or for a
        share of clips."""
        mates = self._mates[clip]
        mates = mates[mates != clip]
        none: NDArray[np.int64] = mates[:0]
        if random.random() >= self._settings.baselines or len(mates) < 3:
            return none
        neutral = mates[self._emotions[mates] == EMOTIONS.index("neutral")]
        if random.random() < self._settings.neutral and len(neutral) > 1:
            mates = neutral
        count = min(len(mates), int(3 ** random.uniform(0.6, 4)))
        drawn: NDArray[np.int64] = random.choice(mates, count, replace=False)
        return drawn


def sampling_weights(
    clips: Sequence[Utterance], shares: Mapping[str, float]
) -> NDArray[np.float64]:
    """How likely each clip is drawn, [clips]: corpora by their shares, and a clip of it with the
    inverse root of how many the corpus has of its emotion. DataError for one without a share."""
    missing = {one.corpus or "" for one in clips} - set(shares)
    if missing:
        raise DataError(f"corpus {min(missing)!r} has no share; add it to [shares] of the recipe")
    sizes = Counter((one.corpus, one.emotion) for one in clips)
    weights = np.array([sizes[one.corpus, one.emotion] ** -0.5 for one in clips])
    totals: dict[str | None, float] = defaultdict(float)
    for one, weight in zip(clips, weights, strict=True):
        totals[one.corpus] += weight
    own = np.array([shares[one.corpus or ""] / totals[one.corpus] for one in clips])
    found: NDArray[np.float64] = weights * own / (weights * own).sum()
    return found


@torch.no_grad()
def normalise(
    readout: StatisticsReadout,
    clips: Floats,
    weights: NDArray[np.float64],
    speakers: Sequence[str | None],
) -> None:
    """Set what the readout normalises by: mean and deviation of the clips' statistics
    [clips, features] by their weights, and the mean deviation within speakers of eight clips or
    more."""
    centre = weights @ clips
    spread = np.sqrt(weights @ np.square(clips - centre)) + 1e-4
    places: dict[str, list[int]] = defaultdict(list)
    for place, speaker in enumerate(speakers):
        if speaker is not None:
            places[speaker].append(place)
    variances = [clips[own].var(axis=0) for own in places.values() if len(own) >= 8]
    within = np.sqrt(np.mean(variances, axis=0)) if variances else spread
    for buffer, values in (
        (readout.centre, centre),
        (readout.spread, spread),
        (readout.within, np.maximum(within, 1e-3 * spread)),
    ):
        buffer.copy_(torch.from_numpy(np.asarray(values, np.float32)))


def readout_loss(readout: StatisticsReadout, batch: ReadoutBatch) -> Tensor:
    """Mean cross-entropy, in nats, of mixtures of clips: of all by the network that reads the clip,
    and of those that have a baseline also by the one that reads the distance from it; a scalar."""
    own, distance = readout.features(batch.statistics, batch.baseline)
    known = batch.based.bool()

    def mixed(values: Tensor) -> Tensor:
        portion = batch.portion[:, None]
        return portion * values + (1 - portion) * values[batch.partner]

    emotion = mixed(batch.emotion)
    logits = torch.cat((readout.alone(mixed(own)), readout.against(mixed(distance)[known])))
    return functional.cross_entropy(logits, torch.cat((emotion, emotion[known])))


@torch.no_grad()
def recalls(
    readout: StatisticsReadout, clips: Floats, others: Tensor, utterances: Sequence[Utterance]
) -> dict[str, float]:
    """Macro recall by corpus of the joined readouts, alone ("recall_…") and beside the mean of the
    speaker's other clips ("recall_…_per_speaker")."""
    statistics = torch.from_numpy(clips)
    speakers = np.array([one.speaker or f"\0{one.id}" for one in utterances])
    baseline, based = torch.zeros_like(statistics), torch.zeros(len(clips))
    for speaker in set(speakers.tolist()):
        own = np.flatnonzero(speakers == speaker)
        if len(own) > 3:
            rest = (statistics[own].sum(0) - statistics[own]) / (len(own) - 1)
            baseline[own], based[own] = rest, 1
    readout.eval()
    found: dict[str, float] = {}
    for name, known in (("", torch.zeros_like(based)), ("_per_speaker", based)):
        named = readout.joined(readout(statistics, baseline, known), others, known).argmax(1)
        for corpus in sorted({one.corpus or "" for one in utterances}):
            places = [n for n, one in enumerate(utterances) if (one.corpus or "") == corpus]
            labels = [str(utterances[n].emotion) for n in places]
            found[f"recall_{corpus}{name}"] = macro_recall(
                labels, [EMOTIONS[int(named[n])] for n in places]
            )
    return found


READOUT = Trainer(ReadoutSettings, plan, train_readout)
