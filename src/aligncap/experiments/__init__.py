"""Measurements and tables: what is reported is made here, by a command named beside it."""

from collections.abc import Iterable
from pathlib import Path

Page = tuple[str, str, Iterable[str]]
"""The title of a page of results, how it was made, and what follows, by lines."""


def write_page(output: Path, title: str, made: str, table: Iterable[str]) -> None:
    """Write a page of results, and print it: its title, how it was `made`, and its table."""
    text = "\n".join([f"# {title}", "", made, "", *table, ""])
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    print(text)
