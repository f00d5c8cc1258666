"""What `aligncap reproduce` found, as one page of HTML: whether the paper's orderings hold, its
tables and its figures, and the clips to listen to. The page is one file and needs no network.

    <out>/report.html
          tables/orderings.md, .csv, .json    the verdicts

It is made of the stored runs, of DIR/tables and of DIR/figures, and trains nothing.
"""

import base64
import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aligncap.captioner.pictures import sound_address
from aligncap.errors import AlignCapError
from aligncap.experiments.plots import FIGURES_FOLDER, measured_text
from aligncap.experiments.runs import StoredRun
from aligncap.experiments.statistics import (
    JUDGED,
    Judged,
    Ordering,
    judge,
    missing,
    setting_text,
    settings,
)
from aligncap.experiments.tables import ABSENT, COLUMNS, TABLES_FOLDER
from aligncap.metrics.page import EMBEDDED, escaped, page
from aligncap.storage import write_atomic

REPORT_FILE = "report.html"
ORDERINGS = "orderings"
SIGNS = {Ordering.HOLDS: "✓", Ordering.FAILS: "✗", Ordering.OPEN: "?"}
CLASSES = {Ordering.HOLDS: "holds", Ordering.FAILS: "fails", Ordering.OPEN: "open"}
CLUES = {"right": "right", "wrong": "wrong", "not borne out": "unborne"}

HOW = (
    "An ordering holds where the 95 % interval of the difference lies above zero, and does not "
    "hold where it lies below; otherwise these runs cannot tell. Differences (× 100) are of the "
    "same clips and seeds; intervals are over clips and seeds together, for the speakers that "
    "were tested. Of a single seed nothing is judged. p is two-sided, after Holm over the whole "
    "table."
)

STYLE = """
main { max-width: 100%; }
body { max-width: 72rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; padding: 0; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
td, tbody th { vertical-align: top; }
td small, th small { color: var(--faint); display: block; font-weight: 400; }
td.paper, th.paper { background: var(--panel); font-style: italic; }
.holds { color: var(--found); } .fails { color: var(--wrong); } .open { color: var(--faint); }
td.verdict, th.verdict { text-align: left; }
figure { margin: 1rem 0; }
figure img { width: 100%; min-width: 40rem; height: auto; background: #fff; }
figcaption { color: var(--faint); font-size: .9rem; margin-top: .3rem; }
dl.captions { grid-template-columns: 10.5rem 1fr; }
mark { background: none; color: inherit; font-weight: 600; }
mark.right { color: #0062a8; text-decoration: underline 2px; }
mark.wrong { color: #c1121f; text-decoration: underline double 2px; }
mark.unborne { color: var(--faint); text-decoration: underline dotted 2px; }
mark { text-underline-offset: .2em; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
@media (prefers-color-scheme: dark) {
  mark.right { color: #7db8ff; } mark.wrong { color: #ff8d9a; }
}
@media (max-width: 40rem) {
  dl.captions { grid-template-columns: 1fr; }
  th:first-child { min-width: 7rem; max-width: 9rem; white-space: normal; }
}
"""


def write_report(
    runs: Sequence[StoredRun], out: Path, data: Path, *, command: str, sound: bool = True
) -> Path:
    """Write the verdicts and the page; the page's path. Without `sound` it holds no recording.

    DataError where runs that are to be compared cannot be.
    """
    judged, absent = judge(runs), missing(runs)
    names = [f"{claim.name} ({claim.place})" for claim in absent]
    written = {
        "md": _markdown(judged, names, command),
        "csv": _csv(judged),
        "json": _json(judged, names, command),
    }
    for suffix, text in written.items():
        write_atomic(out / TABLES_FOLDER / f"{ORDERINGS}.{suffix}", text)
    body = "\n".join(
        [
            '<a class="skip" href="#orderings">To the orderings</a>',
            "<h1>The paper’s comparison, run again</h1>",
            *_summary(runs, command, [path.stem for path in (*_tables(out), *_figures(out))]),
            *_orderings(judged, names),
            *(part for path in _tables(out) for part in _table(path)),
            *(part for path in _figures(out) for part in _figure(path, data if sound else None)),
            *_signatures(runs),
        ]
    )
    path = out / REPORT_FILE
    write_atomic(
        path, page("The paper’s comparison, run again", body, policy=EMBEDDED, style=STYLE)
    )
    return path


def _tables(out: Path) -> list[Path]:
    return sorted((out / TABLES_FOLDER).glob("table*.json"))


