"""What is right and wrong with each caption: its claims found, invented, contradicted, missed.

Hypotheses and references, read from JSON lines; a mistake in them names file and line.

    hypotheses   {"id": "a1", "caption": "A woman shouts."}
    references   {"id": "a1", "captions": ["…", "…"], "file": "a1.wav", "emotion": "angry"}

`file` and `emotion` may be left out; `file` is relative to the references. A line without `id` is
named by the stem of its `file`, so what `aligncap caption --format jsonl` writes is read as
hypotheses as it is: recordings/a1.wav is clip a1. Its lines with `error` instead of `caption` count
as a system that said nothing.

An evaluation: every metric asked for over the same clips, and a baseline beside it.
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
from aligncap.metrics.claims import count_claims, f1, measured_facts_of, nearest
from aligncap.metrics.scores import (
    Difference,
    Metric,
    Score,
    ScoredClip,
    SetMetric,
    SmallSample,
    difference,
    paper25,
    score,
    signature,
)
from aligncap.metrics.table import (
    DEFAULT_METRICS,
    SET_METRICS,
    SPLITS,
    ClaimCache,
    MetricOptions,
    open_metric,
    open_set_metric,
)
from aligncap.values import Clue, Evidence, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedClip:
    """A clip and what its caption gets right and wrong."""

    clip: ScoredClip
    found: tuple[Clue, ...]
    """Claims that a reference makes too."""
    invented: tuple[Clue, ...]
    """Claims of which no reference speaks."""
    contradicted: tuple[Clue, ...]
    """Claims against a reference."""
    missed: tuple[Clue, ...]
    """Claims of the nearest reference that the caption does not make."""
    unheard: tuple[Evidence, ...]
    """Claims that the recording contradicts; empty as well where there is no recording."""
    f1: float
    """Of the clues, 0 to 1; NaN where neither side claims anything."""

    @property
    def badness(self) -> tuple[float, int, str]:
        """A key that sorts the worst first; nothing to say is no mistake."""
        wrong = len(self.unheard) + len(self.contradicted)
        return (1.0 if np.isnan(self.f1) else self.f1, -wrong, self.clip.id)


def mark(clip: ScoredClip, language: str, findings: ClaimCache, *, listen: bool) -> MarkedClip:
    """The caption of a clip beside its references, and beside its recording to `listen` to."""
    made = findings.claims(clip.hypothesis, language)
    references = [findings.claims(text, language) for text in clip.references]
    said = findings.said(clip.references, language)
    status_of = {claim: check_by_references(claim, said.keys())[0] for claim in made}
    evidence = measured_facts_of(clip, language, findings) if listen else ()

    def those(*wanted: ClaimStatus) -> tuple[Clue, ...]:
        return tuple(clue for claim, clue in made.items() if status_of[claim] in wanted)

    return MarkedClip(
        clip=clip,
        found=those(ClaimStatus.SUPPORTED),
        invented=those(ClaimStatus.UNSUPPORTED, ClaimStatus.UNVERIFIABLE),
        contradicted=those(ClaimStatus.CONTRADICTED),
        missed=tuple(said[claim] for claim in nearest(made, references) if claim not in made),
        unheard=tuple(one for one in evidence if one.verdict is Verdict.CONTRADICTED),
        f1=float(f1(np.array(count_claims(made, references), dtype=np.float64))),
    )


def worst_first(marked: Sequence[MarkedClip]) -> list[MarkedClip]:
    """By F1 of the clues, then by how many claims are contradicted, then by name."""
    return sorted(marked, key=lambda one: one.badness)


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """What one system said, by clip."""

    source: Path
    captions: Mapping[str, str]
    places: Mapping[str, str]
    """The line of each clip: "h.jsonl:3"."""
    failed: int
    """Lines with `error`: their caption is ""."""


@dataclass(frozen=True, slots=True)
class References:
    """What people, or a corpus, say of each clip; the hypotheses are still empty."""

    source: Path
    clips: Mapping[str, ScoredClip]
    places: Mapping[str, str]


def read_hypotheses(path: Path) -> Hypotheses:
    """One system's captions. Raises DataError, which names file, line and cure."""
    captions: dict[str, str] = {}
    places: dict[str, str] = {}
    failed = 0
    for place, row in _named(path, "hypotheses", places):
        captions[row["id"]] = _hypothesis(row, place)
        failed += "caption" not in row
    return Hypotheses(path, captions, places, failed)


