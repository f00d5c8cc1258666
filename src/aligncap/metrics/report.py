"""An evaluation as text for a terminal, as markdown for a paper, and as JSON for a program.

An evaluation as one page of HTML: scores, then the clips, worst first, each with its clues.

The page is one file that loads nothing but the recordings it links to. Everything that comes from
outside is escaped; kinds of clues differ in heading, mark and border, not in colour alone.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from aligncap.metrics.evaluation import Line, MarkedClip
from aligncap.metrics.scores import Difference, Score, SmallSample
from aligncap.values import Clue

ABSENT = "–"
"""Stands where there is no number."""

OF_25 = "25 clips, mean ± sd"
"""Heads the scores as the paper gives them."""


def number(value: float | None) -> str:
    """A score with two decimals; a dash where there is none."""
    return ABSENT if value is None or math.isnan(value) else f"{value:.2f}"


def interval(low: float | None, high: float | None) -> str:
    """ "12.30 to 14.50"; a dash where there is none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ABSENT
    return f"{low:.2f} to {high:.2f}"


def headings(lines: Sequence[Line]) -> list[str]:
    """The columns that these lines have something for."""
    names = ["metric", "score", "95 % interval"]
    if any(line.baseline for line in lines):
        names += ["baseline", "difference", "95 % interval", "p"]
    if any(line.paper25 for line in lines):
        names.append(OF_25)
    return names


def label(name: str) -> str:
    """What a metric is called in a table: "  pitch" for "hallucination/pitch", below the whole."""
    _, _, part = name.partition("/")
    return f"  {part}" if part else name


def cells(line: Line, columns: Sequence[str]) -> list[str]:
    """A line as text, one for each column."""
    score = line.score
    found = [label(score.name), number(score.value), interval(score.low, score.high)]
    if "p" in columns:
        found += [number(line.baseline.value if line.baseline else None), *_change(line.difference)]
    if columns[-1] == OF_25:
        drawn = line.paper25
        told = drawn is not None and not math.isnan(drawn.mean)
        found.append(f"{number(drawn.mean)} ± {number(drawn.sd)}" if drawn and told else ABSENT)
    return found


def _change(change: Difference | None) -> list[str]:
    """Difference, interval and p; dashes where one of the systems has no value."""
    if change is None or math.isnan(change.delta):
        return [ABSENT] * 3
    p = "<0.001" if change.p < 0.001 else f"{change.p:.3f}"
    return [f"{change.delta:+.2f}", interval(change.low, change.high), p]


def text_table(lines: Sequence[Line], heading: str) -> str:
    """The scores in columns under a heading, then the signature of each."""
    columns = headings(lines)
    rows = [columns, *(cells(line, columns) for line in lines)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(columns))]
    shown = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    return "\n".join([heading, "", *shown, "", *signatures(lines)]) + "\n"


def markdown_table(lines: Sequence[Line], heading: str) -> str:
    """The scores as a table of markdown, then the signature of each."""
    columns = headings(lines)
    rows = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    rows += [[cell.replace("  ", "&emsp;", 1) for cell in cells(line, columns)] for line in lines]
    signed = [f"- `{signature}`" for signature in signatures(lines)]
    return "\n".join([heading, "", *(f"| {' | '.join(row)} |" for row in rows), "", *signed]) + "\n"


def signatures(lines: Iterable[Line]) -> list[str]:
    """What each number depends on; a metric by trait depends on what the whole does."""
    found = []
    for line in lines:
        if "/" not in line.score.name:
            signed = (line.score, line.difference, line.paper25)
            found += [one.signature for one in signed if one is not None]
    return list(dict.fromkeys(found))


