"""The parts of the built-in encoder's loss: pure functions of what its heads say.

Training of the built-in speech encoder: `kind = "encoder"`.

From the quantised tokens the heads have to say emotion, gender and pace, and to rebuild the
signal (level, pitch, voicing and a coarse spectrum); what they need is what the tokens carry.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from aligncap.audio.files import load
from aligncap.data.manifest import Utterance, labelled, read_manifest
from aligncap.data.splits import validation_split
from aligncap.errors import DataError
from aligncap.recipes import Trainer
from aligncap.tokenizers.builtin import FRAMES_A_TOKEN, Features, encoder_input, measure_features
from aligncap.tokenizers.encoder import EncoderOutput, SpeechEncoder, save_encoder
from aligncap.tokenizers.encoder_data import (
    UNKNOWN,
    EncoderBatch,
    EncoderBatches,
    EncoderExample,
    EncoderSettings,
    FeatureStore,
    feature_bytes,
    make_batch,
    sampling_weights,
    store_features,
)
from aligncap.training.checkpoints import WeightAverage
from aligncap.training.devices import first_process_first, is_first_process
from aligncap.training.dry_run import (
    MANIFEST_CURE,
    checkpoints_bytes,
    count_parameters,
    needed_path,
    plan_table,
    training_memory,
    weight_bytes,
)
from aligncap.training.loop import evaluating, every, fit
from aligncap.values import EMOTIONS


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


def signal_loss(reading: EncoderOutput, batch: EncoderBatch) -> Tensor:
    """Squared error of each token's mean input: first view and prosody."""
    spectrum = functional.avg_pool2d(batch.views[:, :1], (FRAMES_A_TOKEN, 1))[:, 0]
    prosody = functional.avg_pool1d(batch.prosody.transpose(1, 2), FRAMES_A_TOKEN).transpose(1, 2)
    error = (reading.signal - torch.cat((spectrum, prosody), 2)).square().mean(2)
    return (error * reading.heard).sum() / reading.heard.sum()


_DECAY = 0.998


def plan(settings: EncoderSettings, _: Path) -> Mapping[str, object]:
    """What a dry run says of it ; DataError where the manifests do not fit."""
    train: list[Utterance] | None = None
    if all(path.exists() for path in settings.data):
        train, _kept_back = validation_split(
            one for path in settings.data for one in read_manifest(path)
        )
        drawn(train, settings)
    held_out = sum(one.speaker in settings.hold_out for one in train or ())
    note = "a manifest is not here, so it is not known how many clips there are"
    if train is not None:
        note = f"{len(train) - held_out:,} clips to train on, {held_out:,} held out"
    model = SpeechEncoder(settings.model)
    return plan_table(
        [needed_path("manifest", path, cure=MANIFEST_CURE) for path in settings.data],
        parameters=count_parameters({"encoder": sum(p.numel() for p in model.parameters())}, model),
        memory=training_memory(model, average=True),
        disk={
            "checkpoints": checkpoints_bytes(model, average=True),
            "encoder": weight_bytes(model),
            "features": None if train is None else feature_bytes(train),
        },
        notes=[note, f"features are kept in {settings.features}, and measured where they are not"],
    )


