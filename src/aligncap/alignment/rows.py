"""Training rows from corpora: the captions, clues and speech tokens of each clip.

A row of each clip as it is, for SpeechTokenizer (the paper's), Mimi or the built-in tokenizer:
recipes of kind "token-rows". Tokens are taken from the cache that `aligncap tokens` fills; missing
ones are encoded into it. Rows of captions alone may be written besides, for the warm-up.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, model_validator
from rich.console import Console
from rich.progress import track

from aligncap.alignment.examples import SpeechSource, TrainingRow, write_rows
from aligncap.captioner import checkpoint
from aligncap.captioner.prompts import student_acoustic_prompt
from aligncap.captioner.vocabulary import STOP_CHARACTERS
from aligncap.clues import (
    PARSERS,
    HeardEmotion,
    acoustic_prompt,
    audible_clues,
    audible_gender,
    audible_intensity,
    detect_language,
    heard_clue,
    heard_emotion,
    open_parser,
)
from aligncap.data.captions import gold_clues, write_captions
from aligncap.data.grammar import split_plan
from aligncap.data.manifest import Utterance, labelled, measure_all, read_manifest
from aligncap.data.splits import split_of
from aligncap.errors import DataError, MissingModelError
from aligncap.prosody import with_heard_pace
from aligncap.recipes import Count, Trainer, one_of, recipe_section
from aligncap.tokenizers import open_tokenizer
from aligncap.tokenizers.builtin import BUILTIN_FOLDER, BUILTIN_NAMES
from aligncap.tokenizers.cache import TokenCache
from aligncap.training import dry_run
from aligncap.training.settings import seed_of
from aligncap.values import EMOTIONS, LANGUAGES, Clue, Facts, SpeechTokens

ROWS_FILE, EVEN_FILE, FACTS_FILE = "rows.jsonl", "even.jsonl", "facts.jsonl"


def training_row(
    utterance: Utterance,
    facts: Facts,
    tokens: SpeechTokens,
    *,
    view: int = 0,
    split: str,
    captions: int,
    seed: int,
    planned: bool = True,
    parser: Callable[[str, str], Sequence[Clue]] | None = None,
) -> TrainingRow | None:
    """The row of view `view` of an utterance; None where it has neither caption nor emotion.

    It has at most `captions` captions in each language: people's where there are any, else written
    from labels and facts, with their plans. `utterance` has the labels that are relied on
    (`data.manifest`). Without `planned` captions have no plans and state the emotion outright.
    With a `parser` of texts in a language, P_act is what it finds in the row's captions and nothing
    else (Eq. 1).
    """
    facts, seed = with_heard_pace(facts, tokens.readout), seed_of(seed, view)
    utterance = with_heard_gender(utterance, audible_gender(tokens.readout, facts))
    drawn = planned and split == "train"
    hearing = hearing_of(utterance, tokens.readout, drawn=drawn, seed=seed)
    hearing = hearing if planned else hearing.outright(utterance.emotion)
    written: dict[str, tuple[str, ...]] = {}
    for language in LANGUAGES:
        texts = write_captions(
            utterance,
            facts,
            language=language,
            count=captions,
            seed=seed,
            heard=hearing.said,
            intensity=hearing.intensity,
            planned=planned,
        )
        if texts:
            written[language] = tuple(map(with_full_stop, texts))
    if not written:
        return None
    act = {one: known_prompt(utterance, facts, hearing, one) for one in written}
    if parser is not None:
        act = {one: caption_prompt(texts, one, parser) for one, texts in written.items()}
    return TrainingRow(
        id=f"{utterance.id}#{view}",
        corpus=utterance.corpus or "",
        captions=written,
        speech=tokens.codes,
        features=tokens.features,
        split=split,
        act=act,
        measured={one: student_acoustic_prompt("measured", facts, tokens, one) for one in written},
        heard={one: hearing.prompt(facts, tokens, one) for one in written},
        retrieved=retrieved_prompts(facts, tokens, written),
        transcript=utterance.text or "",
    )


def with_heard_gender(utterance: Utterance, heard: str | None) -> Utterance:
    """An utterance whose gender is said where it is heard: or the student learns to guess it, or,
    in a corpus without genders, to leave out what its P_act tells. People's captions stay."""
    if heard is None:
        return replace(utterance, gender=None)
    told = utterance.gender or (None if utterance.captions else heard)
    return replace(utterance, gender=told)