def _figures(out: Path) -> list[Path]:
    return sorted((out / FIGURES_FOLDER).glob("figure*.json"))


# The verdicts.


def _cells(one: Judged) -> dict[str, Any]:
    found = asdict(one.found) | {"p_holm": one.p_holm}
    shown = {key: round(v, 6) if isinstance(v, float) else v for key, v in found.items()}
    shown["verdict"] = str(one.found.verdict)
    return {
        "ordering": one.claim.name,
        "place": one.claim.place,
        "setting": setting_text(one.setting),
        "metric": one.metric,
        **shown,
    }


def _csv(judged: Sequence[Judged]) -> str:
    text = io.StringIO()
    keys = ["ordering", "place", "setting", "metric", "verdict", "delta", "low", "high"]
    keys += ["sd", "p", "p_holm", "clips", "seeds"]
    writer = csv.DictWriter(text, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_cells, judged))
    return text.getvalue()


def _json(judged: Sequence[Judged], absent: Sequence[str], command: str) -> str:
    found = {"command": command, "how": HOW, "judged": list(map(_cells, judged))}
    return json.dumps({**found, "missing": list(absent)}, indent=1, ensure_ascii=False) + "\n"


def _markdown(judged: Sequence[Judged], absent: Sequence[str], command: str) -> str:
    lines = ["# Whether the paper's orderings hold", "", f"Made by `{command}`; do not edit.", ""]
    lines += [HOW, "", _counted(judged), ""]
    for setting, rows in _by_setting(judged).items():
        heads = ["ordering", "where, of what", *(COLUMNS[metric] for metric in JUDGED)]
        lines += [f"## {setting}", "", f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
        for name, own in rows.items():
            cells = [_told(own[metric]) if metric in own else ABSENT for metric in JUDGED]
            lines.append(f"| {name} | {_of(own)} | {' | '.join(cells)} |")
        lines.append("")
    if absent:
        lines += ["Not judged, for want of runs: " + "; ".join(absent) + ".", ""]
    return "\n".join(lines)


def _told(one: Judged) -> str:
    if one.found.delta is None:
        return ABSENT
    return f"{one.found.verdict}: {_difference(one)}; {_chance(one)}"


def _difference(one: Judged) -> str:
    found = one.found
    bounds = "" if found.low is None else f" [{found.low:+.1f}, {found.high:+.1f}]"
    return f"{found.delta:+.1f}{bounds}"


def _chance(one: Judged) -> str:
    if one.found.p is None or one.p_holm is None:
        return "no interval"
    shown = (f"{p:.3f}" if p >= 0.001 else "< 0.001" for p in (one.found.p, one.p_holm))
    return "p {}, Holm {}".format(*shown)


def _of(rows: Mapping[str, Judged]) -> str:
    """The place in the paper, seeds and clips of an ordering."""
    one = next(iter(rows.values()))
    return f"{one.claim.place}; {one.found.seeds} seeds, {one.found.clips} clips"


def _by_setting(judged: Sequence[Judged]) -> dict[str, dict[str, dict[str, Judged]]]:
    """Setting → ordering → metric."""
    found: dict[str, dict[str, dict[str, Judged]]] = {}
    for one in judged:
        rows = found.setdefault(setting_text(one.setting), {})
        rows.setdefault(one.claim.name, {})[one.metric] = one
    return found


def _counted(judged: Sequence[Judged]) -> str:
    """How many verdicts there are of each kind."""
    known = [one for one in judged if one.found.delta is not None]
    counts = Counter(one.found.verdict for one in known)
    kept = sum(
        one.found.verdict is Ordering.HOLDS and one.p_holm is not None and one.p_holm < 0.05
        for one in known
    )
    return (
        f"Of {len(known)} comparisons (ordering, setting, metric) {counts[Ordering.HOLDS]} hold, "
        f"{kept} of them after Holm's correction too, {counts[Ordering.FAILS]} do not hold, and of "
        f"{counts[Ordering.OPEN]} these runs cannot tell."
    )


def _orderings(judged: Sequence[Judged], absent: Sequence[str]) -> Iterator[str]:
    yield '<h2 id="orderings">Whether the paper’s orderings hold</h2>'
    yield f"<p>{escaped(_counted(judged))} {HOW}</p>"
    for setting, rows in _by_setting(judged).items():
        heads = ["Ordering", *(COLUMNS[metric] for metric in JUDGED)]
        yield from _opened(setting, heads, ["", *("verdict" for _ in JUDGED)])
        for name, own in rows.items():
            yield f'<tr><th scope="row">{escaped(name)}<small>{escaped(_of(own))}</small></th>'
            yield from (_verdict(own.get(metric)) for metric in JUDGED)
            yield "</tr>"
        yield "</tbody></table></div>"
    if absent:
        yield "<details><summary>Not judged, for want of runs</summary><ul>"
        yield from (f"<li>{escaped(name)}</li>" for name in absent)
        yield "</ul></details>"


def _opened(caption: str, heads: Sequence[str], classes: Sequence[str] = ()) -> Iterator[str]:
    yield f'<div class="wide" tabindex="0" role="region" aria-label="{escaped(caption)}">'
    yield f"<table><caption>{escaped(caption)}</caption><thead><tr>"
    for number, name in enumerate(heads):
        kind = f' class="{classes[number]}"' if classes and classes[number] else ""
        yield f'<th scope="col"{kind}>{escaped(name)}</th>'
    yield "</tr></thead><tbody>"


def _verdict(one: Judged | None) -> str:
    if one is None or one.found.delta is None:
        return f"<td>{ABSENT}</td>"
    verdict = one.found.verdict
    return (
        f'<td class="verdict"><span class="{CLASSES[verdict]}">'
        f'<span aria-hidden="true">{SIGNS[verdict]}</span> {verdict}</span>'
        f"<small>{escaped(_difference(one))}</small><small>{escaped(_chance(one))}</small></td>"
    )


# Tables and figures, of their JSON.


def _table(path: Path) -> Iterator[str]:
    table = json.loads(path.read_text("utf-8"))
    number = table["table"].removeprefix("table")
    yield f'<h2 id="{escaped(table["table"])}">Table {escaped(number)}</h2>'
    yield "<p>Means over seeds with 95 % intervals over clips and seeds. "
    yield "The paper’s own numbers, where it has any, stand in columns of their own.</p>"
    for section in table["sections"]:
        columns = [
            (metric, paper)
            for metric in COLUMNS
            for paper in (False, True)
            if not paper or any(row["metrics"][metric]["paper"] for row in section["rows"])
        ]
        heads = [COLUMNS[m] + (" (paper)" if paper else "") for m, paper in columns]
        classes = ["", *("paper" if paper else "" for _, paper in columns)]
        yield from _opened(section["title"], ["", *heads], classes)
        for row in section["rows"]:
            yield f'<tr><th scope="row">{escaped(row["name"])}</th>'
            for metric, paper in columns:
                yield _number(row["metrics"][metric], signed=row["difference"], paper=paper)
            yield "</tr>"
        yield "</tbody></table></div>"
        if section["paper"]:
            yield f'<p class="faint">The paper’s numbers are of {escaped(section["paper"])}.</p>'
    if table["notes"]:
        yield f"<ul>{''.join(f'<li>{escaped(note)}</li>' for note in table['notes'])}</ul>"


def _number(cell: Mapping[str, Any], *, signed: bool, paper: bool) -> str:
    if paper:
        return f'<td class="paper">{escaped(cell["paper"] or ABSENT)}</td>'
    if cell["value"] is None:
        return f"<td>{ABSENT}</td>"
    sign = "+" if signed else ""
    bounds = "" if cell["low"] is None else f"{cell['low']:{sign}.1f} to {cell['high']:{sign}.1f}"
    more = [bounds, f"p {cell['p']:.3f}" if cell["p"] is not None else "", cell["against"] or ""]
    told = "".join(f"<small>{escaped(one)}</small>" for one in more if one)
    return f"<td>{cell['value']:{sign}.1f}{told}</td>"


def _figure(path: Path, data: Path | None) -> Iterator[str]:
    figure = json.loads(path.read_text("utf-8"))
    number = figure["name"].removeprefix("figure")
    yield f'<h2 id="{escaped(figure["name"])}">Figure {escaped(number)}</h2>'
    if "clips" in figure:
        yield f"<p>{escaped(figure['caption'])}</p>"
        for clip in figure["clips"]:
            yield from _clip(clip, data)
        return
    drawing = path.with_suffix(".svg")
    yield "<figure>"
    if drawing.is_file():
        code = base64.b64encode(drawing.read_bytes()).decode()
        yield '<div class="wide" tabindex="0" role="region" aria-label="Picture">'
        yield f'<img alt="{escaped(figure["title"])}; its numbers are in the table below" '
        yield f'src="data:image/svg+xml;base64,{code}"></div>'
    yield f"<figcaption>{escaped(figure['caption'])}</figcaption></figure>"
    yield "<details><summary>The numbers drawn</summary>"
    yield from _drawn(figure["panels"])
    yield "</details>"


def _drawn(panels: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if panels and "measures" in panels[0]:
        yield "<ul>"
        for panel in panels:
            told = measured_text(panel).replace("\n", "; ")
            yield f"<li>{escaped(panel['setting'])}, {escaped(panel['name'])}: {escaped(told)}</li>"
        yield "</ul>"
        return
    yield from _opened("Mean, 95 % interval, sd between seeds", ["", "Setting", "× 100", "sd", "n"])
    for panel in panels:
        for point in panel["points"]:
            name = point.get("name") or f"{point['at']} {panel['axis']}"
            yield f'<tr><th scope="row">{escaped(str(name))}, {escaped(panel["metric"])}</th>'
            yield f"<td>{escaped(panel['setting'])}</td>"
            yield _number({"p": None, "against": "", **point}, signed=False, paper=False)
            sd = ABSENT if point["sd"] is None else f"{point['sd']:.1f}"
            yield f"<td>{sd}</td><td>{point['clips']} clips, {len(point['seeds'])} seeds</td></tr>"
    yield "</tbody></table></div>"


def _clip(clip: Mapping[str, Any], data: Path | None) -> Iterator[str]:
    name = f"{clip['emotion'] or 'no label'}: {clip['id']}"
    yield f"<article><header><h3>{escaped(name)}</h3>"
    yield f'<span class="faint">{escaped(clip["setting"])}</span></header>'
    audio = None if data is None or not clip["audio"] else data / clip["audio"]
    if audio is not None and audio.is_file():
        try:
            address = sound_address(audio)
        except AlignCapError as error:
            yield f'<p class="faint">{escaped(str(error))}</p>'
        else:
            yield f'<audio controls preload="none" aria-label="Recording of {escaped(clip["id"])}" '
            yield f'src="{address}"></audio>'
    yield '<dl class="captions">'
    for one in clip["captions"]:
        yield f"<dt>{escaped(one['system'])}</dt>"
        yield f'<dd lang="{escaped(clip["language"])}">{marked(one)}</dd>'
    yield "</dl></article>"


def marked(caption: Mapping[str, Any]) -> str:
    """The caption with its clues marked; those that stand in other words follow it."""
    text, done, parts = caption["text"], 0, []
    found = (one for one in caption["clues"] if one["end"])
    for clue in sorted(found, key=lambda one: one["start"]):
        parts += [escaped(text[done : clue["start"]])]
        parts += [_mark(clue, text[clue["start"] : clue["end"]])]
        done = clue["end"]
    others = [_mark(clue, clue["word"]) for clue in caption["clues"] if not clue["end"]]
    whole = "".join([*parts, escaped(text[done:])]) or '<em lang="en">Nothing was said.</em>'
    return whole + "".join(f" · {one}" for one in others)


def _mark(clue: Mapping[str, Any], text: str) -> str:
    verdict = clue["verdict"]
    return (
        f'<mark class="{CLUES[verdict]}" title="{escaped(clue["trait"])}: {escaped(verdict)}; '
        f'{escaped(clue["reason"])}">{escaped(text)}'
        f'<span class="unseen" lang="en"> ({escaped(verdict)})</span></mark>'
    )


# What it is all of.


def _summary(runs: Sequence[StoredRun], command: str, items: Sequence[str]) -> Iterator[str]:
    seeds = sorted({run.seed for run in runs})
    yield (
        f"<p>Finished runs: {len(runs)}; settings: {len(settings(runs))}; seeds: {len(seeds)}. "
        f"Made by <code>{escaped(command)}</code>, of the stored runs alone.</p>"
    )
    links = "".join(
        f'<li><a href="#{one}">{_spaced(one)}</a></li>' for one in ("orderings", *items)
    )
    yield f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def _spaced(item: str) -> str:
    """ "table1" as "table 1"."""
    return item.replace("table", "table ").replace("figure", "figure ")


def _signatures(runs: Sequence[StoredRun]) -> Iterator[str]:
    yield "<h2>What every number depends on</h2>"
    yield "<details><summary>The runs and their signatures</summary><ul>"
    for run in runs:
        signed = run.table.get("signature") or {}
        told = ", ".join(f"{key} {value}" for key, value in signed.items())
        yield f"<li><code>{escaped(f'{run.name}: {told}')}</code></li>"
    yield "</ul></details>"
