"""Training rows from corpora: the captions, clues and speech tokens of each clip.

- `kind = "token-rows"`, for SpeechTokenizer (the paper's), Mimi or the built-in tokenizer: a row of
  each clip as it is. Tokens are taken from the cache that `aligncap tokens` fills; missing ones are
  encoded into it.
- `kind = "rows"`, for the built-in tokenizer: several augmented views of each clip. A view has its
  own facts, so its captions stay true. Rows of captions alone are written besides, for the warm-up.
  Manifests are read, and rows written, an utterance at a time.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from rich.progress import track

from aligncap.alignment.examples import SpeechSource, TrainingRow, write_rows
from aligncap.captioner.prompts import student_acoustic_prompt
from aligncap.captioner.vocabulary import STOP_CHARACTERS
from aligncap.clues import acoustic_prompt, audible_gender, detect_language
from aligncap.data.captions import gold_clues, plain_captions, write_captions
from aligncap.data.manifest import Manifests, Utterance, labelled, measure_all, read_manifest
from aligncap.data.splits import is_validation
from aligncap.errors import DataError, MissingModelError
from aligncap.recipes import Count, Trainer, recipe_section
from aligncap.tokenizers import builtin, encoder_training, open_tokenizer
from aligncap.tokenizers.cache import TokenCache, store_features
from aligncap.tokenizers.encoder import SpeechEncoder, load_encoder
from aligncap.training import dry_run
from aligncap.training.settings import seed_of
from aligncap.values import EMOTIONS, LANGUAGES, Fact, Facts, SpeechTokens

ROWS_FILE, FACTS_FILE = "rows.jsonl", "facts.jsonl"


def training_row(
    utterance: Utterance,
    facts: Facts,
    tokens: SpeechTokens,
    *,
    view: int = 0,
    split: str,
    captions: int,
    seed: int,
) -> TrainingRow | None:
    """The row of view `view` of an utterance; None where it has neither caption nor emotion.

    It has at most `captions` captions in each language: people's where there are any, else written
    from labels and facts. `utterance` has the labels that are relied on (`data.manifest`).
    """
    if audible_gender(tokens.readout, facts) is None:
        utterance = replace(utterance, gender=None)  # or the student learns to guess
    written: dict[str, tuple[str, ...]] = {}
    act: dict[str, str] = {}
    for language in LANGUAGES:
        texts = write_captions(
            utterance, facts, language=language, count=captions, seed=seed_of(seed, view)
        )
        if texts:
            written[language] = tuple(with_full_stop(text) for text in texts)
            # Clues of human captions are words of their language; the other one has the label's.
            human = any(detect_language(text) == language for text in utterance.captions)
            described = utterance if human else replace(utterance, captions=())
            act[language] = acoustic_prompt(gold_clues(described, facts), language)
    if not written:
        return None
    return TrainingRow(
        id=f"{utterance.id}#{view}",
        corpus=utterance.corpus or "",
        captions=written,
        speech=tokens.codes,
        split=split,
        act=act,
        measured={one: student_acoustic_prompt("measured", facts, tokens, one) for one in written},
        heard={one: student_acoustic_prompt("heard", facts, tokens, one) for one in written},
        transcript=utterance.text or "",
    )


def with_full_stop(text: str) -> str:
    """A human caption with a full stop where its writer left it out."""
    text = text.strip()
    if text.endswith(tuple(STOP_CHARACTERS)):
        return text
    return text + ("。" if detect_language(text) == "zh" else ".")


@recipe_section
class TokenizerSettings:
    """The speech tokenizer of the captioner."""

    name: str = "speechtokenizer"
    """As `aligncap tokens` takes it."""
    weights: Path | None = None
    """Folder of its weights, where it needs any."""
    codebooks: Count = 1
    """RVQ layers (decision 9); 1 is the paper's."""

    @property
    def options(self) -> Mapping[str, int]:
        """The options of `open_tokenizer` besides name and weights."""
        return {"codebooks": self.codebooks} if self.codebooks > 1 else {}


