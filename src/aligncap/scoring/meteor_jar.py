"""METEOR 1.5 (Denkowski & Lavie, WMT 2014), counted by its authors' Java program.

The program is spoken to line by line, as the COCO evaluation does: for each clip it answers the
statistics of the best reference. They add up over clips, and from their sums the score is worked
out here with the program's own parameters for English; tests hold both to the same numbers.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np

from aligncap.errors import DataError
from aligncap.scoring.java import AnsweredOnce, find_jar, find_java, refuse_other_than_english
from aligncap.scoring.table import MetricOptions
from aligncap.scoring.tokenise import open_tokeniser
from aligncap.scoring.values import Floats, Metric, ScoredClip, Statistics

JAR = "meteor-1.5.jar"
"""It reads data/paraphrase-en.gz beside itself."""

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
"""The program's for English: weight of recall, power and weight of the penalty for scattered words,
weight of content words."""

WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
"""Of exact, stem, synonym and paraphrase matches."""

COLUMNS = 4 + 4 * len(WEIGHTS) + 3
"""Of the program's statistics: lengths and function words of caption and reference; for each stage
content words matched in both, then function words; chunks, and words in matches of both."""


def open_metric(name: str, options: MetricOptions) -> Metric:
    """METEOR 1.5; RecipeError for Chinese, MissingModelError without Java or its jar."""
    refuse_other_than_english(name, options)
    jar = find_jar("METEOR 1.5", options.jars, JAR, folder="meteor", beside="data/paraphrase-en.gz")
    return MeteorJar(name, find_java("METEOR 1.5"), jar, options)


class MeteorJar:
    """METEOR 1.5 of all clips, and of each."""

    def __init__(self, name: str, java: str, jar: Path, options: MetricOptions) -> None:
        self.name = name
        self._java, self._jar = java, jar
        self._tokeniser = open_tokeniser(options.tokenisation, options.language)
        self.variant = f"{name}:jar-en-norm|tok:{self._tokeniser.name}"
        self._answers = AnsweredOnce(self._ask)

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """The program's statistics of each clip."""
        return Statistics(_without_whole(np.stack(self._answers(clips))), meteor)

    def _ask(self, clips: list[ScoredClip]) -> list[Floats]:
        tokenise, answers = self._tokeniser, []
        with _running(self._java, self._jar) as (question, answer):
            for clip in clips:
                texts = (*clip.references, clip.hypothesis)
                line = " ||| ".join(["SCORE", *(_spoken(tokenise(text)) for text in texts)])
                with suppress(BrokenPipeError):  # it is gone: the answer will be empty
                    question.write(f"{line}\n")
                    question.flush()
                answers.append(_numbers(answer.readline(), self._jar))
        return answers


def meteor(sums: Floats) -> Floats:
    """METEOR 1.5 of summed statistics, shape [..., 23] to [...]."""
    length, reference_length, function, reference_function = np.moveaxis(sums[..., :4], -1, 0)
    stages = sums[..., 4:-3].reshape(*sums.shape[:-1], len(WEIGHTS), 4)
    content, reference_content, functions, reference_functions = np.moveaxis(
        np.einsum("...sk,s->...k", stages, WEIGHTS), -1, 0
    )
    precision = _share(content, functions, length, function)
    recall = _share(reference_content, reference_functions, reference_length, reference_function)
    below = ALPHA * precision + (1 - ALPHA) * recall
    mean = precision * recall / np.where(below > 0, below, 1.0)
    chunks, words, reference_words = np.moveaxis(sums[..., -3:], -1, 0)
    matched = (words + reference_words) / 2
    scattered = chunks / np.where(matched > 0, matched, 1.0)
    value: Floats = mean * (1 - GAMMA * scattered**BETA)
    return value


def _without_whole(rows: Floats) -> Floats:
    """A caption matched whole, in one chunk, has none: neither alone nor in a sum is it fined."""
    whole = (rows[:, -2] == rows[:, 0]) & (rows[:, -1] == rows[:, 1]) & (rows[:, -3] == 1)
    rows = rows.copy()
    rows[whole, -3] = 0.0
    return rows


def _share(content: Floats, function: Floats, length: Floats, functions: Floats) -> Floats:
    """Weighted matches over weighted length; content words weigh more than function words."""
    matched = DELTA * content + (1 - DELTA) * function
    all_words = DELTA * (length - functions) + (1 - DELTA) * functions
    share: Floats = matched / np.where(all_words > 0, all_words, 1.0)
    return share


def _spoken(tokens: list[str]) -> str:
    """Tokens as a part of a line of the protocol."""
    return " ".join(token.replace("|||", "") for token in tokens)


def _numbers(line: str, jar: Path) -> Floats:
    numbers = line.split()
    if len(numbers) != COLUMNS:
        said = line.strip() or "nothing"
        raise DataError(f"{jar}: answered {said!r} where {COLUMNS} numbers were expected")
    return np.array(numbers, np.float64)


@contextmanager
def _running(java: str, jar: Path) -> Iterator[tuple[IO[str], IO[str]]]:
    """The program's standard input and output, while it runs."""
    command = [java, "-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", str(jar.resolve())]
    command += ["-", "-", "-stdio", "-l", "en", "-norm"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdin is not None, "it was asked for"
    assert process.stdout is not None, "it was asked for"
    try:
        yield process.stdin, process.stdout
    finally:
        process.kill()
        process.communicate()
