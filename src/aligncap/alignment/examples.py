"""What the stages of alignment are trained on: rows, the samples of a batch, and their token ids.

Training rows are JSON lines, read as a stream. The first line names whose codes the rows hold:

    {"training_rows": 1, "tokenizer": {"name": "builtin", "fingerprint": "3f9c…",
     "frame_rate_hz": 12.5, "codebooks": 1, "codebook_size": 512, "options": {}}}

and each further line is one view of a clip (augmented views of a clip are rows of their own):

    {"id": "clip#2", "corpus": "ravdess", "split": "train", "weight": 1.0,
     "speech": [17, 4, …],                            one list a codebook where there are several;
                                                      left out of a row with captions only;
                                                      of vectors {"key": "9a0c…", "frames": 53}
     "captions": {"en": ["…", "…"], "zh": ["…"]},
     "act": {"en": "Feeling sad, low, and slow"},     P_act of its captions (Eq. 1): the teacher's
     "measured": {"en": "Feeling low and slow"},      P_act that the signal supports: the student's
     "heard": {"en": "Feeling sad, low, and slow"},   the same with the tokenizer's readout
     "retrieved": {"en": "Feeling sad and slow"},     P_act of the clue words nearest to the speech
     "transcript": "…"}

Only id, corpus and captions are required. `sampling.BucketBatchSampler` gives the samples of each
batch; `Prompter` turns a sample into prompts and responses.
"""

import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, model_validator

from aligncap.alignment.losses import inject_noise
from aligncap.captioner.captioner import StudentInput
from aligncap.captioner.checkpoint import ModelMeta
from aligncap.captioner.prompts import (
    ACOUSTIC_PROMPT_SOURCES,
    PromptBuilder,
    SharedPromptRow,
    TeacherPromptParts,
    plan_of,
)
from aligncap.data.grammar import split_plan
from aligncap.errors import AlignCapError, DataError, UnknownNameError
from aligncap.recipes import Count, Share, one_of, recipe_section
from aligncap.storage import atomic_file, decoded
from aligncap.tokenizers.cache import FeatureStore
from aligncap.values import LANGUAGES, SpeechFeatures, SpeechTokenizer, SpeechTokens

Parsed = TypeVar("Parsed")

Table = Mapping[str, Any]
"""One line of a file."""

FORMAT = 1
SPLITS = ("train", "validation")
MOST_FRAMES = 1_000_000
"""Of a clip whose speech is vectors."""
ROW_KEYS = frozenset(
    {
        *("id", "corpus", "split", "weight", "speech", "captions"),
        *("act", "measured", "heard", "retrieved", "transcript"),
    }
)


@recipe_section
class DataSettings:
    """Which rows are trained on, and how they are mixed."""

    rows: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Files of training rows."""
    languages: Mapping[Annotated[str, one_of(LANGUAGES)], NonNegativeFloat] = field(
        default_factory=lambda: dict.fromkeys(LANGUAGES, 1.0)
    )
    """How often captions are sampled in each language, among those a row has."""
    balance: Share = 0.0
    """0 samples corpora by their rows, 1 all equally often."""
    rarity: Share = 0.0
    """The same of emotions, before corpora are balanced."""

    @model_validator(mode="after")
    def _some_language(self) -> Self:
        if not sum(self.languages.values()) > 0:
            raise ValueError("languages asks for no language")
        return self


@recipe_section
class BatchSettings:
    """What one batch holds."""

    rows: Count = 16
    """Clips; the paper's effective batch (decision 12)."""
    captions: Count = 3
    """Captions of a clip that share its prompt."""
    bucket: Count = 50
    """Batches that are sorted by length together: more pads less, and mixes less."""