def train_encoder(settings: EncoderSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Train the encoder; the averaged weights go to `output`/encoder. Returns macro recalls on
    the speakers held out, where there are any."""
    corpus = prepare(settings)
    torch.manual_seed(settings.training.seed)
    model = SpeechEncoder(settings.model)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = WeightAverage(model, settings.training.ema_decay or _DECAY)

    def report() -> Mapping[str, float]:
        return recalls(model, corpus)

    hooks = (every(settings.evaluate_every, report),) if corpus.held_out else ()
    step = EncoderStep(model, settings)
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
    run_settings = settings.training
    fit(model, step, batches, run_settings, output, resume=resume, hooks=hooks, average=average)
    with average.applied():
        finished = balanced(model, corpus.emotion_shares, settings.prior_weight)
    with first_process_first():
        if is_first_process():
            save_encoder(output / "encoder", finished)
    return recalls(finished, corpus)


def balanced(model: SpeechEncoder, shares: NDArray[np.float64], weight: float) -> SpeechEncoder:
    """A copy whose emotion logits are less by `weight` · log share, `shares` [8] being how often
    each emotion was heard in training (post-hoc logit adjustment, Menon et al. 2021).

    What is judged is the mean recall over emotions, in which a rare one counts like any other. An
    emotion that was never heard keeps its logit.
    """
    copied = deepcopy(model)
    heard = torch.from_numpy(np.where(shares > 0, shares, 1.0)).float()
    with torch.no_grad():
        copied.emotion.bias.sub_(weight * heard.log())
    return copied


@dataclass(frozen=True)
class Prepared:
    """Everything that is heard in a run."""

    store: FeatureStore
    clips: Sequence[EncoderExample]
    weights: NDArray[np.float64]
    """How often each clip is drawn; 0 for those held out."""
    held_out: Sequence[int]
    """Clips of the speakers held out."""

    @property
    def emotion_shares(self) -> NDArray[np.float64]:
        """The share of labelled draws that each emotion has, [8]."""
        emotions = np.array([clip.emotion for clip in self.clips])
        drawn = self.weights * (emotions != UNKNOWN)
        sums = np.bincount(emotions.clip(min=0), drawn, len(EMOTIONS))
        shares: NDArray[np.float64] = sums / max(sums.sum(), 1e-12)
        return shares


def prepare(settings: EncoderSettings) -> Prepared:
    """Measure (or read) features and labels; no validation speaker is among them."""
    utterances = [one for path in settings.data for one in read_manifest(path)]
    train, _ = validation_split(utterances)
    clips, weights, held_out = drawn(train, settings)
    store = store_features(settings.features, [one.path for one in train], measured)
    return Prepared(store, clips, weights, held_out)


def drawn(
    train: Sequence[Utterance], settings: EncoderSettings
) -> tuple[list[EncoderExample], NDArray[np.float64], list[int]]:
    """What is taught of each clip, how often it is drawn, and which are held out; DataError where
    none is left or a corpus has no share."""
    clips = [EncoderExample(one.corpus or "", *labels(one)) for one in train]
    kept = np.array([one.speaker not in settings.hold_out for one in train], dtype=bool)
    weights = np.zeros(len(clips))
    taught = [clip for clip, keep in zip(clips, kept, strict=True) if keep]
    if not taught:
        raise DataError("no clip is left to train on; shorten hold_out or list another manifest")
    weights[kept] = sampling_weights(taught, settings.shares)
    return clips, weights, np.flatnonzero(~kept).tolist()


def measured(path: Path) -> Features:
    """The features of a file."""
    return measure_features(load(path))


def labels(utterance: Utterance) -> tuple[int, int]:
    """(emotion, gender) as numbers, as far as they are known and relied on."""
    known = labelled(utterance)
    emotion = UNKNOWN if known.emotion is None else EMOTIONS.index(known.emotion)
    return emotion, {"female": 1, "male": 0}.get(known.gender or "", UNKNOWN)


class EncoderStep:
    """The loss of one batch, and its parts."""

    def __init__(self, model: SpeechEncoder, settings: EncoderSettings) -> None:
        self._model, self._settings = model, settings

    def __call__(self, batch: EncoderBatch) -> Mapping[str, Tensor]:
        """Scalars: "loss" and what it is made of."""
        rounding = batch.number >= self._settings.quantize_after
        reading = self._model(batch.views, batch.prosody, batch.heard, quantize=rounding)
        losses = self._settings.losses
        parts = {
            "emotion": emotion_loss(reading.emotion, batch.emotion, losses.label_smoothing),
            "gender": gender_loss(reading.gender, batch.gender),
            "pace": pace_loss(reading.pace, batch.pace),
            "signal": signal_loss(reading, batch),
            "commitment": reading.commitment,
        }
        total = sum((getattr(losses, name) * part for name, part in parts.items()), torch.zeros(()))
        return {"loss": total, **parts}


def recalls(model: SpeechEncoder, corpus: Prepared) -> dict[str, float]:
    """Macro recall of the emotion and accuracy of the gender, by corpus, of speakers held out."""
    emotion: dict[str, dict[int, list[bool]]] = defaultdict(lambda: defaultdict(list))
    gender: dict[str, list[bool]] = defaultdict(list)
    ordered = sorted(corpus.held_out, key=corpus.store.frames)
    with evaluating(model):
        for start in range(0, len(ordered), 64):
            chosen = ordered[start : start + 64]
            clips = [corpus.clips[n] for n in chosen]
            batch = make_batch(
                [encoder_input(corpus.store[n]) for n in chosen], clips, [math.nan] * len(clips)
            )
            reading = model(batch.views, batch.prosody, batch.heard)
            named = reading.emotion.argmax(1).tolist()
            female = (reading.gender > 0).tolist()
            for clip, guess, voice in zip(clips, named, female, strict=True):
                if clip.emotion != UNKNOWN:
                    emotion[clip.corpus][clip.emotion].append(guess == clip.emotion)
                if clip.gender != UNKNOWN:
                    gender[clip.corpus].append(voice == bool(clip.gender))
    found = {
        f"recall_{name}": float(np.mean([np.mean(hits) for hits in classes.values()]))
        for name, classes in emotion.items()
    }
    found |= {f"gender_{name}": float(np.mean(hits)) for name, hits in gender.items()}
    return found


ENCODER = Trainer(EncoderSettings, plan, train_encoder)
