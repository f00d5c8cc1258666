"""Reports of an evaluation: a table of text or markdown, JSON, and a page of HTML.

The page is one file that loads nothing but the recordings it links to. Everything that comes from
outside is escaped; kinds of clues differ in heading, mark and border, not in colour alone.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from urllib.parse import quote

from aligncap.metrics.evaluation import ClipAnalysis, MetricResult
from aligncap.metrics.scores import Difference, Score, SmallSample
from aligncap.values import Clue

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
    return ABSENT if value is None or math.isnan(value) else f"{value:.2f}"


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


def cells(result: MetricResult, columns: Sequence[str]) -> list[str]:
    """A result as text, one for each column; "  pitch" for "hallucination/pitch"."""
    score, change, sample = result.score, result.difference, result.paper25
    _, _, part = score.name.partition("/")
    found = [f"  {part}" if part else score.name, number(score.value)]
    found.append(interval(score.low, score.high))
    if "p" in columns:
        found.append(number(result.baseline.value if result.baseline else None))
        if change is None or math.isnan(change.delta):
            found += [ABSENT] * 3
        else:
            p = "<0.001" if change.p < 0.001 else f"{change.p:.3f}"
            found += [f"{change.delta:+.2f}", interval(change.low, change.high), p]
    if columns[-1] == PAPER25_HEADING:
        if sample is None or math.isnan(sample.mean):
            found.append(ABSENT)
        else:
            found.append(f"{number(sample.mean)} ± {number(sample.sd)}")
    return found


def text_table(results: Sequence[MetricResult], heading: str) -> str:
    """The scores in columns under a heading, then the signature of each."""
    columns = headings(results)
    rows = [columns, *(cells(result, columns) for result in results)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(columns))]
    shown = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    return "\n".join([heading, "", *shown, "", *signatures(results)]) + "\n"


def markdown_table(results: Sequence[MetricResult], heading: str) -> str:
    """The scores as a table of markdown, then the signature of each."""
    columns = headings(results)
    rows = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    rows += [
        [cell.replace("  ", "&emsp;", 1) for cell in cells(result, columns)] for result in results
    ]
    signed = [f"- `{signature}`" for signature in signatures(results)]
    return "\n".join([heading, "", *(f"| {' | '.join(row)} |" for row in rows), "", *signed]) + "\n"


def signatures(results: Iterable[MetricResult]) -> list[str]:
    """The signatures of the numbers; a metric by trait has that of the whole metric."""
    found = []
    for result in results:
        if "/" not in result.score.name:
            signed = (result.score, result.difference, result.paper25)
            found += [one.signature for one in signed if one is not None]
    return list(dict.fromkeys(found))


def as_json(results: Iterable[MetricResult]) -> str:
    """Metric → value, low, high and signature (x 100), and what else was asked for.

    A number that is not there, NaN too, is null.
    """

    def row(found: Score | Difference | SmallSample) -> dict[str, object]:
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(found).items()
            if key != "name"
        }

    table = {}
    for result in results:
        table[result.score.name] = row(result.score)
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
    style = Path(__file__).with_name("page.css").read_text("utf-8")
    shown, left_out = worst[:SHOWN], len(worst) - SHOWN
    count = f"All {len(worst)} clips."
    if left_out > 0:
        count = f"The worst {SHOWN} of {len(worst)} clips; the other {left_out} are left out."
    body = "\n".join(
        [
            '<a class="skip" href="#clips">To the clips</a>',
            "<h1>Scores of captions</h1>",
            f"<p>{_text(heading)}</p>",
            *_scores(results),
            '<h2 id="clips">Clips, worst first</h2>',
            f'<p class="faint">{count} By F1 of the clues, then by how '
            "many are contradicted. Missed are clues of the nearest reference.</p>",
            *(part for one in shown for part in _clip(one, language, folder)),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; media-src *\">\n"
        f"<title>Scores of captions</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _text(text: str) -> str:
    """Escaped; half a surrogate pair, which a file name may hold, becomes a question mark."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"))


def _scores(results: Sequence[MetricResult]) -> Iterator[str]:
    columns = headings(results)
    yield '<div class="wide" tabindex="0" role="region" aria-label="Scores"><table>'
    heads = "".join(f'<th scope="col">{name}</th>' for name in columns)
    yield f"<thead><tr>{heads}</tr></thead><tbody>"
    for result in results:
        name, *values = map(_text, cells(result, columns))
        kind = ' class="part"' if name.startswith(" ") else ""
        shown = "".join(f"<td>{value}</td>" for value in values)
        yield f'<tr{kind}><th scope="row">{name.strip()}</th>{shown}</tr>'
    yield "</tbody></table></div>"
    yield "<details><summary>What each number depends on</summary><ul>"
    yield from (f"<li><code>{_text(signature)}</code></li>" for signature in signatures(results))
    yield "</ul></details>"


def _clip(analysis: ClipAnalysis, language: str, folder: Path) -> Iterator[str]:
    clip = analysis.clip
    yield f"<article><header><h3>{_text(clip.id)}</h3>"
    yield f'<span class="faint">F1 of clues {number(100 * analysis.f1)}</span></header>'
    if clip.file is not None:
        yield from _recording(clip.file, clip.id, folder)
    caption = _text(clip.hypothesis.strip()) or '<em lang="en">Nothing was said.</em>'
    yield f'<blockquote lang="{language}">{caption}</blockquote>'
    references = "".join(f"<li>{_text(text)}</li>" for text in clip.references)
    yield f'<div class="faint">References<ul lang="{language}">{references}</ul></div>'
    yield "<dl>"
    for name, sign, heading, kind in KINDS:
        clues: tuple[Clue, ...] = getattr(analysis, name)
        yield from _clues(sign, heading, kind, [(clue, "") for clue in clues])
    measured = [(one.clue, one.measurement) for one in analysis.against_signal]
    yield from _clues("✗", "Against the recording", "wrong", measured)
    yield "</dl></article>"


def _recording(file: Path, name: str, folder: Path) -> Iterator[str]:
    link = _text(quote(Path(os.path.relpath(file, folder)).as_posix(), errors="replace"))
    if file.suffix.lower() in PLAYABLE:
        label = _text(f"Recording of {name}")
        yield f'<audio controls preload="none" src="{link}" aria-label="{label}"></audio>'
    else:
        yield f'<p><a href="{link}">{_text(file.name)}</a></p>'


def _clues(sign: str, heading: str, kind: str, clues: Iterable[tuple[Clue, str]]) -> Iterator[str]:
    items = [
        f'<li><span aria-hidden="true">{sign}</span> '
        f"{_text(f'not {clue.word}' if clue.negated else clue.word)} "
        f"<small>{_text(measured or clue.trait)}</small></li>"
        for clue, measured in clues
    ]
    if items:
        yield f'<dt class="{kind}">{heading}</dt>'
        yield f'<dd class="{kind}"><ul class="clues">{"".join(items)}</ul></dd>'