@recipe_section
class StudentSettings:
    """The student's prompt."""

    act_mode: Annotated[str, one_of(ACOUSTIC_PROMPT_SOURCES)] = "none"
    """Where its P_act comes from: "none" (Eq. 4), "measured", "heard" or "retrieved" (decision
    5)."""
    act_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of prompts without P_act, so that it can be left out when captioning."""
    speech_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of speech frames that are left out, sampled anew each time."""
    noise: NonNegativeFloat = 0.0
    """Of rows that hold vectors: the variance of Gaussian noise on each, of unit length before and
    after, drawn anew each time (§5.2, noise injection)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechSource:
    """The speech tokenizer that gave the rows' codes."""

    name: str
    fingerprint: str
    frame_rate_hz: float
    codebooks: int
    codebook_size: int
    options: Mapping[str, int] = field(default_factory=dict)
    feature_width: int = 0
    """The length of a vector, of a speech encoder that gives vectors; 0: it gives codes."""
    store: str = field(default="", compare=False)
    """The token cache that holds the vectors."""

    def __post_init__(self) -> None:
        if self.codebooks < 1 or self.codebook_size < 1 or not self.frame_rate_hz > 0:
            raise DataError(f"tokenizer {self.name!r}: codebooks, sizes and rate must be positive")

    @classmethod
    def of(
        cls,
        tokenizer: SpeechTokenizer,
        *,
        options: Mapping[str, int] = MappingProxyType({}),
        store: str = "",
    ) -> "SpeechSource":
        """An open tokenizer as files name it, with the options it was opened with; `store` is the
        cache of one that gives vectors."""
        return cls(
            name=tokenizer.name,
            fingerprint=tokenizer.fingerprint,
            frame_rate_hz=tokenizer.frame_rate_hz,
            codebooks=tokenizer.codebooks,
            codebook_size=tokenizer.codebook_size,
            options=dict(options),
            feature_width=getattr(tokenizer, "feature_width", 0),
            store=store,
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
    """How often it is sampled, relative to other rows."""
    act: Mapping[str, str] = field(default_factory=dict)
    """P_act by language, from the captions (Eq. 1)."""
    measured: Mapping[str, str] = field(default_factory=dict)
    """P_act by language, from the signal (decision 5)."""
    heard: Mapping[str, str] = field(default_factory=dict)
    """P_act by language, from the signal and the tokenizer's readout (decision 5)."""
    retrieved: Mapping[str, str] = field(default_factory=dict)
    """P_act by language, from a joint speech-text space (decision 5)."""
    transcript: str = ""
    features: SpeechFeatures | None = None
    """The vectors of the frames, where the speech encoder gives vectors."""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise UnknownNameError(f"split ({self.id})", self.split, SPLITS)
        for name in ("captions", "act", "measured", "heard", "retrieved"):
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

    @property
    def tokens(self) -> SpeechTokens:
        """Its speech; DataError where it has none."""
        if self.speech is None:
            raise DataError(f"{self.id}: has no speech; the student needs speech tokens")
        return SpeechTokens(self.speech, features=self.features)

    def acoustic_prompt(self, source: str, language: str) -> str:
        """The student's P_act from one of the `ACOUSTIC_PROMPT_SOURCES`; "" without one."""
        prompts: Mapping[str, str] = {} if source == "none" else getattr(self, source)
        return prompts.get(language, "")


def is_planned(row: TrainingRow) -> bool:
    """Whether captions of a row begin with plans ("f17 3|She …")."""
    return any(split_plan(text)[0] for texts in row.captions.values() for text in texts)


def plan_of_row(row: TrainingRow, language: str) -> str:
    """The plan by which a planned row's clip is captioned, as of the clip itself; "" for a row
    without plans or without speech."""
    if row.speech is None or not is_planned(row):
        return ""
    told = row.heard.get(language) or row.measured.get(language, "")
    return plan_of(told, SpeechTokens(row.speech), language)


def student_input(row: TrainingRow, meta: ModelMeta, language: str) -> StudentInput:
    """A row's speech tokens, P_act and plan, as a captioner of that model takes them."""
    plan = plan_of_row(row, language) if meta.plans else ""
    return StudentInput(row.tokens, row.acoustic_prompt(meta.act_mode, language), plan)


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
    return read_rest(path, partial(row_of, store=store_of(read_source(path))))


def write_rows(path: Path, source: SpeechSource, rows: Iterable[TrainingRow]) -> int:
    """Write a file of training rows atomically; returns how many."""
    return write_lines(path, head_of("training_rows", source), map(table_of, rows))


def head_of(kind: str, source: SpeechSource) -> Table:
    """The first line of a file of rows: their kind, and whose codes they hold."""
    table = asdict(source)
    if not source.feature_width:
        table = {name: table[name] for name in table if name not in ("feature_width", "store")}
    return {kind: FORMAT, "tokenizer": table}


def store_of(source: SpeechSource) -> FeatureStore | None:
    """Where the vectors of a file's rows are; None for rows of codes."""
    return FeatureStore(Path(source.store), source.fingerprint) if source.feature_width else None


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
    if row.retrieved:
        values["retrieved"] = dict(row.retrieved)
    if row.features is not None and row.speech is not None:
        values["speech"] = {"key": row.features.key, "frames": row.speech.shape[1]}
    elif row.speech is not None:
        codes = row.speech.tolist()
        values["speech"] = codes[0] if len(codes) == 1 else codes
    return values


def row_of(table: Table, *, store: FeatureStore | None = None) -> TrainingRow:
    """A line of a file of training rows; an unknown key is an error. `store` has the vectors, where
    the rows have any."""
    for key in table:
        if key not in ROW_KEYS:
            raise UnknownNameError("key of a training row", key, ROW_KEYS)
    speech, features = table.get("speech"), None
    if isinstance(speech, dict):
        if store is None:
            raise DataError(f"{table['id']}: speech is vectors, the first line names no width")
        frames = int(speech["frames"])
        if not 0 < frames <= MOST_FRAMES:
            raise DataError(f"{table['id']}: speech has {frames} frames; make the rows again")
        features, speech = store.features(str(speech["key"])), [0] * frames
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
        retrieved=dict(table.get("retrieved", {})),
        transcript=str(table.get("transcript", "")),
        features=features,
    )