@recipe_section
class TokenRowsSettings:
    """A recipe of kind "token-rows"."""

    data: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Manifests of the clips to train on."""
    validation: tuple[Path, ...] = ()
    """Manifests of clips to validate on. Where none is given, this project's own validation
    speakers are kept back from `data`, if any are in it (`data.splits`)."""
    tokens: Path
    """Folder of the token cache (`aligncap tokens --output`)."""
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    facts: Path | None = None
    """File that keeps measured facts from one run to the next; facts.jsonl of the run if none."""
    captions: Count = 4
    """Captions a row and language, at most."""
    seed: int = 0


def plan_token_rows(settings: TokenRowsSettings, _: Path) -> Mapping[str, object]:
    """The dry run: the files that are read, and whether they are here."""
    manifests = (*settings.data, *settings.validation)
    needed = [
        dry_run.needed_path("manifest", path, hint=dry_run.MANIFEST_HINT) for path in manifests
    ]
    chosen, hint = settings.tokenizer, ""
    try:
        open_tokenizer(chosen.name, chosen.weights, **chosen.options)
    except MissingModelError as error:
        hint = str(error)
    needed.append(
        dry_run.Needed(f"{chosen.name} tokenizer", str(chosen.weights or chosen.name), hint)
    )
    note = f"nothing is trained; tokens are kept in {settings.tokens}"
    return dry_run.plan_table(needed, notes=[note])


def make_token_rows(
    settings: TokenRowsSettings, output: Path, *, resume: bool
) -> Mapping[str, object]:
    """Write `output`/rows.jsonl; with `resume` it stays where it is. Returns how many rows there
    are, and how many clips have neither caption nor emotion."""
    path = output / ROWS_FILE
    if resume and path.exists():
        return {"rows": 0, "unsaid": 0}
    output.mkdir(parents=True, exist_ok=True)
    clips, chosen = split_clips(settings), settings.tokenizer
    tokenizer = open_tokenizer(chosen.name, chosen.weights, **chosen.options)
    facts = measure_all(settings.facts or output / FACTS_FILE, [one.path for one, _ in clips])
    source = SpeechSource.of(tokenizer, options=chosen.options)
    with TokenCache(settings.tokens, tokenizer) as cache:
        console = Console(stderr=True)
        failures = cache.fill(
            track([one for one, _ in clips], "encoding", console=console)
        ).failures
        if failures:
            raise DataError(
                f"{len(failures)} of {len(clips)} clips have no tokens, the first is "
                f"{failures[0].id}: {failures[0].reason}"
            )
        made = (
            training_row(
                labelled(utterance),
                found,
                cache.get(utterance.id),
                split=split,
                captions=settings.captions,
                seed=settings.seed,
            )
            for (utterance, split), found in zip(clips, facts, strict=True)
        )
        rows = write_rows(path, source, (row for row in made if row is not None))
    if not rows:
        path.unlink()
        raise DataError(
            f"{settings.data[0]}: no clip has a caption or an emotion, so there is nothing to "
            "learn; write captions beside the clips (docs/corpora.md)"
        )
    return {"rows": rows, "unsaid": len(clips) - rows}


def split_clips(settings: TokenRowsSettings) -> list[tuple[Utterance, str]]:
    """The clips of all manifests in their order, each with its split.

    DataError where a clip is both trained and validated on, or twice in the manifests.
    """
    splits: dict[str, str] = {}
    found = []
    for paths, split in ((settings.data, "train"), (settings.validation, "validation")):
        for path in paths:
            for utterance in read_manifest(path):
                if utterance.id in splits:
                    raise DataError(
                        f"{path}: {utterance.id} was listed before, for {splits[utterance.id]}; "
                        "give each clip one manifest, and each corpus ids of its own"
                    )
                kept_back = not settings.validation and is_validation(utterance)
                splits[utterance.id] = "validation" if kept_back else split
                found.append((utterance, splits[utterance.id]))
    return found


@recipe_section
class RowsSettings:
    """A recipe of kind "rows"."""

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
    augmentation: encoder_training.Augmentation = field(
        default_factory=lambda: encoder_training.Augmentation(
            voice=0.06, pace=0.12, channel=0.4, level=0.6, noise=0.3, cut=0.0
        )
    )
    seed: int = 0


def plan_row_making(settings: RowsSettings, _: Path) -> Mapping[str, object]:
    """The dry run; the bytes that the rows take on disk are unknown."""
    hint = "train it with a recipe of kind 'encoder'"
    needed = [
        *(
            dry_run.needed_path("manifest", path, hint=dry_run.MANIFEST_HINT)
            for path in settings.data
        ),
        dry_run.needed_path("built-in encoder", settings.encoder, hint=hint),
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
    return dry_run.plan_table(
        needed,
        parameters=dry_run.count_parameters({}, load_encoder(settings.encoder))
        if settings.encoder.exists()
        else None,
        disk={
            "features": encoder_training.feature_bytes(Manifests(settings.data)) if here else None
        },
        notes=[
            note,
            f"features and facts are read from {settings.features}, and what is missing is "
            "measured into it",
        ],
    )


def make_rows(settings: RowsSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Write `output`/rows.jsonl, and captions alone into plain.jsonl and even.jsonl there; with
    `resume` they stay where they are complete. Returns how many rows were written to each.

    Validation speakers have one view, the clip as it is, and `split = "validation"`.
    """
    if resume and (output / ROWS_FILE).exists():
        return {"rows": 0, "plain": 0, "even": 0}
    output.mkdir(parents=True, exist_ok=True)
    utterances = Manifests(settings.data)
    paths = [one.path for one in utterances]
    store = store_features(settings.features, paths, encoder_training.measure_file)
    facts = measure_all(settings.features / FACTS_FILE, paths)
    source = SpeechSource.of(builtin.open_builtin(settings.encoder))

    def views() -> Iterator[View]:
        for place, (utterance, found) in enumerate(zip(utterances, facts, strict=True)):
            for number in range(1 if is_validation(utterance) else settings.views):
                yield view_of(
                    utterance,
                    store[place],
                    found,
                    number=number,
                    augmentation=settings.augmentation,
                    seed=settings.seed,
                )

    made = {
        "plain": plain_rows(utterances, facts),
        "even": balanced_rows(utterances, facts, captions=settings.captions, seed=settings.seed),
        "rows": rows_of(views(), load_encoder(settings.encoder), settings),
    }
    return {name: write_rows(output / f"{name}.jsonl", source, one) for name, one in made.items()}


