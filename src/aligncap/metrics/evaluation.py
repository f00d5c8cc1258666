"""An evaluation: hypotheses and references read from JSON lines, every metric over the same clips,
and the analysis of each caption: its claims found, invented, contradicted and missed.

    hypotheses   {"id": "a1", "caption": "A woman shouts."}
    references   {"id": "a1", "captions": ["…", "…"], "file": "a1.wav", "emotion": "angry"}

`file` and `emotion` may be left out; `file` is relative to the references. A line without `id` is
named by the stem of its `file`, so what `aligncap caption --format jsonl` writes is read as
hypotheses as it is: recordings/a1.wav is clip a1. Its lines with `error` instead of `caption` count
as empty captions. A mistake in a file is a DataError that names file and line.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aligncap.clues import detect_language
from aligncap.clues.claims import ClaimStatus, check_by_references
from aligncap.data.manifest import SAME_EMOTION, Row, read_rows, text_of, texts_of
from aligncap.errors import DataError
from aligncap.metrics.claims import count_claims, evidence_of, f1, nearest_reference
from aligncap.metrics.scores import (
    DEFAULT_METRICS,
    DRAWS,
    SET_METRICS,
    SPLITS,
    ClaimCache,
    Difference,
    MetricOptions,
    Score,
    ScoredClip,
    SmallSample,
    difference,
    open_metric,
    open_set_metric,
    paper25,
    score,
    score_set,
)
from aligncap.values import Clue, Evidence, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipAnalysis:
    """A clip and the claims of its caption by verdict."""

    clip: ScoredClip
    found: tuple[Clue, ...]
    """Claims that a reference makes too."""
    invented: tuple[Clue, ...]
    """Claims that no reference makes or denies."""
    contradicted: tuple[Clue, ...]
    """Claims against a reference."""
    missed: tuple[Clue, ...]
    """Claims of the nearest reference that the caption does not make."""
    against_signal: tuple[Evidence, ...]
    """Claims that the recording contradicts; empty as well where there is no recording."""
    f1: float
    """Of the clues, 0 to 1; NaN where neither side claims anything."""


def analyse(clip: ScoredClip, language: str, cache: ClaimCache, *, signal: bool) -> ClipAnalysis:
    """The claims of a clip's caption against its references, and against its recording's signal."""
    made = cache.claims(clip.hypothesis, language)
    references = [cache.claims(text, language) for text in clip.references]
    wanted = cache.all_claims(clip.references, language)
    status_of = {claim: check_by_references(claim, wanted)[0] for claim in made}
    evidence = evidence_of(clip, language, cache) if signal else ()

    def those(*statuses: ClaimStatus) -> tuple[Clue, ...]:
        return tuple(clue for claim, clue in made.items() if status_of[claim] in statuses)

    nearest = nearest_reference(made, references)
    return ClipAnalysis(
        clip=clip,
        found=those(ClaimStatus.SUPPORTED),
        invented=those(ClaimStatus.UNSUPPORTED, ClaimStatus.UNVERIFIABLE),
        contradicted=those(ClaimStatus.CONTRADICTED),
        missed=tuple(wanted[claim] for claim in nearest if claim not in made),
        against_signal=tuple(one for one in evidence if one.verdict is Verdict.CONTRADICTED),
        f1=float(f1(np.array(count_claims(made, references), dtype=np.float64))),
    )


def worst_first(analyses: Sequence[ClipAnalysis]) -> list[ClipAnalysis]:
    """By F1 of the clues, then by how many claims are contradicted, then by name."""

    def key(one: ClipAnalysis) -> tuple[float, int, str]:
        wrong = len(one.against_signal) + len(one.contradicted)
        return (1.0 if np.isnan(one.f1) else one.f1, -wrong, one.clip.id)

    return sorted(analyses, key=key)


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """One system's captions, by clip."""

    source: Path
    captions: Mapping[str, str]
    places: Mapping[str, str]
    """The line of each clip: "h.jsonl:3"."""
    failed: int
    """Lines with `error`: their caption is ""."""


@dataclass(frozen=True, slots=True)
class References:
    """The reference captions of each clip; the hypotheses are still empty."""

    source: Path
    clips: Mapping[str, ScoredClip]
    places: Mapping[str, str]


def read_hypotheses(path: Path) -> Hypotheses:
    """One system's captions. Raises DataError, which names file, line and hint."""
    captions: dict[str, str] = {}
    places: dict[str, str] = {}
    failed = 0
    for place, row in _rows_with_id(path, "hypotheses", places):
        caption = row.get("caption", "")
        if not isinstance(caption, str):
            raise DataError(f"{place}: 'caption' is {caption!r}; write it as text in quotes")
        if "caption" not in row:
            failed += 1
            if text_of(row, "error", place) is None:
                raise DataError(
                    f"{place}: has no 'caption'; write \"\" where the system said nothing"
                )
        captions[row["id"]] = _encodable(caption, place)
    return Hypotheses(path, captions, places, failed)


