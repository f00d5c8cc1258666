"""The sweep of noise: each length is a run of its own, and the page names its command."""

from pathlib import Path

import pytest

from aligncap.experiments import noise


def test_another_length_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def pretend(_: Path, *, overrides: list[str], output: Path, resume: bool) -> None:
        assert resume
        assert "student.noise=0.5" in overrides
        asked.append(output)

    monkeypatch.setattr(noise, "run_recipe", pretend)
    monkeypatch.setattr(noise, "validation_of", lambda _: 1.5)
    monkeypatch.chdir(tmp_path)
    recipe, rows = tmp_path / "prefix.toml", tmp_path / "rows.jsonl"
    recipe.write_text("[training]\nsteps = 8\n")
    rows.write_text("{}\n")
    for change in (None, ["training.steps=3"]):
        noise.main(recipe, rows, tmp_path / "lm/model", variance=[0.5], seeds=2, change=change)
    assert [one.as_posix() for one in asked] == [
        f"runs/noise/{steps}-steps/0.5-{seed}" for steps in (8, 3) for seed in (0, 1)
    ]
    page = Path("docs/results/noise.md").read_text("utf-8")
    command = "python -m aligncap.experiments.noise prefix.toml --rows rows.jsonl --start lm/model"
    assert f"Made by `{command}`; do not edit." in page
    assert "| 0.5 | 1.500 ± 0.000 |" in page
