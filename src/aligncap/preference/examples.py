"""Preference rows: what DPO, the reward model and PPO learn from, as JSON lines read as a stream.

The first line says whose codes the rows hold, as in `alignment.data`:

    {"preference_rows": 1, "tokenizer": {"name": "builtin", "fingerprint": "3f9c…", …}}

and each further line is one clip in one language:

    {"id": "clip7", "corpus": "ravdess", "split": "train", "weight": 1.0, "language": "en",
     "speech": [17, 4, …],                 one list a codebook where there are several
     "measured": "Feeling low and slow",   P_act of the prompt by the signal, and by what the
     "heard": "Feeling sad and low",       tokenizer's heads hear as well; each may be left out
     "candidates": ["…", "…", "…"],
     "pairs": [[0, 1], [0, 2]],            (chosen, rejected), places among the candidates
     "facts": [3.2, 2.9, {"pitch_median_hz": [231.0, "Hz", 0.9, ""], …}],
     "emotion": "sad", "gender": "female",
     "references": {"zh": ["…"]}}          captions that people wrote, by language

Only id, corpus, language, speech and candidates are required: pairs are what DPO and the reward
model learn from, facts, labels and references are what captions are checked against.

From a store to preference rows: what DPO, the reward model and PPO learn from.

Pairs as shared-prompt rows: all candidates of a clip behind one prompt, pairs as places.

What every preference recipe goes on from: a captioner that was trained before.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aligncap.alignment.examples import (
    BatchSettings,
    Example,
    Prompter,
    Sample,
    SpeechSource,
    StudentSettings,
    Table,
    TrainingRow,
    head_of,
    one_source,
    read_head,
    read_rest,
    read_rows,
    read_source,
    row_of,
    source_of,
    table_of,
    write_lines,
)
from aligncap.alignment.trainer import StageSettings
from aligncap.captioner.checkpoint import read_meta
from aligncap.captioner.prompts import SharedPromptRow
from aligncap.errors import DataError, UnknownNameError
from aligncap.preference.candidates import is_as_it_is, utterance_of
from aligncap.preference.store import PreferenceStore
from aligncap.preference.values import Clip, PreferencePair, Provenance
from aligncap.prosody.facts import facts_of, table_of_facts
from aligncap.recipes import Count, recipe_section
from aligncap.values import EMOTIONS, LANGUAGES, Facts

KIND = "preference_rows"

ACTS = ("measured", "heard")
"""Act modes whose P_act a row gives."""

ROW_KEYS = frozenset(
    {
        *("id", "corpus", "split", "weight", "language", "speech"),
        *("measured", "heard"),
        *("candidates", "pairs", "facts", "emotion", "gender", "references"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceRow:
    """A clip in one language: candidates, which of them is preferred to which, what is known."""

    clip: TrainingRow
    """Its captions, in one language, are the candidates."""
    pairs: tuple[tuple[int, int], ...] = ()
    """(chosen, rejected): places among the candidates."""
    facts: Facts | None = None
    """What the signal shows."""
    emotion: str | None = None
    """As labelled, one of `values.EMOTIONS`."""
    gender: str | None = None
    """As labelled."""
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Captions that people wrote, by language."""

    def __post_init__(self) -> None:
        name = self.clip.id
        if len(self.clip.captions) != 1 or self.clip.speech is None:
            raise DataError(f"{name}: a preference row has speech, and candidates in one language")
        count = len(self.candidates)
        for chosen, rejected in self.pairs:
            if not (0 <= chosen < count and 0 <= rejected < count) or chosen == rejected:
                raise DataError(
                    f"{name}: pair [{chosen}, {rejected}] does not name two of {count} candidates"
                )
        if self.emotion is not None and self.emotion not in EMOTIONS:
            raise UnknownNameError(f"emotion ({name})", self.emotion, EMOTIONS)

    @property
    def language(self) -> str:
        """The language of the candidates."""
        return next(iter(self.clip.captions))

    @property
    def candidates(self) -> tuple[str, ...]:
        """The captions that were judged."""
        return self.clip.captions[self.language]


def read_preferences(paths: Sequence[Path]) -> tuple[list[PreferenceRow], SpeechSource]:
    """The rows of several files, which must hold the codes of one speech tokenizer.

    DataError where they do not, or where there is no row.
    """
    source = one_source(
        {path: read_head(path, lambda table: source_of(table, KIND)) for path in paths}
    )
    rows = [row for path in paths for row in read_preference_rows(path)]
    if not any(row.clip.split == "train" for row in rows):
        raise DataError(f"{', '.join(map(str, paths))}: no row of split 'train' to learn from")
    return rows, source


