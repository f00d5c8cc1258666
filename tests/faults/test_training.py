"""Faults of training: batches that are weighed wrongly, rows that do not fit, inputs that changed,
checkpoints and recipes that are damaged."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from aligncap.alignment.examples import write_rows
from aligncap.captioner.vocabulary import train_text_tokenizer
from aligncap.cli.main import main
from aligncap.errors import AlignCapError, DataError, RecipeError
from aligncap.preference.examples import PreferenceRow, write_preference_rows
from aligncap.preference.ppo import load_phase
from aligncap.recipes import run_recipe
from aligncap.storage import open_arrays
from support.preferences import preference_rows
from support.rows import FEELINGS, SOURCE, tiny_rows, trace

WARM = """
kind = "warmup"
[data]
rows = ["{rows}"]
languages = {{en = 1.0}}
[prompts]
"act" = 1.0
[model.new]
hidden = 16
layers = 1
heads = 2
text_vocabulary = 330
[batch]
rows = 4
captions = 2
bucket = 1
[training]
steps = 2
learning_rate = 1e-3
log_every = 1
[validation]
rows = 0
"""
LEARNT = """
kind = "{kind}"
[data]
rows = ["{rows}"]
languages = {{en = 1.0}}
[model]
start = "{start}"
[batch]
captions = 2
bucket = 1
[training]
steps = 1
precision = "float32"
learning_rate = 3e-3
log_every = 1
[validation]
rows = 0
"""
LONG = "She speaks quickly in a bright voice, and she laughs loudly, again and again and again."
NO_CHECK = "[check]\nrows = 0\n"


def recipe(folder: Path, text: str, **values: object) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text.format(**values), "utf-8")
    return path


def unequal_rows(folder: Path) -> Path:
    """Eight clips to train on, every other one with captions of many tokens."""
    rows = [
        replace(row, split="train", captions={"en": (LONG, f"{LONG} {LONG}")} if n % 2 else
                {"en": ("Sad.", "Low.")})
        for n, row in enumerate(tiny_rows(8))
    ]  # fmt: skip
    write_rows(folder / "unequal.jsonl", SOURCE, rows)
    return folder / "unequal.jsonl"


def unequal_preferences(folder: Path) -> Path:
    """Eight clips with one pair or three, of short and long captions."""
    rows = []
    for number, row in enumerate(preference_rows(8)):
        texts = ("Sad.", LONG, "A calm voice.", "Very quiet.")
        pairs = ((0, 1), (1, 2), (0, 3)) if number % 2 else ((2, 1),)
        clip = replace(row.clip, split="train", captions={"en": texts})
        rows.append(replace(row, clip=clip, pairs=pairs))
    write_preference_rows(folder / "pairs.jsonl", SOURCE, rows)
    return folder / "pairs.jsonl"


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder after two steps."""
    folder = tmp_path_factory.mktemp("warm")
    write_rows(folder / "rows.jsonl", SOURCE, tiny_rows(12))
    path = recipe(folder, WARM, rows=folder / "rows.jsonl")
    run_recipe(path, output=folder / "run", overrides=["training.steps=2"])
    return folder / "run" / "model"


def first_step(path: Path, output: Path, *, rows: int, accumulation: int) -> Mapping[str, float]:
    sizes = [f"batch.rows={rows}", f"training.accumulation={accumulation}"]
    run_recipe(path, output=output, overrides=sizes)
    return trace(output)[0]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("ce", ""),
        ("kd", "[teacher]\ntop_k = 8\n"),
        ("kd", '[teacher]\nprompt = "act+sem"\n[loss]\nce_weight = 0.5\n'),
        ("warmup", '[prompts]\n"act+sem" = 1.0\n'),
        ("dpo", NO_CHECK),
        ("dpo", f'{NO_CHECK}[loss]\nname = "ipo"\nlength_normalised = true\n'),
        ("dpo", f"{NO_CHECK}[loss]\nlikelihood_weight = 0.5\n"),
        ("reward", ""),
    ],
)
def test_many_rows_at_once_or_one_by_one_take_the_same_step(
    kind: str, more: str, warm: Path, tmp_path: Path
) -> None:
    make = unequal_preferences if kind in ("dpo", "reward") else unequal_rows
    text = LEARNT.replace("captions = 2", "captions = 4")
    path = recipe(tmp_path, text + more, kind=kind, rows=make(tmp_path), start=warm)
    whole = first_step(path, tmp_path / "whole", rows=8, accumulation=1)
    for rows, accumulation in ((1, 8), (2, 4)):
        parts = first_step(path, tmp_path / f"by{rows}", rows=rows, accumulation=accumulation)
        assert parts == pytest.approx(whole, rel=1e-5, abs=1e-6)