def read_head(path: Path, parse: Callable[[Table], Parsed]) -> Parsed:
    """The first line of a file of rows; DataError where it is empty or damaged."""
    for head in _parsed_lines(path, parse, lambda number: number == 1):
        return head
    raise DataError(f"{path}: is empty; make it again")


def read_rest(path: Path, parse: Callable[[Table], Parsed]) -> Iterator[Parsed]:
    """The rows after the first line, one at a time; DataError names file and line."""
    return _parsed_lines(path, parse, lambda number: number > 1)


def write_lines(path: Path, head: Table, rows: Iterable[Table]) -> int:
    """Write a file of rows atomically; returns how many rows."""
    count = 0
    with atomic_file(path) as file:
        file.write(json.dumps(head) + "\n")
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _parsed_lines(
    path: Path, parse: Callable[[Table], Parsed], wanted: Callable[[int], bool]
) -> Iterator[Parsed]:
    """The lines of a file whose number (from 1) is wanted."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); make it first: training rows by a recipe "
            "of kind 'token-rows', preference rows with aligncap prefer rows"
        ) from error
    with file:
        for number, line in enumerate(file, start=1):
            if not wanted(number):
                continue
            text = decoded(line, f"{path}:{number}", "rows")
            try:
                parsed = parse(json.loads(text))
            except (AlignCapError, ValueError, TypeError, KeyError, AttributeError) as error:
                reason = f"lacks {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
                if number == 1:
                    reason += (
                        "; the first line says what rows these are and whose speech tokens they "
                        "hold"
                    )
                raise DataError(f"{path}:{number}: {reason}") from error
            yield parsed


@dataclass(frozen=True, slots=True)
class Sample:
    """One clip of a batch and the captions that are its targets."""

    row: int
    """Its place in the list of rows."""
    language: str
    captions: tuple[int, ...]
    """Places in the row's captions of that language."""
    seed: int | None
    """Of everything else that is random about it; None: nothing is (validation)."""


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and one response to it, as ids: an input of a frozen model."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]


def with_noise(speech: SpeechTokens, variance: float, seed: int) -> SpeechTokens:
    """Speech whose vectors have noise of a variance, by `losses.inject_noise`."""
    assert speech.features is not None
    generator = torch.Generator().manual_seed(seed)
    vectors = inject_noise(torch.from_numpy(speech.features.read()), variance, generator)
    return replace(speech, features=SpeechFeatures.of(vectors.numpy()))


