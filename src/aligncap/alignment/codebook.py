"""Speech tokens of a frozen encoder's vectors: recipes of kind "codebook".

Rows that hold vectors (of the tokenizer "frozen-features") become rows of codes: residual k-means
over the vectors of their training clips, and of each vector its nearest entries. Captions and
clues stay as they are, so systems with vectors and systems with tokens learn from one set of rows.

    <output>/encoder       the encoder and its codebooks, the tokenizer "frozen-codes"
             rows.jsonl
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeInt

from aligncap.alignment.examples import (
    SpeechSource,
    TrainingRow,
    one_source,
    read_rows,
    read_source,
    write_rows,
)
from aligncap.alignment.rows import ROWS_FILE
from aligncap.captioner.checkpoint import ENCODER_FOLDER, find_encoder
from aligncap.errors import DataError
from aligncap.recipes import Count, Trainer, recipe_section
from aligncap.tokenizers.frozen import (
    Codebooks,
    FrozenCodes,
    Vectors,
    open_encoder,
    save_encoder,
)
from aligncap.training import dry_run


@recipe_section
class CodebookSettings:
    """A recipe of kind "codebook"."""

    rows: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Training rows that hold the vectors."""
    codebooks: Count = 1
    entries: Count = 256
    """Of a codebook."""
    seed: NonNegativeInt = 0


def make_codes(settings: CodebookSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Write `output`/encoder and `output`/rows.jsonl; with `resume` they stay where they are.
    Returns how many rows there are, and the share of the vectors' variance that the codes keep."""
    path, folder = output / ROWS_FILE, output / ENCODER_FOLDER
    if resume and path.exists():
        return {"rows": sum(1 for _ in read_rows(path)), "encoder": str(folder)}
    source = one_source({file: read_source(file) for file in settings.rows})
    place = find_encoder(source.fingerprint, [file.parent for file in settings.rows])
    if source.name != "frozen-features" or place is None:
        raise DataError(
            f"{settings.rows[0]}: holds no vectors of a frozen encoder that lies beside it; make "
            "the rows with the tokenizer frozen-features"
        )
    encoder = open_encoder(place)
    rows = [row for file in settings.rows for row in read_rows(file)]
    vectors = np.concatenate([one for row in rows if row.split == "train" for one in read(row)])
    learnt = Codebooks.of(
        vectors, codebooks=settings.codebooks, size=settings.entries, seed=settings.seed
    )
    save_encoder(folder, encoder, learnt)
    codes = FrozenCodes(encoder, learnt)
    made = (replace(row, speech=learnt.codes(one), features=None)
            for row in rows for one in read(row))  # fmt: skip
    return {
        "rows": write_rows(path, SpeechSource.of(codes), made),
        "encoder": str(folder),
        "kept": learnt.kept(vectors),
    }


def read(row: TrainingRow) -> Iterator[Vectors]:
    """The vectors of a row [frames, width], where it has any."""
    if row.features is not None:
        yield row.features.read()


def plan_codes(settings: CodebookSettings, _: Path) -> Mapping[str, object]:
    """The dry run: the rows."""
    hint = "make it with a recipe of kind 'token-rows' and the tokenizer 'frozen-features'"
    needed = [dry_run.needed_path("training rows", path, hint=hint) for path in settings.rows]
    return dry_run.plan_table(needed, notes=["no network is trained"])


CODEBOOK = Trainer(CodebookSettings, plan_codes, make_codes)
