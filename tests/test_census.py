"""The census of a made package whose numbers are known."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILES = {
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


@pytest.fixture(scope="module")
def census(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("census", repository / "benchmarks/census.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["census"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def made(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / "made" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "made" / name).write_text(text, "utf-8")
    return tmp_path / "made"


def test_static_numbers_by_hand(census: Any, made: Path) -> None:
    found = census.structure_of(made)
    lengths = [len(text.splitlines()) for text in FILES.values()]
    assert lengths == [1, 8, 1, 6, 13, 5]
    assert (found.modules, found.lines, found.median_lines) == (6, 34, 5.5)
    assert (found.largest_lines, found.largest_file) == (13, "part/two.py")
    # values 4 (three of them one statement), part 1, one 2, two 4, late 1.
    assert found.import_line_share == pytest.approx(12 / 34)
    # part → one; one → values, two; two → values, one (late is for type checkers); late → part.
    assert found.own_imports_per_file == pytest.approx(6 / 6)
    assert found.functions_per_100_lines == pytest.approx(100 * 4 / 34)
    assert found.cycles == (("made.part.one", "made.part.two"),)


def test_functions_are_counted_stretch_by_stretch(
    census: Any, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert tracer.passed(1).files == ("late.py", "part/one.py", "part/two.py", "values.py")
    assert tracer.passed(1).functions == (
        "late.py:g",
        "part/one.py:one",
        "part/two.py:T.two",
        "values.py:f",
    )
