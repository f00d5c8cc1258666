"""The same recipes in several processes: the losses of one, whatever is shared out."""

import json
import re
import signal
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from aligncap.recipes import run_recipe
from aligncap.training.checkpoints import latest_checkpoint
from aligncap.training.loop import read_log
from support.killer import finish, torchrun, wait_until
from support.recipe_runs import PROGRAM
from support.rows import write_tiny

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).resolve().parents[2] / "recipes" / "devices"

WARMUP = """
kind = "warmup"
data.rows = ["{rows}"]
model.new = {{hidden = 32, layers = 2, heads = 2, text_vocabulary = 330}}
batch = {{rows = 4, captions = 2}}
[training]
precision = "float32"
steps = 8
learning_rate = 0.01
accumulation = 2
log_every = 1
"""

KD = """
kind = "kd"
data.rows = ["{rows}"]
model = {{start = "{start}", gradient_checkpointing = true, lora.rank = 4}}
loss = {{kl_weight = 0.5, ce_weight = 0.5}}
batch = {{rows = 4, captions = 2}}
validation = {{every = 10, rows = 12, best = "loss"}}
[training]
precision = "float32"
steps = 20
learning_rate = 0.01
schedule = "constant"
accumulation = 2
clip_norm = 0.1
log_every = 1
ema_decay = 0.8
"""
"""Constant learning rate: a run that is made longer has the same beginning."""

needs_deepspeed = pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="needs deepspeed: pip install 'aligncap[devices]'"
)


def sharded(how: str, **training: object) -> list[str]:
    return [f"training.{name}={value}" for name, value in {"sharding": how, **training}.items()]


