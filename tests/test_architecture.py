"""The shape of the package: what may import what, how long things are, what is documented; and the
census that counts it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from support.scripts import ROOT, load_script

PACKAGE = ROOT / "src" / "aligncap"

LEVELS = [
    *(
        "errors",
        "foreign",
        "storage",
        "values",
        "recipes",
        "endpoints",
        "audio",
        "prosody",
        "clues",
    ),
    *("training", "data", "metrics", "tokenizers", "captioner", "alignment", "preference"),
    *("baselines", "experiments", "tts", "service", "cli"),
]
"""Parts from the ground up: a part imports lower levels only."""

ROOT_FILES = {"__init__", "__main__", "acoustics"}
"""They stand above every part and nothing imports them; `acoustics` is a former name."""

TORCH_PARTS = {"training", "tokenizers", "captioner", "alignment", "preference", "baselines"}
TORCH_FILES = {"metrics/similarity.py"}
"""Single files of other parts that run a model of torch, imported when it is asked for."""
TORCH_LIBRARIES = {"torch", "transformers", "peft", "accelerate", "safetensors", "tensorboard"}
TORCH_LIBRARIES |= {"deepspeed", "bitsandbytes"}

HEAVY = ["torch", "transformers", "onnxruntime", "ctranslate2", "nltk", "jieba", "pydantic"]
HEAVY += ["openai", "rich.progress"]
"""What neither `import aligncap` nor `aligncap --help` may wait for."""

LONGEST_FILE = 600
LONGEST_FUNCTION = 60
MOST_MODULES = 180

Function = ast.FunctionDef | ast.AsyncFunctionDef

TEXTS = {
    file.relative_to(PACKAGE).as_posix(): file.read_text("utf-8")
    for file in sorted(PACKAGE.rglob("*.py"))
}
TREES = {place: ast.parse(text) for place, text in TEXTS.items()}


def part_of(place: str) -> str:
    """The part a file belongs to: its folder, or its own name at the top."""
    return place.partition("/")[0].removesuffix(".py")


def imports() -> Iterator[tuple[str, str]]:
    """Each file, and the full name of every module imported in it, inside functions too."""
    for place, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                yield place, "." * node.level + (node.module or "")
            elif isinstance(node, ast.Import):
                yield from ((place, alias.name) for alias in node.names)


def test_every_part_has_a_level() -> None:
    assert set(map(part_of, TREES)) - ROOT_FILES - {"models"} <= set(LEVELS)


def test_imports_point_down_and_are_by_full_name() -> None:
    level = {part: number for number, part in enumerate(LEVELS)}
    found = []
    for place, name in imports():
        here = part_of(place)
        # The package itself hands on the captioner's names.
        there = name.split(".")[1] if "." in name else "captioner"
        own = name.partition(".")[0] == "aligncap" and here not in ROOT_FILES and here != there
        if name.startswith(".") or (own and level.get(there, 99) >= level.get(here, -1)):
            found.append(f"{place}: imports {name}")
    assert found == []


def test_torch_stays_where_models_are_trained() -> None:
    assert [
        f"{place}: imports {name}"
        for place, name in imports()
        if part_of(place) not in TORCH_PARTS
        and place not in TORCH_FILES
        and name.partition(".")[0] in TORCH_LIBRARIES
    ] == []


def test_files_and_functions_fit_on_a_screen() -> None:
    lengths = {place: text.count("\n") for place, text in TEXTS.items()}
    assert {place: lines for place, lines in lengths.items() if lines >= LONGEST_FILE} == {}
    assert [
        f"{place}:{node.lineno}: {node.name}"
        for place, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, Function) and node.end_lineno - node.lineno + 1 >= LONGEST_FUNCTION
    ] == []


def test_what_is_public_is_documented() -> None:
    found = []
    for place, tree in TREES.items():
        if not place.endswith("__main__.py") and not ast.get_docstring(tree):
            found.append(f"{place}: the module")
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        members = [one.body for one in classes if not one.name.startswith("_")]
        found += [
            f"{place}:{node.lineno}: {node.name}"
            for node in chain(tree.body, *members)
            if isinstance(node, ast.ClassDef | Function)
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
            and not any("overload" in ast.unparse(mark) for mark in node.decorator_list)
        ]
    assert found == []


HELP = "from aligncap.cli.main import main; assert main([{}]) == 0"


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import aligncap", {"numpy"}),
        (HELP.format("'--help'"), set()),
        (HELP.format("'caption', '--help'"), {"numpy", "pydantic"}),  # typer's, for options
    ],
)
def test_starting_loads_nothing_heavy(code: str, allowed: set[str]) -> None:
    report = f"\nimport sys; print(*[n for n in {['numpy', *HEAVY]!r} if n in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert set(ran.stdout.splitlines()[-1].split()) <= allowed


MADE = {
    "__init__.py": '"""Made."""\n',
    "values.py": (
        "import os\nfrom typing import (\n    Any,\n)\n\n\ndef f(x: Any):\n    return os, x\n"
    ),
    "part/__init__.py": "from made.part.one import one\n",
    "part/one.py": (
        "from made import values\n\n\ndef one():\n    from .two import two\n    return two\n"
    ),
    "part/two.py": (
        "from typing import TYPE_CHECKING\nfrom ..values import f\nimport made.part.one\n"
        "if TYPE_CHECKING:\n    from made.late import g\n\n\nclass T:\n    def two(self):\n"
        "        return [f(x) for x in made.part.one.__name__]\n\n\ntwo = T().two\n"
    ),
    "late.py": "from made.part import one\n\n\ndef g():\n    return one()()\n",
}
"""A package whose numbers are known."""


@pytest.fixture(scope="module")
def census() -> Any:
    return load_script("benchmarks/census.py")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    for name, text in MADE.items():
        (tmp_path / "made" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "made" / name).write_text(text, "utf-8")
    return tmp_path / "made"


def test_modules_are_few_and_no_two_import_each_other(census: Any) -> None:
    structure = census.structure_of(PACKAGE)
    assert structure.cycles == ()
    assert structure.modules <= MOST_MODULES


def test_the_census_by_hand(census: Any, made: Path) -> None:
    assert census.structure_of(made) == census.Structure(
        modules=6,
        lines=1 + 8 + 1 + 6 + 13 + 5,
        median_lines=5.5,
        largest_lines=13,
        largest_file="part/two.py",
        # values 4 (three of them one statement), part 1, one 2, two 4, late 1.
        import_line_share=pytest.approx(12 / 34),
        # part → one; one → values, two; two → values, one (late is for type checkers); late → part.
        own_imports_per_file=pytest.approx(6 / 6),
        functions_per_100_lines=pytest.approx(100 * 4 / 34),
        cycles=(("made.part.one", "made.part.two"),),
    )


def test_functions_are_counted_stretch_by_stretch(census, made, monkeypatch) -> None:
    monkeypatch.syspath_prepend(made.parent)
    try:
        with census.Tracer(made) as tracer:
            import made.late as late

            tracer.mark()
            late.g()
            tracer.mark()
            late.g()
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "made"]:
            del sys.modules[name]
    assert tracer.passed(0).functions == ()  # bodies of modules and classes are no functions
    assert tracer.passed(1) == tracer.passed(2)
    assert tracer.passed(1) == census.Passed(
        files=("late.py", "part/one.py", "part/two.py", "values.py"),
        functions=("late.py:g", "part/one.py:one", "part/two.py:T.two", "values.py:f"),
    )
