"""An evaluation as text for a terminal, as markdown for a paper, and as JSON for a program."""

import json
import math
from collections.abc import Iterable, Sequence

from aligncap.scoring.evaluation import Line
from aligncap.scoring.intervals import Difference, SmallSample
from aligncap.scoring.values import Score

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
