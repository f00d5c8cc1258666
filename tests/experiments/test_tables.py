"""Tables of runs that are written by hand."""

import json
from pathlib import Path

import pytest

from aligncap.experiments import comparison
from aligncap.experiments.comparison import Arm, Corpus, Item, Scale
from aligncap.experiments.runs import METRICS, read_runs
from aligncap.experiments.tables import (
    Table,
    as_csv,
    as_json,
    latex,
    make_table,
    markdown,
)

CLIPS = ("a", "b", "c", "d")
ROUGE = {
    ("kd-po", 0): (0.9, 0.7, 0.8, 0.6),
    ("kd-po", 1): (0.7, 0.7, 0.6, 0.6),
    ("secap", 0): (0.5, 0.5, 0.4, 0.2),
    ("secap", 1): (0.5, 0.5, 0.6, 0.8),
    ("htsat", 0): (0.1, 0.1, 0.1, 0.1),
    ("htsat", 1): (0.1, 0.1, 0.1, 0.1),
    ("kd", 0): (0.5, 0.5, 0.5, 0.5),
    ("kd", 1): (0.6, 0.6, 0.6, 0.6),
}
"""ROUGE-L of each clip, by arm and seed."""

TITLES = {"kd-po": "AlignCap-KD-PO", "secap": "SECap", "htsat": "HTSAT-BART", "kd": "AlignCap-KD"}
SYSTEMS = {"kd-po": "AlignCap", "secap": "SECap", "htsat": "HTSAT-BART", "kd": "AlignCap"}


def write_run(out: Path, arm: str, seed: int) -> None:
    folder = out / "runs" / f"{arm}.one.seed{seed}"
    folder.mkdir(parents=True)
    signature = dict.fromkeys(("commit", "processor", "inputs"), "x") | {"model": f"{arm}{seed}"}
    table = {
        "name": folder.name,
        "arm": arm,
        "test_name": "one",
        "seed": seed,
        "n": len(CLIPS),
        "steps": 100,
        "processor_seconds": 10.0 + 2 * seed,
        "language": "en",
        "signature": signature,
    }
    (folder / "run.json").write_text(json.dumps(table))
    captions = [
        {"id": one, "caption": "A man.", "references": ["A man."], "emotion": None} for one in CLIPS
    ]
    (folder / "captions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in captions))
    values = ROUGE[arm, seed]
    lines = [{"id": one, "rouge_l": 100 * v} for one, v in zip(CLIPS, values, strict=True)]
    (folder / "scores.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    rest = [name for name in METRICS if name != "rouge_l"]
    scores = {**dict.fromkeys(rest), "reasons": dict.fromkeys(rest, "not given_here")}
    (folder / "scores.json").write_text(json.dumps({**scores, "rouge_l": 25 * sum(values)}))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    for arm, seed in ROUGE:
        write_run(tmp_path, arm, seed)
    arms = {
        name: Arm(title=TITLES[name], system=SYSTEMS[name], recipe=Path("x.toml"))
        for name in TITLES
    }
    arms["rlhf"] = Arm(title="AlignCap-KD-RLHF", recipe=Path("x.toml"))
    item = Item(
        arms=("htsat", "secap", "rlhf", "kd-po"),
        tests=("one",),
        without={"kd-po": ("kd",)},
        ours="kd-po",
        note="A note.",
    )
    scale = Scale(
        corpora={"mine": Corpus(manifests=("mine.jsonl",))},
        tests={
            "one": comparison.Test(
                protocol="in-domain", train=("mine",), test="mine", paper="EMOSEC"
            )
        },
        arms=arms,
        items={"table1": item},
    )
    return make_table(scale, "table1", read_runs(tmp_path), command="aligncap reproduce table1")


def row(table: Table, name: str) -> list[str]:
    line = next(one for one in markdown(table).splitlines() if one.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_cell_is_the_mean_over_clips_and_seeds(table: Table) -> None:
    found = {one.name: one for one in table.sections[0].rows}
    assert found["AlignCap-KD-PO"].cells["rouge_l"].value == pytest.approx(70.0)  # 75 and 65
    assert found["SECap"].cells["rouge_l"].value == pytest.approx(50.0)  # 40 and 60
    assert found["SECap"].cells["rouge_l"].sd == pytest.approx(200**0.5)
    assert (found["SECap"].seeds, found["SECap"].processor_seconds) == (2, 11.0)


def test_differences_are_to_the_best_rival_and_to_the_whole_model(table: Table) -> None:
    found = {one.name: one for one in table.sections[0].rows}
    best = found["AlignCap-KD-PO less the best rival"].cells["rouge_l"]
    assert best.value == pytest.approx(20.0)
    assert best.against == "SECap"  # AlignCap-KD is no rival of itself
    lost = found["AlignCap-KD-PO without L_PO"].cells["rouge_l"]
    assert lost.value == pytest.approx(55.0 - 70.0)
    assert lost.p is not None


def test_the_papers_numbers_have_columns_of_their_own(table: Table) -> None:
    heads, own = row(table, ""), row(table, "AlignCap-KD-PO")
    assert own[heads.index("ROUGE-L in the paper")] == "29.8 ± 0.5"
    assert own[heads.index("ROUGE-L")].startswith("70.0 [")
    assert "emotion recall in the paper" not in heads


def test_what_is_not_there_is_a_dash_with_its_reason(table: Table) -> None:
    assert set(row(table, "AlignCap-KD-RLHF")[1:2]) == {"–"}
    page = markdown(table)
    assert "1 rows are empty: their runs are not made yet" in page
    assert "blank: not given_here" in page
    assert "- A note." in page
    assert f"- runs: {len(ROUGE)}" in page


def test_every_format_says_the_same(table: Table) -> None:
    found = json.loads(as_json(table))["sections"][0]["rows"][3]
    assert found["metrics"]["rouge_l"]["value"] == pytest.approx(70.0)
    line = next(one for one in as_csv(table).splitlines() if "AlignCap-KD-PO,rouge_l" in one)
    assert line.split(",")[4] == "70.0"
    assert "29.8 ± 0.5" in line
    text = latex(table)
    assert r"29.8 $\pm$ 0.5" in text
    assert r"without L\_PO" in text
    assert text.count(r"\\") == 1 + len(table.sections[0].rows)
