"""Training a joint speech-text space by symmetric InfoNCE with a learnt temperature (§2, CL-Align).

What is alike in meaning comes near: the space (`space`) serves the rival alignments before
decoding, retrieval of clue words (decision 5) and captioning without audio.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Annotated, Any, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from aligncap.alignment import examples
from aligncap.alignment.audio_tower import TowerSettings, new_tower
from aligncap.alignment.clap import LAION_FETCH
from aligncap.alignment.init_model import WIDTH, connector_meta
from aligncap.alignment.losses import symmetric_infonce
from aligncap.alignment.retrieval import write_retriever
from aligncap.alignment.sampling import BucketBatchSampler, stated_emotion, validation_samples
from aligncap.alignment.space import (
    LARGEST_SCALE,
    TOKENIZER_FILE,
    JointSpace,
    SpaceShape,
    TrainedSpace,
    load_space,
    space_fingerprint,
)
from aligncap.alignment.trainer import read_training_rows
from aligncap.captioner.checkpoint import (
    ENCODER_FOLDER,
    RUN_MODEL_FOLDER,
    copy_encoder_files,
    find_encoder,
)
from aligncap.captioner.connectors import open_connector
from aligncap.captioner.model import seeded
from aligncap.captioner.vocabulary import read_tokenizer, train_text_tokenizer
from aligncap.clues import acoustic_prompt, find_clues
from aligncap.data.grammar import split_plan
from aligncap.errors import DataError
from aligncap.recipes import Count, Share, Trainer, recipe_section
from aligncap.storage import atomic_folder, hash_of_file, write_atomic
from aligncap.tokenizers import KEPT
from aligncap.training import dry_run, loop
from aligncap.training.checkpoints import WeightAverage
from aligncap.training.devices import first_process_first, is_first_process
from aligncap.training.settings import FitSettings
from aligncap.values import SpeechTokens


@recipe_section
class SpaceSettings:
    """The towers of a new space, or one to go on from."""

    start: Path | None = None
    """Folder of a space that is trained further; the sizes are its own."""
    tower: TowerSettings | None = None
    """For rows that hold features: a connector that is trained against the texts of a pretrained
    space, which is all there is of it; the sizes are their own."""
    width: Count = 128
    """Numbers of a vector of the space."""
    hidden: Count = 192
    layers: Count = 2
    """Of the text tower."""
    heads: Count = 4
    text_vocabulary: Count = 2560
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if self.start is not None and self.tower is not None:
            raise ValueError("give start or tower, not both")
        return self


@recipe_section
class ContrastSettings:
    """What is held against each other."""

    act_share: Share = 0.25
    """Share of texts that are some of the caption's clues, as P_act, in place of the caption: so
    that clue words have a place of their own in the space."""
    frame_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of speech frames that are left out, sampled anew each time."""


@recipe_section
class SpaceValidation:
    """Losses and retrieval on the rows of split "validation"."""

    every: Count = 250
    """Steps between; the last step always has one."""
    rows: Count = 512
    """Rows used, spread over all there are."""


@recipe_section
class JointSettings:
    """A recipe of kind "joint"."""

    data: examples.DataSettings
    training: FitSettings
    model: SpaceSettings = field(default_factory=SpaceSettings)
    batch: examples.BatchSettings = field(
        default_factory=lambda: examples.BatchSettings(rows=64, captions=1)
    )
    """Clips of a batch: each is told from the texts of all others."""
    contrast: ContrastSettings = field(default_factory=ContrastSettings)
    validation: SpaceValidation = field(default_factory=SpaceValidation)


Rows = Sequence[examples.TrainingRow]


def text_of(row: examples.TrainingRow, sample: examples.Sample, act_share: float) -> str:
    """The text of a sample: its first caption without plan, or some of its clues."""
    rng = Random(sample.seed or 0)
    act = row.act.get(sample.language, "")
    if sample.seed is not None and act and rng.random() < act_share:
        clues = _clues_of(act, sample.language)
        if clues:
            kept = sorted(rng.sample(range(len(clues)), rng.randint(1, len(clues))))
            return acoustic_prompt([clues[place] for place in kept], sample.language)
    return split_plan(row.captions[sample.language][sample.captions[0]])[1]


@lru_cache(maxsize=20_000)
def _clues_of(act: str, language: str) -> Any:
    return find_clues(act, language)


def speech_of(
    row: examples.TrainingRow, sample: examples.Sample, frame_dropout: float
) -> SpeechTokens:
    """The speech of a sample, some frames left out in training."""
    speech = row.tokens
    if sample.seed is None or not frame_dropout:
        return speech
    drawn = np.random.default_rng(sample.seed).random(speech.codes.shape[1])
    kept = np.flatnonzero(drawn >= frame_dropout)
    return speech.of_frames(kept) if len(kept) else speech


