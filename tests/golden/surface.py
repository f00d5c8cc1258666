"""What goldens are made through: the command line and `import aligncap`, and nothing else of it."""

import io
import json
import math
import os
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from aligncap.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
HERE = Path("tests/golden")
"""This folder as seen from the root of the repository, where every command runs."""
INPUTS = HERE / "inputs"
CLIPS = Path("examples/clips")

WIDTH = "100"
"""Columns of the terminal that --help is written for."""


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def aligncap(*arguments: object, code: int = 0) -> str:
    """Standard output of one command, run in the root of the repository.

    AssertionError with its standard error where it does not end with `code`.
    """
    out, err = io.StringIO(), io.StringIO()
    plain = _environment(COLUMNS=WIDTH, NO_COLOR="1", TERM="dumb")
    with chdir(ROOT), plain, redirect_stdout(out), redirect_stderr(err):
        found = main([str(one) for one in arguments])
    assert found == code, err.getvalue()
    return out.getvalue()


def json_lines(text: str) -> list[Any]:
    """Each line of a JSON Lines text."""
    return [json.loads(line) for line in text.splitlines()]


def differences(found: Any, expected: Any, *, rel: float = 1e-4, at: str = "") -> list[str]:
    """Where two JSON values differ, each as one line; floats may differ by `rel` of the larger,
    or by 1e-6."""
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = [
            f"{at}.{key}: {'missing' if key in expected else 'new'}"
            for key in sorted(found.keys() ^ expected.keys())
        ]
        shared = [key for key in expected if key in found]
        return keys + [
            line
            for key in shared
            for line in differences(found[key], expected[key], rel=rel, at=f"{at}.{key}")
        ]
    if isinstance(expected, list) and isinstance(found, list):
        if len(found) != len(expected):
            return [f"{at}: {len(found)} items, not {len(expected)}"]
        return [
            line
            for place, pair in enumerate(zip(found, expected, strict=True))
            for line in differences(*pair, rel=rel, at=f"{at}[{place}]")
        ]
    if _is_number(found) and _is_number(expected):
        near = math.isclose(found, expected, rel_tol=rel, abs_tol=1e-6)
        return [] if near else [f"{at}: {found}, not {expected}"]
    same = type(found) is type(expected) and found == expected
    return [] if same else [f"{at}: {found!r}, not {expected!r}"]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