class Prompter:
    """Builds prompts and responses for samples of one list of rows."""

    def __init__(self, builder: PromptBuilder, rows: Sequence[TrainingRow]) -> None:
        self._builder, self._rows = builder, rows
        # One object for each id: a corpus has millions of them, and Python would keep each.
        self._ids = tuple(range(builder.vocabulary.size))
        self._responses: dict[str, tuple[int, ...]] = {}
        self._prompts: dict[tuple[str, str, TeacherPromptParts], tuple[int, ...]] = {}

    def student_row(self, sample: Sample, student: StudentSettings) -> SharedPromptRow:
        """[bos] P_act? <speech> … </speech> P_instruct, and the sample's captions (Eq. 4).

        P_act and speech frames are left out at random as the settings say. DataError where the
        row has no speech.
        """
        row, rng = self._rows[sample.row], random.Random(sample.seed or 0)
        dropped = sample.seed is not None and rng.random() < student.act_dropout
        act = "" if dropped else row.acoustic_prompt(student.act_mode, sample.language)
        speech = row.tokens
        if sample.seed is not None and student.speech_dropout > 0:
            frames = range(speech.codes.shape[1])
            kept = [frame for frame in frames if rng.random() >= student.speech_dropout]
            speech = speech.of_frames(np.array(kept or [rng.randrange(len(frames))]))
        if sample.seed is not None and student.noise > 0 and speech.features is not None:
            speech = with_noise(speech, student.noise, rng.getrandbits(62))
        prompt = self._builder.student(speech, language=sample.language, act=act)
        return SharedPromptRow(prompt, self._response_ids(sample))

    def teacher_examples(self, sample: Sample, teacher_prompt: str) -> list[Example]:
        """The teacher's prompt for each of the sample's captions, and the caption (Eq. 2).

        With P_sem each caption has a prompt of its own: the caption itself (decision 4). A row
        without a transcript has "act" in place of "act+transcript".
        """
        row, language = self._rows[sample.row], sample.language
        kind = "act" if "transcript" in teacher_prompt and not row.transcript else teacher_prompt
        examples = []
        for place, response in zip(sample.captions, self._response_ids(sample), strict=True):
            parts = TeacherPromptParts(
                act=row.act.get(language, "") if "act" in kind else "",
                sem=split_plan(row.captions[language][place])[1] if "sem" in kind else "",
                transcript=row.transcript if kind == "act+transcript" else "",
            )
            key = (language, kind, parts)
            if key not in self._prompts:
                prompt = self._builder.teacher(parts, language=language, teacher_prompt=kind)
                self._prompts[key] = tuple(self._ids[i] for i in prompt)
            examples.append(Example(self._prompts[key], response))
        return examples

    def all_examples(self, teacher_prompt: str) -> list[Example]:
        """The teacher's examples of every caption of every row, each once."""
        found: dict[Example, None] = {}
        seen: set[object] = set()
        for place, row in enumerate(self._rows):
            for language, captions in row.captions.items():
                # Views of one clip have the same examples.
                key = (captions, row.act.get(language), row.transcript, language)
                if key not in seen:
                    seen.add(key)
                    sample = Sample(place, language, tuple(range(len(captions))), None)
                    found.update(dict.fromkeys(self.teacher_examples(sample, teacher_prompt)))
        return list(found)

    def warmup_rows(
        self, sample: Sample, *, prompts: Mapping[str, float], act_dropout: float
    ) -> list[SharedPromptRow]:
        """The sample's captions after a text prompt, whose kind is sampled from `prompts` (Eq. 2).

        A validation sample has the first kind that has a weight.
        """
        row, rng = self._rows[sample.row], random.Random(sample.seed or 0)
        (kind,) = rng.choices(list(prompts), list(prompts.values()))
        if sample.seed is None:
            kind = next(one for one, weight in prompts.items() if weight > 0)
        without_transcript = "transcript" in kind and not row.transcript
        dropped = sample.seed is not None and rng.random() < act_dropout
        if dropped and (kind == "act" or without_transcript):
            prompt = self._builder.teacher(
                TeacherPromptParts(), language=sample.language, teacher_prompt="act"
            )
            return [SharedPromptRow(prompt, self._response_ids(sample))]
        by_prompt: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for example in self.teacher_examples(sample, kind):
            by_prompt.setdefault(example.prompt_ids, []).append(example.response_ids)
        return [SharedPromptRow(ids, tuple(responses)) for ids, responses in by_prompt.items()]

    def _response_ids(self, sample: Sample) -> tuple[tuple[int, ...], ...]:
        captions = self._rows[sample.row].captions[sample.language]
        texts = [captions[place] for place in sample.captions]
        for text in texts:
            if text not in self._responses:
                self._responses[text] = tuple(self._ids[i] for i in self._builder.response(text))
        return tuple(self._responses[text] for text in texts)
