"""`aligncap reproduce` from beginning to end at a tiny size: made once, not made again, killed on
the way, and with a system more."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from aligncap.cli.console import Console
from aligncap.cli.main import main
from aligncap.errors import InterruptedRunError
from support.comparison import arguments, reproduce, write_comparison
from support.killer import finish, kill, start, wait_until

HELD = """
import sys
from pathlib import Path
from torch.optim.optimizer import register_optimizer_step_post_hook
from support.killer import hold

limit, marker = int(sys.argv[1]), Path(sys.argv[2])
taken = 0

def count(*_):
    global taken
    taken += 1
    if taken == limit:
        marker.touch()
        hold()

register_optimizer_step_post_hook(count)
from aligncap.cli.main import main
sys.exit(main(sys.argv[3:]))
"""

MEAN = '''
from torch import nn

from aligncap.captioner.connectors import Connector


class Mean(Connector):
    """The mean vector of a clip, whatever its length."""

    vectors = 1

    def __init__(self, width, hidden):
        super().__init__()
        self.layer = nn.Linear(width, hidden)

    def forward(self, features, lengths):
        return self.layer(features.sum(1, keepdim=True) / lengths[:, None, None])
'''

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, example_clips: list[Path]) -> Path:
    """The comparison with its table, made without disturbance."""
    root = tmp_path_factory.mktemp("comparison")
    write_comparison(root, example_clips[:6])
    reproduce(root)
    return root


def numbers(out: Path) -> dict[str, Any]:
    """Everything that is stored of runs but how long they took."""
    found: dict[str, Any] = {}
    for folder in sorted((out / "runs").iterdir()):
        told = json.loads((folder / "run.json").read_text("utf-8"))
        timeless = {key: told[key] for key in told if not key.endswith("seconds")}
        texts = [(folder / name).read_text("utf-8") for name in ("captions.jsonl", "scores.jsonl")]
        found[folder.name] = [timeless, *texts, json.loads((folder / "scores.json").read_text())]
    return found


def test_each_run_leaves_what_it_is_what_it_said_and_its_scores(made: Path) -> None:
    assert sorted(numbers(made / "out")) == ["kd.mine.seed0", "linear.mine.seed0"]
    told, captions, _, scores = numbers(made / "out")["kd.mine.seed0"]
    manifest = (made / "data/mine/test.jsonl").read_text("utf-8")
    tested = [json.loads(line)["id"] for line in manifest.splitlines()]
    assert [json.loads(line)["id"] for line in captions.splitlines()] == tested
    assert (told["n"], told["protocol"], told["split"]) == (len(tested), "in-domain", "test")
    assert told["steps"] == 12 + 14  # the language model's and KD's
    assert set(told["signature"]) == {"commit", "processor", "inputs", "model"}
    assert scores["aes_c"] is None
    assert "judge" in scores["reasons"]["aes_c"]
    assert not list((made / "out" / "running").glob("*/*"))


def test_the_table_has_the_papers_numbers_in_columns_of_their_own(made: Path) -> None:
    page = (made / "out/tables/table1.md").read_text("utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| AlignCap-KD-PO"))
    assert "| 9.8 ± 0.2 |" in row
    with (made / "out/tables/table1.csv").open() as file:
        rows = [one for one in csv.DictReader(file) if one["metric"] == "bleu4"]
    assert [one["row"] for one in rows] == ["SECap", "AlignCap-KD-PO"]
    assert [one["paper"] for one in rows] == ["7.4 ± 0.3", "9.8 ± 0.2"]
    scores = numbers(made / "out")["kd.mine.seed0"][3]
    assert float(rows[1]["value"]) == pytest.approx(scores["bleu4"], abs=1e-5)
    assert "AES_c, AES_s blank: no judge" in page


def test_a_finished_table_is_made_again_without_training(made: Path) -> None:
    written = {file: file.read_bytes() for file in (made / "out/tables").iterdir()}
    stages = {file: file.stat().st_mtime_ns for file in (made / "out/shared").rglob("*")}
    said = reproduce(made)
    assert "2 runs, 2 finished; 0 trainings and preparations left" in said
    assert {file: file.read_bytes() for file in (made / "out/tables").iterdir()} == written
    assert {
        file: file.stat().st_mtime_ns for file in (made / "out/shared").rglob("*") if file in stages
    } == stages


def test_a_dry_run_says_what_it_would_train_and_writes_nothing(made: Path) -> None:
    said = reproduce(made, "table1", "--dry-run", out="dry")
    assert "2 runs, 0 finished; 5 trainings and preparations left" in said
    assert "parameters" in said
    assert not (made / "dry").exists()


class Impatient(Console):
    """Presses Ctrl-C when the first captions are begun."""

    def log(self, message: str) -> None:
        super().log(message)
        if message.startswith("captions"):
            raise KeyboardInterrupt


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(made: Path) -> None:
    said = io.StringIO()
    code = main(arguments(made, out="stopped"), console=Impatient(stdout=said, stderr=said))
    assert code == 130
    assert "0 of 2 runs finished" in said.getvalue()
    assert "the same command goes on" in said.getvalue().splitlines()[-1]
    assert len(list((made / "stopped" / "shared").glob("*/stage.json"))) == 2
    assert not (made / "stopped" / "runs").exists()


def test_ctrl_c_in_a_training_stops_all_of_it(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def stopped(recipe: Path, **_: object) -> None:
        asked.append(recipe)
        raise InterruptedRunError(f"{recipe}: stopped at step 3 of 9")

    monkeypatch.setattr("aligncap.experiments.reproduce.run_recipe", stopped)
    said = io.StringIO()
    console = Console(stdout=said, stderr=said)
    assert main(arguments(made, out="interrupted"), console=console) == 130
    assert len(asked) == 1
    assert "the same command goes on" in said.getvalue().splitlines()[-1]


def test_figures_and_the_page_are_made_of_finished_runs(made: Path) -> None:
    said = reproduce(made, "figure3", "figure7")
    assert "2 runs, 2 finished; 0 trainings and preparations left" in said
    figures = made / "out/figures"
    shown = json.loads((figures / "figure3.json").read_text("utf-8"))
    (panel,) = shown["panels"]
    tested = len(numbers(made / "out")["kd.mine.seed0"][1].splitlines())
    assert (panel["name"], panel["clips"]) == ("aligned after decoding (KD-Align)", tested)
    assert shown["caption"].endswith("Tiny.")
    assert set(panel["measures"]["0"]) >= {"mmd2", "recall_at_1", "silhouette"}
    same = json.loads((figures / "figure7.json").read_text("utf-8"))["clips"]
    assert [one["system"] for one in same[0]["captions"]] == ["SECap", "AlignCap-KD"]
    page = (made / "out/report.html").read_text("utf-8")
    assert page.count("<audio") == len(same)
    assert "Table 1" in page


@pytest.mark.timeout(1200)  # four processes: a busy machine is no failure
def test_killed_three_times_it_comes_to_the_same_numbers(made: Path, tmp_path: Path) -> None:
    # In the first training; in the second system's language model; in its distillation.
    for number, steps in enumerate((7, 14, 18)):
        marker = tmp_path / f"held-{number}"
        process = start("-c", HELD, steps, marker, *arguments(made, out="killed"))
        wait_until(marker.exists, process)
        kill(process)
    finish(start("-m", "aligncap", *arguments(made, out="killed")))
    assert numbers(made / "killed") == numbers(made / "out")


def test_a_system_of_one_file_and_one_recipe_is_in_table_1(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy-1.dist-info").mkdir()
    (tmp_path / "toy_mean.py").write_text(MEAN, "utf-8")
    (tmp_path / "toy-1.dist-info" / "METADATA").write_text("Name: toy\nVersion: 1\n", "utf-8")
    points = "[aligncap.connectors]\nmean = toy_mean:Mean\n"
    (tmp_path / "toy-1.dist-info" / "entry_points.txt").write_text(points, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    recipe = (made / "recipes/tiny/linear.toml").read_text("utf-8")
    own = made / "recipes" / "tiny" / "mine.toml"
    own.write_text(recipe.replace('"linear"', '"mean"').replace("tiny-linear", "Mine"), "utf-8")
    said = reproduce(made, "table1", "--system", own)
    assert "3 runs, 2 finished; 1 trainings and preparations left" in said
    page = (made / "out/tables/table1.md").read_text("utf-8")
    assert any(line.startswith("| Mine | ") for line in page.splitlines())
