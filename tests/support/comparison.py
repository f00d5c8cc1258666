"""A comparison in miniature: two arms of seconds each, on pieces of recordings."""

import io
from pathlib import Path

from aligncap.cli.console import Console
from aligncap.cli.main import main
from support.pipeline import write_recordings

RECIPES = {
    "rows": """
kind = "token-rows"
data = ["set by reproduce"]
tokens = "runs/tiny/tokens"
plans = false

[tokenizer]
name = "builtin"
""",
    "features": """
kind = "token-rows"
data = ["set by reproduce"]
tokens = "runs/tiny/tokens"
plans = false

[tokenizer]
name = "builtin-features"
""",
    "lm": """
kind = "warmup"

[data]
rows = ["runs/tiny/rows/rows.jsonl"]
languages = {en = 1.0}

[model.new]
hidden = 32
layers = 2
heads = 2
text_vocabulary = 320

[training]
precision = "float32"
steps = 12
learning_rate = 1e-2
warmup_steps = 2
log_every = 4

[limits]
max_tokens = 12

[output]
name = "tiny-lm"
""",
    "kd": """
kind = "kd"

[data]
rows = ["runs/tiny/rows/rows.jsonl"]
languages = {en = 1.0}

[model]
start = "runs/tiny/lm/model"

[training]
precision = "float32"
steps = 14
learning_rate = 1e-2
warmup_steps = 2
save_every = 5
log_every = 4

[output]
name = "tiny-kd"
""",
    "linear": """
kind = "ce"

[data]
rows = ["runs/tiny/features/rows.jsonl"]
languages = {en = 1.0}

[model.connector]
name = "linear"

[model.new]
hidden = 32
layers = 2
heads = 2
text_vocabulary = 320

[training]
precision = "float32"
steps = 14
learning_rate = 1e-2
warmup_steps = 2
save_every = 5
log_every = 4

[limits]
max_tokens = 12

[output]
name = "tiny-linear"
""",
}

SCALE = """
clips = 4
seeds = 1
beam_size = 2

[corpora.mine]
train = ["mine/train.jsonl"]
validation = ["mine/validation.jsonl"]
test = ["mine/test.jsonl"]

[tests.mine]
protocol = "in-domain"
train = ["mine"]
test = "mine"
paper = "EMOSEC"

[arms.linear]
title = "SECap"
system = "SECap"
recipe = "{recipes}/linear.toml"

[arms.kd]
title = "AlignCap-KD-PO"
alignment = "kd"
recipe = "{recipes}/kd.toml"

[items.table1]
arms = ["linear", "kd"]
tests = ["mine"]

[items.figure3]
arms = ["kd"]
tests = ["mine"]
note = "Tiny."

[items.figure7]
arms = ["linear", "kd"]
tests = ["mine"]
"""


def write_comparison(root: Path, clips: list[Path]) -> Path:
    """Write a corpus to `root`/data/mine, recipes and the scale; returns the scale's file."""
    recordings = write_recordings(root / "recordings", clips)
    corpus = root / "data" / "mine"
    assert main(["corpus", "folder", str(recordings), "-o", str(corpus), "--split", "random"]) == 0
    recipes = root / "recipes" / "tiny"
    recipes.mkdir(parents=True)
    for name, text in RECIPES.items():
        (recipes / f"{name}.toml").write_text(text, "utf-8")
    scale = root / "tiny.toml"
    scale.write_text(SCALE.format(recipes=recipes), "utf-8")
    return scale


def reproduce(root: Path, *more: object, out: str = "out") -> str:
    """`aligncap reproduce` in a folder of `write_comparison`; what it printed, errors as well."""
    printed = io.StringIO()
    code = main(arguments(root, *more, out=out), console=Console(stdout=printed, stderr=printed))
    assert code == 0, printed.getvalue()
    return printed.getvalue()


def arguments(root: Path, *more: object, out: str = "out") -> list[str]:
    """Those of that command, for table 1 unless more say another."""
    items = [str(one) for one in more] or ["table1"]
    options = ["--scale", root / "tiny.toml", "--data", root / "data", "--out", root / out]
    return ["reproduce", *items, *map(str, options)]
