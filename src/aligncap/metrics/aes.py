"""P_score: several captions of one clip, rated beside each other by a judge (Fig. 5).

The judge sees them under names that say nothing, in an order that depends on their text alone: it
cannot know which came first, and the same candidates are the same prompt, whatever their order.

AES_c and AES_s: how near a caption comes to its references, rated 1 to 10 by a judge (Fig. 6).

AES_c is of the clues (tone, pitch, rhythm, volume, pace), AES_s of the emotional state that they
amount to. The value is the mean rating, on the scale 1-10 as in the paper and not times 100.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template

import numpy as np

from aligncap.errors import DataError, JudgeError, MissingModelError, UnknownNameError
from aligncap.metrics.judge import (
    JudgeClient,
    JudgeFailure,
    Question,
    check_keys,
    read_object,
    read_rating,
    read_table,
    read_text,
    read_texts,
    settings_hash,
)
from aligncap.metrics.scores import Floats, ScoredClip, Statistics
from aligncap.metrics.table import MetricOptions
from aligncap.storage import hash_of

BUILT_IN = Path(__file__).with_name("prompts")

PLACEHOLDERS = {
    "aes-c": ("references", "prediction"),
    "aes-s": ("references", "prediction"),
    "p-score": ("instruction", "references", "candidates"),
}
"""What each kind of prompt must mention."""


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """A prompt whose places are filled with JSON, so that no caption can pose as instruction."""

    name: str
    """"aes-c.en": kind and language."""
    text: str

    @property
    def hash(self) -> str:
        """Eight digits that change with any letter of the prompt."""
        return hash_of(self.text)[:8]

    def filled(self, **values: object) -> str:
        """The prompt with JSON in its places."""
        texts = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
        return Template(self.text).substitute(texts)


def load_template(kind: str, language: str, folder: Path | None = None) -> JudgePrompt:
    """The prompt of a kind in a language: the file of `folder` if it has one, or else ours.

    Raises DataError where the file lacks a place or has one that nothing fills, UnknownNameError
    where the folder holds a file that would never be read.
    """
    name = f"{kind}.{language}"
    path = BUILT_IN / f"{name}.txt"
    if folder is not None:
        _check_folder(folder)
        if (folder / path.name).is_file():
            path = folder / path.name
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); write the prompt as UTF-8") from error
    _check_places(text, PLACEHOLDERS[kind], path)
    return JudgePrompt(name, text)


def _check_folder(folder: Path) -> None:
    known = {path.name for path in BUILT_IN.glob("*.txt")}
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder of prompts; name one with {_listed(known)}")
    for path in sorted(folder.glob("*.txt")):
        if path.name not in known:
            raise UnknownNameError(f"prompt of the judge (in {folder})", path.name, known)


def _check_places(text: str, places: tuple[str, ...], path: Path) -> None:
    template = Template(text)
    if not template.is_valid():
        raise DataError(f"{path}: has a '$' that begins no name; write '$$' for the sign itself")
    found = set(template.get_identifiers())
    if found != set(places):
        wanted = _listed(f"${place}" for place in places)
        raise DataError(
            f"{path}: must have the places {wanted}, and has {_listed(found) or 'none'}"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


RATINGS = ("richness", "consistency", "fluency", "adherence")
CLUES = ("contradicted", "unsupported")
BEST = 10.0

CONTRADICTION_PENALTY = 1.0
"""Points taken off for each contradicted clue; the paper gives no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSet:
    """The captions of one clip that are to be rated beside each other."""

    id: str
    instruction: str
    """What the captioner was asked to do."""
    candidates: tuple[str, ...]
    references: tuple[str, ...] = ()
    """May be none: then the candidates are judged by themselves."""

    def __post_init__(self) -> None:
        if not self.candidates:
            raise DataError(f"{self.id}: has no candidate to rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateScore:
    """What a judge says of one candidate: four ratings from 0 to 10, and clues it holds wrong."""

    caption: str
    richness: float
    consistency: float
    """With the emotion of the references."""
    fluency: float
    """Rationality and fluency."""
    adherence: float
    """To the instruction."""
    contradicted: tuple[str, ...]
    """Clues that the references deny."""
    unsupported: tuple[str, ...]
    """Clues that the references do not have; they cost nothing."""
    penalty: float = CONTRADICTION_PENALTY

    def __post_init__(self) -> None:
        for name in RATINGS:
            if not 0.0 <= getattr(self, name) <= BEST:
                raise DataError(f"{name} is {getattr(self, name)}, must be 0 to {BEST:g}")

    @property
    def value(self) -> float:
        """P_score: the mean of the four ratings less the penalty for each contradicted clue."""
        mean = (self.richness + self.consistency + self.fluency + self.adherence) / 4
        return mean - self.penalty * len(self.contradicted)


def score_candidates(
    judge: JudgeClient,
    candidates: Sequence[str],
    *,
    instruction: str,
    references: Sequence[str] = (),
    language: str = "en",
    penalty: float = CONTRADICTION_PENALTY,
) -> tuple[CandidateScore, ...]:
    """The scores of one clip's candidates, in their order; DataError where there are none."""
    one = CandidateSet(
        id="candidates",
        instruction=instruction,
        candidates=tuple(candidates),
        references=tuple(references),
    )
    (scores,) = score_candidate_sets(judge, [one], language=language, penalty=penalty)
    if isinstance(scores, JudgeFailure):
        raise DataError(f"judge {judge.model.name} could not rate them: {scores.reason}")
    return scores


def score_candidate_sets(
    judge: JudgeClient,
    sets: Sequence[CandidateSet],
    *,
    language: str = "en",
    penalty: float = CONTRADICTION_PENALTY,
) -> list[tuple[CandidateScore, ...] | JudgeFailure]:
    """The scores of many clips' candidates, asked for together; of each clip, in their order.

    Equal captions of a clip are shown once and share their score.
    """
    template = load_template("p-score", language, judge.prompts)
    found = judge.ask([_question(one, template, penalty) for one in sets])
    return [
        scores
        if isinstance(scores, JudgeFailure)
        else tuple(scores[caption] for caption in one.candidates)
        for one, scores in zip(sets, found, strict=True)
    ]


def read_candidates(
    reply: str, named: Mapping[str, str], *, penalty: float
) -> dict[str, CandidateScore]:
    """The score of each caption, from a reply about captions under these names."""
    table = read_object(reply)
    check_keys(table, named)
    scores = {}
    for name, caption in named.items():
        row = read_table(table, name)
        check_keys(row, (*RATINGS, *CLUES), of=name)
        scores[caption] = CandidateScore(
            caption=caption,
            penalty=penalty,
            **{rating: read_rating(row, rating, low=0.0, high=BEST) for rating in RATINGS},
            contradicted=read_texts(row, "contradicted"),
            unsupported=read_texts(row, "unsupported"),
        )
    return scores


def _question(
    one: CandidateSet, template: JudgePrompt, penalty: float
) -> Question[dict[str, CandidateScore]]:
    captions = _shuffled(one)
    named = {f"C{number}": caption for number, caption in enumerate(captions, start=1)}
    prompt = template.filled(
        instruction=one.instruction, references=list(one.references), candidates=named
    )
    return Question(one.id, prompt, partial(read_candidates, named=named, penalty=penalty))


def _shuffled(one: CandidateSet) -> list[str]:
    """The different captions, in an order of the clip's own that no run changes."""
    # Sorted references: whoever lists them otherwise asks about the same clip.
    clip = [one.instruction, sorted(one.references)]

    def place(caption: str) -> str:
        return hash_of(json.dumps([clip, caption]))

    return sorted(set(one.candidates), key=place)


LOWEST, HIGHEST = 1.0, 10.0


class JudgedOverlap:
    """The mean rating of a judge over the clips it could rate.

    A caption that says nothing has the lowest rating, and the judge is not asked. A clip it could
    not rate counts for nothing; `Judge.report` says which and why.
    """

    def __init__(self, name: str, judge: JudgeClient, template: JudgePrompt) -> None:
        self.name = name
        self._judge, self._template = judge, template

    @property
    def variant(self) -> str:
        """The judging model, the prompt's and the settings' hashes, and the scale."""
        model = "_".join(self._judge.model.name.replace("|", "_").split())
        _, _, language = self._template.name.rpartition(".")
        return (
            f"{self.name}|judge:{model}|prompt:{language}-{self._template.hash}"
            f"|settings:{settings_hash(self._judge.model.settings)}|scale:1-10"
        )

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """Of each clip its rating and 1, or twice 0 where the judge could not rate it.

        Raises JudgeError where it could rate none, or cannot be asked.
        """
        questions = [self._question(clip) for clip in clips if clip.hypothesis.strip()]
        answers = self._judge.ask(questions)
        ratings = iter(answers)
        rows = [_row(next(ratings)) if clip.hypothesis.strip() else (LOWEST, 1.0) for clip in clips]
        statistics = Statistics(np.array(rows).reshape(-1, 2), mean_rating, scale=1.0)
        if not statistics.per_clip[:, 1].any():
            reason = self._judge.report.failures[-1].reason
            raise JudgeError(
                f"{self.name}: judge {self._judge.model.name} could rate none of {len(clips)} "
                f"clips ({reason}); try another model or a larger max_tokens"
            )
        return statistics

    def _question(self, clip: ScoredClip) -> Question[float]:
        prompt = self._template.filled(
            references=list(clip.references), prediction=clip.hypothesis.strip()
        )
        return Question(clip.id, prompt, read_overlap)


def mean_rating(sums: Floats) -> Floats:
    """Sums of (rating, rated), shape [..., 2], to mean ratings; NaN where nothing was rated."""
    ratings, rated = sums[..., 0], sums[..., 1]
    nothing = np.full_like(ratings, np.nan)
    return np.asarray(np.divide(ratings, rated, out=nothing, where=rated > 0))


def read_overlap(reply: str) -> float:
    """The rating in a reply of AES_c or AES_s; its reason must be there, and stays in the cache."""
    table = read_object(reply)
    check_keys(table, ("reason", "score"))
    read_text(table, "reason")
    return read_rating(table, "score", low=LOWEST, high=HIGHEST)


def open_aes(name: str, options: MetricOptions) -> JudgedOverlap:
    """AES_c or AES_s by the judge of the options; MissingModelError where they have none."""
    if options.judge is None:
        raise MissingModelError(
            f"{name} is rated by a language model, and none is named: give --judge-url and "
            "--judge-model for a server, or --judge-model alone for a model of this machine"
        )
    template = load_template(name, options.language, options.judge.prompts)
    return JudgedOverlap(name, options.judge, template)


def _row(rating: float | JudgeFailure) -> Sequence[float]:
    return (0.0, 0.0) if isinstance(rating, JudgeFailure) else (rating, 1.0)
