"""Java programs of others: whether they are here, where, and what they have answered.

METEOR (Banerjee & Lavie, ACL workshops 2005), with the numbers and the alignment of NLTK.

Words are aligned when they are the same, then when their stems are, then when WordNet calls them
synonyms; the score is a mean of precision and recall that leans to recall (alpha = 0.9), lowered
by half at most where the aligned words lie scattered. The best reference counts, and the corpus
has the mean of its clips. WordNet is used where NLTK's data is on this machine; Chinese has
neither stems nor WordNet, and is aligned by exact matches. The signature says which it was.

METEOR 1.5 (Denkowski & Lavie, WMT 2014), counted by its authors' Java program.

The program is spoken to line by line, as the COCO evaluation does: for each clip it answers the
statistics of the best reference. They add up over clips, and from their sums the score is worked
out here with the program's own parameters for English; tests hold both to the same numbers.

SPICE and SPIDEr.

SPICE (Anderson et al., ECCV 2016), by its authors' Java program, parses captions into scene graphs
with Stanford CoreNLP and scores the overlap of their tuples; SPIDEr (Liu et al., ICCV 2017) is the
mean of SPICE and CIDEr-D. The program reads one file and writes another.
"""

import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import IO

import numpy as np

from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.metrics.ngram import cider_d
from aligncap.metrics.scores import Floats, Metric, ScoredClip, Statistics, mean_of_clips
from aligncap.metrics.table import MetricOptions
from aligncap.metrics.tokenise import open_tokeniser


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


ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5
"""Weight of recall; power and weight of the penalty for scattered words."""

Synonyms = Callable[[str], Collection[str]]
"""A word's synonyms, none of them with a blank."""

Words = dict[int, str]
"""Place → word, in the order of places."""


def open_meteor(name: str, options: MetricOptions) -> Metric:
    """METEOR; for Chinese with exact matches only."""
    stages = Stages() if options.language != "en" else english_stages()
    return Meteor(name, stages, options)


@dataclass(frozen=True, slots=True)
class Stages:
    """What makes two words match, after being the same."""

    name: str = "exact"
    stem: Callable[[str], str] | None = None
    synonyms: Synonyms | None = None


def english_stages() -> Stages:
    """All stages that this machine has the data for."""
    from nltk.corpus import wordnet
    from nltk.stem.porter import PorterStemmer

    stem = cache(PorterStemmer().stem)
    try:
        dictionary = f"wordnet{wordnet.get_version()}"
    except (LookupError, OSError, ValueError):  # absent, or where NLTK refuses to read
        return Stages("exact+stem", stem)
    return Stages(f"exact+stem+{dictionary}", stem, cache(_wordnet_synonyms))


def _wordnet_synonyms(word: str) -> set[str]:
    from nltk.corpus import wordnet

    names = {lemma.name() for synset in wordnet.synsets(word) for lemma in synset.lemmas()}
    return {name for name in names if "_" not in name}


class Meteor:
    """The mean of the clips' METEOR."""

    def __init__(self, name: str, stages: Stages, options: MetricOptions) -> None:
        self.name = name
        self._stages = stages
        self._tokeniser = open_tokeniser(options.tokenisation, options.language)
        self._tokenised = options.tokenised
        nltk = f"nltk-{version('nltk')}"
        self.variant = f"{name}:{nltk}-{stages.name}|tok:{self._tokeniser.name}"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """The score of each clip."""
        tokenised = self._tokenised(clips, self._tokeniser)
        hypotheses = tokenised.hypotheses.tokens
        scores = np.zeros(len(clips))
        references = tokenised.references
        for clip, reference in zip(references.clip.tolist(), references.tokens, strict=True):
            score = meteor(hypotheses[clip], reference, self._stages)
            scores[clip] = max(scores[clip], score)
        return mean_of_clips(scores)


def meteor(hypothesis: Sequence[str], reference: Sequence[str], stages: Stages) -> float:
    """METEOR of one caption and one reference, 0 to nearly 1."""
    aligned = align(hypothesis, reference, stages)
    if not aligned:
        return 0.0
    precision, recall = len(aligned) / len(hypothesis), len(aligned) / len(reference)
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    return mean * (1 - GAMMA * math.pow(_chunks(aligned) / len(aligned), BETA))


def align(hypothesis: Sequence[str], reference: Sequence[str], stages: Stages) -> dict[int, int]:
    """Place in the hypothesis → place in the reference.

    As NLTK does it: at each stage from the last word to the first, each with the last free word of
    the reference that fits; synonyms are looked up for stems.
    """
    left = dict(enumerate(map(str.lower, hypothesis)))
    free = dict(enumerate(map(str.lower, reference)))
    aligned = _take_same(left, free)
    if stages.stem and left and free:
        left = {place: stages.stem(word) for place, word in left.items()}
        free = {place: stages.stem(word) for place, word in free.items()}
        aligned |= _take_same(left, free)
    if stages.synonyms and left and free:
        aligned |= _take_synonyms(left, free, stages.synonyms)
    return aligned


