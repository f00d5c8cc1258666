"""METEOR, METEOR 1.5, SPICE and SPIDEr; the last three by their authors' Java programs.

METEOR (Banerjee & Lavie, ACL workshops 2005) has the numbers and the alignment of NLTK. Words are
aligned when they are the same, then when their stems are, then when WordNet calls them synonyms;
the score is a mean of precision and recall that leans to recall (alpha = 0.9), lowered by half at
most where the aligned words lie scattered. The best reference counts, and the corpus has the mean
of its clips. WordNet is used where NLTK's data is on this machine; Chinese has neither stems nor
WordNet, and is aligned by exact matches. The signature names the stages used.

METEOR 1.5 (Denkowski & Lavie, WMT 2014): as in the COCO evaluation, the program gives for each
clip the statistics of the best reference. They add up over clips, and the score is computed here
from their sums with the program's parameters for English.

SPICE (Anderson et al., ECCV 2016) parses captions into scene graphs with Stanford CoreNLP and
scores the overlap of their tuples; SPIDEr (Liu et al., ICCV 2017) is the mean of SPICE and CIDEr-D.
"""

import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path
from typing import IO

import numpy as np

from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.metrics.ngram import TokenMetric, open_ngram
from aligncap.metrics.scores import (
    Floats,
    Metric,
    MetricOptions,
    ScoredClip,
    Statistics,
    mean_of_clips,
)
from aligncap.metrics.tokenise import TokenisedClips, open_tokeniser

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5
"""METEOR: weight of recall; power and weight of the penalty for scattered words."""

JAR_ALPHA, JAR_BETA, JAR_GAMMA, JAR_DELTA = 0.85, 0.2, 0.6, 0.75
"""METEOR 1.5 for English: as above, then the weight of content words."""

JAR_STAGE_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
"""Of exact, stem, synonym and paraphrase matches."""

JAR_COLUMNS = 4 + 4 * len(JAR_STAGE_WEIGHTS) + 3
"""Of the program's statistics: lengths and function words of caption and reference; for each stage
content words matched in both, then function words; chunks, and words in matches of both."""

CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
"""SPICE's parser and the parser's models, which it looks for in lib/ next to itself."""

CORENLP_ARCHIVE = "https://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"


@dataclass(frozen=True, slots=True)
class Stages:
    """What makes two words match, after being the same."""

    name: str = "exact"
    stem: Callable[[str], str] | None = None
    synonyms: Callable[[str], Collection[str]] | None = None
    """A stem's synonyms, none of them with a blank."""


def english_stages() -> Stages:
    """All stages that this machine has the data for."""
    from nltk.corpus import wordnet
    from nltk.stem.porter import PorterStemmer

    def synonyms(word: str) -> set[str]:
        names = {lemma.name() for synset in wordnet.synsets(word) for lemma in synset.lemmas()}
        return {name for name in names if "_" not in name}

    stem = cache(PorterStemmer().stem)
    try:
        dictionary = f"wordnet{wordnet.get_version()}"
    except (LookupError, OSError, ValueError):  # absent, or where NLTK refuses to read
        return Stages("exact+stem", stem)
    return Stages(f"exact+stem+{dictionary}", stem, cache(synonyms))


def open_meteor(name: str, options: MetricOptions, stages: Stages | None = None) -> Metric:
    """METEOR by these stages; by default all there are for English, else exact matches only."""
    used = stages or (english_stages() if options.language == "en" else Stages())

    def statistics(clips: TokenisedClips) -> Statistics:
        scores = np.zeros(clips.clips)
        references = clips.references
        for clip, reference in zip(references.clip.tolist(), references.tokens, strict=True):
            score = meteor(clips.hypotheses.tokens[clip], reference, used)
            scores[clip] = max(scores[clip], score)
        return mean_of_clips(scores)

    return TokenMetric(name, f"nltk-{version('nltk')}-{used.name}", statistics, options)


def meteor(hypothesis: Sequence[str], reference: Sequence[str], stages: Stages) -> float:
    """METEOR of one caption and one reference, 0 to nearly 1."""
    aligned = align(hypothesis, reference, stages)
    if not aligned:
        return 0.0
    precision, recall = len(aligned) / len(hypothesis), len(aligned) / len(reference)
    f_mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    chunks = sum(aligned.get(place - 1, -2) != other - 1 for place, other in aligned.items())
    return f_mean * (1 - GAMMA * math.pow(chunks / len(aligned), BETA))


