"""Tables 1 to 4 of the paper from stored runs, as Markdown, CSV, JSON and LaTeX.

    <out>/tables/table1.md, .csv, .json, .tex

A table has a section for each test and a row for each arm: each metric's mean over seeds with its
95 % interval over clips and seeds, and, where the paper has such a number, the paper's in a column
of its own. Table 2 gives what is lost without a part, as the paper does.
"""

import csv
import io
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from aligncap.experiments.comparison import Arm, Scale, Test
from aligncap.experiments.runs import METRICS, StoredRun
from aligncap.experiments.statistics import compare, estimate
from aligncap.storage import hash_of, write_atomic

TABLES_FOLDER = "tables"

COLUMNS: Mapping[str, str] = {
    "bleu4": "BLEU@4",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "spice": "SPICE",
    "aes_c": "AES_c",
    "aes_s": "AES_s",
    "emotion_recall": "emotion recall",
}
"""Metric → as a table heads it; the last is ours, the others the paper's."""

PARTS: Mapping[str, str] = {"p_act": "P_act", "kl": "L_KL", "po": "L_PO"}

ABSENT = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """A number with its interval; of a difference with its p value and what it is against."""

    value: float | None
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    """Between seeds."""
    p: float | None = None
    against: str = ""

    def text(self, *, signed: bool) -> str:
        """As a table shows it."""
        if self.value is None:
            return ABSENT
        sign = "+" if signed else ""
        shown = f"{self.value:{sign}.1f}"
        if self.low is not None and self.high is not None:
            shown += f" [{self.low:{sign}.1f}, {self.high:{sign}.1f}]"
        if self.p is not None:
            shown += f" p {self.p:.3f}"
        return f"{shown} ({self.against})" if self.against else shown


@dataclass(frozen=True, slots=True)
class Row:
    """An arm on a test."""

    name: str
    cells: Mapping[str, Cell]
    """By metric."""
    paper: Mapping[str, str]
    """The paper's numbers by metric, as printed."""
    seeds: int
    steps: int
    processor_seconds: float
    """Of training, all stages together, the mean over seeds."""
    signed: bool = False
    """Whether the numbers are differences."""


@dataclass(frozen=True, slots=True)
class Section:
    """The rows of a test."""

    test: str
    title: str
    paper: str
    """What the paper's numbers are of; "" where there are none."""
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Table:
    """A table, ready to be written."""

    item: str
    sections: Sequence[Section]
    notes: Sequence[str]
    signature: Mapping[str, str]
    command: str


def paper_numbers() -> Mapping[str, Mapping[str, Mapping[str, Sequence[str]]]]:
    """The paper's tables: table → part → row → numbers as printed, in the order of "columns"."""
    return tomllib.loads(files("aligncap.experiments").joinpath("paper.toml").read_text("utf-8"))


def make_table(scale: Scale, item: str, runs: Sequence[StoredRun], *, command: str) -> Table:
    """A table of the runs that are there; what is not there is a dash, and is told of."""
    wanted = scale.items[item]
    sections, used, absent = [], list[StoredRun](), 0
    for name in wanted.tests:
        test, rows = scale.tests[name], list[Row]()
        by_arm = {arm: _runs(runs, arm, name) for arm in wanted.all_arms}
        used += [run for own in by_arm.values() for run in own]
        absent += sum(not own for own in by_arm.values())
        part = wanted.paper or test.paper
        for arm in wanted.arms:
            paper = _paper(item, part, scale.arms[arm].paper_name)
            rows.append(_row(scale.arms[arm].title, by_arm[arm], paper))
        rows += _without(scale, item, part, by_arm)
        rows += _against_rivals(scale, wanted.ours, by_arm)
        known = next((own[0] for own in by_arm.values() if own), None)
        sections.append(Section(name, _title(scale, test, known), part, rows))
    notes = [*([wanted.note] if wanted.note else []), *_notes(used)]
    if absent:
        notes.append(f"{absent} rows are empty: their runs are not made yet")
    return Table(item, sections, notes, _signature(used), command)


def _runs(runs: Sequence[StoredRun], arm: str, test: str) -> list[StoredRun]:
    return [run for run in runs if (run.arm, run.test_name) == (arm, test)]


def _title(scale: Scale, test: Test, run: StoredRun | None) -> str:
    split = scale.corpora[test.test].split
    texts = f"; captions alone of {', '.join(test.texts)}" if test.texts else ""
    clips = f", n = {run.n}" if run else ""
    return (
        f"{test.protocol}: trained on {', '.join(test.train)}{texts}; tested on {split} speakers "
        f"of {test.test}{clips}"
    )


