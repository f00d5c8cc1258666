"""Preference rows: what DPO, the reward model and PPO learn from, as JSON lines.

The first line names the tokenizer of the speech codes, as in `alignment.examples`:

    {"preference_rows": 1, "tokenizer": {"name": "builtin", "fingerprint": "3f9c…", …}}

and each further line is one clip in one language:

    {"id": "clip7", "corpus": "ravdess", "split": "train", "weight": 1.0, "language": "en",
     "speech": [17, 4, …],                 one list a codebook where there are several
     "measured": "Feeling low and slow",   P_act of the prompt by the signal, and by the
     "heard": "Feeling sad and low",       tokenizer's heads as well; each may be left out
     "candidates": ["…", "…", "…"],
     "pairs": [[0, 1], [0, 2]],            (chosen, rejected), places among the candidates
     "facts": [3.2, 2.9, {"pitch_median_hz": [231.0, "Hz", 0.9, ""], …}],
     "emotion": "sad", "gender": "female",
     "references": {"zh": ["…"]}}          captions that people wrote, by language

Only id, corpus, language, speech and candidates are required: pairs are what DPO and the reward
model learn from, facts, labels and references are what captions are checked against.

`PairDataset` makes shared-prompt rows of them: all candidates of a clip behind one prompt, and
pairs as places among the responses of a batch.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

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
    plan_of_row,
    read_head,
    read_rest,
    read_rows,
    read_source,
    row_of,
    source_of,
    store_of,
    table_of,
    write_lines,
)
from aligncap.alignment.trainer import StageSettings, plan_training
from aligncap.captioner.checkpoint import read_meta
from aligncap.captioner.model import CaptionModel
from aligncap.captioner.prompts import SharedPromptRow
from aligncap.data.manifest import facts_of, table_of_facts
from aligncap.errors import DataError, UnknownNameError
from aligncap.preference.candidates import is_unchanged, utterance_of
from aligncap.preference.store import (
    Clip,
    PreferencePair,
    PreferenceStore,
    Provenance,
    normal_form,
)
from aligncap.recipes import Count, recipe_section
from aligncap.tokenizers.cache import FeatureStore
from aligncap.training.dry_run import Needed, needed_path
from aligncap.values import EMOTIONS, LANGUAGES, Facts

LOG = logging.getLogger(__name__)

KIND = "preference_rows"

ACTS = ("measured", "heard", "retrieved")
"""Act modes whose P_act a row gives."""

ROW_KEYS = frozenset(
    {
        *("id", "corpus", "split", "weight", "language", "speech"),
        *ACTS,
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

    def tells_apart(self, pair: tuple[int, int]) -> bool:
        """Whether the two captions of a pair are different."""
        chosen, rejected = (normal_form(self.candidates[place]) for place in pair)
        return chosen != rejected


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
    store = store_of(read_head(path, lambda table: source_of(table, KIND)))
    return read_rest(path, partial(_row_of_table, store=store))


def write_preference_rows(path: Path, source: SpeechSource, rows: Iterable[PreferenceRow]) -> int:
    """Write a file of preference rows, whole or not at all; returns how many."""
    return write_lines(path, head_of(KIND, source), map(_table_of_row, rows))


def _row_of_table(table: Table, *, store: FeatureStore | None) -> PreferenceRow:
    for key in table:
        if key not in ROW_KEYS:
            raise UnknownNameError("key of a preference row", key, ROW_KEYS)
    language, facts = table["language"], table.get("facts")
    clip = {key: table[key] for key in ("id", "corpus", "speech")}
    clip |= {key: table[key] for key in ("split", "weight") if key in table}
    clip |= {key: {language: table[key]} for key in ACTS if table.get(key)}
    clip["captions"] = {language: table["candidates"]}
    return PreferenceRow(
        clip=row_of(clip, store=store),
        pairs=tuple((int(chosen), int(rejected)) for chosen, rejected in table.get("pairs", ())),
        facts=None if facts is None else facts_of(facts),
        emotion=table.get("emotion"),
        gender=table.get("gender"),
        references={name: tuple(texts) for name, texts in table.get("references", {}).items()},
    )


def _table_of_row(row: PreferenceRow) -> Mapping[str, object]:
    clip, language = table_of(row.clip), row.language
    return {
        **{key: clip[key] for key in ("id", "corpus", "split", "weight", "speech")},
        "language": language,
        **{act: text for act in ACTS if (text := row.clip.acoustic_prompt(act, language))},
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
    missing = {clip.utterance: clip for clip in store.clips()}
    clips = [
        (row, missing.pop(utterance_of(row)))
        for path in training
        for row in read_rows(path)
        if row.speech is not None and is_unchanged(row) and utterance_of(row) in missing
    ]
    if not clips:
        raise DataError(
            f"{training[0]}: holds no clip of {store.path}; name the training rows that were made "
            "from the manifest of the candidates"
        )
    rows = list(preference_rows(store, clips, builder=builder, source=None, languages=LANGUAGES))
    write_preference_rows(out, source, rows)
    return len(rows), sum(len(row.pairs) for row in rows), len(missing)


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

    A clip without a pair has a row all the same: PPO needs clips, not pairs.
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
            for pair in own:
                for side in (pair.chosen, pair.rejected):
                    texts.setdefault(side.key, side.text)
            place = {key: number for number, key in enumerate(texts)}
            plan = plan_of_row(training, language)
            if plan:
                texts = {key: f"{plan}|{text}" for key, text in texts.items()}
            if texts:
                yield PreferenceRow(
                    clip=replace(
                        training,
                        captions={language: tuple(texts.values())},
                        weight=1.0,
                        act={},
                        transcript="",
                        measured=_only(training.measured, language),
                        heard=_only(training.heard, language),
                        retrieved=_only(training.retrieved, language),
                    ),
                    pairs=tuple((place[one.chosen.key], place[one.rejected.key]) for one in own),
                    facts=clip.facts,
                    emotion=clip.emotion,
                    gender=clip.gender,
                    references=dict(clip.references),
                )


def _only(texts: Mapping[str, str], language: str) -> dict[str, str]:
    return {name: text for name, text in texts.items() if name == language}


def prompt_settings(act_mode: str) -> StudentSettings:
    """The policy's prompts: P_act as in its earlier training and in generating its candidates,
    without dropout."""
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
    """The rows that hold a pair among their first `candidates`; DataError where none to train.

    A pair of two captions that are the same teaches nothing: it is left out, and a warning says so.
    """
    different = [replace(row, pairs=tuple(filter(row.tells_apart, row.pairs))) for row in rows]
    same = [row.clip.id for row, kept in zip(rows, different, strict=True) if row != kept]
    if same:
        LOG.warning(
            "%d clips have pairs of equal captions, which are left out: %s",
            len(same),
            ", ".join(same[:5]) + (", …" if len(same) > 5 else ""),
        )
    kept = [row for row in different if any(max(pair) < candidates for pair in row.pairs)]
    if not any(row.clip.split == "train" for row in kept):
        if any(row.clip.split == "train" and row.pairs for row in different):
            raise DataError(
                f"no pair of {len(rows)} preference rows of split 'train' is among their first "
                f"{candidates} candidates; raise batch.captions"
            )
        raise DataError(
            f"none of {len(rows)} preference rows of split 'train' holds a pair of different "
            "captions; judge the candidates and make pairs first"
        )
    return kept


class PairDataset:
    """Preference rows as rows of ids, and their pairs; by samples (`alignment.examples`)."""

    def __init__(
        self,
        prompter: Prompter,
        rows: Sequence[PreferenceRow],
        *,
        candidates: int,
        act_mode: str,
    ) -> None:
        """`prompter` is over the clips of the same rows; of each the first `candidates` count."""
        self._settings = prompt_settings(act_mode)
        self._prompter, self._rows = prompter, rows
        self._pairs = [[p for p in row.pairs if max(p) < candidates] for row in rows]

    def row_of(self, sample: Sample) -> SharedPromptRow:
        """The clip's prompt, and every candidate that is in a pair, in order."""
        places = tuple(self._paired(sample))
        paired = Sample(sample.row, self._rows[sample.row].language, places, None)
        return self._prompter.student_row(paired, self._settings)

    def pairs_of(self, samples: Sequence[Sample]) -> Pairs:
        """The pairs of a batch of these samples."""
        chosen: list[int] = []
        rejected: list[int] = []
        start = 0
        for sample in samples:
            places = self._paired(sample)
            rank = {place: start + number for number, place in enumerate(places)}
            chosen += [rank[one] for one, _ in self._pairs[sample.row]]
            rejected += [rank[other] for _, other in self._pairs[sample.row]]
            start += len(places)
        return Pairs(np.array(chosen, dtype=np.int64), np.array(rejected, dtype=np.int64))

    def _paired(self, sample: Sample) -> list[int]:
        return sorted({place for pair in self._pairs[sample.row] for place in pair})

    def examples(self, samples: Sequence[Sample]) -> list[Example]:
        """Prompt and response of each candidate, in the order of the batch's responses."""
        rows = [self.row_of(sample) for sample in samples]
        return [Example(row.prompt_ids, ids) for row in rows for ids in row.responses]

    def all_samples(self) -> list[Sample]:
        """Every row once."""
        return [Sample(place, row.language, (), None) for place, row in enumerate(self._rows)]