@dataclass(frozen=True, slots=True)
class View:
    """One view of a clip: as another voice, room or microphone might have given it."""

    utterance: Utterance
    number: int
    features: builtin.Features
    facts: Facts


def view_of(
    utterance: Utterance,
    features: builtin.Features,
    facts: Facts,
    *,
    number: int,
    augmentation: encoder_training.Augmentation,
    seed: int,
) -> View:
    """View `number` of a clip; view 0 is the clip as it is."""
    utterance = labelled(utterance)
    if number == 0:
        return View(utterance, number, features, facts)
    rng = np.random.default_rng(seed_of(seed, number, *utterance.id.encode()))
    varied = encoder_training.vary(features, augmentation, rng)
    if not varied.same_gender:
        utterance = replace(utterance, gender=None)
    return View(utterance, number, varied.features, moved_facts(facts, varied))


def moved_facts(facts: Facts, varied: encoder_training.Varied) -> Facts:
    """The facts of the varied clip, computed from those of the clip and the variation."""
    octaves = math.log2(varied.voice_ratio)
    decibels = varied.level_nats * (10 / math.log(10))
    moves = {
        "pitch_median_hz": lambda value: value * varied.voice_ratio,
        "pitch_offset_st": lambda value: value + 12 * octaves,
        "loudness_db": lambda value: value + decibels,
    }
    per_second = (
        "pitch_slope_st_per_s",
        "pitch_jumps_per_s",
        "loudness_slope_db_per_s",
        "pace_syllables_per_s",
        "pauses_per_s",
    )
    moves |= {name: lambda value: value * varied.pace_ratio for name in per_second}
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
    """The rows of views in their order, 256 of them encoded at a time."""
    while group := list(islice(views, 256)):
        found = tokens_of([builtin.encoder_input(view.features) for view in group], encoder)
        for view, tokens in zip(group, found, strict=True):
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