def _take_same(left: Words, free: Words) -> dict[int, int]:
    """Pairs of the same word, taken out of both."""
    places = _places(free)
    taken = {}
    for place in reversed(left):
        others = places.get(left[place])
        if others:
            taken[place] = others.pop()
    return _taken_out(taken, left, free)


def _take_synonyms(left: Words, free: Words, synonyms: Synonyms) -> dict[int, int]:
    """Pairs of a word and itself or a synonym, taken out of both."""
    places = _places(free)
    taken = {}
    for place in reversed(left):
        fitting = {left[place], *synonyms(left[place])}
        last = [others for word in fitting if (others := places.get(word))]
        if last:
            taken[place] = max(last, key=_last).pop()
    return _taken_out(taken, left, free)


def _places(words: Words) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, word in words.items():
        places.setdefault(word, []).append(place)
    return places


def _last(places: Sequence[int]) -> int:
    return places[-1]


def _taken_out(taken: dict[int, int], left: Words, free: Words) -> dict[int, int]:
    for place, other in taken.items():
        del left[place], free[other]
    return taken


def _chunks(aligned: Mapping[int, int]) -> int:
    """Runs of words that follow each other in both."""
    return sum(aligned.get(place - 1, -2) != other - 1 for place, other in aligned.items())


METEOR_JAR = "meteor-1.5.jar"
"""It reads data/paraphrase-en.gz beside itself."""

JAR_ALPHA, JAR_BETA, JAR_GAMMA, JAR_DELTA = 0.85, 0.2, 0.6, 0.75
"""The program's for English: weight of recall, power and weight of the penalty for scattered words,
weight of content words."""

WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
"""Of exact, stem, synonym and paraphrase matches."""

COLUMNS = 4 + 4 * len(WEIGHTS) + 3
"""Of the program's statistics: lengths and function words of caption and reference; for each stage
content words matched in both, then function words; chunks, and words in matches of both."""


def open_meteor_jar(name: str, options: MetricOptions) -> Metric:
    """METEOR 1.5; RecipeError for Chinese, MissingModelError without Java or its jar."""
    refuse_other_than_english(name, options)
    jar = find_jar(
        "METEOR 1.5", options.jars, METEOR_JAR, folder="meteor", beside="data/paraphrase-en.gz"
    )
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
        return Statistics(_without_whole(np.stack(self._answers(clips))), meteor_of_sums)

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


def meteor_of_sums(sums: Floats) -> Floats:
    """METEOR 1.5 of summed statistics, shape [..., 23] to [...]."""
    length, reference_length, function, reference_function = np.moveaxis(sums[..., :4], -1, 0)
    stages = sums[..., 4:-3].reshape(*sums.shape[:-1], len(WEIGHTS), 4)
    content, reference_content, functions, reference_functions = np.moveaxis(
        np.einsum("...sk,s->...k", stages, WEIGHTS), -1, 0
    )
    precision = _share(content, functions, length, function)
    recall = _share(reference_content, reference_functions, reference_length, reference_function)
    below = JAR_ALPHA * precision + (1 - JAR_ALPHA) * recall
    mean = precision * recall / np.where(below > 0, below, 1.0)
    chunks, words, reference_words = np.moveaxis(sums[..., -3:], -1, 0)
    matched = (words + reference_words) / 2
    scattered = chunks / np.where(matched > 0, matched, 1.0)
    value: Floats = mean * (1 - JAR_GAMMA * scattered**JAR_BETA)
    return value


def _without_whole(rows: Floats) -> Floats:
    """A caption matched whole, in one chunk, has none: neither alone nor in a sum is it fined."""
    whole = (rows[:, -2] == rows[:, 0]) & (rows[:, -1] == rows[:, 1]) & (rows[:, -3] == 1)
    rows = rows.copy()
    rows[whole, -3] = 0.0
    return rows


def _share(content: Floats, function: Floats, length: Floats, functions: Floats) -> Floats:
    """Weighted matches over weighted length; content words weigh more than function words."""
    matched = JAR_DELTA * content + (1 - JAR_DELTA) * function
    all_words = JAR_DELTA * (length - functions) + (1 - JAR_DELTA) * functions
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


SPICE_JAR = "spice-1.0.jar"

CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
"""Its parser and the parser's models, which it looks for in lib/ beside itself."""

CORENLP_ARCHIVE = "https://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"

Run = Callable[[list[str]], None]
"""Runs a command to its end."""


def open_spice(name: str, options: MetricOptions) -> Metric:
    """SPICE or SPIDEr; RecipeError for Chinese, MissingModelError without Java or its files."""
    refuse_other_than_english(name, options)
    jar = find_jar("SPICE", options.jars, SPICE_JAR, folder="spice", beside="lib/*.jar")
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
