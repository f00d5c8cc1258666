"""AES_c, AES_s and P_score: captions rated by an LLM judge (Fig. 5 and 6 of the paper).

AES_c rates how near the clues of a caption (tone, pitch, rhythm, volume, pace) come to those of
its references, AES_s the emotional state that they amount to. Both are mean ratings from 1 to 10,
as in the paper, and are not multiplied by 100.

P_score rates several captions of one clip together. The judge sees them under neutral names, in an
order that depends on their text alone: it cannot know which came first, and the same candidates
give the same prompt, whatever their order.

A reply must hold one JSON object of known keys, types and ranges. It may have thoughts in <think> …
</think> before it, a code fence or prose around the object. What is parsed lies between its first
and its last brace; with two objects, or a brace in the prose, the reply is refused.
"""

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from aligncap.errors import DataError, JudgeError, MissingModelError, UnknownNameError
from aligncap.metrics.judge import (
    JudgeClient,
    JudgeFailure,
    MalformedReplyError,
    Question,
    settings_hash,
)
from aligncap.metrics.scores import (
    MetricOptions,
    ScoredClip,
    Statistics,
    mean_of_sums,
    signature_text,
)
from aligncap.storage import hash_of

BUILT_IN = Path(__file__).with_name("prompts")

PLACEHOLDERS = {
    "aes-c": ("references", "prediction"),
    "aes-s": ("references", "prediction"),
    "p-score": ("instruction", "references", "candidates"),
}
"""The names that each kind of prompt must hold."""

MIN_AES, MAX_AES = 1.0, 10.0

P_RATINGS = ("richness", "consistency", "fluency", "adherence")
MAX_P_RATING = 10.0
CONTRADICTION_PENALTY = 1.0
"""Points taken off for each contradicted clue; the paper gives no number."""


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
    """The prompt of a kind in a language: the file of `folder` if it has one, else the built-in.

    Raises DataError where the file lacks a place or has one that nothing fills, UnknownNameError
    where the folder holds a file that would never be read.
    """
    name = f"{kind}.{language}"
    path = BUILT_IN / f"{name}.txt"
    if folder is not None:
        known = {built_in.name for built_in in BUILT_IN.glob("*.txt")}
        if not folder.is_dir():
            raise DataError(f"{folder}: is no folder of prompts; name one with {_listed(known)}")
        for own in sorted(folder.glob("*.txt")):
            if own.name not in known:
                raise UnknownNameError(f"prompt of the judge (in {folder})", own.name, known)
        if (folder / path.name).is_file():
            path = folder / path.name
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); write the prompt as UTF-8") from error
    if not Template(text).is_valid():
        raise DataError(f"{path}: has a '$' that begins no name; write '$$' for the sign itself")
    found = Template(text).get_identifiers()
    if set(found) != set(PLACEHOLDERS[kind]):
        wanted = _listed(f"${place}" for place in PLACEHOLDERS[kind])
        raise DataError(
            f"{path}: must have the places {wanted}, and has {_listed(found) or 'none'}"
        )
    return JudgePrompt(name, text)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


class AesScore:
    """AES_c or AES_s: the mean rating of a judge over the clips it could rate.

    An empty caption has the lowest rating, and the judge is not asked. A clip it could not rate is
    not counted; `JudgeClient.report` says which and why.
    """

    def __init__(self, name: str, judge: JudgeClient, template: JudgePrompt) -> None:
        self.name = name
        self._judge, self._template = judge, template

    @property
    def variant(self) -> str:
        """The judging model, the prompt's and the settings' hashes, and the scale."""
        _, _, language = self._template.name.rpartition(".")
        return (
            f"{self.name}|judge:{signature_text(self._judge.model.name)}"
            f"|prompt:{language}-{self._template.hash}"
            f"|settings:{settings_hash(self._judge.model.settings)}|scale:1-10"
        )

    def measure(self, clips: list[ScoredClip]) -> Statistics:
        """Rows of (rating, 1), or (0, 0) where the judge could not rate the clip.

        Raises JudgeError where it could rate none, or cannot be asked.
        """
        questions = [
            Question(
                clip.id,
                self._template.filled(references=list(clip.references), prediction=caption),
                read_aes,
            )
            for clip in clips
            if (caption := clip.hypothesis.strip())
        ]
        found: list[float | JudgeFailure] = self._judge.ask(questions)
        answers = iter(found)
        rows = np.zeros((len(clips), 2))
        for row, clip in zip(rows, clips, strict=True):
            rating = next(answers) if clip.hypothesis.strip() else MIN_AES
            if not isinstance(rating, JudgeFailure):
                row[:] = rating, 1.0
        if len(clips) and not rows[:, 1].any():
            reason = self._judge.report.failures[-1].reason
            raise JudgeError(
                f"{self.name}: judge {self._judge.model.name} could rate none of {len(clips)} "
                f"clips ({reason}); try another model or a larger max_tokens"
            )
        failures = (one for one in found if isinstance(one, JudgeFailure))
        left_out = {one.id: f"not rated, {one.reason}" for one in failures}
        return Statistics(rows, mean_of_sums, scale=1.0, left_out=left_out)


def read_aes(reply: str) -> float:
    """The rating in a reply of AES_c or AES_s; its reason must be there, and stays in the cache."""
    table = read_object(reply)
    check_keys(table, ("reason", "score"), of="the object")
    if not _is_text(table["reason"]):
        raise MalformedReplyError(f"'reason' must be text, not {_short(table['reason'])}")
    return read_rating(table, "score", low=MIN_AES, high=MAX_AES)


