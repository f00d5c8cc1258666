"""Files of rows as JSON lines: a first line about all of them, then a row a line, as a stream.

Training rows: what warm-up and distillation learn from, as JSON lines read as a stream.

The first line says whose codes the rows hold:

    {"training_rows": 1, "tokenizer": {"name": "builtin", "fingerprint": "3f9c…",
     "frame_rate_hz": 12.5, "codebooks": 1, "codebook_size": 512, "options": {}}}

and each further line is one view of a clip (augmented views of a clip are rows of their own):

    {"id": "clip#2", "corpus": "ravdess", "split": "train", "weight": 1.0,
     "speech": [17, 4, …],                            one list a codebook where there are several;
                                                      left out of a row with captions only
     "captions": {"en": ["…", "…"], "zh": ["…"]},
     "act": {"en": "Feeling sad, low, and slow"},     P_act of its captions (Eq. 1): the teacher's
     "measured": {"en": "Feeling low and slow"},      P_act that the signal supports: the student's
     "heard": {"en": "Feeling sad, low, and slow"},   the same with what the tokenizer's heads hear
     "transcript": "…"}

Only id, corpus and captions are required.

Which rows and captions a batch holds: a pure function of its number and the seed.

Draws as rows of ids: what student, teacher and warm-up read of a clip, and are to say.
"""

import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from aligncap.alignment.settings import BatchSettings, DataSettings, StudentSettings
from aligncap.captioner.prompts import PromptBuilder, SharedPromptRow, TeacherPromptParts
from aligncap.clues import emotion_of, find_clues
from aligncap.errors import AlignCapError, DataError, UnknownNameError
from aligncap.storage import atomic_file
from aligncap.training.settings import seed_of
from aligncap.values import LANGUAGES, SpeechTokenizer, SpeechTokens

Head = TypeVar("Head")
Row = TypeVar("Row")

Table = Mapping[str, Any]
"""One line of a file."""


def read_head(path: Path, parse: Callable[[Table], Head]) -> Head:
    """What the first line of a file says; DataError where it is empty or damaged."""
    for number, line in _lines(path):
        return _parsed(path, number, line, parse)
    raise DataError(f"{path}: is empty; make it again")


def read_rest(path: Path, parse: Callable[[Table], Row]) -> Iterator[Row]:
    """The rows after the first line, one at a time; DataError names file and line."""
    for number, line in _lines(path):
        if number > 1:
            yield _parsed(path, number, line, parse)


def write_lines(path: Path, head: Table, rows: Iterable[Table]) -> int:
    """Write a file of rows, whole or not at all; returns how many rows."""
    count = 0
    with atomic_file(path) as file:
        file.write(json.dumps(head) + "\n")
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        file = path.open(encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); make it first: training rows by a recipe "
            "of kind 'token-rows' or 'rows', preference rows with aligncap prefer rows"
        ) from error
    with file:
        yield from enumerate(file, start=1)