def with_file(folder: Path, how: str, **training: object) -> list[str]:
    """With the configuration for DeepSpeed that the repository has, and this recipe's clipping."""
    told = json.loads((CONFIGS / f"{how}.json").read_text("utf-8"))
    path = folder / f"{how}.json"
    path.write_text(json.dumps({**told, "gradient_clipping": 0.1}))
    return sharded(how, deepspeed=path, **training)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: of one process, and of two by each way there is."""
    root = tmp_path_factory.mktemp("devices")
    rows = write_tiny(root, count=40)
    warmup, kd = root / "warmup.toml", root / "kd.toml"
    warmup.write_text(WARMUP.format(rows=rows))
    run_recipe(warmup, output=root / "warm")
    kd.write_text(KD.format(rows=rows, start=root / "warm" / "model"))
    run_recipe(kd, output=root / "one")
    run_recipe(kd, overrides=["training.steps=6"], output=root / "back")

    def run(recipe: Path, name: str, overrides: list[str], *, resume: bool = False) -> object:
        output = str(root / name)
        return {"recipe": str(recipe), "output": output, "resume": resume, "set": overrides}

    together = [
        run(kd, "none", sharded("none")),
        run(kd, "fsdp", sharded("fsdp")),
        run(warmup, "warm-fsdp", sharded("fsdp")),
        run(kd, "fewer", sharded("fsdp", steps=10)),
        run(kd, "back", sharded("fsdp", steps=12), resume=True),
    ]
    if find_spec("deepspeed") is not None:
        longer = with_file(root, "zero3", ema_decay="none")
        together += [
            run(kd, "zero1", with_file(root, "zero1")),
            run(kd, "zero2", with_file(root, "zero2")),
            run(kd, "zero3", [*longer, "training.steps=10"]),
            run(kd, "zero3", longer, resume=True),
            run(kd, "back", sharded("zero2", steps=15), resume=True),
        ]
    finish(torchrun(PROGRAM, json.dumps(together)))
    run_recipe(kd, output=root / "fewer", resume=True)
    run_recipe(kd, output=root / "back", resume=True)
    return root


def trace(run: Path, name: str = "loss") -> list[float]:
    return [line[name] for line in read_log(run) if name in line]


def held(run: Path) -> list[int]:
    """Weights and moments between steps, by process."""
    return json.loads((latest_checkpoint(run) / "state.json").read_text())["held"]


def same_weights(first: Path, second: Path, *names: str) -> None:
    for name in names:
        one, two = (load_file(run / f"{name}.safetensors") for run in (first, second))
        torch.testing.assert_close(two, one, atol=1e-4, rtol=1e-4)


WAYS = [
    "none",
    "fsdp",
    *(pytest.param(name, marks=needs_deepspeed) for name in ("zero1", "zero2", "zero3")),
]


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_have_the_losses_and_weights_of_one(runs: Path, way: str) -> None:
    assert len(held(runs / way)) == 2
    assert len(trace(runs / "one")) == 20
    assert trace(runs / way) == pytest.approx(trace(runs / "one"), abs=1e-4)
    norms = [trace(runs / run, "gradient_norm") for run in (way, "one")]
    assert norms[0] == pytest.approx(norms[1], abs=1e-4)
    assert max(norms[1]) > 0.1, "nothing was clipped"
    same_weights(runs / "one", runs / way, "checkpoint-20/weights", "checkpoint-20/optimizer")


@pytest.mark.parametrize("way", WAYS[:-1])  # zero3 keeps no average
def test_validations_averages_and_the_best_are_those_of_one(runs: Path, way: str) -> None:
    found = [trace(runs / run, "validation_loss") for run in (way, "one")]
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    (best,) = {one.name for run in (way, "one") for one in (runs / run / "best").iterdir()}
    files = ("checkpoint-20/average", f"best/{best}/weights", "model/adapter/adapter_model")
    same_weights(runs / "one", runs / way, *files)


def test_a_model_that_is_trained_whole_is_shared_out_too(runs: Path) -> None:
    assert trace(runs / "warm-fsdp") == pytest.approx(trace(runs / "warm"), abs=1e-4)
    same_weights(runs / "warm", runs / "warm-fsdp", "model/model")


@pytest.mark.parametrize(
    ("way", "most"),
    [
        ("none", 1.0),
        ("fsdp", 0.51),
        # Moments alone: two numbers of each that trains, of 42,208 in all.
        pytest.param("zero2", 0.98, marks=needs_deepspeed),
        pytest.param("zero3", 0.51, marks=needs_deepspeed),
    ],
)
def test_what_is_shared_out_is_held_by_nobody_whole(runs: Path, way: str, most: float) -> None:
    (alone,) = held(runs / "one")
    assert all(part <= most * alone for part in held(runs / way))
    assert sum(held(runs / way)) >= alone


@pytest.mark.parametrize("name", ["fewer", "back"])
def test_a_run_goes_on_with_other_processes_shared_another_way(runs: Path, name: str) -> None:
    """From two to one; and from one to two, by FSDP and then ZeRO-2, to one again."""
    assert trace(runs / name) == pytest.approx(trace(runs / "one"), abs=1e-4)
    assert [line["step"] for line in read_log(runs / name) if "loss" in line] == [*range(1, 21)]
    same_weights(runs / "one", runs / name, "checkpoint-20/weights", "checkpoint-20/average")


def test_a_dead_process_ends_the_run_and_its_checkpoint_goes_on(runs: Path, tmp_path: Path) -> None:
    output, recipe = tmp_path / "run", str(runs / "kd.toml")
    settings = [*sharded("fsdp", steps=10**6, save_every=5), "validation.every=1000000"]
    options = [word for setting in settings for word in ("--set", setting)]
    process = torchrun("-m", "aligncap", "train", recipe, "--output", output, *options)
    wait_until(lambda: latest_checkpoint(output) is not None, process)
    ranks = {p.environ().get("RANK"): p for p in psutil.Process(process.pid).children()}
    ranks["1"].send_signal(signal.SIGKILL)
    said = "".join(finish(process, 1))
    (line,) = [line for line in said.splitlines() if line.startswith("aligncap: ")]
    assert re.search("lost another process.*checkpoint-.*--resume", line)
    done = int(latest_checkpoint(output).name.rpartition("-")[2])
    settings = [f"training.steps={done + 2}", *settings[2:]]
    run_recipe(Path(recipe), overrides=settings, output=output, resume=True)
    assert [line["step"] for line in read_log(output) if "loss" in line] == [*range(1, done + 3)]