def test_a_run_goes_on_over_the_same_inputs_only(warm: Path, tmp_path: Path) -> None:
    start = shutil.copytree(warm, tmp_path / "start")
    rows = unequal_rows(tmp_path)
    path = recipe(tmp_path, LEARNT, kind="ce", rows=rows, start=start)
    run_recipe(path, output=tmp_path / "run")
    longer = ["training.steps=2"]

    def resumed() -> object:
        return run_recipe(path, output=tmp_path / "run", overrides=longer, resume=True)

    kept = rows.read_text("utf-8")
    lines = kept.splitlines(keepends=True)
    for changed in (kept.replace("Sad.", "Bad."), "".join(lines[:-1]), kept + lines[-1]):
        rows.write_text(changed, "utf-8")
        with pytest.raises(RecipeError, match=r"unequal\.jsonl: is not what .*checkpoint-1 was"):
            resumed()
    rows.write_text(kept, "utf-8")
    weights = load_file(start / "model.safetensors")
    save_file({name: tensor * 1.5 for name, tensor in weights.items()},
              start / "model.safetensors", {"format": "pt"})  # fmt: skip
    with pytest.raises(RecipeError, match="start: is not what"):
        resumed()
    shutil.copy(warm / "model.safetensors", start)
    assert resumed()


def gpt2(folder: Path, *, positions: int) -> Path:
    """A GPT-2 with so many positions, and its tokenizer."""
    texts = [text for some in FEELINGS.values() for text in some]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=train_text_tokenizer(texts * 4, 300),
        bos_token="<s>", eos_token="</s>", pad_token="<pad>",
    )  # fmt: skip
    fast.save_pretrained(folder)
    sizes = {"n_positions": positions, "n_embd": 16, "n_layer": 1, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(fast), **sizes)).save_pretrained(folder)
    return folder


OVER_GPT2 = """
[model.lora]
rank = 2
"""