def as_asked(settings: "TokenRowsSettings", row: TrainingRow) -> TrainingRow:
    """A row with the captions, and with or without the speech, that a recipe asks for."""
    row = with_plain_labels(row) if settings.labels == "plain" else row
    return row if settings.paired else without_speech(row)


def without_speech(row: TrainingRow) -> TrainingRow:
    """The captions of a row, their clues, and nothing else that was made of its speech."""
    return replace(row, speech=None, features=None, measured={}, heard={}, retrieved={})


def known_prompt(utterance: Utterance, facts: Facts, hearing: "Hearing", language: str) -> str:
    """P_act of all that is known of a clip: labels, captions, signal."""
    # Clues of human captions are words of their language; the other one has the label's.
    human = any(detect_language(text) == language for text in utterance.captions)
    described = utterance if human else replace(utterance, captions=())
    emotion = None if human else hearing.clue(hearing.said, language)
    return acoustic_prompt(gold_clues(described, facts, emotion), language)


def retrieved_prompts(
    facts: Facts, tokens: SpeechTokens, languages: Iterable[str]
) -> dict[str, str]:
    """P_act of the clue words nearest to the speech; none of a tokenizer without a joint space."""
    known = languages if "clues" in tokens.readout else ()
    return {one: student_acoustic_prompt("retrieved", facts, tokens, one) for one in known}


def caption_prompt(
    captions: Iterable[str], language: str, parser: Callable[[str, str], Sequence[Clue]]
) -> str:
    """P_act of a clip's captions as the paper has it: the clues that G_Parser finds in any of them,
    each once (Eq. 1)."""
    found: dict[tuple[str, str], Clue] = {}
    for caption in captions:
        for clue in parser(split_plan(caption)[1], language):
            if not clue.negated:
                found.setdefault((clue.trait, clue.meaning), clue)
    return acoustic_prompt(list(found.values()), language)


HEARD_SHARES = {"sure": 0.55, "likely": 0.15, "unsure": 0.12, "mixed": 0.18}
"""How often the emotion of a training row is said with a certainty, or as one of two. Heads are
surer of clips they were trained on than of any other, so it is drawn."""


@dataclass(frozen=True, slots=True)
class Hearing:
    """How the emotion of a row is put into its captions and into the student's P_act."""

    said: HeardEmotion | None
    """In the captions: the label, with its certainty; None where there is none."""
    told: HeardEmotion | None
    """In P_act: the same of a row to learn from, so that captions follow P_act; what the heads read
    of a row to validate on. None where nothing is heard."""
    intensity: str | None
    """The label's, or what the heads read."""

    def outright(self, label: str | None) -> "Hearing":
        """The same without certainties, as models without plans know it."""
        said = HeardEmotion(label) if label else None
        return Hearing(said, HeardEmotion(self.told.first) if self.told else None, None)

    def prompt(self, facts: Facts, tokens: SpeechTokens, language: str) -> str:
        """The student's P_act of what is told."""
        emotion = self.clue(self.told, language)
        return acoustic_prompt(audible_clues(tokens.readout, facts, emotion), language)

    def clue(self, heard: HeardEmotion | None, language: str) -> Clue | None:
        """The emotion in the words of P_act."""
        return heard_clue(heard, language, self.intensity) if heard else None