def read_preference_rows(path: Path) -> Iterator[PreferenceRow]:
    """The rows of a file, one at a time; DataError names file and line."""
    return read_rest(path, _row)


def write_preference_rows(path: Path, source: SpeechSource, rows: Iterable[PreferenceRow]) -> int:
    """Write a file of preference rows, whole or not at all; returns how many."""
    return write_lines(path, head_of(KIND, source), map(_table, rows))


def _row(table: Table) -> PreferenceRow:
    for key in table:
        if key not in ROW_KEYS:
            raise UnknownNameError("key of a preference row", key, ROW_KEYS)
    language = table["language"]
    clip = {key: table[key] for key in ("id", "corpus", "speech")}
    clip |= {key: table[key] for key in ("split", "weight") if key in table}
    facts = table.get("facts")
    return PreferenceRow(
        clip=row_of(
            {
                **clip,
                "captions": {language: table["candidates"]},
                **{key: {language: table[key]} for key in ACTS if table.get(key)},
            }
        ),
        pairs=tuple((int(chosen), int(rejected)) for chosen, rejected in table.get("pairs", ())),
        facts=None if facts is None else facts_of(facts),
        emotion=table.get("emotion"),
        gender=table.get("gender"),
        references={
            language: tuple(texts) for language, texts in table.get("references", {}).items()
        },
    )


def _table(row: PreferenceRow) -> Mapping[str, object]:
    clip, language = table_of(row.clip), row.language
    return {
        **{key: clip[key] for key in ("id", "corpus", "split", "weight", "speech")},
        "language": language,
        **{act: row.clip.acoustic_prompt(act, language) for act in ACTS},
        "candidates": list(row.candidates),
        "pairs": [list(pair) for pair in row.pairs],
        "facts": None if row.facts is None else table_of_facts(row.facts),
        "emotion": row.emotion,
        "gender": row.gender,
        "references": {one: list(texts) for one, texts in row.references.items()},
    }


def write_store_rows(
    store: PreferenceStore, out: Path, training: Sequence[Path]
) -> tuple[int, int, int]:
    """Write the latest pairs of a store as preference rows; `training` are rows of its clips.

    Returns how many rows and pairs were written, and how many clips of the store are in none of
    the training rows. DataError where all are, or where the store holds no pairs.
    """
    builder = store.pairs.latest()
    source = one_source({path: read_source(path) for path in training})
    known = {clip.utterance: clip for clip in store.clips()}
    heard = [
        (row, known.pop(utterance_of(row)))
        for path in training
        for row in read_rows(path)
        if row.speech is not None and is_as_it_is(row) and utterance_of(row) in known
    ]
    if not heard:
        raise DataError(
            f"{training[0]}: holds no clip of {store.path}; name the training rows that were made "
            "from the manifest of the candidates"
        )
    rows = list(preference_rows(store, heard, builder=builder, source=None, languages=LANGUAGES))
    write_preference_rows(out, source, rows)
    return len(rows), sum(len(row.pairs) for row in rows), len(known)


def preference_rows(
    store: PreferenceStore,
    clips: Sequence[tuple[TrainingRow, Clip]],
    *,
    builder: str,
    source: Provenance | None,
    languages: Iterable[str],
) -> Iterator[PreferenceRow]:
    """Each clip and language that has candidates of `source` (None: of any model), with the pairs
    of `builder`.

    A clip without a pair has a row all the same: PPO reads clips, not pairs.
    """
    pairs: dict[tuple[str, str], list[PreferencePair]] = defaultdict(list)
    for pair in store.pairs.all(builder):
        pairs[pair.utterance, pair.language].append(pair)
    for training, clip in clips:
        for language in languages:
            own = pairs[clip.utterance, language]
            texts = {
                candidate.key: candidate.text
                for candidate in store.candidates(clip.utterance, language, source)
                if candidate.method != "gold"
            }
            # The corpus' caption takes part only where it was paired.
            texts |= {
                side.key: side.text
                for pair in own
                for side in (pair.chosen, pair.rejected)
                if side.key not in texts
            }
            if texts:
                yield _preference_row(training, clip, language, texts, own)