def _row(name: str, runs: Sequence[StoredRun], paper: Mapping[str, str]) -> Row:
    cells = {}
    for metric in METRICS:
        found = estimate(metric, runs) if runs else None
        cells[metric] = Cell(found.value, found.low, found.high, found.sd) if found else Cell(None)
    return Row(name, cells, paper, *_cost(runs))


def _cost(runs: Sequence[StoredRun]) -> tuple[int, int, float]:
    """Seeds, and of a run the steps and processor seconds of all its stages."""
    if not runs:
        return 0, 0, 0.0
    seconds = sum(run.processor_seconds for run in runs) / len(runs)
    return len(runs), max(run.steps for run in runs), round(seconds, 1)


def _difference(
    name: str,
    runs: Sequence[StoredRun],
    others: Mapping[str, Sequence[StoredRun]],
    paper: Mapping[str, str],
) -> Row:
    """The runs less the best of others by each metric, which is named where there are several."""
    cells = {}
    for metric in METRICS:
        means = {
            other: mean
            for other, own in others.items()
            if own and (mean := estimate(metric, own, draws=0).value) is not None
        }
        if not runs or not means:
            cells[metric] = Cell(None)
            continue
        best = max(means, key=means.__getitem__)
        found = compare(metric, runs, others[best])
        named = best if len(others) > 1 else ""
        cells[metric] = Cell(found.delta, found.low, found.high, found.sd, found.p, named)
    return Row(name, cells, paper, *_cost(runs), signed=True)


def _without(
    scale: Scale, item: str, part: str, by_arm: Mapping[str, Sequence[StoredRun]]
) -> Iterator[Row]:
    """Table 2's rows: of each whole arm what those without a part are below it."""
    for whole, lesser in scale.items[item].without.items():
        for arm in lesser:
            parts = scale.arms[arm].without or ("po",)
            name = f"{scale.arms[whole].title} without {' and '.join(PARTS[one] for one in parts)}"
            paper = _paper(item, part, name)
            yield _difference(name, by_arm[arm], {whole: by_arm[whole]}, paper)


def _against_rivals(
    scale: Scale, ours: str | None, by_arm: Mapping[str, Sequence[StoredRun]]
) -> Iterator[Row]:
    """A row of what our arm is above the best system of others by each metric."""
    if ours is not None:
        own: Arm = scale.arms[ours]
        rivals = {
            scale.arms[arm].title: runs
            for arm, runs in by_arm.items()
            if scale.arms[arm].system != own.system
        }
        yield _difference(f"{own.title} less the best rival", by_arm[ours], rivals, {})


def _paper(item: str, part: str, name: str) -> Mapping[str, str]:
    found = paper_numbers().get(item, {}).get(part, {})
    return dict(zip(found.get("columns", ()), found.get(name, ()), strict=False))


def _notes(runs: Sequence[StoredRun]) -> Iterator[str]:
    """Why metrics are not there, each reason once."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        for metric, reason in run.scores["reasons"].items():
            found.setdefault(reason, {})[COLUMNS[metric]] = None
    for reason, metrics in found.items():
        yield f"{', '.join(metrics)} blank: {reason}"


def _signature(runs: Sequence[StoredRun]) -> dict[str, str]:
    """What the numbers depend on: commits, processors, hashes of inputs and of models."""
    found = {
        key: ", ".join(sorted({run.signature[key] for run in runs}))
        for key in ("commit", "processor", "inputs")
    }
    models = sorted(f"{run.name} {run.signature['model']}" for run in runs)
    return {**found, "models": hash_of("\n".join(models))[:12], "runs": str(len(runs))}


def shown_columns(section: Section) -> list[tuple[str, bool]]:
    """Metrics in order, each followed by the paper's where any row has it (True)."""
    found = []
    for metric in METRICS:
        found.append((metric, False))
        if any(metric in row.paper for row in section.rows):
            found.append((metric, True))
    return found


def headings(section: Section) -> list[str]:
    """The first line of a section."""
    columns = [
        f"{COLUMNS[metric]} in the paper" if paper else COLUMNS[metric]
        for metric, paper in shown_columns(section)
    ]
    return ["", *columns, "seeds", "steps", "processor s"]


