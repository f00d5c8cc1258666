"""SPICE and SPIDEr.

SPICE (Anderson et al., ECCV 2016), by its authors' Java program, parses captions into scene graphs
with Stanford CoreNLP and scores the overlap of their tuples; SPIDEr (Liu et al., ICCV 2017) is the
mean of SPICE and CIDEr-D. The program reads one file and writes another.
"""

import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aligncap.errors import DataError, MissingModelError
from aligncap.scoring.cider import cider_d
from aligncap.scoring.java import AnsweredOnce, find_jar, find_java, refuse_other_than_english
from aligncap.scoring.table import MetricOptions
from aligncap.scoring.tokenise import open_tokeniser
from aligncap.scoring.values import Floats, Metric, ScoredClip, Statistics, mean_of_clips

JAR = "spice-1.0.jar"

CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
"""Its parser and the parser's models, which it looks for in lib/ beside itself."""

CORENLP_ARCHIVE = "https://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"

Run = Callable[[list[str]], None]
"""Runs a command to its end."""


def open_metric(name: str, options: MetricOptions) -> Metric:
    """SPICE or SPIDEr; RecipeError for Chinese, MissingModelError without Java or its files."""
    refuse_other_than_english(name, options)
    jar = find_jar("SPICE", options.jars, JAR, folder="spice", beside="lib/*.jar")
    if lost := [file for file in CORENLP if not (jar.parent / "lib" / file).is_file()]:
        raise MissingModelError(
            f"{jar.parent / 'lib'}: SPICE needs {' and '.join(lost)} there: fetch "
            f"{CORENLP_ARCHIVE} and copy both files out of it"
        )
    program = SpiceProgram(find_java("SPICE"), jar, run=run)
    if name == "spice":
        return Spice(program)
    return Spider(program, options)


class SpiceProgram:
    """The Java program: captions in, F1 of each clip out."""

    def __init__(self, java: str, jar: Path, *, run: Run) -> None:
        self._java, self._jar, self._run = java, jar, run
        self._answers = AnsweredOnce(self._ask)

    def __call__(self, clips: list[ScoredClip]) -> Floats:
        """SPICE of each clip, NaN where the program has none; shape [clips].

        Raises DataError where it does not answer for every clip.
        """
        return np.array(self._answers(clips), np.float64)

    def _ask(self, clips: list[ScoredClip]) -> Floats:
        # Numbers stand for ids: the program sorts what it is given.
        asked = [
            {"image_id": place, "test": clip.hypothesis, "refs": list(clip.references)}
            for place, clip in enumerate(clips)
        ]
        with tempfile.TemporaryDirectory() as folder:
            question, answer = Path(folder, "captions.json"), Path(folder, "scores.json")
            question.write_text(json.dumps(asked), encoding="utf-8")
            command = [self._java, "-Xmx8G", "-jar", str(self._jar.resolve()), str(question)]
            self._run([*command, "-out", str(answer), "-subset", "-silent"])
            if not answer.is_file():
                raise DataError(f"{self._jar}: wrote no scores; it needs Java 8")
            rows = json.loads(answer.read_text(encoding="utf-8"))
        values = np.full(len(clips), np.nan)
        for row in rows:
            f1 = row["scores"]["All"]["f"]
            values[int(row["image_id"])] = np.nan if f1 is None else float(f1)
        if len(rows) != len(clips):
            raise DataError(f"{self._jar}: scored {len(rows)} clips of {len(clips)}")
        return values


class Spice:
    """The mean of the clips' SPICE."""

    name = "spice"
    variant = "spice:jar-1.0-corenlp-3.6.0"

    def __init__(self, program: SpiceProgram) -> None:
        self._program = program

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """SPICE of each clip."""
        return mean_of_clips(self._program(clips))


class Spider:
    """The mean of the clips' SPICE and CIDEr-D."""

    name = "spider"

    def __init__(self, program: SpiceProgram, options: MetricOptions) -> None:
        self._program = program
        self._tokeniser = open_tokeniser(options.tokenisation, options.language)
        self._tokenised = options.tokenised
        self.variant = f"spider:{Spice.variant}+cider-d:df-corpus|tok:{self._tokeniser.name}"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """SPIDEr of each clip."""
        consensus = cider_d(self._tokenised(clips, self._tokeniser))
        return mean_of_clips((self._program(clips) + consensus) / 2, together=True)


def run(command: list[str]) -> None:
    """Run the program; DataError with the end of what it said where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        last = said[-1] if said else f"exit {done.returncode}"
        raise DataError(f"{command[3]}: {last}; SPICE needs Java 8")