def hearing_of(
    utterance: Utterance, readout: Mapping[str, Mapping[str, float]], *, drawn: bool, seed: int
) -> Hearing:
    """How certain the emotion of a row is, and which other one is heard beside it."""
    chances = readout.get("emotion", {})
    read = heard_emotion(chances) if chances else None
    intensity = utterance.intensity or audible_intensity(readout)
    label = utterance.emotion
    if label is None:
        return Hearing(None, read, intensity)
    agrees = read is not None and read.first == label
    if not drawn:
        return Hearing(read if agrees else HeardEmotion(label), read, intensity)
    said = HeardEmotion(label)
    if read is not None and not utterance.captions:
        rng = Random(f"{seed}/hearing/{utterance.corpus}/{utterance.id}")
        said = drawn_hearing(label, rng, chances)
    return Hearing(said, said if read is not None else None, intensity)


def drawn_hearing(
    emotion: str, rng: Random, chances: Mapping[str, float] = MappingProxyType({})
) -> HeardEmotion:
    """A certainty for an emotion; of two emotions the second by the heads' `chances`."""
    (hedge,) = rng.choices(list(HEARD_SHARES), list(HEARD_SHARES.values()))
    if hedge != "mixed":
        return HeardEmotion(emotion, certainty=hedge)
    others = [name for name in EMOTIONS if name != emotion]
    # What the heads exclude may be confused by other speakers.
    weights = [chances.get(name, 0.0) + 0.02 for name in others]
    (second,) = rng.choices(others, weights)
    return HeardEmotion(emotion, second, rng.choice(("likely", "unsure")))


PUNCTUATION = str.maketrans(dict.fromkeys('(,.!?;:|*")', " "))


def with_plain_labels(row: TrainingRow) -> TrainingRow:
    """A row with its captions as WavCaps has labels: lower-cased, a space in place of punctuation
    (also at the end), and no two together."""
    plain = {
        language: tuple(re.sub(" {2,}", " ", text.lower().translate(PUNCTUATION)) for text in texts)
        for language, texts in row.captions.items()
    }
    return replace(row, captions=plain)


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
    rate_hz: Count | None = None
    """log-mel: the rate at which it hears; 16,000, that of waveforms, if none."""

    @property
    def options(self) -> Mapping[str, int]:
        """The options of `open_tokenizer` besides name and weights."""
        given = {"codebooks": self.codebooks if self.codebooks > 1 else None}
        given["rate_hz"] = self.rate_hz
        return {name: value for name, value in given.items() if value is not None}


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
    act: Literal["known", "captions"] = "known"
    """What the teacher's P_act is of: "known", all that labels, signal and captions say; or
    "captions", what is parsed from the row's captions alone (Eq. 1)."""
    parser: Annotated[str, one_of(PARSERS)] = "own"
    """act = "captions": the grammar parser, one of `clues.PARSERS`."""
    plans: bool = True
    """Whether written captions begin with plans and say how certain an emotion is; without, they
    state it outright, as captions that people wrote do."""
    labels: Literal["written", "plain"] = "written"
    """How captions are put into rows: as they are written, or "plain", lower-cased and with spaces
    for punctuation (WavCaps)."""
    paired: bool = True
    """Whether rows hold the speech that their captions are of; without, they are captions alone,
    such as those of a corpus whose speech is not to be learnt from."""
    even: bool = False
    """Whether rows of captions alone are written to even.jsonl besides, as many of each emotion."""
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _plain_labels_have_no_plans(self) -> Self:
        if self.labels == "plain" and self.plans:
            raise ValueError("plain labels cannot begin with plans; set plans = false")
        return self


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
    """Write `output`/rows.jsonl, last of all; with `resume` it stays where it is. Returns how many
    rows there are, and how many clips have neither caption nor emotion."""
    path, even = output / ROWS_FILE, output / EVEN_FILE
    clips, chosen = split_clips(settings), settings.tokenizer
    if resume and path.exists():
        with path.open("rb") as file:
            rows = sum(1 for _ in file) - 1  # the first line is the head
        return {"rows": rows, "unsaid": len(clips) - rows}
    output.mkdir(parents=True, exist_ok=True)
    parser = open_parser(settings.parser) if settings.act == "captions" else None
    tokenizer = open_tokenizer(chosen.name, chosen.weights, **chosen.options)
    facts = measure_all(settings.facts or output / FACTS_FILE, [one.path for one, _ in clips])
    kept = output / checkpoint.ENCODER_FOLDER
    # A model of these rows is kept with the encoder.
    if chosen.name in BUILTIN_NAMES and not kept.exists():
        checkpoint.copy_encoder_files(chosen.weights or BUILTIN_FOLDER, kept)
    elif keep := getattr(tokenizer, "keep", None):
        keep(kept)
    # What lies beside an encoder and follows from its codes is not cached with them.
    retrieved = getattr(tokenizer, "retrieved", lambda tokens: tokens)
    with TokenCache(settings.tokens, tokenizer) as cache:
        store = str(cache.path.absolute())
        source = SpeechSource.of(tokenizer, options=chosen.options, store=store)
        _encode(cache, [one for one, _ in clips])
        made = (
            training_row(
                labelled(utterance),
                found,
                retrieved(cache.get(utterance.id)),
                split=split,
                captions=settings.captions,
                seed=settings.seed,
                planned=settings.plans,
                parser=parser,
            )
            for (utterance, split), found in zip(clips, facts, strict=True)
        )
        asked = partial(as_asked, settings)
        if settings.even:
            train = [
                (one, with_heard_pace(found, cache.get(one.id).readout))
                for (one, split), found in zip(clips, facts, strict=True)
                if split == "train"
            ]
            balanced = balanced_rows(train, captions=settings.captions, seed=settings.seed)
            write_rows(even, source, map(asked, balanced))
        rows = write_rows(path, source, (asked(row) for row in made if row is not None))
    if not rows:
        path.unlink()
        even.unlink(missing_ok=True)
        raise DataError(
            f"{settings.data[0]}: no clip has a caption or an emotion, so there is nothing to "
            "learn; write captions beside the clips (docs/corpora.md)"
        )
    return {"rows": rows, "unsaid": len(clips) - rows}


