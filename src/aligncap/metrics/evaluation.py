"""An evaluation: hypotheses and references read from JSON lines, every metric over the same clips,
and the analysis of each caption: its claims found, invented, contradicted and missed.

    hypotheses   {"id": "a1", "caption": "A woman shouts."}
    references   {"id": "a1", "captions": ["…", "…"], "file": "a1.wav", "emotion": "angry"}

`file` and `emotion` may be left out; `file` is relative to the references. A line without `id` is
named by the stem of its `file`, so what `aligncap caption --format jsonl` writes is read as
hypotheses as it is: recordings/a1.wav is clip a1. Its lines with `error` instead of `caption` count
as empty captions. A mistake in a file is a DataError that names file and line.

Its report is a table of text or markdown, JSON, or a page of HTML. The page is one file that loads
nothing but the recordings it links to. Everything that comes from outside is escaped; kinds of
clues differ in heading, mark and border, not in colour alone."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

import numpy as np

from aligncap.clues import detect_language
from aligncap.clues.evidence import ClaimStatus, check_by_references
from aligncap.data.manifest import SAME_EMOTION, Row, code_of, read_rows, text_of, texts_of
from aligncap.errors import AlignCapError, DataError
from aligncap.metrics.claims import count_claims, evidence_of, f1, nearest_reference
from aligncap.metrics.page import RECORDINGS, escaped, page
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
    left_out_notes,
    open_metric,
    open_set_metric,
    paper25,
    score,
    score_set,
)
from aligncap.values import Clue, Evidence, Verdict

LANGUAGE_NAMES = {"en": "English", "zh": "Chinese"}


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
    evidence: tuple[Evidence, ...] = ()
    if signal:
        with suppress(AlignCapError):  # no recording, or none that can be measured
            evidence = evidence_of(clip, language, cache)

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


def read_hypotheses(path: Path, references: References | None = None) -> Hypotheses:
    """One system's captions. A line without `id` is of the clip whose recording it names, where
    the references tell, else of the clip called like it. Raises DataError, which names file, line
    and hint."""
    clips = references.clips.values() if references else ()
    known = {os.path.realpath(clip.file): clip.id for clip in clips if clip.file}
    captions: dict[str, str] = {}
    places: dict[str, str] = {}
    failed = 0
    for place, row in _rows_with_id(path, "hypotheses", places, known):
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
        if not all(text.strip() for text in texts):
            raise DataError(f"{place}: one of its 'captions' is blank; remove it")
        file, emotion = text_of(row, "file", place), (text_of(row, "emotion", place) or "").lower()
        clips[row["id"]] = ScoredClip(
            id=row["id"],
            hypothesis="",
            references=tuple(_encodable(text, place) for text in texts),
            file=path.parent / file if file else None,
            emotion=SAME_EMOTION.get(emotion, emotion) or None,
        )
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


def _rows_with_id(
    path: Path, what: str, places: dict[str, str], known: Mapping[str, str] = MappingProxyType({})
) -> Iterator[tuple[str, Row]]:
    """Rows with their `id`, which is entered into `places` and must be new there; `known` are ids
    by the real path of a recording."""
    for place, row in read_rows(path, what=what):
        name, file = code_of(row, "id", place), text_of(row, "file", place)
        if name is None and file is None:
            raise DataError(f"{place}: has no 'id'; name the clip")
        row["id"] = name or known.get(os.path.realpath(file or "")) or Path(file or "").stem
        if row["id"] in places:
            raise DataError(
                f"{place}: clip {row['id']!r} is in line {places[row['id']].rpartition(':')[2]} "
                "already; keep one of the two, or give each line its id"
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
    notes: tuple[str, ...] = ()
    """What it left out, of clips and references, and why; why there is no score."""
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
    if any(clip.file is not None for clip in clips):
        names.insert(names.index("hallucination") + 1, "hallucination-signal")
    return names


def parts_of(names: Iterable[str]) -> set[str]:
    """The metrics that split one of these."""
    return {part for name in names for part in SPLITS.get(name, ())}


def with_splits(names: Sequence[str]) -> list[str]:
    """The metrics, each followed by those that split it, every one once."""
    whole = [name for name in names if name not in parts_of(names)]
    return list(dict.fromkeys(part for name in whole for part in (name, *SPLITS.get(name, ()))))


def majority_language(clips: Sequence[ScoredClip]) -> str:
    """The language that most hypotheses are written in; that of the references where they say
    nothing."""
    said = [clip.hypothesis for clip in clips if _has_words(clip.hypothesis)]
    texts = said or [text for clip in clips for text in clip.references]
    counts = Counter(map(detect_language, texts))
    return max(sorted(counts), key=lambda language: counts[language])


def in_language(
    sets: Sequence[list[ScoredClip]], language: str
) -> tuple[list[list[ScoredClip]], tuple[str, ...]]:
    """The same clips of several systems with their references in a language, and a note on what is
    left out or written in another: only texts of one language can be compared.

    Raises DataError where no reference is in that language.
    """
    name = LANGUAGE_NAMES[language]
    found = {
        clip.id: tuple(text for text in clip.references if detect_language(text) == language)
        for clip in sets[0]
    }
    total, kept = (sum(map(len, texts)) for texts in (_references(sets[0]), found.values()))
    if not kept:
        raise DataError(
            f"the captions are scored in {name}, and none of the {total} references is in it; "
            f"give references in {name}, or --language"
        )
    without = {one: f"it has no reference in {name}" for one, texts in found.items() if not texts}
    notes = [*left_out_notes(without, len(sets[0]))]
    if kept < total:
        notes.append(f"{total - kept} of {total} references left out: they are not in {name}")
    scored = [
        [replace(clip, references=found[clip.id]) for clip in clips if found[clip.id]]
        for clips in sets
    ]
    for whose, clips in zip(("", " of the baseline"), scored, strict=False):
        texts = [clip.hypothesis for clip in clips if _has_words(clip.hypothesis)]
        others = sum(detect_language(text) != language for text in texts)
        if others:
            notes.append(
                f"{others} of {len(clips)} captions{whose} are not in {name}, and are scored as "
                "they are"
            )
    return scored, tuple(notes)


def _references(clips: Iterable[ScoredClip]) -> list[tuple[str, ...]]:
    return [clip.references for clip in clips]


def _has_words(text: str) -> bool:
    return any(letter.isalpha() for letter in text)


def evaluate(
    clips: list[ScoredClip],
    names: Sequence[str],
    options: MetricOptions,
    *,
    resampling: Resampling,
    baseline: list[ScoredClip] | None = None,
    notes: tuple[str, ...] = (),
) -> Iterator[MetricResult]:
    """The result of each metric, in order; `baseline` are the same clips with another system's
    hypotheses, `notes` what every metric leaves out.

    Every metric is opened before the first is measured: what is missing on this machine is an
    error at once.
    """
    metrics = {name: open_metric(name, options) for name in names if name not in SET_METRICS}
    of_sets = {name: open_set_metric(name, options) for name in names if name in SET_METRICS}
    how = {"draws": resampling.draws, "seed": resampling.seed}
    for name in names:
        if name in of_sets:
            one = score_set(of_sets[name], clips)
            other = score_set(of_sets[name], baseline) if baseline else None
            yield MetricResult(score=one, baseline=other, notes=_notes(notes, one, other))
            continue
        metric = metrics[name]
        one = score(metric, clips, **how)
        other = score(metric, baseline, **how) if baseline else None
        yield MetricResult(
            score=one,
            notes=_notes(notes, one, other),
            baseline=other,
            difference=difference(metric, clips, baseline, **how) if baseline else None,
            paper25=paper25(metric, clips, seed=resampling.seed) if resampling.paper25 else None,
        )


def _notes(notes: tuple[str, ...], score: Score, baseline: Score | None) -> tuple[str, ...]:
    """The notes on a result; those on the baseline where they are others."""
    others = baseline.notes if baseline else ()
    own = [f"baseline: {note}" for note in others if note not in score.notes]
    return (*notes, *score.notes, *own)


ABSENT = "–"
"""Stands where there is no number."""

PAPER25_HEADING = "25 clips, mean ± sd"

SHOWN = 200
"""Clips on a page at most: a browser that is to lay out thousands is slow."""

PLAYABLE = frozenset({".wav", ".mp3", ".ogg", ".oga", ".opus", ".flac"})
"""Recordings that browsers play; others are linked only."""

KINDS = (
    ("found", "✓", "Found", "found"),
    ("missed", "○", "Missed", "missed"),
    ("invented", "+", "Invented", "invented"),
    ("contradicted", "✗", "Against a reference", "wrong"),
)
"""Attribute of `ClipAnalysis`, mark, heading and CSS class, in the order shown."""


def number(value: float | None) -> str:
    """A score with two decimals; a dash where there is none."""
    return ABSENT if value is None or math.isnan(value) else f"{value:z.2f}"


def interval(low: float | None, high: float | None) -> str:
    """ "12.30 to 14.50"; a dash where there is none."""
    ends = number(low), number(high)
    return ABSENT if ABSENT in ends else " to ".join(ends)


def headings(results: Sequence[MetricResult]) -> list[str]:
    """The columns that these results have something for."""
    names = ["metric", "score", "95 % interval"]
    if any(result.baseline for result in results):
        names += ["baseline", "difference", "95 % interval", "p"]
    if any(result.paper25 for result in results):
        names.append(PAPER25_HEADING)
    return names


def rows_of(results: Sequence[MetricResult], columns: Sequence[str]) -> list[list[str]]:
    """The results as text, one for each column; "  pitch" is a part of a metric that is among
    them."""
    names = [result.score.name for result in results]
    parts = parts_of(names)
    heads = [f"  {name.partition('/')[2]}" if name in parts else name for name in names]
    return [[head, *_values(one, columns)] for head, one in zip(heads, results, strict=True)]


def _values(result: MetricResult, columns: Sequence[str]) -> list[str]:
    score, change, sample = result.score, result.difference, result.paper25
    found = [number(score.value)]
    found.append(interval(score.low, score.high))
    if "p" in columns:
        found.append(number(result.baseline.value if result.baseline else None))
        if change is None or math.isnan(change.delta):
            found += [ABSENT] * 3
        else:
            p = "<0.001" if change.p < 0.001 else f"{change.p:.3f}"
            found += [f"{change.delta:+z.2f}", interval(change.low, change.high), p]
    if columns[-1] == PAPER25_HEADING:
        if sample is None or math.isnan(sample.mean):
            found.append(ABSENT)
        else:
            found.append(f"{number(sample.mean)} ± {number(sample.sd)}")
    return found


def text_table(results: Sequence[MetricResult], heading: str) -> str:
    """The scores in columns under a heading, then the signature of each."""
    columns = headings(results)
    rows = [columns, *rows_of(results, columns)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(columns))]
    shown = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    said = [f"note: {note}" for note in noted(results)]
    return "\n".join([heading, "", *shown, "", *said, *signatures(results)]) + "\n"


def markdown_table(results: Sequence[MetricResult], heading: str) -> str:
    """The scores as a table of markdown, then the signature of each."""
    columns = headings(results)
    rows = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    rows += [[name.replace("  ", "&emsp;"), *rest] for name, *rest in rows_of(results, columns)]
    signed = [f"- {note}" for note in noted(results)]
    signed += [f"- `{signature}`" for signature in signatures(results)]
    return "\n".join([heading, "", *(f"| {' | '.join(row)} |" for row in rows), "", *signed]) + "\n"


def noted(results: Sequence[MetricResult]) -> list[str]:
    """Each note once, after the metrics that it is on; a note on all of them is said first."""
    metrics: dict[str, list[str]] = {}
    for result in results:
        for note in result.notes:
            metrics.setdefault(note, []).append(result.score.name)
    of_all = [note for note, names in metrics.items() if len(names) == len(results) > 1]
    found = list(of_all)
    for note, names in metrics.items():
        if note not in of_all:
            parts = parts_of(names)
            found.append(f"{', '.join(name for name in names if name not in parts)}: {note}")
    return found


def signatures(results: Sequence[MetricResult]) -> list[str]:
    """The signatures of the numbers; a part of a metric among them has that of the whole."""
    found = []
    parts = parts_of(result.score.name for result in results)
    for result in results:
        if result.score.name not in parts:
            signed = (result.score, result.difference, result.paper25)
            found += [one.signature for one in signed if one is not None]
    return list(dict.fromkeys(found))


def as_json(results: Iterable[MetricResult]) -> str:
    """Metric → value, low, high and signature (x 100), notes, and what else was asked for.

    A number that is not there, NaN too, is null.
    """

    def row(found: Score | Difference | SmallSample) -> dict[str, object]:
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(found).items()
            if key not in ("name", "notes")
        }

    table = {}
    for result in results:
        table[result.score.name] = row(result.score)
        if result.notes:
            table[result.score.name]["notes"] = list(result.notes)
        for key in ("baseline", "difference", "paper25"):
            if (found := getattr(result, key)) is not None:
                table[result.score.name][key] = row(found)
    return json.dumps(table, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def report_page(
    results: Sequence[MetricResult],
    worst: Sequence[ClipAnalysis],
    *,
    heading: str,
    language: str,
    folder: Path,
) -> str:
    """The page, to lie in `folder`; `worst` are all clips, the worst first, in one language."""
    shown, left_out = worst[:SHOWN], len(worst) - SHOWN
    count = f"All {len(worst)} clips."
    if left_out > 0:
        count = f"The worst {SHOWN} of {len(worst)} clips; the other {left_out} are left out."
    body = "\n".join(
        [
            '<a class="skip" href="#clips">To the clips</a>',
            "<h1>Scores of captions</h1>",
            f"<p>{escaped(heading)}</p>",
            *_scores(results),
            '<h2 id="clips">Clips, worst first</h2>',
            f'<p class="faint">{count} By F1 of the clues, then by how '
            "many are contradicted. Missed are clues of the nearest reference.</p>",
            *(part for one in shown for part in _clip(one, language, folder)),
        ]
    )
    return page("Scores of captions", body, policy=RECORDINGS)


def _scores(results: Sequence[MetricResult]) -> Iterator[str]:
    columns = headings(results)
    yield '<div class="wide" tabindex="0" role="region" aria-label="Scores"><table>'
    heads = "".join(f'<th scope="col">{name}</th>' for name in columns)
    yield f"<thead><tr>{heads}</tr></thead><tbody>"
    for row in rows_of(results, columns):
        name, *values = map(escaped, row)
        kind = ' class="part"' if name.startswith(" ") else ""
        shown = "".join(f"<td>{value}</td>" for value in values)
        yield f'<tr{kind}><th scope="row">{name.strip()}</th>{shown}</tr>'
    yield "</tbody></table></div>"
    if notes := noted(results):
        yield f"<ul>{''.join(f'<li>{escaped(note)}</li>' for note in notes)}</ul>"
    yield "<details><summary>What each number depends on</summary><ul>"
    yield from (f"<li><code>{escaped(signature)}</code></li>" for signature in signatures(results))
    yield "</ul></details>"


def _clip(analysis: ClipAnalysis, language: str, folder: Path) -> Iterator[str]:
    clip = analysis.clip
    yield f"<article><header><h3>{escaped(clip.id)}</h3>"
    yield f'<span class="faint">F1 of clues {number(100 * analysis.f1)}</span></header>'
    if clip.file is not None:
        yield from _recording(clip.file, clip.id, folder)
    caption = escaped(clip.hypothesis.strip()) or '<em lang="en">Nothing was said.</em>'
    yield f'<blockquote lang="{language}">{caption}</blockquote>'
    references = "".join(f"<li>{escaped(text)}</li>" for text in clip.references)
    yield f'<div class="faint">References<ul lang="{language}">{references}</ul></div>'
    yield "<dl>"
    for name, sign, heading, kind in KINDS:
        clues: tuple[Clue, ...] = getattr(analysis, name)
        yield from _clues(sign, heading, kind, [(clue, "") for clue in clues])
    measured = [(one.clue, one.measurement) for one in analysis.against_signal]
    yield from _clues("✗", "Against the recording", "wrong", measured)
    yield "</dl></article>"


def _recording(file: Path, name: str, folder: Path) -> Iterator[str]:
    link = escaped(quote(Path(os.path.relpath(file, folder)).as_posix(), errors="replace"))
    if file.suffix.lower() in PLAYABLE:
        label = escaped(f"Recording of {name}")
        yield f'<audio controls preload="none" src="{link}" aria-label="{label}"></audio>'
    else:
        yield f'<p><a href="{link}">{escaped(file.name)}</a></p>'


def _clues(sign: str, heading: str, kind: str, clues: Iterable[tuple[Clue, str]]) -> Iterator[str]:
    items = [
        f'<li><span aria-hidden="true">{sign}</span> '
        f"{escaped(f'not {clue.word}' if clue.negated else clue.word)} "
        f"<small>{escaped(measured or clue.trait)}</small></li>"
        for clue, measured in clues
    ]
    if items:
        yield f'<dt class="{kind}">{heading}</dt>'
        yield f'<dd class="{kind}"><ul class="clues">{"".join(items)}</ul></dd>'