def line(section: Section, row: Row) -> list[str]:
    """A row as texts."""
    cells = [
        row.paper.get(metric, ABSENT) if paper else row.cells[metric].text(signed=row.signed)
        for metric, paper in shown_columns(section)
    ]
    cost = [str(row.seeds), f"{row.steps:,}", f"{row.processor_seconds:,.0f}"]
    return [row.name, *cells, *cost]


def markdown(table: Table) -> str:
    """The table as a page."""
    number = table.item.removeprefix("table")
    lines = [f"# Table {number}", "", f"Made by `{table.command}`; do not edit.", ""]
    for section in table.sections:
        lines += [f"## {section.title}", ""]
        if section.paper:
            lines += [f"The paper's numbers are of {section.paper}, zero-shot, other speech.", ""]
        heads = headings(section)
        lines += [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
        lines += [f"| {' | '.join(line(section, row))} |" for row in section.rows]
        lines.append("")
    lines += [
        "Means over seeds with 95 % intervals over clips and seeds; differences are paired, by "
        "clip and seed. Steps and processor seconds are of all stages of a run, shared ones too.",
        "",
    ]
    lines += [f"- {note}" for note in table.notes]
    lines += [f"- {name}: {value}" for name, value in table.signature.items()]
    return "\n".join(lines) + "\n"


def as_csv(table: Table) -> str:
    """One line of each number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = ("table", "test", "row", "metric", "value", "low", "high", "sd", "p", "against")
    writer.writerow([*keys, "paper", "seeds", "steps", "processor_seconds"])
    for section in table.sections:
        for row in section.rows:
            for metric, cell in row.cells.items():
                numbers = (cell.value, cell.low, cell.high, cell.sd, cell.p)
                shown = [None if one is None else round(one, 6) for one in numbers]
                place = [table.item, section.test, row.name, metric]
                rest = [row.paper.get(metric), row.seeds, row.steps, row.processor_seconds]
                writer.writerow([*place, *shown, cell.against, *rest])
    return text.getvalue()


def as_json(table: Table) -> str:
    """Everything of it."""
    sections = [
        {
            "test": section.test,
            "title": section.title,
            "paper": section.paper or None,
            "rows": [
                {
                    "name": row.name,
                    "difference": row.signed,
                    "seeds": row.seeds,
                    "steps": row.steps,
                    "processor_seconds": row.processor_seconds,
                    "metrics": {
                        metric: {
                            "value": cell.value,
                            "low": cell.low,
                            "high": cell.high,
                            "sd": cell.sd,
                            "p": cell.p,
                            "against": cell.against or None,
                            "paper": row.paper.get(metric),
                        }
                        for metric, cell in row.cells.items()
                    },
                }
                for row in section.rows
            ],
        }
        for section in table.sections
    ]
    found = {
        "table": table.item,
        "command": table.command,
        "sections": sections,
        "notes": list(table.notes),
        "signature": dict(table.signature),
    }
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


SPECIAL = {"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "→": r"$\to$", "±": r"$\pm$"}


def latex(table: Table) -> str:
    """A tabular of each section (booktabs)."""

    def escaped(text: str) -> str:
        return "".join(SPECIAL.get(letter, letter) for letter in text)

    lines = [f"% made by {table.command}; do not edit"]
    for section in table.sections:
        heads = headings(section)
        lines += [
            f"% {section.title}",
            r"\begin{tabular}{l" + "r" * (len(heads) - 1) + "}",
            r"\toprule",
            " & ".join(map(escaped, heads)) + r" \\",
            r"\midrule",
            *(" & ".join(map(escaped, line(section, row))) + r" \\" for row in section.rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    lines += [f"% {note}" for note in table.notes]
    lines += [f"% {name}: {value}" for name, value in table.signature.items()]
    return "\n".join(lines) + "\n"


FORMATS = {"md": markdown, "csv": as_csv, "json": as_json, "tex": latex}


def write_tables(
    scale: Scale, items: Sequence[str], runs: Sequence[StoredRun], out: Path, *, command: str
) -> list[Path]:
    """Write the tables among the items in every format; returns their pages in Markdown. The
    command has "{}" in the place of the item."""
    pages = []
    for item in items:
        if item.startswith("table"):
            table = make_table(scale, item, runs, command=command.format(item))
            for suffix, written in FORMATS.items():
                write_atomic(out / TABLES_FOLDER / f"{item}.{suffix}", written(table))
            pages.append(out / TABLES_FOLDER / f"{item}.md")
    return pages