def new_space(settings: SpaceSettings, rows: Rows, source: examples.SpeechSource, output: Path,
              seed: int) -> TrainedSpace:  # fmt: skip
    """The space to train: the start's, or a new one whose text tokenizer is trained on the rows'
    captions and kept in `output`. DataError where the start reads other speech tokens."""
    if settings.tower is not None:
        return new_tower(settings.tower, source.feature_width, seed=seed)
    if settings.start is not None:
        space = load_space(settings.start, dropout=settings.dropout)
        if space.shape.source.fingerprint != source.fingerprint:
            raise DataError(
                f"{settings.start}: reads speech tokens of {space.shape.source.fingerprint[:12]}, "
                f"the rows hold those of {source.fingerprint[:12]}; make the rows again"
            )
        return space
    file = output / TOKENIZER_FILE
    with first_process_first():
        if not file.exists():
            texts = dict.fromkeys(
                text
                for row in rows
                if row.split == "train"
                for some in (*row.captions.values(), tuple(row.act.values()))
                for text in (split_plan(one)[1] for one in some)
            )
            tokenizer = train_text_tokenizer(texts, settings.text_vocabulary)
            write_atomic(file, tokenizer.to_str(pretty=True))
    tokenizer = read_tokenizer(file)
    shape = SpaceShape(
        width=settings.width,
        hidden=settings.hidden,
        layers=settings.layers,
        heads=settings.heads,
        texts=tokenizer.get_vocab_size(with_added_tokens=True),
        source=source,
    )
    with seeded(seed):
        return JointSpace(shape, tokenizer, dropout=settings.dropout)