@pytest.mark.parametrize(
    ("kind", "changes", "left_out"),
    [
        ("ce", {3: {"speech": np.zeros((1, 200), dtype=np.int64)}}, ["clip3"]),
        ("kd", {3: {"speech": np.zeros((1, 200), dtype=np.int64)}}, ["clip3"]),
        # The student could read it, the teacher cannot.
        ("kd", {4: {"act": {"en": "low and slow " * 30}}}, ["clip4"]),
        ("ce", {5: {"captions": {"en": ("word " * 200,)}}}, ["clip5"]),
        ("warmup", {5: {"captions": {"en": ("fine.", "word " * 200)}}}, ["clip5"]),
        ("ce", {7: {"speech": np.zeros((1, 200), dtype=np.int64)}}, ["clip7"]),  # validation
        (
            "ce",
            {n: {"speech": np.zeros((1, 200), dtype=np.int64)} for n in range(1, 9)},
            ["clip1", "clip5", "3 more rows of 12"],
        ),
    ],
)
def test_rows_that_a_backbone_cannot_read_are_named_and_left_out(
    kind: str,
    changes: dict[int, dict[str, Any]],
    left_out: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [replace(row, **changes.get(n, {})) for n, row in enumerate(tiny_rows(12))]
    write_rows(tmp_path / "rows.jsonl", SOURCE, rows)
    base = gpt2(tmp_path / "gpt2", positions=96)
    text = LEARNT.replace('start = "{start}"', 'base = "{start}"') + OVER_GPT2
    path = recipe(tmp_path, text, kind=kind, rows=tmp_path / "rows.jsonl", start=base)
    sizes = ["training.steps=3", "batch.rows=4", "validation.rows=4"]
    plan = run_recipe(path, output=tmp_path / "run", overrides=sizes, dry_run=True)
    notes = " ".join(plan["plan"]["notes"])  # type: ignore[index]
    summary = run_recipe(path, output=tmp_path / "run", overrides=sizes)
    for name in left_out:
        assert name in notes
        assert name in caplog.text
    assert "clip0:" not in caplog.text
    assert "the model has 96" in notes
    assert np.isfinite(summary["validation_loss"])  # type: ignore[call-overload]


def test_where_no_row_is_left_the_run_does_not_begin(tmp_path: Path) -> None:
    long = np.zeros((1, 300), dtype=np.int64)
    write_rows(tmp_path / "r.jsonl", SOURCE, [replace(r, speech=long) for r in tiny_rows(4)])
    base = gpt2(tmp_path / "gpt2", positions=96)
    text = LEARNT.replace('start = "{start}"', 'base = "{start}"') + OVER_GPT2
    path = recipe(tmp_path, text, kind="ce", rows=tmp_path / "r.jsonl", start=base)
    with pytest.raises(DataError, match="no training row"):
        run_recipe(path, output=tmp_path / "run")


def test_preference_rows_that_a_backbone_cannot_read_are_left_out_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_rows(tmp_path / "rows.jsonl", SOURCE, tiny_rows(12))
    base = gpt2(tmp_path / "gpt2", positions=128)
    text = WARM.replace("[model.new]\nhidden = 16\nlayers = 1\nheads = 2\n"
                        "text_vocabulary = 330", '[model]\nbase = "{base}"')  # fmt: skip
    run_recipe(recipe(tmp_path, text, rows=tmp_path / "rows.jsonl", base=base),
               output=tmp_path / "warm")  # fmt: skip
    rows = preference_rows(8)
    long = np.zeros((1, 80), dtype=np.int64)  # with a generated caption it is too long
    rows[2] = replace(rows[2], clip=replace(rows[2].clip, speech=long))
    write_preference_rows(tmp_path / "p.jsonl", SOURCE, rows)
    start = tmp_path / "warm" / "model"
    for kind, more in (("dpo", NO_CHECK), ("reward", ""), ("ppo", NO_CHECK)):
        path = recipe(tmp_path, LEARNT + more, kind=kind, rows=tmp_path / "p.jsonl", start=start)
        sizes = ["batch.rows=4", "batch.captions=3", "limits.max_tokens=40"]
        plan = run_recipe(path, output=tmp_path / kind, overrides=sizes, dry_run=True)
        assert "clip2: left out" in " ".join(plan["plan"]["notes"])  # type: ignore[index]
        caplog.clear()
        run_recipe(path, output=tmp_path / kind, overrides=sizes)
        assert "clip2: left out" in caplog.text


def equal_pairs(texts: tuple[str, ...], count: int = 6) -> list[PreferenceRow]:
    """Rows whose second and later ones have captions of one feeling only."""
    rows = preference_rows(count)
    equal = replace(rows[1], clip=replace(rows[1].clip, captions={"en": texts}), pairs=((0, 1),))
    return [rows[0], equal, *rows[2:]]


@pytest.mark.parametrize("kind", ["dpo", "reward"])
@pytest.mark.parametrize(
    "texts",
    [
        ("She is sad.", "She is sad."),
        ("She is sad.", "she is  sad"),
        ("She is sad.", "She is sad!"),
        ("她很悲伤。", "她很悲伤."),
        ("…", "?!"),
    ],
)
def test_a_pair_of_equal_captions_is_left_out_in_words(
    kind: str, texts: tuple[str, ...], warm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_preference_rows(tmp_path / "p.jsonl", SOURCE, equal_pairs(texts))
    path = recipe(tmp_path, LEARNT, kind=kind, rows=tmp_path / "p.jsonl", start=warm)
    run_recipe(path, output=tmp_path / "run", dry_run=True)
    assert "1 clips have pairs of equal captions, which are left out: clip1" in caplog.text


def test_nothing_is_learnt_from_equal_captions_alone(warm: Path, tmp_path: Path) -> None:
    row = equal_pairs(("Low.", "low"))[1]
    write_preference_rows(tmp_path / "p.jsonl", SOURCE, [row])
    path = recipe(tmp_path, LEARNT, kind="dpo", rows=tmp_path / "p.jsonl", start=warm)
    with pytest.raises(DataError, match="holds a pair of different captions"):
        run_recipe(path, output=tmp_path / "run", dry_run=True)


# Checkpoints


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, warm: Path) -> tuple[Path, Path]:
    """A recipe and its run of two checkpoints, with an average of the weights."""
    folder = tmp_path_factory.mktemp("finished")
    rows = unequal_rows(folder)
    steps = LEARNT.replace("steps = 1\n", "steps = 4\nsave_every = 2\nema_decay = 0.9\n")
    path = recipe(folder, steps, kind="ce", rows=rows, start=warm)
    run_recipe(path, output=folder / "run")
    return path, folder / "run"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n")


def noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


def missing(path: Path) -> None:
    path.unlink()


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def zeros(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 8)


def huge_header(path: Path) -> None:
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])