def align(hypothesis: Sequence[str], reference: Sequence[str], stages: Stages) -> dict[int, int]:
    """Place in the hypothesis → place in the reference.

    As NLTK does it: at each stage from the last word to the first, each with the last free word of
    the reference that fits; synonyms are looked up for stems.
    """
    left = dict(enumerate(map(str.lower, hypothesis)))
    free = dict(enumerate(map(str.lower, reference)))
    aligned = _take_pairs(left, free)
    if stages.stem and left and free:
        left = {place: stages.stem(word) for place, word in left.items()}
        free = {place: stages.stem(word) for place, word in free.items()}
        aligned |= _take_pairs(left, free)
    if stages.synonyms and left and free:
        aligned |= _take_pairs(left, free, stages.synonyms)
    return aligned


def _take_pairs(
    left: dict[int, str],
    free: dict[int, str],
    synonyms: Callable[[str], Collection[str]] | None = None,
) -> dict[int, int]:
    """Pairs of a word and itself or a synonym, removed from both."""
    places: dict[str, list[int]] = {}
    for place, word in free.items():
        places.setdefault(word, []).append(place)
    taken: dict[int, int] = {}
    for place in reversed(left):
        word = left[place]
        others = places.get(word)
        if synonyms is not None:
            found = [fits for one in {word, *synonyms(word)} if (fits := places.get(one))]
            others = max(found, key=itemgetter(-1), default=None)
        if others:
            taken[place] = others.pop()
    for place, other in taken.items():
        del left[place], free[other]
    return taken


def open_meteor_jar(name: str, options: MetricOptions) -> Metric:
    """METEOR 1.5; RecipeError for Chinese, MissingModelError without Java or its jar."""
    jar = _find_jar(name, "METEOR 1.5", options, "meteor/meteor-1.5.jar", "data/paraphrase-en.gz")
    return MeteorJar(name, _find_java("METEOR 1.5"), jar, options)


class MeteorJar:
    """METEOR 1.5 by the Java program."""

    def __init__(self, name: str, java: str, jar: Path, options: MetricOptions) -> None:
        self.name = name
        self._java, self._jar = java, jar
        self._tokeniser = open_tokeniser(options.tokenisation, options.language)
        self.variant = f"{name}:jar-en-norm|tok:{self._tokeniser.name}"
        self._answers = ClipCache(self._ask)

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """The program's statistics of each clip."""
        rows = np.stack(self._answers(clips))
        # A caption matched entirely, in one chunk, is not penalised: neither alone nor in a sum.
        perfect = (rows[:, -2] == rows[:, 0]) & (rows[:, -1] == rows[:, 1]) & (rows[:, -3] == 1)
        rows[perfect, -3] = 0.0
        return Statistics(rows, meteor_of_sums)

    def _ask(self, clips: list[ScoredClip]) -> list[Floats]:
        answers = []
        with _running(self._java, self._jar) as (stdin, stdout):
            for clip in clips:
                texts = (" ".join(self._tokeniser(t)) for t in (*clip.references, clip.hypothesis))
                line = " ||| ".join(["SCORE", *(text.replace("|||", "") for text in texts)])
                with suppress(BrokenPipeError):  # it is gone: the answer will be empty
                    stdin.write(f"{line}\n")
                    stdin.flush()
                answer = stdout.readline()
                if len(answer.split()) != JAR_COLUMNS:
                    raise DataError(
                        f"{self._jar}: answered {answer.strip() or 'nothing'!r} where "
                        f"{JAR_COLUMNS} numbers were expected"
                    )
                answers.append(np.array(answer.split(), np.float64))
        return answers


def meteor_of_sums(sums: Floats) -> Floats:
    """METEOR 1.5 of summed statistics, shape [..., 23] to [...]."""
    length, reference_length, function, reference_function = np.moveaxis(sums[..., :4], -1, 0)
    stages = sums[..., 4:-3].reshape(*sums.shape[:-1], len(JAR_STAGE_WEIGHTS), 4)
    content, reference_content, functions, reference_functions = np.moveaxis(
        np.einsum("...sk,s->...k", stages, JAR_STAGE_WEIGHTS), -1, 0
    )
    precision = _weighted_share(content, functions, length, function)
    recall = _weighted_share(
        reference_content, reference_functions, reference_length, reference_function
    )
    below = JAR_ALPHA * precision + (1 - JAR_ALPHA) * recall
    f_mean = precision * recall / np.where(below > 0, below, 1.0)
    chunks, words, reference_words = np.moveaxis(sums[..., -3:], -1, 0)
    matched = (words + reference_words) / 2
    fragmentation = chunks / np.where(matched > 0, matched, 1.0)
    value: Floats = f_mean * (1 - JAR_GAMMA * fragmentation**JAR_BETA)
    return value


