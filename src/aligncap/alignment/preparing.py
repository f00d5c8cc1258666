"""From corpora to training rows: tokens of several views of each clip, its captions and its clues.

`kind = "rows"`, for the built-in speech tokenizer (`token_rows` is for any). A view is the clip as
another speaker, room or microphone might have given it; its facts move with it, so its captions
stay true. Validation speakers are listened to as they are and marked `split = "validation"`.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from aligncap.alignment.data import SpeechSource, TrainingRow, write_rows
from aligncap.alignment.measuring import measure_all
from aligncap.alignment.plain import even_rows, plain_rows
from aligncap.alignment.row_making import training_row
from aligncap.corpora import Utterance, is_validation, read_manifest
from aligncap.corpora.labels import labelled
from aligncap.errors import RecipeError
from aligncap.speech.augmentation import Augmentation, Varied, vary
from aligncap.speech.builtin import open_tokenizer, padded, read_tokens
from aligncap.speech.encoder import SpeechEncoder
from aligncap.speech.encoder_checkpoint import load_encoder
from aligncap.speech.encoder_training import measured
from aligncap.speech.feature_store import store_features
from aligncap.speech.features import EncoderInput, Features, encoder_input
from aligncap.training import seed_of
from aligncap.values import Fact, Facts, SpeechTokens

ROWS_FILE = "rows.jsonl"

_TOGETHER = 256
_DB_A_NAT = 10 / math.log(10)
_PER_SECOND = (
    "pitch_slope_st_per_s",
    "pitch_jumps_per_s",
    "loudness_slope_db_per_s",
    "pace_syllables_per_s",
    "pauses_per_s",
)


def _gentle() -> Augmentation:
    return Augmentation(voice=0.06, pace=0.12, channel=0.4, level=0.6, noise=0.3, cut=0.0)


@dataclass(frozen=True, kw_only=True)
class RowsSettings:
    """A recipe that makes training rows."""

    data: tuple[Path, ...]
    """Manifests."""
    encoder: Path
    """Folder of the built-in encoder."""
    features: Path
    """Folder that keeps measured features and facts from one run to the next."""
    views: int = 4
    """Rows of each training clip; the first is the clip as it is."""
    captions: int = 4
    """Captions a row and language."""
    augmentation: Augmentation = field(default_factory=_gentle)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.data or self.views < 1 or self.captions < 1:
            raise RecipeError("data, views and captions must each be at least one")


SETTINGS = RowsSettings


@dataclass(frozen=True, slots=True)
class View:
    """One view of a clip, ready to be written."""

    utterance: Utterance
    number: int
    features: Features
    facts: Facts


def run(settings: RowsSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Write `output`/rows.jsonl, and captions alone into plain.jsonl and even.jsonl beside it; with
    `resume` they stay where they are whole. Returns how many rows were written to each."""
    if resume and (output / ROWS_FILE).exists():
        return {"rows": 0, "plain": 0, "even": 0}
    output.mkdir(parents=True, exist_ok=True)
    utterances = [one for path in settings.data for one in read_manifest(path)]
    paths = [one.path for one in utterances]
    store = store_features(settings.features, paths, measured)
    facts = measure_all(settings.features / "facts.jsonl", paths)
    tokenizer = open_tokenizer(settings.encoder)
    source = SpeechSource(
        name=tokenizer.name,
        fingerprint=tokenizer.fingerprint,
        frame_rate_hz=tokenizer.frame_rate_hz,
        codebooks=1,
        codebook_size=tokenizer.codebook_size,
    )

    def views() -> Iterator[View]:
        for place, (utterance, found) in enumerate(zip(utterances, facts, strict=True)):
            count = 1 if is_validation(utterance) else settings.views
            for number in range(count):
                yield view_of(utterance, store[place], found, number=number, settings=settings)

    asked, seed = settings.captions, settings.seed
    made = {
        "plain": plain_rows(utterances, facts),
        "even": even_rows(utterances, facts, captions=asked, seed=seed),
        "rows": rows_of(views(), load_encoder(settings.encoder), settings),
    }
    return {name: write_rows(output / f"{name}.jsonl", source, one) for name, one in made.items()}


def view_of(
    utterance: Utterance, features: Features, facts: Facts, *, number: int, settings: RowsSettings
) -> View:
    """View `number` of a clip; view 0 is the clip as it is."""
    utterance = labelled(utterance)
    if number == 0:
        return View(utterance, number, features, facts)
    seed = seed_of(settings.seed, number, *utterance.id.encode())
    varied = vary(features, settings.augmentation, np.random.default_rng(seed))
    if not varied.same_gender:
        utterance = replace(utterance, gender=None)
    return View(utterance, number, varied.features, moved_facts(facts, varied))


def moved_facts(facts: Facts, varied: Varied) -> Facts:
    """What would have been measured in the varied clip, by what was done to it."""
    octaves = math.log2(varied.voice_ratio)
    moves = {
        "pitch_median_hz": lambda value: value * varied.voice_ratio,
        "pitch_offset_st": lambda value: value + 12 * octaves,
        "loudness_db": lambda value: value + varied.level_nats * _DB_A_NAT,
    }
    moves |= {name: lambda value: value * varied.pace_ratio for name in _PER_SECOND}
    moved = {
        fact.name: replace(fact, value=moves[fact.name](fact.value))
        if fact.name in moves and fact.value is not None
        else fact
        for fact in facts
    }
    gender = moved.get("female_probability")
    if gender is not None and not varied.same_gender:
        moved["female_probability"] = Fact(gender.name, None, gender.unit, 0.0, "the voice moved")
    return replace(
        facts,
        duration_s=facts.duration_s / varied.pace_ratio,
        speech_s=facts.speech_s / varied.pace_ratio,
        by_name=moved,
    )


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