def as_json(lines: Iterable[Line]) -> str:
    """Metric → value, low, high and signature (x 100), and what else was asked for."""
    table = {}
    for line in lines:
        row = _score(line.score)
        if line.baseline:
            row["baseline"] = _score(line.baseline)
        if line.difference:
            row["difference"] = _difference(line.difference)
        if line.paper25:
            row["paper25"] = _small(line.paper25)
        table[line.score.name] = row
    return json.dumps(table, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _score(score: Score) -> dict[str, object]:
    return {
        "value": _known(score.value),
        "low": _known(score.low),
        "high": _known(score.high),
        "signature": score.signature,
    }


def _difference(difference: Difference) -> dict[str, object]:
    return {
        "delta": _known(difference.delta),
        "low": _known(difference.low),
        "high": _known(difference.high),
        "p": _known(difference.p),
        "signature": difference.signature,
    }


def _small(drawn: SmallSample) -> dict[str, object]:
    return {"mean": _known(drawn.mean), "sd": _known(drawn.sd), "signature": drawn.signature}


def _known(value: float | None) -> float | None:
    """The number, or null, since JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else value


SHOWN = 200
"""Clips on a page at most: a browser that is to lay out thousands is slow."""

PLAYED = frozenset({".wav", ".mp3", ".ogg", ".oga", ".opus", ".flac"})
"""Recordings that browsers play; others are linked only."""

KINDS = (
    ("found", "✓", "Found", "found"),
    ("missed", "○", "Missed", "missed"),
    ("invented", "+", "Invented", "invented"),
    ("contradicted", "✗", "Against a reference", "wrong"),
)
"""What `MarkedClip` calls them, mark, heading and class, in the order shown."""


def report_page(
    lines: Sequence[Line],
    worst: Sequence[MarkedClip],
    *,
    heading: str,
    language: str,
    folder: Path,
) -> str:
    """The page, to lie in `folder`; `worst` are all clips, the worst first, in one language."""
    style = Path(__file__).with_name("page.css").read_text("utf-8")
    shown = worst[:SHOWN]
    body = "\n".join(
        [
            '<a class="skip" href="#clips">To the clips</a>',
            "<h1>Scores of captions</h1>",
            f"<p>{_text(heading)}</p>",
            *_scores(lines),
            '<h2 id="clips">Clips, worst first</h2>',
            f'<p class="faint">{_count(len(shown), len(worst))} By F1 of the clues, then by how '
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


def _count(shown: int, everything: int) -> str:
    if shown == everything:
        return f"All {everything} clips."
    return f"The worst {shown} of {everything} clips; the other {everything - shown} are left out."


def _scores(lines: Sequence[Line]) -> Iterator[str]:
    columns = headings(lines)
    yield '<div class="wide" tabindex="0" role="region" aria-label="Scores"><table>'
    heads = "".join(f'<th scope="col">{name}</th>' for name in columns)
    yield f"<thead><tr>{heads}</tr></thead><tbody>"
    for line in lines:
        name, *values = map(_text, cells(line, columns))
        kind = ' class="part"' if name.startswith(" ") else ""
        shown = "".join(f"<td>{value}</td>" for value in values)
        yield f'<tr{kind}><th scope="row">{name.strip()}</th>{shown}</tr>'
    yield "</tbody></table></div>"
    yield "<details><summary>What each number depends on</summary><ul>"
    yield from (f"<li><code>{_text(signature)}</code></li>" for signature in signatures(lines))
    yield "</ul></details>"


def _clip(marked: MarkedClip, language: str, folder: Path) -> Iterator[str]:
    clip = marked.clip
    yield f"<article><header><h3>{_text(clip.id)}</h3>"
    yield f'<span class="faint">F1 of clues {number(100 * marked.f1)}</span></header>'
    if clip.file is not None:
        yield from _recording(clip.file, clip.id, folder)
    said = _text(clip.hypothesis.strip()) or '<em lang="en">Nothing was said.</em>'
    yield f'<blockquote lang="{language}">{said}</blockquote>'
    references = "".join(f"<li>{_text(text)}</li>" for text in clip.references)
    yield f'<div class="faint">References<ul lang="{language}">{references}</ul></div>'
    yield "<dl>"
    for name, sign, heading, kind in KINDS:
        clues: tuple[Clue, ...] = getattr(marked, name)
        yield from _clues(sign, heading, kind, [(clue, "") for clue in clues])
    heard = [(one.clue, one.measurement) for one in marked.unheard]
    yield from _clues("✗", "Against the recording", "wrong", heard)
    yield "</dl></article>"


def _recording(file: Path, name: str, folder: Path) -> Iterator[str]:
    link = _text(quote(Path(os.path.relpath(file, folder)).as_posix(), errors="replace"))
    if file.suffix.lower() in PLAYED:
        label = _text(f"Recording of {name}")
        yield f'<audio controls preload="none" src="{link}" aria-label="{label}"></audio>'
    else:
        yield f'<p><a href="{link}">{_text(file.name)}</a></p>'


def _clues(sign: str, heading: str, kind: str, clues: Iterable[tuple[Clue, str]]) -> Iterator[str]:
    items = [
        f'<li><span aria-hidden="true">{sign}</span> {_text(_said(clue))} '
        f"<small>{_text(measured or clue.trait)}</small></li>"
        for clue, measured in clues
    ]
    if items:
        yield f'<dt class="{kind}">{heading}</dt>'
        yield f'<dd class="{kind}"><ul class="clues">{"".join(items)}</ul></dd>'


def _said(clue: Clue) -> str:
    return f"not {clue.word}" if clue.negated else clue.word