def _weighted_share(content: Floats, function: Floats, length: Floats, functions: Floats) -> Floats:
    """Weighted matches over weighted length; content words weigh more than function words."""
    matched = JAR_DELTA * content + (1 - JAR_DELTA) * function
    all_words = JAR_DELTA * (length - functions) + (1 - JAR_DELTA) * functions
    share: Floats = matched / np.where(all_words > 0, all_words, 1.0)
    return share


@contextmanager
def _running(java: str, jar: Path) -> Iterator[tuple[IO[str], IO[str]]]:
    """The METEOR program's standard input and output, while it runs."""
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
    assert process.stdin is not None, "it is piped"
    assert process.stdout is not None, "it is piped"
    try:
        yield process.stdin, process.stdout
    finally:
        process.kill()
        process.communicate()


def open_spice(name: str, options: MetricOptions) -> Metric:
    """SPICE or SPIDEr; RecipeError for Chinese, MissingModelError without Java or its files."""
    jar = _find_jar(name, "SPICE", options, "spice/spice-1.0.jar", "lib/*.jar")
    if missing := [file for file in CORENLP if not (jar.parent / "lib" / file).is_file()]:
        raise MissingModelError(
            f"{jar.parent / 'lib'}: SPICE needs {' and '.join(missing)} there: fetch "
            f"{CORENLP_ARCHIVE} and copy both files out of it"
        )
    program = SpiceProgram(_find_java("SPICE"), jar, run=run)
    return Spice(program) if name == "spice" else Spider(program, options)


class SpiceProgram:
    """The Java program: it reads one file of captions and writes one of F1 scores."""

    def __init__(self, java: str, jar: Path, *, run: Callable[[list[str]], None]) -> None:
        self._java, self._jar, self._run = java, jar, run
        self._answers = ClipCache(self._ask)

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
        """As `Metric`."""
        return mean_of_clips(self._program(clips))


class Spider:
    """The mean of the clips' SPICE and CIDEr-D."""

    name = "spider"

    def __init__(self, program: SpiceProgram, options: MetricOptions) -> None:
        self._program, self._cider = program, open_ngram("cider-d", options)
        self.variant = f"spider:{Spice.variant}+{self._cider.variant}"

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """As `Metric`."""
        consensus = self._cider.measure(clips).clip_values
        return mean_of_clips((self._program(clips) + consensus) / 2, together=True)


class ClipCache:
    """A slow program's answers by clip: it is asked about new clips only."""

    def __init__(self, ask: Callable[[list[ScoredClip]], Iterable[Floats]]) -> None:
        self._ask = ask
        self._known: dict[ScoredClip, Floats] = {}

    def __call__(self, clips: list[ScoredClip]) -> list[Floats]:
        """The answer for each clip."""
        new = list(dict.fromkeys(clip for clip in clips if clip not in self._known))
        if new:
            self._known.update(zip(new, self._ask(new), strict=True))
        return [self._known[clip] for clip in clips]


def run(command: list[str]) -> None:
    """Run SPICE's program; DataError with its last line of output where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        last = lines[-1] if lines else f"exit {done.returncode}"
        raise DataError(f"{command[3]}: {last}; SPICE needs Java 8")


def _find_java(program: str) -> str:
    java = shutil.which("java")
    if java is None:
        raise MissingModelError(
            f"{program} is a Java program and there is no java: install a Java runtime (8 or newer)"
        )
    return java


def _find_jar(metric: str, program: str, options: MetricOptions, path: str, needs: str) -> Path:
    """The program's jar, in the folder of jars or at `path` inside of it, with the files that it
    `needs` next to it. Errors say what to fetch."""
    if options.language != "en":
        raise RecipeError(
            f"{metric} reads English only, not {options.language!r}: "
            "leave it out, or ask for meteor, cider-d or clue-f1"
        )
    name = Path(path).name
    hint = (
        f"`pip install --no-deps pycocoevalcap` brings it; name the folder that holds {path} as "
        "the folder of jars"
    )
    if options.jars is None:
        raise MissingModelError(f"{program} needs {name}, and no folder of jars is named: {hint}")
    for jar in (options.jars / name, options.jars / path):
        if jar.is_file():
            if not any(jar.parent.glob(needs)):
                raise MissingModelError(f"{jar.parent}: {program} needs {needs} there: {hint}")
            return jar
    raise MissingModelError(f"{options.jars}: {program} needs {name} there: {hint}")
