"""Training of what counts the encoder's syllables (`SyllableReadout`): recipes of kind "pace".

It is held to the syllables of transcripts. Whisper's lower layers, which are not trained, are heard
anew for each batch, every other one varied (`augmentation`), so nothing is kept but the samples.
Batches depend on their number only.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from aligncap.data.manifest import Utterance
from aligncap.data.syllables import count_syllables
from aligncap.errors import DataError
from aligncap.recipes import Count, Trainer, recipe_section
from aligncap.storage import hash_of_file
from aligncap.tokenizers.augmentation import Augmentation, Recordings
from aligncap.tokenizers.cache import store_waveforms
from aligncap.tokenizers.encoder import SpeechEncoder, load_encoder, rebuilt, save_encoder
from aligncap.tokenizers.encoder_training import (
    load_utterance,
    on_device,
    read_clips,
    syllable_loss,
    syllable_scale,
)
from aligncap.tokenizers.readout_training import AS_THEY_ARE, sampling_weights, varied_views
from aligncap.training import dry_run
from aligncap.training.loop import fit
from aligncap.training.settings import FitSettings, seed_of

_FEWEST = 3
"""Syllables of a clip that counts."""
_TOGETHER = 8
"""Clips of one pass through Whisper."""
_NORMALISED_BY = 512
"""Clips that mean and deviation of the vectors are taken of."""


@recipe_section
class PaceSettings:
    """A recipe that trains what counts syllables."""

    encoder: Path
    """Folder of a trained encoder with a second readout."""
    data: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Manifests; their clips with transcripts are taken."""
    shares: Mapping[str, float]
    """How often each corpus is sampled, by name, relative to the others."""
    waveforms: Path
    """Folder that keeps the samples of all utterances from one run to the next."""
    hold_out: tuple[str, ...] = ()
    """Corpora or speakers left out of training, by name, and evaluated as validation speakers."""
    hidden: Count = 48
    augmentation: Augmentation = Augmentation()
    """How the clips of every other batch are varied."""
    longest_s: float = 10.0
    """Longer clips are cut, and do not count then."""
    batch_size: Count = 32
    training: FitSettings


def plan(settings: PaceSettings, output: Path) -> Mapping[str, object]:
    """The plan of a dry run."""
    del output
    hint = "aligncap train recipes/mini/readout.toml"
    return dry_run.plan_table(
        [
            dry_run.needed_path("encoder", settings.encoder, hint=hint),
            *(
                dry_run.needed_path("manifest", path, hint=dry_run.MANIFEST_HINT)
                for path in settings.data
            ),
        ],
        notes=["about 25 clips a second on a core"],
    )


class PaceBatch(NamedTuple):
    """Some clips as they are heard."""

    vectors: Tensor
    """[batch, time, Whisper's width]"""
    mask: Tensor
    syllables: Tensor
    """[batch]"""
    whole: Tensor
    """Whether nothing of a clip is cut off, [batch]."""


