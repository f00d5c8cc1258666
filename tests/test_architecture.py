"""The shape of the package: what may import what, how long things are, what is documented."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "aligncap"

LEVELS = [
    "errors",
    "storage",
    "values",
    "recipes",
    "endpoints",
    "audio",
    "prosody",
    "clues",
    "training",
    "data",
    "metrics",
    "tokenizers",
    "captioner",
    "alignment",
    "preference",
    "experiments",
    "service",
    "cli",
]
"""Parts from the ground up: a part imports lower levels only, and no sibling of its own level."""

LEVEL = {part: number for number, parts in enumerate(LEVELS) for part in parts.split()}

ROOT_FILES = {"__init__", "__main__"}
"""They stand above every part and nothing imports them."""

TORCH_PARTS = {"training", "tokenizers", "captioner", "alignment", "preference"}
TORCH_FILES = {"metrics/similarity.py"}
"""Single files of other parts that run a model of torch, imported when it is asked for."""
TORCH_LIBRARIES = {"torch", "transformers", "peft", "accelerate", "safetensors", "tensorboard"}
TORCH_LIBRARIES |= {"deepspeed", "bitsandbytes"}

HEAVY = ["torch", "transformers", "onnxruntime", "ctranslate2", "nltk", "jieba", "pydantic"]
HEAVY += ["openai", "rich.progress"]
"""What neither `import aligncap` nor `aligncap --help` may wait for."""

LONGEST_FILE = 600
LONGEST_FUNCTION = 60
MOST_MODULES = 90

Function = ast.FunctionDef | ast.AsyncFunctionDef


def part_of(file: Path, package: Path) -> str:
    """The part a file belongs to: its folder, or its own name at the top."""
    return file.relative_to(package).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of every module imported anywhere in a tree, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def misplaced_imports(package: Path) -> list[str]:
    """Imports between parts that do not go to a lower level, or not by full name."""
    found = []
    for file in sorted(package.rglob("*.py")):
        here = part_of(file, package)
        place = file.relative_to(package)
        for name in imported(ast.parse(file.read_text("utf-8"))):
            if name.startswith("."):
                found.append(f"{place}: relative import {name}")
            elif name.partition(".")[0] == "aligncap" and here not in ROOT_FILES:
                # The package itself hands on the captioner's names.
                there = name.split(".")[1] if "." in name else "captioner"
                if here != there and LEVEL.get(there, len(LEVELS)) >= LEVEL.get(here, -1):
                    found.append(f"{place}: imports {there}, which is not below {here}")
    return found


def misplaced_torch(package: Path) -> list[str]:
    """Imports of torch and what brings it, outside the parts that train."""
    return [
        f"{file.relative_to(package)}: imports {name}"
        for file in sorted(package.rglob("*.py"))
        if part_of(file, package) not in TORCH_PARTS
        and file.relative_to(package).as_posix() not in TORCH_FILES
        for name in imported(ast.parse(file.read_text("utf-8")))
        if name.partition(".")[0] in TORCH_LIBRARIES
    ]


def too_long(package: Path) -> list[str]:
    """Files and functions that do not fit."""
    found = []
    for file in sorted(package.rglob("*.py")):
        text = file.read_text("utf-8")
        place = file.relative_to(package)
        if (lines := text.count("\n")) >= LONGEST_FILE:
            found.append(f"{place}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, Function):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length >= LONGEST_FUNCTION:
                    found.append(f"{place}:{node.lineno}: {node.name} is {length} lines")
    return found


def undocumented(package: Path) -> list[str]:
    """Public modules, classes and functions without a docstring."""
    found = []
    for file in sorted(package.rglob("*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        if file.name != "__main__.py" and not ast.get_docstring(tree):
            found.append(f"{file.relative_to(package)}: the module")
        members = chain(tree.body, *(node.body for node in tree.body if is_public_class(node)))
        found += [
            f"{file.relative_to(package)}:{node.lineno}: {node.name}"
            for node in members
            if isinstance(node, ast.ClassDef | Function)
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
            and not any("overload" in ast.unparse(mark) for mark in node.decorator_list)
        ]
    return found


def is_public_class(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and not node.name.startswith("_")


def loaded_by(code: str) -> set[str]:
    """Which of the heavy libraries a fresh interpreter has loaded after running some code."""
    report = f"\nimport sys; print(*[n for n in {HEAVY!r} if n in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True
    )
    return set(run.stdout.splitlines()[-1].split())


def test_every_part_has_a_level() -> None:
    parts = {part_of(file, PACKAGE) for file in PACKAGE.rglob("*.py")}
    assert parts - ROOT_FILES - {"models"} <= LEVEL.keys()


def test_imports_point_down() -> None:
    assert misplaced_imports(PACKAGE) == []


def test_torch_stays_where_models_are_trained() -> None:
    assert misplaced_torch(PACKAGE) == []


def test_files_and_functions_fit_on_a_screen() -> None:
    assert too_long(PACKAGE) == []


@pytest.fixture(scope="module")
def structure(repository: Path) -> Any:
    """What `make census` counts in the source."""
    spec = importlib.util.spec_from_file_location("census", repository / "benchmarks/census.py")
    assert spec is not None
    assert spec.loader is not None
    census = importlib.util.module_from_spec(spec)
    sys.modules["census"] = census  # its dataclasses look there for their names
    spec.loader.exec_module(census)
    return census.structure_of(PACKAGE)


def test_no_two_files_import_each_other(structure: Any) -> None:
    assert structure.cycles == ()


def test_modules_are_few(structure: Any) -> None:
    assert structure.modules <= MOST_MODULES


def test_what_is_public_is_documented() -> None:
    assert undocumented(PACKAGE) == []


@pytest.mark.parametrize(
    "code",
    [
        "import aligncap",
        "from aligncap.cli.main import main; assert main(['--help']) == 0",
        "from aligncap.cli.main import main; assert main(['caption', '--help']) == 0",
    ],
)
def test_starting_loads_nothing_heavy(code: str) -> None:
    brought_by_typer = {"pydantic"} if "caption" in code else set()  # once a verb has options
    assert loaded_by(code) <= brought_by_typer


def test_help_does_without_numpy() -> None:
    code = "import sys; from aligncap.cli.main import main; main(['--help'])"
    run = subprocess.run(
        [sys.executable, "-c", f"{code}; print('numpy' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines()[-1] == "False"


def test_the_guards_see_what_they_guard_against(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "bad.py").write_text(
        "from aligncap.captioner import Captioner\n"
        "from . import sibling\n"
        "def load():\n    import torch\n" + "    x = 1\n" * LONGEST_FILE
    )
    assert len(misplaced_imports(tmp_path)) == 2
    assert misplaced_torch(tmp_path) == ["audio/bad.py: imports torch"]
    assert len(too_long(tmp_path)) == 2
    assert len(undocumented(tmp_path)) == 2
