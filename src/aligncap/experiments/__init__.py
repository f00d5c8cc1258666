"""Measurements and tables: what is reported is made here, by a command named beside it."""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

Page = tuple[str, str, Iterable[str]]
"""The title of a page of results, how it was made, and what follows, by lines."""


def command(module: str, *arguments: Path, **options: Path) -> str:
    """The command of an experiment with what it cannot do without, paths from the working folder
    on."""
    named = [(f"--{name}", os.path.relpath(path)) for name, path in options.items()]
    given = [*map(os.path.relpath, arguments), *(text for pair in named for text in pair)]
    return shlex.join(["python", "-m", f"aligncap.experiments.{module}", *given])


def write_page(output: Path, title: str, made: str, table: Iterable[str]) -> None:
    """Write a page of results, and print it: its title, how it was `made`, and its table."""
    text = "\n".join([f"# {title}", "", made, "", *table, ""])
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    print(text)
