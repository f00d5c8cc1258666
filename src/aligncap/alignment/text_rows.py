"""Training rows in which a caption's own vector stands for speech: text-only training (§5.2).

NoAudioCap and the alignments before decoding learn to write a caption from its vector in a joint
space; when captioning, speech takes its place. No sound, and nothing that was made of sound, is
read of a training row: captions alone.

    <output>/rows.jsonl     a row of each different caption, weighted by how often it is there
             encoder/       the space, its speech tokenizer, and the memory of captions
             captions/      the captions' vectors
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from aligncap.alignment.examples import (
    SpeechSource,
    TrainingRow,
    read_rows,
    write_rows,
)
from aligncap.alignment.joint_features import JointFeatures, open_joint, open_space, write_memory
from aligncap.alignment.rows import ROWS_FILE
from aligncap.alignment.space import JointSpace
from aligncap.captioner.checkpoint import ENCODER_FOLDER, copy_encoder_files, find_encoder
from aligncap.data.grammar import split_plan
from aligncap.errors import DataError
from aligncap.recipes import Trainer, recipe_section
from aligncap.tokenizers import KEPT
from aligncap.tokenizers.cache import TokenCache
from aligncap.tokenizers.features import feature_tokens
from aligncap.training import dry_run
from aligncap.values import SpeechTokens

VECTORS_FOLDER = "captions"


@recipe_section
class TextRowsSettings:
    """A recipe of kind "text-rows"."""

    rows: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Training rows, whose captions are taken."""
    space: Path
    """Folder of a joint space, or of a CLAP."""
    projected: bool = False
    """Whether speech is projected on the captions' vectors when captioning (CL+Proj-Align)."""
    validation: Literal["text", "speech"] = "text"
    """What stands for the speech of validation rows: the caption, as in training, or the speech,
    as when captioning."""


@dataclass(frozen=True, slots=True)
class Written:
    """A caption of training or validation rows, and how often it is there."""

    language: str
    text: str
    corpus: str
    act: str
    split: str


def captions_of(rows: Iterable[TrainingRow]) -> dict[Written, float]:
    """Each different caption of rows without its plan, and the sum of its rows' weights."""
    found: dict[tuple[str, str, str], Written] = {}
    weights: dict[Written, float] = {}
    for row in rows:
        for language, texts in row.captions.items():
            for text in texts:
                plain = split_plan(text)[1]
                act = row.act.get(language, "")
                new = Written(language, plain, row.corpus, act, row.split)
                one = found.setdefault((language, plain, row.split), new)
                weights[one] = weights.get(one, 0.0) + row.weight
    return weights


def plan_text_rows(settings: TextRowsSettings, _: Path) -> Mapping[str, object]:
    """The dry run: the rows and the space."""
    hint = "make it with a recipe of kind 'token-rows'"
    needed = [dry_run.needed_path("training rows", path, hint=hint) for path in settings.rows]
    hint = "train it with a recipe of kind 'joint', or fetch a CLAP"
    needed.append(dry_run.needed_path("joint space", settings.space, hint=hint))
    return dry_run.plan_table(needed, notes=["nothing is trained"])


def make_text_rows(
    settings: TextRowsSettings, output: Path, *, resume: bool
) -> Mapping[str, object]:
    """Write `output`/rows.jsonl and `output`/encoder; with `resume` they stay where they are.
    Returns how many rows there are."""
    path, encoder = output / ROWS_FILE, output / ENCODER_FOLDER
    if resume and path.exists():
        return {"rows": sum(1 for _ in read_rows(path)), "encoder": str(encoder)}
    rows = [row for file in settings.rows for row in read_rows(file)]
    written = captions_of(row for row in rows if row.split == "train")
    if not written:
        raise DataError(f"{settings.rows[0]}: no row of split 'train' has a caption")
    space = open_space(settings.space)
    vectors = space.embed_texts([one.text for one in written])
    shutil.rmtree(encoder, ignore_errors=True)
    shutil.copytree(settings.space, encoder)
    if isinstance(space, JointSpace):
        _copy_tokenizer(settings, space, encoder)
    if settings.projected:
        write_memory(encoder, vectors)
    options = {"projected": 1} if settings.projected else {}
    opened = open_joint(encoder, **options)
    with TokenCache(output / VECTORS_FOLDER, opened) as cache:
        source = SpeechSource.of(opened, options=options, store=str(cache.path.absolute()))
        made = [
            *_text_rows(cache, written, vectors),
            *_validation_rows(settings, rows, opened, cache),
        ]
    return {"rows": write_rows(path, source, made), "encoder": str(encoder)}


def _copy_tokenizer(settings: TextRowsSettings, space: JointSpace, encoder: Path) -> None:
    """Put the speech tokenizer of a space beside it, so that a model has all it needs."""
    source = space.shape.source
    folders = [settings.space, *(path.parent for path in settings.rows), settings.space.parent]
    found = find_encoder(source.fingerprint, folders) if source.name in KEPT else None
    if found is not None and not (encoder / ENCODER_FOLDER).exists():
        copy_encoder_files(found, encoder / ENCODER_FOLDER)


def _text_rows(
    cache: TokenCache, written: Mapping[Written, float], vectors: np.ndarray
) -> Iterator[TrainingRow]:
    for number, (one, weight) in enumerate(written.items()):
        kept = cache.put(feature_tokens(vectors[number : number + 1]))
        yield TrainingRow(
            id=f"{one.split}-{number}",
            corpus=one.corpus,
            captions={one.language: (one.text,)},
            speech=kept.codes,
            features=kept.features,
            split=one.split,
            weight=weight,
            act={one.language: one.act} if one.act else {},
        )


def _validation_rows(
    settings: TextRowsSettings,
    rows: Iterable[TrainingRow],
    opened: JointFeatures,
    cache: TokenCache,
) -> Iterator[TrainingRow]:
    chosen = [row for row in rows if row.split == "validation"]
    if settings.validation == "text":
        written = captions_of(chosen)
        vectors = opened.space.embed_texts([one.text for one in written])
        yield from _text_rows(cache, written, vectors)
        return
    for row in chosen:
        if row.speech is not None:
            vector = opened.embed_speech([SpeechTokens(row.speech)])
            kept = cache.put(feature_tokens(vector))
            plain = {
                language: tuple(split_plan(text)[1] for text in texts)
                for language, texts in row.captions.items()
            }
            yield replace(row, captions=plain, speech=kept.codes, features=kept.features)


TEXT_ROWS = Trainer(TextRowsSettings, plan_text_rows, make_text_rows)