def deep_header(path: Path) -> None:
    deep = b'{"a":' * 100_000
    path.write_bytes(len(deep).to_bytes(8, "little") + deep)


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        stored = load_file(path)
        change(stored)
        save_file(stored, path)

    return apply


def _first(stored: dict[str, torch.Tensor]) -> str:
    return max(sorted(stored), key=lambda name: stored[name].numel())


def _reshape(stored: dict[str, torch.Tensor]) -> None:
    name = _first(stored)
    stored[name] = stored[name].flatten()[:-1].clone()


WEIGHT_FAULTS: dict[str, Callable[[Path], None]] = {
    one.__name__: one
    for one in (cut, empty, pointer, noise, missing, directory, fifo, zeros, longer, huge_header,
                deep_header)
} | {
    "nan": tensors(lambda stored: stored[_first(stored)].view(-1)[:1].fill_(float("nan"))),
    "infinite": tensors(lambda stored: stored[_first(stored)].view(-1)[:1].fill_(float("inf"))),
    "lacking": tensors(lambda stored: stored.pop(_first(stored))),
    "renamed": tensors(lambda stored: stored.update(other=stored.pop(_first(stored)))),
    "reshaped": tensors(_reshape),
    "nothing": tensors(lambda stored: stored.clear()),
}  # fmt: skip


def text(content: str) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        path.write_text(content, "utf-8")

    return apply


def state(**changes: object) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes))

    return apply


STATE_FAULTS: dict[str, Callable[[Path], None]] = {
    one.__name__: one for one in (empty, pointer, noise, missing, directory, fifo, zeros)
} | {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:40]) and None,
    "deep": text('{"a":' * 100_000),
    "list": text("[]"),
    "no step": text('{"settings": {}}'),
    "other step": state(step=3),
    "step of text": state(step="four"),
    "sums of text": state(sums={"loss": "much"}),
    "sums of lists": state(sums=[1]),
    "no settings": state(settings=None),
    "inputs of text": state(inputs="rows"),
    "updates of text": state(average_updates="many"),
    "NaN": text('{"step": NaN}'),
}

CHECKPOINT_FAULTS = [
    *(("weights.safetensors", name, fault) for name, fault in WEIGHT_FAULTS.items()),
    *(("optimizer.safetensors", name, fault) for name, fault in WEIGHT_FAULTS.items()),
    *(("average.safetensors", name, fault) for name, fault in WEIGHT_FAULTS.items()),
    *(("state.json", name, fault) for name, fault in STATE_FAULTS.items()),
]


def one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str], *, code: tuple[int, ...] = (2,)
) -> str:
    """What a command that fails says: one line, nothing else."""
    capsys.readouterr()
    assert main(arguments) in code
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("aligncap:")]
    assert len(said) == 1
    assert "Traceback" not in said[0]
    return said[0]


