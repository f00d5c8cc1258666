"""The structure of the package in numbers: how many modules it has, how long they are, what they
import, and how many of them a piece of work passes through. `make census` prints them as a table.

    python benchmarks/census.py                     # of this tree
    python benchmarks/census.py --package OLD/src   # of another one, in processes of its own
    python benchmarks/census.py --static --json     # without running anything

Static numbers are read from the source of every .py file of the package:

- import lines: lines of import statements, with their continuation lines, of all lines;
- own imports: distinct modules of the package that a file imports anywhere in it, but not under
  `if TYPE_CHECKING:`; `from package.part import name` imports part/name.py where that is a file and
  otherwise part/__init__.py;
- functions: every def, methods and nested ones included;
- import cycles: strongly connected components of these imports, those inside of functions included.

Dynamic numbers are the files and functions of the package that are called (a Python function,
method, lambda or generator; not the bodies of modules, classes and comprehensions) in any thread:

- caption: during all of `aligncap caption FILE` with the mini model, the import of the command line
  and of nothing else aside;
- KD step, DPO step: of a run of `aligncap train`, from the end of one step of the optimizer to the
  end of the next, so that neither set-up nor saving counts; rows and model are made here, tiny;
- candidates to store: of `aligncap prefer candidates` with the mini model, from the return of the
  last call to CTranslate2, which has then decoded a clip, to the commit of its candidates.

Only the command line and the formats of recipes, rows and manifests are relied on.
"""

import argparse
import ast
import json
import os
import runpy
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "examples" / "clips" / "woman-slow-soft.ogg"
PACKAGE = "aligncap"

Graph = dict[str, set[str]]
"""Module → modules that it imports, by full name; a package's __init__ has the package's name."""


@dataclass(frozen=True)
class Structure:
    """The static numbers."""

    modules: int
    lines: int
    median_lines: float
    largest_lines: int
    largest_file: str
    import_line_share: float
    own_imports_per_file: float
    functions_per_100_lines: float
    cycles: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Passed:
    """The dynamic numbers of one piece of work: files and "file:function" names."""

    files: tuple[str, ...]
    functions: tuple[str, ...]


def structure_of(package: Path) -> Structure:
    """The static numbers of the package in this folder."""
    sources = {path: path.read_text("utf-8") for path in sorted(package.rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in sources.items()}
    lines = {path: len(text.splitlines()) for path, text in sources.items()}
    total = sum(lines.values())
    graph = import_graph(package, trees)
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    functions = sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes)
    largest = max(lines, key=lambda path: lines[path])
    return Structure(
        modules=len(lines),
        lines=total,
        median_lines=statistics.median(lines.values()),
        largest_lines=lines[largest],
        largest_file=largest.relative_to(package).as_posix(),
        import_line_share=sum(map(import_lines, trees.values())) / total,
        own_imports_per_file=statistics.mean(map(len, graph.values())),
        functions_per_100_lines=100 * functions / total,
        cycles=cycles_of(graph),
    )


def import_lines(tree: ast.AST) -> int:
    """Lines of a file that import statements stand on."""
    statements = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
    return len({n for s in statements for n in range(s.lineno, (s.end_lineno or s.lineno) + 1)})


def import_graph(package: Path, trees: dict[Path, ast.Module]) -> Graph:
    """Which modules of the package import which, by full name."""
    names = {path: module_name(package, path) for path in trees}
    known = set(names.values())
    graph: Graph = {}
    for path, tree in trees.items():
        here = names[path] if path.name == "__init__.py" else names[path].rpartition(".")[0]
        targets = {found for name in imported_names(tree, here) if (found := longest(name, known))}
        graph[names[path]] = targets - {names[path]}
    return graph