def open_aes(name: str, options: MetricOptions) -> AesScore:
    """AES_c or AES_s by the judge of the options; MissingModelError where they have none."""
    if options.judge is None:
        raise MissingModelError(
            f"{name} is rated by a language model, and none is named: give --judge-url and "
            "--judge-model for a server, or --judge-model alone for a model of this machine"
        )
    template = load_template(name, options.language, options.judge.prompts)
    return AesScore(name, options.judge, template)


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSet:
    """The captions of one clip that are to be rated together."""

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
    """A judge's ratings of one candidate, each from 0 to 10, and the clues it finds wrong."""

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
    clip = CandidateSet(
        id="candidates",
        instruction=instruction,
        candidates=tuple(candidates),
        references=tuple(references),
    )
    (scores,) = score_candidate_sets(judge, [clip], language=language, penalty=penalty)
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
    questions = []
    for clip in sets:
        # References are sorted: in another order they are the same clip's.
        salt = [clip.instruction, sorted(clip.references)]
        captions = sorted(
            set(clip.candidates), key=lambda caption: hash_of(json.dumps([salt, caption]))
        )
        by_name = {f"C{number}": caption for number, caption in enumerate(captions, start=1)}
        prompt = template.filled(
            instruction=clip.instruction, references=list(clip.references), candidates=by_name
        )
        read = partial(read_candidates, by_name=by_name, penalty=penalty)
        questions.append(Question(clip.id, prompt, read))
    found: list[dict[str, CandidateScore] | JudgeFailure] = judge.ask(questions)
    return [
        scores
        if isinstance(scores, JudgeFailure)
        else tuple(scores[caption] for caption in clip.candidates)
        for clip, scores in zip(sets, found, strict=True)
    ]


def read_candidates(
    reply: str, by_name: Mapping[str, str], *, penalty: float
) -> dict[str, CandidateScore]:
    """Caption → score, from a reply about captions under these names."""
    table = read_object(reply)
    check_keys(table, by_name, of="the object")
    scores = {}
    for name, caption in by_name.items():
        row = table[name]
        if not isinstance(row, dict):
            raise MalformedReplyError(f"{name!r} must be an object, not {_short(row)}")
        check_keys(row, (*P_RATINGS, "contradicted", "unsupported"), of=name)
        scores[caption] = CandidateScore(
            caption=caption,
            penalty=penalty,
            **{
                rating: read_rating(row, rating, low=0.0, high=MAX_P_RATING) for rating in P_RATINGS
            },
            contradicted=_texts(row, "contradicted"),
            unsupported=_texts(row, "unsupported"),
        )
    return scores


def read_object(text: str) -> dict[str, Any]:
    """The one JSON object of a reply; MalformedReplyError where it has none or several."""
    text = without_thoughts(text)
    begin, end = re.search(r"[{}]", text), text.rfind("}")
    if begin is None or end < 0:
        raise MalformedReplyError("it holds no whole JSON object")
    try:
        found = json.loads(
            text[begin.start() : end + 1],
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise MalformedReplyError(f"it is not one JSON object ({reason})") from error
    assert isinstance(found, dict), "what begins with a brace is an object"
    return found


THOUGHTS = r"think(?:ing)?|thoughts?|reasoning"
END_OF_THOUGHTS = re.compile(rf"</(?:{THOUGHTS})>|◁/think▷|<\|message\|>", re.IGNORECASE)


def without_thoughts(text: str) -> str:
    """What a reply says after its thoughts, of which a chat template may have opened the tag;
    MalformedReplyError where they do not end."""
    ends = [found.end() for found in END_OF_THOUGHTS.finditer(text)]
    # A tag that is quoted after the thoughts ends none.
    end = next((at for at in reversed(ends) if "{" in text[at:]), 0)
    if not end and re.match(rf"\s*(?:<(?:{THOUGHTS})>|◁think▷)", text, re.IGNORECASE):
        raise MalformedReplyError("its thoughts do not end in an object")
    return text[end:]


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise MalformedReplyError("a key is there twice")
    return table


def _refuse_constant(name: str) -> float:
    raise MalformedReplyError(f"{name} is no number")


def check_keys(table: Mapping[str, object], keys: Collection[str], *, of: str) -> None:
    """MalformedReplyError for a table that has not exactly these keys."""
    if missing := [key for key in keys if key not in table]:
        raise MalformedReplyError(f"{of} lacks {', '.join(map(_short, missing[:3]))}")
    if unknown := [key for key in table if key not in keys]:
        names = ", ".join(map(_short, unknown[:3]))
        raise MalformedReplyError(f"{of} has {names}, which nobody asked for")


def read_rating(table: Mapping[str, object], key: str, *, low: float, high: float) -> float:
    """A number of a table within its range; text, true and false are no numbers."""
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedReplyError(f"{key!r} must be a number, not {_short(value)}")
    if not low <= value <= high:  # compared as it is: a vast integer fits no float
        raise MalformedReplyError(f"{key!r} is {_short(value)}, must be {low:g} to {high:g}")
    return float(value)


def _texts(table: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = table[key]
    if not isinstance(value, list) or not all(map(_is_text, value)):
        raise MalformedReplyError(f"{key!r} must be a list of texts, not {_short(value)}")
    return tuple(one.strip() for one in value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _short(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 64:
        return "a number of very many digits"
    if isinstance(value, float) and not math.isfinite(value):
        return "an infinite number"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
