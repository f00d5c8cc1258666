"""From corpora to training rows: tokens of several views of each clip, its captions and its clues.

`kind = "rows"`, for the built-in speech tokenizer (`token_rows` is for any). A view (`views`) has
facts of its own, so its captions stay true. Validation speakers are listened to as they are and
marked `split = "validation"`. Manifests are read, and rows written, an utterance at a time; file
names alone are held.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from aligncap.alignment.data import SpeechSource, TrainingRow, write_rows
from aligncap.alignment.measuring import measure_all
from aligncap.alignment.plain import even_rows, plain_rows
from aligncap.alignment.row_making import training_row
from aligncap.alignment.views import View, view_of
from aligncap.corpora import Manifests, is_validation
from aligncap.recipes import Count, recipe_section
from aligncap.speech.augmentation import Augmentation
from aligncap.speech.builtin import open_tokenizer, padded, read_tokens
from aligncap.speech.encoder import SpeechEncoder
from aligncap.speech.encoder_checkpoint import load_encoder
from aligncap.speech.encoder_training import measured
from aligncap.speech.feature_store import feature_bytes, store_features
from aligncap.speech.features import EncoderInput, encoder_input
from aligncap.training.dry_run import MANIFEST_CURE, count_parameters, needed_path, plan_table
from aligncap.values import SpeechTokens

ROWS_FILE = "rows.jsonl"

_TOGETHER = 256


def _gentle() -> Augmentation:
    return Augmentation(voice=0.06, pace=0.12, channel=0.4, level=0.6, noise=0.3, cut=0.0)


@recipe_section
class RowsSettings:
    """A recipe that makes training rows."""

    data: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Manifests."""
    encoder: Path
    """Folder of the built-in encoder."""
    features: Path
    """Folder that keeps measured features and facts from one run to the next."""
    views: Count = 4
    """Rows of each training clip; the first is the clip as it is."""
    captions: Count = 4
    """Captions a row and language."""
    augmentation: Augmentation = field(default_factory=_gentle)
    seed: int = 0


SETTINGS = RowsSettings


def plan(settings: RowsSettings, _: Path) -> Mapping[str, object]:
    """What a dry run says of it. Nothing trains, and what the rows take on disk is not known."""
    cure = "train it with a recipe of kind 'encoder'"
    needed = [
        *(needed_path("manifest", path, cure=MANIFEST_CURE) for path in settings.data),
        needed_path("built-in encoder", settings.encoder, cure=cure),
    ]
    here = all(path.exists() for path in settings.data)
    note = "a manifest is not here, so it is not known how many rows there will be"
    if here:
        held_out = [is_validation(one) for one in Manifests(settings.data)]
        train = len(held_out) - sum(held_out)
        note = (
            f"{train:,} clips of {settings.views} views and {sum(held_out):,} of validation "
            f"speakers as they are: at most {train * settings.views + sum(held_out):,} rows"
        )
    return plan_table(
        needed,
        parameters=count_parameters({}, load_encoder(settings.encoder))
        if settings.encoder.exists()
        else None,
        disk={"features": feature_bytes(Manifests(settings.data)) if here else None},
        notes=[
            note,
            f"features and facts are read from {settings.features}, and what is missing is "
            "measured into it",
        ],
    )


def run(settings: RowsSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Write `output`/rows.jsonl, and captions alone into plain.jsonl and even.jsonl beside it; with
    `resume` they stay where they are whole. Returns how many rows were written to each."""
    if resume and (output / ROWS_FILE).exists():
        return {"rows": 0, "plain": 0, "even": 0}
    output.mkdir(parents=True, exist_ok=True)
    utterances = Manifests(settings.data)
    paths = [one.path for one in utterances]
    store = store_features(settings.features, paths, measured)
    facts = measure_all(settings.features / "facts.jsonl", paths)
    source = SpeechSource.of(open_tokenizer(settings.encoder))

    def views() -> Iterator[View]:
        for place, (utterance, found) in enumerate(zip(utterances, facts, strict=True)):
            count = 1 if is_validation(utterance) else settings.views
            for number in range(count):
                yield view_of(
                    utterance,
                    store[place],
                    found,
                    number=number,
                    augmentation=settings.augmentation,
                    seed=settings.seed,
                )

    asked, seed = settings.captions, settings.seed
    made = {
        "plain": plain_rows(utterances, facts),
        "even": even_rows(utterances, facts, captions=asked, seed=seed),
        "rows": rows_of(views(), load_encoder(settings.encoder), settings),
    }
    return {name: write_rows(output / f"{name}.jsonl", source, one) for name, one in made.items()}


def rows_of(
    views: Iterator[View], encoder: SpeechEncoder, settings: RowsSettings
) -> Iterator[TrainingRow]:
    """The rows of views in their order, their tokens read many at a time."""
    waiting: list[View] = []
    for view in views:
        waiting.append(view)
        if len(waiting) == _TOGETHER:
            yield from _written(waiting, encoder, settings)
            waiting = []
    if waiting:
        yield from _written(waiting, encoder, settings)


def _written(
    views: Sequence[View], encoder: SpeechEncoder, settings: RowsSettings
) -> Iterator[TrainingRow]:
    found = tokens_of([encoder_input(view.features) for view in views], encoder)
    for view, tokens in zip(views, found, strict=True):
        row = training_row(
            view.utterance,
            view.facts,
            tokens,
            view=view.number,
            split="validation" if is_validation(view.utterance) else "train",
            captions=settings.captions,
            seed=settings.seed,
        )
        if row is not None:
            yield row


def tokens_of(inputs: Sequence[EncoderInput], encoder: SpeechEncoder) -> list[SpeechTokens]:
    """The tokens of each input, the same that the tokenizer gives when it captions.

    Only inputs of like length share a batch: beside a longer one the first convolutions would see
    other values past a clip's end, and one code in a hundred would differ.
    """
    alike: dict[int, list[int]] = defaultdict(list)
    filled = [padded(one) for one in inputs]
    for place, one in enumerate(filled):
        alike[len(one.prosody)].append(place)
    found: dict[int, SpeechTokens] = {}
    for places in alike.values():
        stacked = zip(*(filled[place] for place in places), strict=True)
        with torch.no_grad():
            reading = encoder(*(torch.from_numpy(np.stack(parts)) for parts in stacked))
        heads = (reading.emotion.softmax(1), reading.gender.sigmoid(), reading.pace.exp())
        rows = zip(reading.codes[:, None], *(head.tolist() for head in heads), strict=True)
        for place, (codes, *heard) in zip(places, rows, strict=True):
            found[place] = read_tokens(codes[:, : filled[place].tokens], *heard)
    return [found[place] for place in range(len(filled))]
