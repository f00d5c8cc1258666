"""The paper's alignments before decoding, by name, from rows to captions at tiny size."""

from pathlib import Path
from typing import Any

import pytest

from aligncap.alignment.alignments import ALIGNMENTS, AlignmentSettings
from aligncap.alignment.examples import SpeechSource, read_rows, write_rows
from aligncap.captioner.captioner import load
from aligncap.captioner.checkpoint import read_meta
from aligncap.errors import RecipeError, UnknownNameError
from aligncap.recipes import run_recipe
from aligncap.tokenizers.builtin import open_builtin
from support.rows import tiny_rows

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "mini" / "alignment"
FEW = ["training.steps=2", "training.warmup_steps=0", "batch.rows=8", "validation.rows=4"]
SMALL = ["model.new.hidden=32", "model.new.layers=1", "model.new.heads=2"]
SMALL += ["model.new.text_vocabulary=330"]
CHANGES = {
    "joint": [*FEW, "model.width=16", "model.hidden=32", "model.layers=1", "model.heads=2",
              "model.text_vocabulary=330"],
    "lm": [*FEW, *SMALL],
    "prefix": [*FEW, "model.connector.options={vectors=2,layers=1,heads=2}", "limits.max_tokens=8"],
    "warmup": [*FEW, *SMALL],
    "kd": [*FEW, "limits.max_tokens=8"],
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_rows(path, SpeechSource.of(open_builtin()), tiny_rows(30))
    return path


def recipe(folder: Path, rows: Path, **changes: str) -> Path:
    """A recipe of kind alignment over these rows."""
    lines = [f'rows = ["{rows}"]', f'recipes = "{RECIPES}"']
    lines += [f'{name} = "{value}"' for name, value in changes.items()]
    lines += ["[changes]"]
    lines += [f"{name} = {list(some)}".replace("'", '"') for name, some in CHANGES.items()]
    path = folder / "alignment.toml"
    path.write_text("\n".join(['kind = "alignment"', *lines]) + "\n", "utf-8")
    return path


@pytest.mark.slow
def test_captions_alone_are_learnt_from_and_speech_is_captioned(
    tmp_path: Path, rows: Path, example_clips: list[Path]
) -> None:
    """CL+Proj-Align, the one with every step; then No-Align in the space that it made."""
    file = recipe(tmp_path, rows, alignment="cl+proj")
    summary: Any = run_recipe(file, output=tmp_path / "run", resume=True)
    folder = Path(str(summary["model"]))
    assert folder == tmp_path / "run" / "captioner" / "model"
    meta = read_meta(folder)
    assert (meta.tokenizer.name, dict(meta.tokenizer.options)) == ("joint", {"projected": 1})
    assert (meta.connector.name, meta.plans) == ("mapper", False)
    caption = load(folder).caption(example_clips[0])
    assert caption.model == "before-decoding"
    # What is learnt from is captions: no row of it has what was made of sound.
    text = list(read_rows(tmp_path / "run" / "text" / "rows.jsonl"))
    assert not any(row.measured or row.heard for row in text)
    space = tmp_path / "run" / "space" / "model"
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("checkpoint-*")}
    run_recipe(file, output=tmp_path / "run", resume=True)
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    (tmp_path / "none").mkdir()
    none = recipe(tmp_path / "none", rows, alignment="none", space=str(space))
    found: Any = run_recipe(none, output=tmp_path / "none" / "run", resume=True)
    assert not (tmp_path / "none" / "run" / "space").exists()
    assert dict(read_meta(Path(str(found["model"]))).tokenizer.options) == {}


def test_noise_is_added_by_name_only(tmp_path: Path, rows: Path) -> None:
    noise = {}
    for name in ALIGNMENTS:
        if name == "kd":
            continue
        more = {"space": "nowhere"} if name == "none" else {}
        path = recipe(tmp_path, rows, alignment=name, **more)
        plan: Any = run_recipe(path, output=tmp_path / "run", dry_run=True)["plan"]
        noise[name] = list(plan["steps"])
    assert noise["none"] == ["text", "lm", "captioner"]
    assert noise["cl"] == noise["cl+ni"] == noise["cl+proj"] == ["space", "text", "lm", "captioner"]
    from aligncap.alignment.alignments import _steps

    def changed(name: str) -> list[str]:
        settings = AlignmentSettings(alignment=name, rows=(rows,))
        *_, (_, _, changes) = _steps(settings, tmp_path)
        return changes

    assert "student.noise=0.015" in changed("cl+ni")
    assert "student.noise=0.0" in changed("cl")


def test_kd_is_beside_them(tmp_path: Path, rows: Path) -> None:
    path = recipe(tmp_path, rows)
    summary: Any = run_recipe(path, output=tmp_path / "run", resume=True)
    assert read_meta(Path(str(summary["model"]))).provenance["kind"] == "kd"


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_space_of_another_maker_is_never_trained(
    tmp_path: Path, rows: Path, dry_run: bool
) -> None:
    clap = tmp_path / "clap"
    clap.mkdir()
    (clap / "config.json").write_text('{"model_type": "clap"}', "utf-8")
    path = recipe(tmp_path, rows, alignment="cl", space=str(clap))
    with pytest.raises(RecipeError, match='a CLAP serves alignment = "none" only'):
        run_recipe(path, output=tmp_path / "run", dry_run=dry_run)


@pytest.mark.parametrize(
    ("known", "told"),
    [
        ({"alignment": "none"}, "No-Align needs a space that met none of these pairs"),
        ({"changes": {"prefx": ("a=1",)}}, "changes names 'prefx'; known are joint"),
    ],
)
def test_what_cannot_be_is_named(rows: Path, known: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        AlignmentSettings(rows=(rows,), **known)
    with pytest.raises(UnknownNameError, match="did you mean 'cl\\+ni'"):
        AlignmentSettings(rows=(rows,), alignment="cl-ni")
