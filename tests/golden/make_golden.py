"""What the package says and computes today, as JSON files: `make golden` writes them again.

Each part is a function without arguments that returns a JSON value. All go through `surface`, so
that they can be run on any arrangement of the package's modules.
"""

import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aligncap as package
from golden import tiny_runs
from golden.surface import CLIPS, INPUTS, ROOT, aligncap, json_lines

EXPECTED = Path(__file__).resolve().parent / "expected"


def captions() -> Any:
    """Text and records, with evidence, of the example clips by the first built-in model, whose
    encoder is in float and gives the same on every processor."""
    found = {}
    for language in ("en", "zh"):
        command = ("caption", CLIPS, "--model", "mini-1", "--language", language)
        told = ("--format", "jsonl", "--evidence", "--candidates", 3)
        records = json_lines(aligncap(*command, *told))
        found[language] = {"text": aligncap(*command), "records": records}
    return found


def python_captions() -> Any:
    """The captions that `aligncap.load` gives from Python."""
    captioner = package.load("mini-1")
    clips = sorted((ROOT / CLIPS).glob("*.ogg"))[:3]
    return {clip.name: captioner.caption(clip).text for clip in clips}


def measurements() -> Any:
    """What is measured of the example clips."""
    return json_lines(aligncap("measure", CLIPS, "--format", "jsonl"))


def clues() -> Any:
    """Clues of sentences in both languages, the language given and found out."""
    sentences = json_lines((ROOT / INPUTS / "clues.jsonl").read_text("utf-8"))
    found = {}
    for language in ("found out", "en", "zh"):
        given = () if language == "found out" else ("--language", language)
        texts = [one["text"] for one in sentences if not given or one["language"] == language]
        found[language] = json_lines(aligncap("clues", *texts, *given, "--format", "jsonl"))
    return found


def help_texts() -> Any:
    """--help of every verb and of the verbs below it, by what is typed."""
    found: dict[str, str] = {}
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        verb = waiting.pop()
        text = aligncap(*verb, "--help")
        found[" ".join(("aligncap", *verb))] = text
        listed = text.partition("\nCommands:\n")[2]
        waiting += [(*verb, name) for name in re.findall(r"^  ([a-z]\S*)", listed, re.MULTILINE)]
    return dict(sorted(found.items()))


def scores() -> Any:
    """JSON of `evaluate`, intervals of a fixed seed, by every kind of token, and on recordings."""

    def evaluated(kind: str, names: str, *settings: object) -> Any:
        files = [f"--{name}={INPUTS}/{name}-{kind}.jsonl" for name in names.split()]
        told = ("--draws", 200, "--format", "json")
        return json.loads(aligncap("evaluate", *files, *settings, *told))

    found = {}
    for tokenisation, *more in (("coco-en", "--paper25"), ("zh-char",), ("zh-word",)):
        kind = "en" if tokenisation == "coco-en" else "zh"
        settings = ("--tokenisation", tokenisation, "--seed", 3, *more)
        found[tokenisation] = evaluated(kind, "hypotheses references baseline", *settings)
    heard = ("--metrics", "hallucination-signal,clue-f1")
    return found | {"recordings": evaluated("clips", "hypotheses references", *heard)}


def recipes() -> Any:
    """Kind and settings of every recipe, each value resolved; of the plan, what it lists of each
    thing that is loaded. Sizes that a plan assumed do not count."""
    found = {}
    scales = set((ROOT / "recipes/reproduce").glob("*.toml"))  # plans of comparisons
    for path in sorted({*(ROOT / "recipes").rglob("*.toml")} - scales):
        name = path.relative_to(ROOT).as_posix()
        verb = ("prefer", "run") if path.stem == "prefer" else ("train",)
        described = json.loads(aligncap(*verb, name, "--dry-run"))
        described["settings"].pop("estimate", None)
        found[name] = {key: described[key] for key in ("kind", "output", "settings")}
        loads = {key for one in described["plan"]["loads"] for key in one}
        found[name]["loads"] = sorted(loads)
    return found


def stages() -> Any:
    """Every number that is logged by warm-up, cross-entropy, KD, DPO, the reward model and PPO."""
    return in_new_folder(tiny_runs.stages)


def pipeline() -> Any:
    """From recordings to captions by both runtimes and to preference rows, at tiny size."""
    return in_new_folder(tiny_runs.pipeline)


def in_new_folder(part: Callable[[Path], Any]) -> Any:
    """The value of a part that needs a folder, which is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        return part(Path(folder))


SLOW = (recipes, pipeline)
"""Parts that take more than some seconds."""

QUICK = (captions, python_captions, measurements, clues, help_texts, scores, stages)
PARTS: dict[str, Callable[[], Any]] = {part.__name__: part for part in (*QUICK, *SLOW)}


def read_golden(name: str) -> Any:
    """The stored value of one part."""
    return json.loads((EXPECTED / f"{name}.json").read_text("utf-8"))


if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        text = json.dumps(PARTS[name](), ensure_ascii=False, indent=1)
        (EXPECTED / f"{name}.json").write_text(text + "\n", "utf-8")
        print(name)
