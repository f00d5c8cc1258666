"""The alignment experiment's table by hand, and its runs."""

from pathlib import Path

import pytest

from aligncap.experiments import alignment
from aligncap.experiments.alignment import ARMS, SCORED, Score, train_arm


def test_the_table_gives_mean_and_deviation_over_seeds() -> None:
    ce, kd = (
        [Score(dict.fromkeys(SCORED, recall), 0.5, loss) for recall in recalls]
        for recalls, loss in (((0.4, 0.6), 1.0), ((0.5,), 2.0))
    )
    lines = alignment.table({"CE": ce, "KD": kd})
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    # 0.4 and 0.6: the deviation of a sample of two is 0.2 / sqrt(2).
    assert lines[2] == "| CE " + "| 0.500 ± 0.141 " * 4 + "| 0.500 ± 0.000 | 1.000 ± 0.000 |"
    assert lines[3].endswith("| 2.000 ± 0.000 |")
    # Mean recall is over the corpora that are scored.
    of_each = {"ravdess": 0.3, "emodb": 0.6, "ased": 0.9, "secap": 0.0}
    assert Score(of_each, 1, 1).recall == pytest.approx(0.6)


def test_every_arm_is_a_run_of_its_own_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    asked = []

    def pretend(path: Path, *, overrides: list[str], output: Path, resume: bool) -> None:
        assert resume
        assert path.is_file()
        asked.append((path.name, list(overrides)))

    monkeypatch.setattr(alignment, "run_recipe", pretend)
    known = {"recipes": repository / "recipes" / "mini", "runs": tmp_path}
    folders = {
        train_arm(name, seed=seed, overrides=["training.steps=2"], **known)
        for name in ARMS
        for seed in (0, 1)
    }
    assert len(folders) == len(asked) == 2 * len(ARMS)
    assert asked[0] == ("ce.toml", ["training.steps=2", "training.seed=0"])
    prompts = {changes[1] for name, changes in asked if name == "kd.toml"}
    assert prompts == {f"teacher.prompt={kind}" for kind in ("act", "act+sem", "act+transcript")}