def read_references(path: Path) -> References:
    """The captions to score against. Raises DataError, which names file, line and hint."""
    clips: dict[str, ScoredClip] = {}
    places: dict[str, str] = {}
    for place, row in _rows_with_id(path, "references", places):
        texts = texts_of(row, "captions", place)
        if not texts:
            raise DataError(f"{place}: has no 'captions'; write a list of at least one text")
        references = tuple(_encodable(text, place) for text in texts)
        file, emotion = text_of(row, "file", place), text_of(row, "emotion", place)
        try:
            clips[row["id"]] = ScoredClip(
                id=row["id"],
                hypothesis="",
                references=references,
                file=path.parent / file if file else None,
                emotion=SAME_EMOTION.get(emotion, emotion) if emotion else None,
            )
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
    return References(path, clips, places)


def clips_of(hypotheses: Hypotheses, references: References) -> list[ScoredClip]:
    """Each clip of the references with its hypothesis, in the order of the references.

    Raises DataError where a clip is in one file only: a system may not choose what it is scored on.
    """
    for name, place in hypotheses.places.items():
        if name not in references.clips:
            raise DataError(
                f"{place}: clip {name!r} has no reference in {references.source}; "
                "add one or remove the line"
            )
    for name, place in references.places.items():
        if name not in hypotheses.captions:
            raise DataError(
                f"{place}: clip {name!r} has no hypothesis in {hypotheses.source}; "
                'add one ("caption": "" where the system said nothing) or remove the line'
            )
    return [
        replace(clip, hypothesis=hypotheses.captions[name])
        for name, clip in references.clips.items()
    ]


def _rows_with_id(path: Path, what: str, places: dict[str, str]) -> Iterator[tuple[str, Row]]:
    """Rows with their `id`, which is entered into `places` and must be new there."""
    for place, row in read_rows(path, what=what):
        name, file = text_of(row, "id", place), text_of(row, "file", place)
        if name is None and file is None:
            raise DataError(f"{place}: has no 'id'; name the clip")
        row["id"] = name or Path(file or "").stem
        if row["id"] in places:
            raise DataError(
                f"{place}: clip {row['id']!r} is in line {places[row['id']].rpartition(':')[2]} "
                "already; keep one of the two"
            )
        places[row["id"]] = place
        yield place, row
    if not places:
        raise DataError(f"{path}:1: the {what} are empty; write one JSON object a line")


def _encodable(text: str, place: str) -> str:
    """The text; DataError where it cannot be written as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place}: holds half of a surrogate pair ({text[error.start]!a}); write the whole one"
        ) from error
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """The numbers of one metric; None where they were not asked for or cannot be given."""

    score: Score
    baseline: Score | None = None
    difference: Difference | None = None
    paper25: SmallSample | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampling:
    """Bootstrap samples of an evaluation, and whether the paper's 25 clips are scored as well."""

    draws: int = DRAWS
    seed: int = 0
    paper25: bool = False


def default_metrics(clips: Sequence[ScoredClip]) -> list[str]:
    """The metrics that need nothing more than these clips have."""
    names = list(DEFAULT_METRICS)
    if all(clip.file is not None for clip in clips):
        names.insert(names.index("hallucination") + 1, "hallucination-signal")
    return names


def with_splits(names: Sequence[str]) -> list[str]:
    """The metrics, each followed by those that split it, every one once."""
    return list(dict.fromkeys(part for name in names for part in (name, *SPLITS.get(name, ()))))


def majority_language(clips: Sequence[ScoredClip]) -> str:
    """The language that most references are written in."""
    counts = Counter(detect_language(text) for clip in clips for text in clip.references)
    return max(sorted(counts), key=lambda language: counts[language])


def evaluate(
    clips: list[ScoredClip],
    names: Sequence[str],
    options: MetricOptions,
    *,
    resampling: Resampling,
    baseline: list[ScoredClip] | None = None,
) -> Iterator[MetricResult]:
    """The result of each metric, in order; `baseline` are the same clips with another system's
    hypotheses.

    Every metric is opened before the first is measured: what is missing on this machine is an
    error at once.
    """
    metrics = {name: open_metric(name, options) for name in names if name not in SET_METRICS}
    of_sets = {name: open_set_metric(name, options) for name in names if name in SET_METRICS}
    how = {"draws": resampling.draws, "seed": resampling.seed}
    for name in names:
        if name in of_sets:
            yield MetricResult(
                score=score_set(of_sets[name], clips),
                baseline=score_set(of_sets[name], baseline) if baseline else None,
            )
            continue
        metric = metrics[name]
        yield MetricResult(
            score=score(metric, clips, **how),
            baseline=score(metric, baseline, **how) if baseline else None,
            difference=difference(metric, clips, baseline, **how) if baseline else None,
            paper25=paper25(metric, clips, seed=resampling.seed) if resampling.paper25 else None,
        )
