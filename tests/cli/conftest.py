"""A command line whose streams and model the test holds."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from aligncap.cli.console import Console
from aligncap.cli.main import main
from aligncap.errors import MissingModelError
from support.models import FakeCaptioner


def open_fake_model(name: str, *, tokenizer_path: Path | None = None, **_: object) -> FakeCaptioner:
    """The fake under the name `mini`; any other is missing."""
    if name != "mini":
        raise MissingModelError(f"{name}: no such model; built in: mini")
    return FakeCaptioner(name)


@pytest.fixture(scope="session")
def clip(example_clips: list[Path]) -> Path:
    """A recording that peaks at full scale."""
    return next(clip for clip in example_clips if clip.stem == "man-loud-fast")


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str

    def refused(self, message: str) -> None:
        """It has written nothing but one line with this message, and ended with 2."""
        assert (self.code, self.out) == (2, "")
        assert message in self.err
        assert self.err.startswith("aligncap: ")
        assert self.err.count("\n") == 1


Aligncap = Callable[..., Ran]


@pytest.fixture
def aligncap() -> Aligncap:
    """Runs `aligncap` with arguments, standard input as bytes, and the fake model."""

    def run(*arguments: object, stdin: bytes = b"") -> Ran:
        out, err = io.StringIO(), io.StringIO()
        typed = io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin)), encoding="utf-8")
        console = Console(stdin=typed, stdout=out, stderr=err, load_model=open_fake_model)
        code = main([str(argument) for argument in arguments], console=console)
        return Ran(code, out.getvalue(), err.getvalue())

    return run