def _encode(cache: TokenCache, clips: Sequence[Utterance]) -> None:
    """Fill the cache; DataError where a clip cannot be encoded."""
    failures = cache.fill(track(clips, "encoding", console=Console(stderr=True))).failures
    if failures:
        raise DataError(
            f"{len(failures)} of {len(clips)} clips have no tokens, the first is "
            f"{failures[0].id}: {failures[0].reason}"
        )


def split_clips(settings: TokenRowsSettings) -> list[tuple[Utterance, str]]:
    """The clips of all manifests in their order, each with its split: as manifests to validate on
    say, where there are any; else by the project's fixed speakers, those of the test left out.

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
                splits[utterance.id] = split if settings.validation else split_of(utterance)
                if splits[utterance.id] != "test":
                    found.append((utterance, splits[utterance.id]))
    return found


def balanced_rows(
    clips: Iterable[tuple[Utterance, Facts]], *, captions: int, seed: int
) -> Iterator[TrainingRow]:
    """For each clip with a label a row of captions with another emotion, in turn, so that
    each emotion has as many rows: a corpus has few clips of some, but text is free."""
    emotional = ((labelled(one), found) for one, found in clips if one.emotion is not None)
    for number, (utterance, found) in enumerate(emotional):
        emotion = EMOTIONS[number % len(EMOTIONS)]
        rng = Random(f"{seed}/even/{number}")
        intensity = rng.choice((None, None, None, "weak", "strong"))
        other = replace(utterance, emotion=emotion, label=None, intensity=None, captions=())
        heard = drawn_hearing(emotion, rng)
        written = {
            language: tuple(
                write_captions(
                    other,
                    found,
                    language=language,
                    count=captions,
                    seed=seed_of(seed, number),
                    heard=heard,
                    intensity=intensity,
                    planned=True,
                )
            )
            for language in LANGUAGES
        }
        acts = {
            language: gold_clues(other, found, heard_clue(heard, language, intensity))
            for language in written
        }
        yield TrainingRow(
            id=f"{utterance.id}#even",
            corpus=utterance.corpus or "",
            captions=written,
            act={language: acoustic_prompt(clues, language) for language, clues in acts.items()},
        )


TOKEN_ROWS = Trainer(TokenRowsSettings, plan_token_rows, make_token_rows)
