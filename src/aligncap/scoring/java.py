"""Java programs of others: whether they are here, where, and what they have answered."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from aligncap.errors import MissingModelError, RecipeError
from aligncap.scoring.table import MetricOptions
from aligncap.scoring.values import Floats, ScoredClip


def find_java(metric: str) -> str:
    """The path of `java`; MissingModelError where there is none."""
    java = shutil.which("java")
    if java is None:
        raise MissingModelError(
            f"{metric} is a Java program and there is no java: install a Java runtime (8 or newer)"
        )
    return java


def find_jar(metric: str, jars: Path | None, name: str, *, folder: str, beside: str) -> Path:
    """The program's jar, in the folder of jars or in a folder of that name inside of it.

    `beside` is a pattern of files that it needs beside it. MissingModelError says what to fetch.
    """
    cure = (
        f"`pip install --no-deps pycocoevalcap` brings it; name the folder that holds {folder}/"
        f"{name} as the folder of jars"
    )
    if jars is None:
        raise MissingModelError(f"{metric} needs {name}, and no folder of jars is named: {cure}")
    for jar in (jars / name, jars / folder / name):
        if jar.is_file():
            if not any(jar.parent.glob(beside)):
                raise MissingModelError(f"{jar.parent}: {metric} needs {beside} there: {cure}")
            return jar
    raise MissingModelError(f"{jars}: {metric} needs {name} there: {cure}")


def refuse_other_than_english(metric: str, options: MetricOptions) -> None:
    """RecipeError where captions are not English: the program's word lists are."""
    if options.language != "en":
        raise RecipeError(
            f"{metric} reads English only, not {options.language!r}: "
            "leave it out, or ask for meteor, cider-d or clue-f1"
        )


class AnsweredOnce:
    """The answers of a slow program by clip: it is asked for those only that are new to it."""

    def __init__(self, ask: Callable[[list[ScoredClip]], Iterable[Floats]]) -> None:
        self._ask = ask
        self._known: dict[ScoredClip, Floats] = {}

    def __call__(self, clips: list[ScoredClip]) -> list[Floats]:
        """The answer for each clip."""
        new = list(dict.fromkeys(clip for clip in clips if clip not in self._known))
        if new:
            self._known.update(zip(new, self._ask(new), strict=True))
        return [self._known[clip] for clip in clips]