def module_name(package: Path, path: Path) -> str:
    """The full name of a file of the package."""
    parts = (package.name, *path.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(tree: ast.AST, package: str) -> Iterator[str]:
    """Full names of all that is imported, but for type checkers; `package` holds the file."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imported_names(ast.Module([other], []), package)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            start = ".".join(part for part in (base, node.module) if part)
            yield from (f"{start}.{alias.name}" for alias in node.names)
        else:
            yield from imported_names(node, package)


def longest(name: str, known: set[str]) -> str | None:
    """The longest beginning of a dotted name that is a known module."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or None


def cycles_of(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Strongly connected components of more than one module, each in alphabetical order."""
    reached = {start: reachable(graph, start) for start in graph}
    components = {
        tuple(sorted(other for other in reached[start] if start in reached[other]))
        for start in graph
        if start in reached[start]
    }
    return tuple(sorted(components))


def reachable(graph: Graph, start: str) -> set[str]:
    """Every module that `start` imports, over others too."""
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(graph[name])
    return found


class Tracer:
    """Notes the functions of a package that are called, in every thread; `mark` ends a stretch,
    and so does the return from a compiled function of `library`."""

    def __init__(self, package: Path, *, library: str = "") -> None:
        self._package = f"{package}{os.sep}"
        self._library = library
        self.stretches: list[set[CodeType]] = [set()]

    def __enter__(self) -> "Tracer":
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        return self

    def __exit__(self, *reason: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # typeshed forgets that None is right

    def mark(self, *_: object) -> None:
        """What is called from here on is another stretch."""
        self.stretches.append(set())

    def passed(self, stretch: int) -> Passed:
        """What was called in one stretch."""
        codes = self.stretches[stretch]
        functions = {f"{self._place(code)}:{code.co_qualname}" for code in codes}
        return Passed(tuple(sorted(set(map(self._place, codes)))), tuple(sorted(functions)))

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            code = frame.f_code
            if code.co_filename.startswith(self._package) and is_function(code):
                self.stretches[-1].add(code)
        elif event == "c_return" and self._library and self._is_of_library(argument):
            self.mark()

    def _is_of_library(self, function: Any) -> bool:
        return str(getattr(function, "__module__", "")).startswith(self._library)

    def _place(self, code: CodeType) -> str:
        return code.co_filename.removeprefix(self._package)


def is_function(code: CodeType) -> bool:
    """Whether it is a function, not the body of a module, a class or a comprehension."""
    optimised = 1  # inspect.CO_OPTIMIZED
    return bool(code.co_flags & optimised) and not code.co_name.endswith(("comp>", "genexpr>"))


TINY_SPEECH = {
    "name": "fake",
    "fingerprint": "f" * 16,
    "frame_rate_hz": 12.5,
    "codebooks": 1,
    "codebook_size": 12,
}
CAPTIONS = ("She sounds sad and slow.", "She sounds happy and fast.", "She sounds angry and loud.")
STEPS = """
[training]
steps = 4
learning_rate = 1e-3
warmup_steps = 1
log_every = 1
[batch]
rows = 4
"""
START = """
kind = "warmup"
[model.new]
hidden = 32
layers = 2
heads = 2
text_vocabulary = 300
"""


def write_rows(folder: Path) -> None:
    """Training rows and preference rows of a few clips that were never spoken."""
    plain = [{"training_rows": 1, "tokenizer": TINY_SPEECH}]
    preferred = [{"preference_rows": 1, "tokenizer": TINY_SPEECH}]
    for number in range(24):
        kind = number % len(CAPTIONS)
        clip = {
            "id": f"clip{number}",
            "corpus": "made",
            "split": "validation" if number >= 18 else "train",
            "speech": [4 * kind + (number + frame) % 4 for frame in range(4 + number % 5)],
        }
        act = " ".join(CAPTIONS[kind].split()[2:])
        plain.append(
            {**clip, "captions": {"en": [CAPTIONS[kind]]}, "act": {"en": f"Feeling {act}"}}
        )
        pairs = [[kind, other] for other in range(len(CAPTIONS)) if other != kind]
        one = {**clip, "language": "en", "candidates": list(CAPTIONS), "pairs": pairs}
        preferred.append(one)
    for name, rows in (("rows", plain), ("preferences", preferred)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, "utf-8")


def write_recipe(folder: Path, kind: str, *, start: str = "", rows: str = "rows") -> list[str]:
    """A recipe of four steps; returns the arguments that run it."""
    model = f'kind = "{kind}"\n[model]\nstart = "{folder / start}/model"\n' if start else START
    text = f'{model}\n[data]\nrows = ["{folder / rows}.jsonl"]\n{STEPS}'
    (folder / f"{kind}.toml").write_text(text, "utf-8")
    return ["train", str(folder / f"{kind}.toml"), "-o", str(folder / kind)]


def write_manifest(folder: Path) -> Path:
    """A manifest of the example clip."""
    shutil.copy(CLIP, folder)
    line = json.dumps({"id": "clip", "file": CLIP.name, "corpus": "made"})
    (folder / "manifest.jsonl").write_text(line + "\n", "utf-8")
    return folder / "manifest.jsonl"


def passed_by_work(source: Path) -> dict[str, Passed]:
    """The dynamic numbers of the package under `source`, each traced in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder)

        def run(arguments: Sequence[str], mark: str = "") -> Passed:
            return in_process(source, folder, arguments, mark)

        caption = run(["caption", str(CLIP)])
        run(write_recipe(folder, "warmup"))
        kd = run(write_recipe(folder, "kd", start="warmup"), "optimizer")
        dpo = run(write_recipe(folder, "dpo", start="kd", rows="preferences"), "optimizer")
        manifest = str(write_manifest(folder))
        store = ["--store", str(folder / "store.sqlite")]
        candidates = run(["prefer", "candidates", manifest, *store], "commit")
    return {
        "caption": caption,
        "KD step": kd,
        "DPO step": dpo,
        "candidates to store": candidates,
    }


def in_process(source: Path, folder: Path, arguments: Sequence[str], mark: str) -> Passed:
    """Trace one command of the command line in a fresh process."""
    report = folder / "passed.json"
    report.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--package", str(source), "--trace", str(report)]
    command += ["--mark", mark, *arguments]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode or not report.exists():
        sys.exit(f"{' '.join(arguments)}: failed\n{done.stderr}")
    found = json.loads(report.read_text("utf-8"))
    return Passed(tuple(found["files"]), tuple(found["functions"]))


def trace(source: Path, report: Path, mark: str, arguments: Sequence[str]) -> int:
    """Run a command of the command line in this process and write what it passed."""
    library = "ctranslate2" if mark == "commit" else ""
    tracer = Tracer((source / PACKAGE).resolve(), library=library)
    if mark:
        MARKS[mark](tracer.mark)
    sys.argv = [PACKAGE, *arguments]
    code: object = 0
    with tracer:
        try:
            runpy.run_module(PACKAGE, run_name="__main__")
        except SystemExit as stop:
            code = stop.code
    passed = tracer.passed(-2 if mark else 0)
    report.write_text(json.dumps(asdict(passed)), "utf-8")
    return int(bool(code))


def mark_optimizer_steps(mark: Callable[..., None]) -> None:
    """Call `mark` after each step of any optimizer of torch."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(mark)


def mark_commits(mark: Callable[..., None]) -> None:
    """Call `mark` at each commit to any SQLite database."""

    connect = sqlite3.connect

    def note(statement: str) -> None:
        if statement.strip().upper().startswith("COMMIT"):
            mark()

    def noted(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(note)
        return connection

    sqlite3.connect = noted


MARKS = {"optimizer": mark_optimizer_steps, "commit": mark_commits}


def table_of(structure: Structure, work: dict[str, Passed]) -> str:
    """The numbers as Markdown, with the members of each cycle."""
    rows = [
        ("modules", f"{structure.modules}"),
        ("lines", f"{structure.lines:,}"),
        ("median file, lines", f"{structure.median_lines:g}"),
        ("largest file, lines", f"{structure.largest_lines} ({structure.largest_file})"),
        ("import lines", f"{100 * structure.import_line_share:.1f} %"),
        ("own imports a file", f"{structure.own_imports_per_file:.1f}"),
        ("functions in 100 lines", f"{structure.functions_per_100_lines:.1f}"),
        ("import cycles", f"{len(structure.cycles)}"),
    ]
    for name, passed in work.items():
        rows.append((name, f"{len(passed.files)} files, {len(passed.functions)} functions"))
    lines = ["| | |", "| --- | ---: |", *(f"| {name} | {value} |" for name, value in rows)]
    if structure.cycles:
        lines += ["", "Import cycles:", ""]
        lines += [f"- {' ↔ '.join(cycle)}" for cycle in structure.cycles]
    return "\n".join(lines)


def main() -> int:
    """Print the numbers, or trace one command for another process."""
    parser = argparse.ArgumentParser(description="The package's structure in numbers.")
    parser.add_argument("--package", type=Path, default=ROOT / "src", help="folder of aligncap/")
    parser.add_argument("--static", action="store_true", help="run nothing")
    parser.add_argument("--json", action="store_true", help="JSON, with every name")
    parser.add_argument("--trace", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--mark", default="", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    source = given.package.resolve()
    if given.trace:
        return trace(source, given.trace, given.mark, given.arguments)
    structure = structure_of(source / PACKAGE)
    work = {} if given.static else passed_by_work(source)
    if given.json:
        passed = {name: asdict(one) for name, one in work.items()}
        print(json.dumps({**asdict(structure), "passed": passed}, indent=2))
    else:
        print(table_of(structure, work))
    return 0


if __name__ == "__main__":
    sys.exit(main())