@pytest.mark.parametrize(
    ("file", "fault"),
    [pytest.param(file, fault, id=f"{file}-{name}") for file, name, fault in CHECKPOINT_FAULTS],
)
def test_a_damaged_checkpoint_is_one_line_with_the_cure(
    file: str,
    fault: Callable[[Path], None],
    finished: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, run = finished
    broken = shutil.copytree(run, tmp_path / "run")
    fault(broken / "checkpoint-4" / file)
    again = ["train", str(path), "-o", str(broken), "--resume", "--set", "training.steps=5"]
    said = one_line(again, capsys)
    assert "checkpoint-4" in said
    assert any(cure in said for cure in ("remove the folder", "git lfs pull", "check the recipe"))


def test_from_the_checkpoint_before_a_damaged_one_a_run_goes_on(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    path, run = finished
    broken = shutil.copytree(run, tmp_path / "run")
    cut(broken / "checkpoint-4" / "weights.safetensors")
    with pytest.raises(DataError, match=r"remove the folder .*, and go on from checkpoint-2"):
        run_recipe(path, output=broken, resume=True)
    shutil.rmtree(broken / "checkpoint-4")
    run_recipe(path, output=broken, resume=True)
    assert trace(broken) == trace(run)


@pytest.mark.parametrize("fault", [cut, empty, noise, directory, fifo, text("[1]"), text("{")])
def test_a_damaged_record_of_the_recipe_is_one_line(
    fault: Callable[[Path], None], finished: tuple[Path, Path], tmp_path: Path
) -> None:
    path, run = finished
    broken = shutil.copytree(run, tmp_path / "run")
    (broken / "recipe.json").write_bytes((broken / "recipe.json").read_bytes()[:900])
    fault(broken / "recipe.json")
    with pytest.raises(AlignCapError, match=r"recipe\.json: .*begin anew"):
        run_recipe(path, output=broken, resume=True)


@pytest.mark.parametrize("line", ["[]", '{"loss": 1}', '{"step": "x"}', "\xff", "[" * 50_000, "1"])
def test_a_damaged_line_of_the_log_is_left_out(
    line: str, finished: tuple[Path, Path], tmp_path: Path
) -> None:
    path, run = finished
    broken = shutil.copytree(run, tmp_path / "run")
    with (broken / "log.jsonl").open("a", encoding="latin-1") as log:
        log.write(line + "\n")
    run_recipe(path, output=broken, overrides=["training.steps=5"], resume=True)
    assert [one["step"] for one in trace(broken)] == [1, 2, 3, 4, 5]


def test_rollouts_that_are_compressed_or_damaged_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "phase-0.npz"
    np.savez_compressed(path, prompts=np.zeros(10_000_000))
    with pytest.raises(DataError, match="it is compressed"):
        load_phase(path)
    np.savez(path, prompts=np.zeros(3))
    with pytest.raises(DataError, match="remove it"):
        load_phase(path)
    np.savez(path, prompts=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="remove it"):
        load_phase(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("prompts.npy", b"no array")
    with pytest.raises(DataError, match="remove it"):
        load_phase(path)
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match="remove it"):
        load_phase(path)


def test_a_damaged_cache_of_arrays_is_named(tmp_path: Path) -> None:
    described: dict[str, tuple[type, tuple[int, ...]]] = {"ids": (np.int64, (40,))}
    folder, _ = open_arrays(tmp_path, "key", described)
    whole = (folder / "ids.npy").read_bytes()
    np.save(folder / "ids.npy", np.zeros(3))
    shorter = (folder / "ids.npy").read_bytes()
    for content in (whole[:200], whole[:60], b"", b"\x93NUMPY\x01\x00\x10\x00{{{{{{{{", shorter):
        (folder / "ids.npy").write_bytes(content)
        with pytest.raises(DataError, match=r"ids\.npy: is damaged; remove the folder"):
            open_arrays(tmp_path, "key", described)


# Recipes

DEEP = "a = " + "[" * 5000 + "]" * 5000
RECIPES: dict[str, Callable[[Path], None]] = {
    one.__name__: one for one in (noise, missing, directory, fifo, zeros, pointer)
} | {
    "empty": empty,
    "deep list": text(DEEP),
    "deep table": text("a = " + "{a = " * 5000 + "1" + "}" * 5000),
    "deep name": text(".".join(["a"] * 5000) + " = 1"),
    "a long number": text("kind = 'ce'\n[training]\nsteps = " + "9" * 5000),
    "huge": lambda path: path.write_bytes(b"#" * (2**20 + 1)) and None,
    "null": text("kind = 'ce\0'"),
    "bytes": lambda path: path.write_bytes("kind = 'ce'".encode("utf-16")) and None,
    "surrogate": lambda path: path.write_bytes(b'kind = "\xed\xa0\x80"') and None,
    "NaN": text("kind = 'ce'\n[data]\nrows = ['r']\n[training]\nsteps = 1\nlearning_rate = nan"),
    "infinite": text("kind='ce'\n[data]\nrows=['r']\n[training]\nsteps=1\nlearning_rate=inf\n"
                     "clip_norm=-inf"),
    "a date": text("kind = 1979-05-27"),
    "kind of lists": text("kind = [1]"),
    "section of text": text("kind = 'ce'\ntraining = 'fast'"),
    "list of sections": text("kind = 'ce'\n[[training]]\nsteps = 1"),
    "unknown section": text("kind = 'ce'\n[nothing]\na = 1"),
    "a control character": text("kind = 'ce\\u001b[31m'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("dry", [True, False])
def test_a_recipe_that_is_none_is_one_line(
    fault: Callable[[Path], None], dry: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "stranger.toml"
    path.write_text("kind = 'ce'\n")
    fault(path)
    said = one_line(
        ["train", str(path), "-o", str(tmp_path / "run"), *(["--dry-run"] * dry)], capsys
    )
    assert len(said) < 600
    assert said.isprintable()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change", ["a.b=" + "[" * 5000, "training.steps=" + "9" * 5000, "training.steps={", "=1", "a"]
)
def test_a_change_that_is_none_is_one_line(
    change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path, LEARNT, kind="ce", rows="r", start="s")
    said = one_line(["train", str(path), "--set", change, "-o", str(tmp_path / "run")], capsys)
    assert len(said) < 600
