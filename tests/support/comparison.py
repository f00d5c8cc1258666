"""A comparison in miniature: two arms of seconds each, on pieces of recordings."""

from pathlib import Path

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
steps = 20
learning_rate = 1e-2
warmup_steps = 2
log_every = 10

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
steps = 30
learning_rate = 1e-2
warmup_steps = 2
save_every = 5
log_every = 10

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
steps = 30
learning_rate = 1e-2
warmup_steps = 2
save_every = 5
log_every = 10

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
"""


def write_comparison(root: Path, clips: list[Path]) -> Path:
    """Write recordings to `root`/recordings, recipes and the scale; returns the scale's file."""
    write_recordings(root / "recordings", clips)
    recipes = root / "recipes" / "tiny"
    recipes.mkdir(parents=True)
    for name, text in RECIPES.items():
        (recipes / f"{name}.toml").write_text(text, "utf-8")
    scale = root / "tiny.toml"
    scale.write_text(SCALE.format(recipes=recipes), "utf-8")
    return scale