def train_pace(settings: PaceSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Train it; the encoder with it goes to `output`/encoder. Returns the deviation of the
    logarithm of syllables heard over written, by corpus of the validation speakers."""
    train, evaluated = (
        [one for one in part if syllables_of(one) >= _FEWEST]
        for part in read_clips(settings.data, settings.hold_out)
    )
    if not train:
        places = ", ".join(map(str, settings.data))
        raise DataError(f"{places}: no clip to learn from has {_FEWEST} syllables of text; add one")
    everyone = [*train, *evaluated]
    store = store_waveforms(settings.waveforms, [one.path for one in everyone], load_utterance)
    recordings = on_device(store, torch.device("cpu"))
    counts = torch.tensor([float(syllables_of(one)) for one in everyone])
    weights = sampling_weights(train, settings.shares)
    torch.manual_seed(settings.training.seed)
    encoder = _with_readout(load_encoder(settings.encoder), settings)
    readout = encoder.syllables
    assert readout is not None

    def heard(places: Tensor, augmentation: Augmentation) -> PaceBatch:
        return _heard(encoder, recordings, places, counts, augmentation, settings.longest_s)

    def batch_at(number: int) -> PaceBatch:
        seed = (settings.training.seed, 29, number)
        chosen = np.random.default_rng(seed).choice(len(train), settings.batch_size, p=weights)
        torch.manual_seed(seed_of(*seed))
        return heard(torch.from_numpy(chosen), settings.augmentation if number % 2 else AS_THEY_ARE)

    def step(batch: PaceBatch) -> Mapping[str, Tensor]:
        predicted = readout(batch.vectors, batch.mask)
        return {"loss": syllable_loss(predicted, batch.syllables, batch.whole)}

    some = heard(torch.randperm(len(train))[:_NORMALISED_BY], AS_THEY_ARE)
    vectors = some.vectors[some.mask]
    readout.centre.copy_(vectors.mean(0))
    readout.spread.copy_(vectors.std(0) + 1e-3)
    inputs = {str(path): hash_of_file(path) for path in settings.data}
    fit(readout, step, batch_at, settings.training, output, resume=resume, inputs=inputs)
    readout.eval()
    own = torch.zeros(len(evaluated))
    with torch.inference_mode():
        for start in range(0, len(evaluated), _TOGETHER):
            part = torch.arange(start, min(start + _TOGETHER, len(evaluated)))
            batch = heard(len(train) + part, AS_THEY_ARE)
            own[part] = readout(batch.vectors, batch.mask)
    spoken = counts[len(train) :]
    encoder.syllable_scale.fill_(syllable_scale(spoken, own.numpy()))
    save_encoder(output / "encoder", encoder.eval())
    return deviations([one.corpus or "" for one in evaluated], own, spoken)


def syllables_of(clip: Utterance) -> int:
    """Syllables of a clip's transcript; 0 where it cannot be told."""
    return count_syllables(clip.text or "", clip.language) or 0


def deviations(corpora: Collection[str], heard: Tensor, spoken: Tensor) -> dict[str, float]:
    """The standard deviation of the logarithm of syllables heard over spoken, by corpus."""
    names = np.array(list(corpora))
    errors = (heard.clamp(min=0.1).log() - spoken.log()).numpy()
    return {f"deviation_{name}": float(errors[names == name].std()) for name in sorted(set(names))}


def _with_readout(encoder: SpeechEncoder, settings: PaceSettings) -> SpeechEncoder:
    """The encoder with a new readout of syllables; DataError where it has no layers for it."""
    if not encoder.config.statistics_layers:
        raise DataError(
            f"{settings.encoder}: has none of Whisper's layers as they came; train its second "
            "readout first: aligncap train recipes/mini/readout.toml"
        )
    return rebuilt(encoder, ("syllables.",), syllable_hidden=settings.hidden)


@torch.no_grad()
def _heard(
    encoder: SpeechEncoder,
    recordings: Recordings,
    places: Tensor,
    counts: Tensor,
    augmentation: Augmentation,
    longest_s: float,
) -> PaceBatch:
    """Some recordings, varied; those of similar length are heard together."""
    order = recordings.lengths[places].argsort(stable=True)
    found, masks, whole = [], [], []
    for some in torch.split(places[order], _TOGETHER):
        views = varied_views(recordings, some, augmentation, longest_s)
        masks.append(views.mask[:, ::2])
        found.append(encoder.as_it_came(encoder.whisper.convolved(views.mel), masks[-1])[-1])
        whole.append(views.whole)
    longest = max(one.shape[1] for one in masks)
    vectors = [functional.pad(one, (0, 0, 0, longest - one.shape[1])) for one in found]
    mask = [functional.pad(one, (0, longest - one.shape[1])) for one in masks]
    own = order.argsort()
    return PaceBatch(
        torch.cat(vectors)[own], torch.cat(mask)[own], counts[places], torch.cat(whole)[own]
    )


PACE = Trainer(PaceSettings, plan, train_pace)