def train_joint(settings: JointSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Train a joint space; its folder is `output`/model. Returns it and the last losses."""
    rows, source = read_training_rows(settings.data.rows, needs_speech=True)
    output.mkdir(parents=True, exist_ok=True)
    space = new_space(settings.model, rows, source, output, settings.training.seed)
    contrast, sampler = settings.contrast, _sampler(settings, rows)

    def step(samples: Sequence[examples.Sample]) -> Mapping[str, Tensor]:
        texts = [text_of(rows[one.row], one, contrast.act_share) for one in samples]
        clips = [speech_of(rows[one.row], one, contrast.frame_dropout) for one in samples]
        scale = space.log_scale.clamp(max=LARGEST_SCALE)
        loss = symmetric_infonce(space.hear(clips), space.read(texts), scale)
        return {"loss": loss, "scale": scale.exp()}

    every, last = settings.validation.every, settings.training.steps
    chosen = validation_samples(
        rows, limit=settings.validation.rows, data=settings.data, captions=1
    )
    hook = loop.Hook(
        due=lambda number: number % every == 0 or number == last,
        call=lambda *_: validated(space, rows, chosen, settings.batch.rows),
    )
    inputs = {str(path): hash_of_file(path) for path in settings.data.rows}
    inputs |= {str(path): space_fingerprint(path) for path in _spaces(settings.model)}
    decay = settings.training.ema_decay
    average = None if decay is None else WeightAverage(space, decay)
    history = loop.fit(
        space, step, sampler.samples_at, settings.training, output,
        resume=resume, hooks=[hook], inputs=inputs, average=average,
    )  # fmt: skip
    if average is not None:
        average.copy_to_model()
    with first_process_first():
        if is_first_process():
            space.save(output / RUN_MODEL_FOLDER)
            if isinstance(space, JointSpace):
                _save_encoder(settings, space, rows, output / ENCODER_FOLDER)
    found: dict[str, float] = {}
    for line in history.log:
        found.update(line)
    return {"space": str(output / RUN_MODEL_FOLDER), **found}


def _spaces(settings: SpaceSettings) -> list[Path]:
    """The folder of the space that a run begins with, if it begins with one."""
    if settings.tower is not None:
        return [settings.tower.space]
    return [] if settings.start is None else [settings.start]


def _save_encoder(settings: JointSettings, space: JointSpace, rows: Rows, out: Path) -> None:
    """Put the tokenizer of the rows beside the space, the built-in one with the clue words; what an
    earlier space of the run left there goes."""
    source = space.shape.source
    folders = [path.parent for path in settings.data.rows]
    encoder = find_encoder(source.fingerprint, folders) if source.name in KEPT else None
    if encoder is None:
        return
    with atomic_folder(out) as partial:
        partial.rmdir()  # both make it
        if source.name == "builtin":
            write_retriever(space, rows, encoder, partial)
        else:
            copy_encoder_files(encoder, partial)


def _sampler(settings: JointSettings, rows: Rows) -> BucketBatchSampler:
    def length_of(sample: examples.Sample) -> int:
        codes = rows[sample.row].speech
        return 0 if codes is None else codes.shape[1]

    return BucketBatchSampler(
        rows,
        data=settings.data,
        batch=settings.batch,
        seed=settings.training.seed,
        length_of=length_of,
    )


def validated(
    space: TrainedSpace, rows: Rows, samples: Sequence[examples.Sample], size: int
) -> Mapping[str, float]:
    """The loss on validation samples in batches of `size`; the share of clips whose nearest text of
    all is their own, and that of those whose nearest text names their emotion. {} for no sample."""
    if not samples:
        return {}
    given = [rows[sample.row] for sample in samples]
    text = space.embed_texts([text_of(*both, 0.0) for both in zip(given, samples, strict=True)])
    speech = space.embed_speech([row.tokens for row in given])
    scale = min(float(space.log_scale.detach()), LARGEST_SCALE)  # vectors are not on its device
    parts = [(torch.from_numpy(speech[n : n + size]), torch.from_numpy(text[n : n + size]))
             for n in range(0, len(samples), size)]  # fmt: skip
    total = sum(float(symmetric_infonce(*pair, scale)) * len(pair[0]) for pair in parts)
    nearest = (speech @ text.T).argmax(1)
    emotions = [stated_emotion(row) for row in given]
    told = [(one, emotions[place]) for one, place in zip(emotions, nearest, strict=True) if one]
    return {
        "validation_loss": total / len(samples),
        "validation_recall_1": float((nearest == np.arange(len(nearest))).mean()),
        "validation_emotion_1": float(np.mean([a == b for a, b in told])) if told else 0.0,
    }


def plan_joint(settings: JointSettings, _: Path) -> Mapping[str, object]:
    """The dry run: the rows, the start, and the size of the towers."""
    if settings.model.tower is not None:
        return _plan_tower(settings, settings.model.tower)
    hint = "make it with a recipe of kind 'token-rows' or 'rows'"
    needed = [dry_run.needed_path("training rows", path, hint=hint) for path in settings.data.rows]
    start = settings.model.start
    if start is not None:
        hint = "train it with a recipe of kind 'joint'"
        needed.append(dry_run.needed_path("space to start from", start, hint=hint))
    here = [path for path in settings.data.rows if path.exists()]
    if start is not None and start.exists():
        space = load_space(start)
    elif start is None and here:
        model = settings.model
        shape = SpaceShape(
            width=model.width, hidden=model.hidden, layers=model.layers, heads=model.heads,
            texts=model.text_vocabulary, source=examples.read_source(here[0]),
        )  # fmt: skip
        with torch.device("meta"):
            space = JointSpace(shape, train_text_tokenizer(["a"], 300))
    else:
        return dry_run.plan_table(needed, notes=["its size is that of the rows' speech tokens"])
    trained = sum(one.numel() for one in space.parameters())
    return dry_run.plan_table(
        needed,
        parameters=dry_run.count_parameters({"towers": trained}, space),
        memory=dry_run.training_memory(space, average=settings.training.ema_decay is not None),
    )


def _plan_tower(settings: JointSettings, tower: TowerSettings) -> Mapping[str, object]:
    hint = "make it with a recipe of kind 'token-rows'"
    needed = [dry_run.needed_path("training rows", path, hint=hint) for path in settings.data.rows]
    needed.append(dry_run.needed_path("space of the texts", tower.space, hint=LAION_FETCH))
    begun = tower.connector.weights
    if begun is not None:
        hint = "make it with a recipe of kind 'joint' or 'ce'"
        needed.append(dry_run.needed_path("connector to begin with", begun, hint=hint))
    here = [examples.read_source(path) for path in settings.data.rows if path.exists()]
    width = here[0].feature_width if here else WIDTH
    with torch.device("meta"):
        connector = open_connector(connector_meta(tower.connector, width), tower.hidden)
    trained = sum(one.numel() for one in connector.parameters() if one.requires_grad)
    return dry_run.plan_table(
        needed,
        parameters=dry_run.count_parameters({"connector": trained}, connector),
        memory=dry_run.training_memory(connector, average=settings.training.ema_decay is not None),
        assumed={} if here else {"feature_width": width},
        notes=["not counted are the space of the texts and two layers to its width"],
    )


JOINT = Trainer(JointSettings, plan_joint, train_joint)