def read_references(path: Path) -> References:
    """What is to be scored against. Raises DataError, which names file, line and cure."""
    clips: dict[str, ScoredClip] = {}
    places: dict[str, str] = {}
    for place, row in _named(path, "references", places):
        written = texts_of(row, "captions", place)
        if not written:
            raise DataError(f"{place}: has no 'captions'; write a list of at least one text")
        file, emotion = text_of(row, "file", place), text_of(row, "emotion", place)
        try:
            clips[row["id"]] = ScoredClip(
                id=row["id"],
                hypothesis="",
                references=tuple(_whole(text, place) for text in written),
                file=path.parent / file if file else None,
                emotion=SAME_EMOTION.get(emotion, emotion) if emotion else None,
            )
        except DataError as error:
            raise (
                error if str(error).startswith(place) else DataError(f"{place}: {error}")
            ) from error
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


def _named(path: Path, what: str, places: dict[str, str]) -> Iterator[tuple[str, Row]]:
    """Rows with their `id` found out; it is entered into `places`, where it must be new."""
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


def _hypothesis(row: Row, place: str) -> str:
    if "caption" in row:
        caption = row["caption"]
        if not isinstance(caption, str):
            raise DataError(f"{place}: 'caption' is {caption!r}; write it as text in quotes")
        return _whole(caption, place)
    if text_of(row, "error", place) is None:
        raise DataError(f"{place}: has no 'caption'; write \"\" where the system said nothing")
    return ""


def _whole(text: str, place: str) -> str:
    """The text, where it can be written as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place}: holds half of a surrogate pair ({text[error.start]!a}); write the whole one"
        ) from error
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What is known of one metric; None where it was not asked for or cannot be given."""

    score: Score
    baseline: Score | None = None
    difference: Difference | None = None
    paper25: SmallSample | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """How intervals are drawn, and whether the paper's way of scoring is shown as well."""

    number: int = 1000
    seed: int = 0
    paper25: bool = False


def usual_metrics(clips: Sequence[ScoredClip]) -> list[str]:
    """The metrics that need nothing more than these clips have."""
    names = list(DEFAULT_METRICS)
    if all(clip.file is not None for clip in clips):
        names.insert(names.index("hallucination") + 1, "hallucination-signal")
    return names


def with_splits(names: Sequence[str]) -> list[str]:
    """The metrics with those that split them behind each, every one once."""
    return list(dict.fromkeys(part for name in names for part in (name, *SPLITS.get(name, ()))))


def language_of(clips: Sequence[ScoredClip]) -> str:
    """The language that most references are written in."""
    counts = Counter(detect_language(text) for clip in clips for text in clip.references)
    return max(sorted(counts), key=lambda language: counts[language])


def evaluate(
    clips: list[ScoredClip],
    names: Sequence[str],
    options: MetricOptions,
    *,
    draws: Draws,
    baseline: list[ScoredClip] | None = None,
) -> Iterator[Line]:
    """A line for each metric, in order; `baseline` are the same clips with another's hypotheses.

    Every metric is opened before the first is measured: what is not on this machine is said at
    once.
    """
    own = {name: open_metric(name, options) for name in names if name not in SET_METRICS}
    of_set = {name: open_set_metric(name, options) for name in names if name in SET_METRICS}
    for name in names:
        if name in of_set:
            metric = of_set[name]
            rival = score_of_set(metric, baseline) if baseline else None
            yield Line(score=score_of_set(metric, clips), baseline=rival)
        else:
            yield _line(own[name], clips, baseline, draws)


def _line(
    metric: Metric, clips: list[ScoredClip], rival: list[ScoredClip] | None, how: Draws
) -> Line:
    drawn = {"draws": how.number, "seed": how.seed}
    return Line(
        score=score(metric, clips, **drawn),
        baseline=score(metric, rival, **drawn) if rival else None,
        difference=difference(metric, clips, rival, **drawn) if rival else None,
        paper25=paper25(metric, clips, seed=how.seed) if how.paper25 else None,
    )


def score_of_set(metric: SetMetric, clips: list[ScoredClip]) -> Score:
    """The score of a whole set of captions (x 100), which has no interval."""
    value = 100 * metric.value(clips)
    return Score(metric.name, value, None, None, signature(metric, clips))