def _preference_row(
    training: TrainingRow,
    clip: Clip,
    language: str,
    texts: dict[str, str],
    pairs: Sequence[PreferencePair],
) -> PreferenceRow:
    place = {key: number for number, key in enumerate(texts)}
    return PreferenceRow(
        clip=replace(
            training,
            captions={language: tuple(texts.values())},
            weight=1.0,
            act={},
            measured=_of_language(training.measured, language),
            heard=_of_language(training.heard, language),
            transcript="",
        ),
        pairs=tuple((place[pair.chosen.key], place[pair.rejected.key]) for pair in pairs),
        facts=clip.facts,
        emotion=clip.emotion,
        gender=clip.gender,
        references=dict(clip.references),
    )


def _of_language(acts: Mapping[str, str], language: str) -> dict[str, str]:
    return {language: acts[language]} if language in acts else {}


def reads(act_mode: str) -> StudentSettings:
    """What the policy reads: P_act as it was trained with, as its candidates were made, nothing
    left out at random."""
    return StudentSettings(act_mode=act_mode, act_dropout=0.0)


@recipe_section
class PairBatchSettings(BatchSettings):
    """What one batch of pairs holds."""

    captions: Count = 16
    """Pairs among the first so many candidates of a clip count."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which responses of a batch are preferred to which, P pairs of R responses."""

    chosen: NDArray[np.int64]
    """[P]; places among the batch's responses."""
    rejected: NDArray[np.int64]
    """[P]"""
    reference: NDArray[np.float32] | None = None
    """[R]; log π_ref of each response, summed over its tokens."""


def with_pairs(rows: Sequence[PreferenceRow], *, candidates: int) -> list[PreferenceRow]:
    """The rows that hold a pair among their first `candidates`; DataError where none to train."""
    kept = [row for row in rows if any(max(pair) < candidates for pair in row.pairs)]
    if not any(row.clip.split == "train" for row in kept):
        raise DataError(
            f"none of {len(rows)} preference rows of split 'train' holds a pair; "
            "judge the candidates and make pairs first"
        )
    return kept


class PairDataset:
    """Draws from preference rows as rows of ids, and their pairs."""

    def __init__(
        self,
        prompter: Prompter,
        rows: Sequence[PreferenceRow],
        *,
        candidates: int,
        act_mode: str,
    ) -> None:
        """`prompter` is over the clips of the same rows; of each the first `candidates` count."""
        self._reads = reads(act_mode)
        self._prompter, self._rows = prompter, rows
        self._pairs = [[p for p in row.pairs if max(p) < candidates] for row in rows]

    def row_of(self, draw: Sample) -> SharedPromptRow:
        """The clip's prompt, and every candidate that is in a pair, in order."""
        places = tuple(sorted({place for pair in self._pairs[draw.row] for place in pair}))
        whole = Sample(draw.row, self._rows[draw.row].language, places, None)
        return self._prompter.student_row(whole, self._reads)

    def pairs_of(self, draws: Sequence[Sample]) -> Pairs:
        """The pairs of a batch of these draws."""
        chosen: list[int] = []
        rejected: list[int] = []
        start = 0
        for draw in draws:
            pairs = self._pairs[draw.row]
            places = sorted({place for pair in pairs for place in pair})
            rank = {place: start + number for number, place in enumerate(places)}
            chosen += [rank[one] for one, _ in pairs]
            rejected += [rank[other] for _, other in pairs]
            start += len(places)
        return Pairs(np.array(chosen, dtype=np.int64), np.array(rejected, dtype=np.int64))

    def examples(self, draws: Sequence[Sample]) -> list[Example]:
        """Prompt and response of each candidate, in the order of the batch's responses."""
        rows = [self.row_of(draw) for draw in draws]
        return [Example(row.prompt_ids, said) for row in rows for said in row.responses]

    def all_draws(self) -> list[Sample]:
        """Every row once."""
        return [Sample(place, row.language, (), None) for place, row in enumerate(self._rows)]


def require_start(settings: StageSettings) -> None:
    """ValueError where the recipe names no model to go on from."""
    if settings.model.start is None:
        raise ValueError(
            "preferences are learnt by a captioner: give model.start, the folder of one "
            "(after KD, §3.2)"
        )


def has_own_reference(settings: StageSettings) -> bool:
    """Whether π_ref is a frozen copy of the start, not the start under a fresh adapter.

    Of a start that has an adapter itself, switching it off would not give π_ref (decision 12).
    """
    start = settings.model.start
    assert start is not None  # the settings make sure
    return settings.model.lora is None or bool(read_meta(start).base)


def start_act_mode(settings: StageSettings) -> str:
    """Where P_act comes from: as the model was trained before."""
    assert settings.model.start is not None
    return read_meta(settings.model.start).act_mode