class PreferenceSettings(StageSettings):
    """What the recipes that learn from preference rows have in common."""

    def readings(self, prompter: Prompter, sample: Sample) -> Iterable[SharedPromptRow]:
        """The candidates, and the longest caption that may be generated, each to its very end."""
        row = prompter.student_row(sample, prompt_settings(start_act_mode(self)))
        generated = (0,) * self.caption_limits.max_tokens
        responses = tuple((*one, 0) for one in (*row.responses, generated))
        return [SharedPromptRow(row.prompt_ids, responses)]


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


ROWS_HINT = "make it with a recipe of kind 'prefer', or as aligncap.preference.examples describes"


def plan_preference(
    settings: StageSettings,
    *,
    pairs: bool = True,
    wrap: Callable[[CaptionModel], nn.Module] | None = None,
    frozen: Callable[[CaptionModel], int] | None = None,
    more: Iterable[Needed] = (),
    notes: Iterable[str] = (),
) -> dict[str, object]:
    """`plan_training` on preference rows; DataError where none holds a pair though `pairs` are
    learnt."""
    paths = settings.data.rows
    needed = [needed_path("preference rows", path, hint=ROWS_HINT) for path in paths]
    source, rows = None, list[PreferenceRow]()
    if not any(one.hint for one in needed):
        rows, source = read_preferences(paths)
        if pairs:
            rows = with_pairs(rows, candidates=settings.batch.captions)
    return plan_training(
        settings,
        source,
        rows=needed,
        clips=lambda: [row.clip for row in rows],
        more=more,
        wrap=wrap,
        frozen=frozen,
        notes=notes,
    )
