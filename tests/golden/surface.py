"""What goldens are made through: the command line and `import aligncap`, and nothing else of it."""

import io
import json
import math
import os
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from aligncap.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
HERE = Path("tests/golden")
"""This folder as seen from the root of the repository, where every command runs."""
INPUTS = HERE / "inputs"
CLIPS = Path("examples/clips")

TERMINAL = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
"""What --help is written for."""


def aligncap(*arguments: object, code: int = 0) -> str:
    """Standard output of one command, run in the root of the repository.

    AssertionError with its standard error where it does not end with `code`.
    """
    out, err = io.StringIO(), io.StringIO()
    plain = patch.dict(os.environ, TERMINAL)
    with chdir(ROOT), plain, redirect_stdout(out), redirect_stderr(err):
        found = main([str(one) for one in arguments])
    assert found == code, err.getvalue()
    return out.getvalue()


def json_lines(text: str) -> list[Any]:
    """Each line of a JSON Lines text."""
    return [json.loads(line) for line in text.splitlines()]


TRAINED = 1e-3
"""How far numbers may be apart after some steps of training: so far they are on processors."""


def assert_same(found: Any, expected: Any, *, within: float = 1e-4) -> None:
    """Fails with the first differences of two JSON values, as `differences`."""
    lines = differences(found, expected, within=within)
    assert not lines, "\n".join(lines[:20])


def differences(found: Any, expected: Any, *, at: str = "", within: float = 1e-4) -> list[str]:
    """Where two JSON values differ, each as one line; floats may differ by `within` of the larger,
    or by a hundredth of that."""
    if isinstance(expected, dict) and isinstance(found, dict):
        odd = [
            f"{at}.{key}: {'missing' if key in expected else 'new'}"
            for key in sorted(found.keys() ^ expected.keys())
        ]
        shared = [(f".{key}", found[key], expected[key]) for key in expected if key in found]
        return odd + [
            line for key, *two in shared for line in differences(*two, at=at + key, within=within)
        ]
    if isinstance(expected, list) and isinstance(found, list):
        if len(found) != len(expected):
            return [f"{at}: {len(found)} items, not {len(expected)}"]
        pairs = enumerate(zip(found, expected, strict=True))
        return [
            line for n, two in pairs for line in differences(*two, at=f"{at}[{n}]", within=within)
        ]
    if _is_number(found) and _is_number(expected):
        near = math.isclose(found, expected, rel_tol=within, abs_tol=within / 100)
        return [] if near else [f"{at}: {found}, not {expected}"]
    same = type(found) is type(expected) and found == expected
    return [] if same else [f"{at}: {found!r}, not {expected!r}"]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