def _parsed(path: Path, number: int, line: str, parse: Callable[[Table], Row]) -> Row:
    try:
        return parse(json.loads(line))
    except (AlignCapError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"lacks {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        if number == 1:
            reason += "; the first line says what rows these are and whose speech tokens they hold"
        raise DataError(f"{path}:{number}: {reason}") from error


FORMAT = 1
SPLITS = ("train", "validation")
ROW_KEYS = frozenset(
    {
        *("id", "corpus", "split", "weight", "speech", "captions"),
        *("act", "measured", "heard", "transcript"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechSource:
    """The speech tokenizer that gave the rows' codes."""

    name: str
    fingerprint: str
    frame_rate_hz: float
    codebooks: int
    codebook_size: int
    options: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.codebooks < 1 or self.codebook_size < 1 or not self.frame_rate_hz > 0:
            raise DataError(f"tokenizer {self.name!r}: codebooks, sizes and rate must be positive")

    @classmethod
    def of(
        cls,
        tokenizer: SpeechTokenizer,
        *,
        codebooks: int = 1,
        options: Mapping[str, int] = MappingProxyType({}),
    ) -> "SpeechSource":
        """An open tokenizer as files name it, with what it was opened with."""
        return cls(
            name=tokenizer.name,
            fingerprint=tokenizer.fingerprint,
            frame_rate_hz=tokenizer.frame_rate_hz,
            codebooks=codebooks,
            codebook_size=tokenizer.codebook_size,
            options=dict(options),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """One view of a clip with its captions, or captions alone where `speech` is None."""

    id: str
    corpus: str
    captions: Mapping[str, tuple[str, ...]]
    """By language, at least one."""
    speech: NDArray[np.int64] | None = None
    """Codes [codebooks, frames]."""
    split: str = "train"
    weight: float = 1.0
    """How often it is drawn, relative to other rows."""
    act: Mapping[str, str] = field(default_factory=dict)
    """P_act by language, from the captions (Eq. 1)."""
    measured: Mapping[str, str] = field(default_factory=dict)
    """P_act by language, from the signal (decision 5)."""
    heard: Mapping[str, str] = field(default_factory=dict)
    """P_act by language, from the signal and the tokenizer's heads (decision 5)."""
    transcript: str = ""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise UnknownNameError(f"split ({self.id})", self.split, SPLITS)
        for name in ("captions", "act", "measured", "heard"):
            for language in getattr(self, name):
                if language not in LANGUAGES:
                    raise UnknownNameError(f"language of {name} ({self.id})", language, LANGUAGES)
        if not self.captions or not all(
            texts and all(text.strip() for text in texts) for texts in self.captions.values()
        ):
            raise DataError(f"{self.id}: captions are by language, at least one, none empty")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise DataError(f"{self.id}: weight is {self.weight}, must be 0 or more")
        codes = self.speech
        if codes is not None and (codes.ndim != 2 or codes.size == 0 or codes.min() < 0):
            raise DataError(f"{self.id}: speech is codes of 0 or more, [codebooks, frames]")

    def student_act(self, mode: str, language: str) -> str:
        """The student's P_act for one of the act modes; "" where the row has none of the kind."""
        acts = {"measured": self.measured, "heard": self.heard}.get(mode, {})
        return acts.get(language, "")


def read_source(path: Path) -> SpeechSource:
    """The speech tokenizer named in a file of training rows."""
    return read_head(path, lambda table: source_of(table, "training_rows"))


def one_source(sources: Mapping[Path, SpeechSource]) -> SpeechSource:
    """The speech tokenizer that all files name; DataError where they name different ones."""
    first, source = next(iter(sources.items()))
    for path, other in sources.items():
        if other != source:
            raise DataError(
                f"{path}: holds codes of {other.name} ({other.fingerprint[:12]}), {first} of "
                f"{source.name} ({source.fingerprint[:12]}); make both with one tokenizer"
            )
    return source


def read_rows(path: Path) -> Iterator[TrainingRow]:
    """The rows of a file, one at a time; DataError names file and line."""
    return read_rest(path, row_of)


def write_rows(path: Path, source: SpeechSource, rows: Iterable[TrainingRow]) -> int:
    """Write a file of training rows, whole or not at all; returns how many."""
    return write_lines(path, head_of("training_rows", source), map(table_of, rows))


def head_of(kind: str, source: SpeechSource) -> Table:
    """The first line of a file of rows: what kind they are, and whose codes they hold."""
    return {kind: FORMAT, "tokenizer": asdict(source)}


def source_of(table: Table, kind: str) -> SpeechSource:
    """The speech tokenizer that the first line of a file of rows names."""
    if table[kind] != FORMAT:
        raise DataError(f"format {table[kind]} is not {FORMAT}; make the rows again")
    return SpeechSource(**table["tokenizer"])


def table_of(row: TrainingRow) -> dict[str, object]:
    """A training row as one line of its file."""
    values: dict[str, object] = {
        "id": row.id,
        "corpus": row.corpus,
        "split": row.split,
        "weight": row.weight,
        "captions": {language: list(texts) for language, texts in row.captions.items()},
        "act": dict(row.act),
        "measured": dict(row.measured),
        "heard": dict(row.heard),
        "transcript": row.transcript,
    }
    if row.speech is not None:
        codes = row.speech.tolist()
        values["speech"] = codes[0] if len(codes) == 1 else codes
    return values


def row_of(table: Table) -> TrainingRow:
    """A line of a file of training rows; an unknown key is an error."""
    for key in table:
        if key not in ROW_KEYS:
            raise UnknownNameError("key of a training row", key, ROW_KEYS)
    speech = table.get("speech")
    codes = None if speech is None else np.array(speech)
    if codes is not None and codes.dtype.kind != "i":
        raise DataError(f"{table['id']}: speech must be whole numbers, as many in each codebook")
    return TrainingRow(
        id=str(table["id"]),
        corpus=str(table["corpus"]),
        captions={language: tuple(texts) for language, texts in table["captions"].items()},
        speech=None if codes is None else np.atleast_2d(codes.astype(np.int64)),
        split=table.get("split", "train"),
        weight=float(table.get("weight", 1.0)),
        act=dict(table.get("act", {})),
        measured=dict(table.get("measured", {})),
        heard=dict(table.get("heard", {})),
        transcript=str(table.get("transcript", "")),
    )


@dataclass(frozen=True, slots=True)
class Sample:
    """One clip of a batch, with the captions that are asked of it."""

    row: int
    """Its place in the list of rows."""
    language: str
    captions: tuple[int, ...]
    """Places in the row's captions of that language."""
    seed: int | None
    """Of everything else that is random about it; None leaves nothing to chance (validation)."""


class BucketBatchSampler:
    """Deals rows into batches of about one length, epoch by epoch.

    An epoch has about as many draws as there are training rows; a row is drawn as often as its
    weight says, to the next whole number (systematic sampling). Batches are cut from `bucket`
    batches' worth of draws sorted by length, then shuffled.
    """

    def __init__(
        self,
        rows: Sequence[TrainingRow],
        *,
        data: DataSettings,
        batch: BatchSettings,
        seed: int,
        length_of: Callable[[Sample], int],
    ) -> None:
        self._rows, self._data, self._batch, self._seed = rows, data, batch, seed
        self._length_of = length_of
        self._shares = sampling_probabilities(rows, data)
        self._per_epoch = max(1, round(np.count_nonzero(self._shares) / batch.rows))
        self._epochs: dict[int, list[tuple[Sample, ...]]] = {}

    def draws_at(self, number: int) -> tuple[Sample, ...]:
        """The draws of batch `number` (from 0)."""
        epoch, place = divmod(number, self._per_epoch)
        if epoch not in self._epochs:
            # One epoch is kept: training goes through them in order.
            self._epochs = {epoch: self._deal(epoch)}
        return self._epochs[epoch][place]

    def _deal(self, epoch: int) -> list[tuple[Sample, ...]]:
        chance = np.random.default_rng(seed_of(self._seed, 1, epoch))
        size = self._batch.rows
        places = systematic_resampling(self._shares, self._per_epoch * size, chance)
        seeds = chance.integers(2**62, size=len(places))
        draws = [
            sample_of(
                self._rows[place],
                place,
                languages=self._data.languages,
                captions=self._batch.captions,
                seed=int(seed),
            )
            for place, seed in zip(places.tolist(), seeds, strict=True)
        ]
        batches: list[tuple[Sample, ...]] = []
        for start in range(0, len(draws), size * self._batch.bucket):
            bucket = sorted(draws[start : start + size * self._batch.bucket], key=self._length_of)
            batches += [tuple(bucket[i : i + size]) for i in range(0, len(bucket), size)]
        return [batches[i] for i in chance.permutation(len(batches))]


def sample_of(
    row: TrainingRow, place: int, *, languages: Mapping[str, float], captions: int, seed: int
) -> Sample:
    """A language of a row and some of its captions, by `seed`; fewer where it has fewer."""
    chance = random.Random(seed)
    names = sorted(set(row.captions) & set(languages))
    (language,) = chance.choices(names, [languages[name] for name in names])
    there = len(row.captions[language])
    chosen = chance.sample(range(there), min(captions, there))
    return Sample(place, language, tuple(chosen), chance.getrandbits(62))


def sampling_probabilities(rows: Sequence[TrainingRow], data: DataSettings) -> NDArray[np.float64]:
    """The probability of each row, [rows]: by weight, emotions and corpora balanced as the settings
    say.

    Validation rows, and rows without a caption in a language asked for, have 0.
    """
    usable = [
        row.split == "train" and any(data.languages.get(name, 0) > 0 for name in row.captions)
        for row in rows
    ]
    weights = np.array([row.weight for row in rows]) * np.array(usable, dtype=float)
    if not weights.sum() > 0:
        raise DataError("no training row with a weight and a caption in a language asked for")
    if data.rarity:
        weights = reweight(weights, [str(stated_emotion(row)) for row in rows], data.rarity)
    shares = reweight(weights, [row.corpus for row in rows], data.balance)
    normalised: NDArray[np.float64] = shares / shares.sum()
    return normalised


def reweight(
    weights: NDArray[np.float64], groups: Sequence[str], power: float
) -> NDArray[np.float64]:
    """Weights [rows] over the power of their group's sum: 0 leaves them, 1 makes groups equal."""
    names, index = np.unique(groups, return_inverse=True)
    totals = np.bincount(index, weights, minlength=len(names))
    factors = np.where(totals > 0, np.maximum(totals, 1e-300) ** -power, 0.0)
    shares: NDArray[np.float64] = weights * factors[index]
    return shares


def stated_emotion(row: TrainingRow) -> str | None:
    """The emotion that a row's P_act names, or else its first caption; None where neither does."""
    for texts in (row.act, {language: some[0] for language, some in row.captions.items()}):
        for language, text in texts.items():
            if emotion := emotion_of(find_clues(text, language)):
                return emotion
    return None


def systematic_resampling(
    shares: NDArray[np.float64], count: int, chance: np.random.Generator
) -> NDArray[np.int64]:
    """`count` places drawn by `shares`, each as often as its share says ±1, in random order."""
    order = chance.permutation(len(shares))
    edges = np.cumsum(shares[order])
    points = (np.arange(count) + chance.random()) / count * edges[-1]
    found = np.searchsorted(edges, points, side="right").clip(max=len(shares) - 1)
    places: NDArray[np.int64] = chance.permutation(order[found])
    return places


def validation_draws(
    rows: Sequence[TrainingRow], *, limit: int, data: DataSettings, captions: int
) -> list[Sample]:
    """Fixed draws from the validation rows: `limit` of them, evenly spread, in each language."""
    places = [place for place, row in enumerate(rows) if row.split == "validation"]
    step = max(1.0, len(places) / max(1, limit))
    chosen = [places[int(i * step)] for i in range(min(limit, len(places)))]
    return [
        Sample(place, language, tuple(range(min(captions, len(texts)))), None)
        for place in chosen
        for language, texts in sorted(rows[place].captions.items())
        if data.languages.get(language, 0) > 0
    ]


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and one response to it, as ids: what a teacher is asked about."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]


def readable(row: TrainingRow, teacher_prompt: str) -> str:
    """The prompt itself, but "act" for a row that lacks the transcript it asks for."""
    return "act" if "transcript" in teacher_prompt and not row.transcript else teacher_prompt


class Prompter:
    """Builds prompts and responses for draws from one list of rows."""

    def __init__(self, builder: PromptBuilder, rows: Sequence[TrainingRow]) -> None:
        self._builder, self._rows = builder, rows
        # One object for each id: a corpus has millions of them, and Python would keep each.
        self._ids = tuple(range(builder.vocabulary.size))
        self._responses: dict[str, tuple[int, ...]] = {}
        self._prompts: dict[tuple[str, str, TeacherPromptParts], tuple[int, ...]] = {}

    def student_row(self, draw: Sample, student: StudentSettings) -> SharedPromptRow:
        """[bos] P_act? <speech> … </speech> P_instruct, and the captions drawn (Eq. 4).

        P_act and speech frames are left out at random as the settings say. DataError where the
        row has no speech.
        """
        row, chance = self._rows[draw.row], random.Random(draw.seed or 0)
        dropped = draw.seed is not None and chance.random() < student.act_dropout
        act = "" if dropped else row.student_act(student.act_mode, draw.language)
        speech = _thinned(row, 0.0 if draw.seed is None else student.speech_dropout, chance)
        prompt = self._builder.student(speech, language=draw.language, act=act)
        return SharedPromptRow(prompt.ids, self._said(draw))

    def teacher_examples(self, draw: Sample, teacher_prompt: str) -> list[Example]:
        """For each caption drawn, what the text teacher reads and the caption (Eq. 2).

        With P_sem each caption has a prompt of its own: the caption itself (decision 4). Of a row
        without a transcript "act" is read in place of "act+transcript".
        """
        row = self._rows[draw.row]
        teacher_prompt = readable(row, teacher_prompt)
        return [
            Example(self._text_prompt(row, draw.language, teacher_prompt, caption), response)
            for caption, response in zip(self._texts(draw), self._said(draw), strict=True)
        ]

    def all_examples(self, teacher_prompt: str) -> list[Example]:
        """What the teacher may be asked about: every caption of every row, each once."""
        found: dict[Example, None] = {}
        seen: set[object] = set()
        for place, row in enumerate(self._rows):
            for language, captions in row.captions.items():
                # Views of one clip ask the same.
                key = (captions, row.act.get(language), row.transcript, language)
                if key not in seen:
                    seen.add(key)
                    draw = Sample(place, language, tuple(range(len(captions))), None)
                    found.update(dict.fromkeys(self.teacher_examples(draw, teacher_prompt)))
        return list(found)

    def warmup_rows(
        self, draw: Sample, *, prompts: Mapping[str, float], act_dropout: float
    ) -> list[SharedPromptRow]:
        """The captions drawn after a text prompt, whose kind is drawn from `prompts` (Eq. 2)."""
        row, chance = self._rows[draw.row], random.Random(draw.seed or 0)
        (kind,) = chance.choices(list(prompts), list(prompts.values()))
        if draw.seed is None:
            kind = next(iter(prompts))
        kind = readable(row, kind)
        dropped = draw.seed is not None and chance.random() < act_dropout
        if kind == "act" and dropped:
            prompt = self._builder.teacher(
                TeacherPromptParts(), language=draw.language, teacher_prompt="act"
            )
            return [SharedPromptRow(prompt.ids, self._said(draw))]
        examples = self.teacher_examples(draw, kind)
        by_prompt: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for example in examples:
            by_prompt.setdefault(example.prompt_ids, []).append(example.response_ids)
        return [SharedPromptRow(ids, tuple(said)) for ids, said in by_prompt.items()]

    def _text_prompt(
        self, row: TrainingRow, language: str, teacher_prompt: str, caption: str
    ) -> tuple[int, ...]:
        reading = TeacherPromptParts(
            act=row.act.get(language, ""),
            sem=caption if teacher_prompt == "act+sem" else "",
            transcript=row.transcript if teacher_prompt == "act+transcript" else "",
        )
        key = (language, teacher_prompt, reading)
        if key not in self._prompts:
            prompt = self._builder.teacher(
                reading, language=language, teacher_prompt=teacher_prompt
            )
            self._prompts[key] = tuple(self._ids[i] for i in prompt.ids)
        return self._prompts[key]

    def _texts(self, draw: Sample) -> list[str]:
        captions = self._rows[draw.row].captions[draw.language]
        return [captions[place] for place in draw.captions]

    def _said(self, draw: Sample) -> tuple[tuple[int, ...], ...]:
        for text in (texts := self._texts(draw)):
            if text not in self._responses:
                said = self._builder.response(text)
                self._responses[text] = tuple(self._ids[i] for i in said)
        return tuple(self._responses[text] for text in texts)


def _thinned(row: TrainingRow, dropout: float, chance: random.Random) -> SpeechTokens:
    if row.speech is None:
        raise DataError(f"{row.id}: has no speech; the student needs speech tokens")
    if dropout == 0.0:
        return SpeechTokens(row.speech)
    frames = row.speech.shape[1]
    kept = [place for place in range(frames) if chance.random() >= dropout]
    kept = kept or [chance.randrange(frames)]
    return SpeechTokens(np.ascontiguousarray(row.speech[:, kept]))