def tokens_of(inputs: Sequence[builtin.EncoderInput], encoder: SpeechEncoder) -> list[SpeechTokens]:
    """The tokens of each input, the same that the tokenizer gives when it captions.

    Only inputs of like length share a batch: padded to a longer one, the first convolutions would
    see other values past a clip's end, and one code in a hundred would differ.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    filled = [builtin.padded(one) for one in inputs]
    for place, one in enumerate(filled):
        by_length[len(one.prosody)].append(place)
    found: dict[int, SpeechTokens] = {}
    for places in by_length.values():
        stacked = zip(*(filled[place] for place in places), strict=True)
        with torch.no_grad():
            reading = encoder(*(torch.from_numpy(np.stack(parts)) for parts in stacked))
        heads = (reading.emotion.softmax(1), reading.gender.sigmoid(), reading.pace.exp())
        rows = zip(reading.codes[:, None], *(head.tolist() for head in heads), strict=True)
        for place, (codes, *readout) in zip(places, rows, strict=True):
            found[place] = builtin.read_tokens(codes[:, : filled[place].tokens], *readout)
    return [found[place] for place in range(len(filled))]


def plain_rows(utterances: Iterable[Utterance], facts: Iterable[Facts]) -> Iterator[TrainingRow]:
    """A row of plain English captions for each training clip whose emotion is labelled: the warm-up
    learns from them what clues mean."""
    for utterance, found in _emotional(utterances, facts):
        assert utterance.emotion is not None
        yield TrainingRow(
            id=f"{utterance.id}#plain",
            corpus=utterance.corpus or "",
            captions={"en": plain_captions(utterance.emotion, utterance.gender)},
            act={"en": acoustic_prompt(gold_clues(utterance, found), "en")},
        )


def balanced_rows(
    utterances: Iterable[Utterance], facts: Iterable[Facts], *, captions: int, seed: int
) -> Iterator[TrainingRow]:
    """For each training clip with a label a row of captions with another emotion, in turn, so that
    each emotion has as many rows: a corpus has few clips of some, but text is free."""
    for number, (utterance, found) in enumerate(_emotional(utterances, facts)):
        emotion = EMOTIONS[number % len(EMOTIONS)]
        other = replace(utterance, emotion=emotion, label=None, intensity=None)
        clues = gold_clues(other, found)
        written = {
            language: tuple(
                write_captions(
                    other, found, language=language, count=captions, seed=seed_of(seed, number)
                )
            )
            for language in LANGUAGES
        }
        yield TrainingRow(
            id=f"{utterance.id}#even",
            corpus=utterance.corpus or "",
            captions=written,
            act={language: acoustic_prompt(clues, language) for language in written},
        )


def _emotional(
    utterances: Iterable[Utterance], facts: Iterable[Facts]
) -> Iterator[tuple[Utterance, Facts]]:
    """The training clips whose emotion is labelled, with their facts."""
    for utterance, found in zip(utterances, facts, strict=True):
        if not is_validation(utterance) and utterance.emotion is not None:
            yield labelled(utterance), found


ROWS = Trainer(RowsSettings, plan_row_making, make_rows)
TOKEN_ROWS = Trainer(TokenRowsSettings, plan_token_rows, make_token_rows)
