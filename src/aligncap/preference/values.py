"""What preferences speak in: clips, candidates, judgements, pairs, and where each comes from."""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from aligncap.clues.claims import ClipKnowledge
from aligncap.errors import DataError, UnknownNameError
from aligncap.storage import canonical_json, hash_of
from aligncap.values import EMOTIONS, LANGUAGES, Facts

METHODS = ("beam", "diverse", "sample", "gold", "imported")
"""How a candidate can have been found; "gold" is a caption of the corpus, not of a model."""

SEARCHED = METHODS[:3]
"""Those of them by which a model is asked."""

_CJK = "\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
_NEEDLESS_SPACE = re.compile(rf"(?<=[{_CJK}])\s+|\s+(?=[{_CJK}])")
_SPACE = re.compile(r"\s+")


def normal_form(text: str) -> str:
    """What makes two captions the same: neither case, nor white space, nor full-width forms, nor
    the punctuation at the end.

    Unicode's NFKC_Casefold, then one space between words and none beside Chinese characters.
    """
    folded = unicodedata.normalize("NFD", text).casefold()
    folded = unicodedata.normalize("NFKC", folded).casefold()
    plain = _SPACE.sub(" ", unicodedata.normalize("NFKC", folded)).strip()
    plain = _NEEDLESS_SPACE.sub("", plain)
    while plain and (plain[-1].isspace() or unicodedata.category(plain[-1]).startswith("P")):
        plain = plain[:-1]
    return plain


def digest(*parts: object) -> str:
    """Twenty hexadecimal digits that stand for these values."""
    return hash_of(canonical_json(parts))[:20]


@dataclass(frozen=True, slots=True)
class Clip:
    """An utterance that captions are preferred for, and what is known of it."""

    utterance: str
    """Its id in the manifest."""
    file: str
    """The recording, relative to the manifest's folder where it is inside of it; empty where none
    is known."""
    facts: Facts | None = None
    """What the signal shows."""
    emotion: str | None = None
    """As the corpus labels it, one of `values.EMOTIONS`."""
    gender: str | None = None
    """As the corpus labels it, "female" or "male"."""
    references: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Captions that people wrote, by language."""

    def __post_init__(self) -> None:
        if not self.utterance:
            raise DataError("a clip needs the id of its utterance")
        if self.emotion is not None and self.emotion not in EMOTIONS:
            raise UnknownNameError("emotion", self.emotion, EMOTIONS)

    @property
    def knowledge(self) -> ClipKnowledge:
        """What claims about the clip are checked against."""
        return ClipKnowledge.of(
            self.facts, emotion=self.emotion, gender=self.gender, captions=self.references
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A caption that could be given of an utterance."""

    utterance: str
    language: str
    text: str
    token_ids: tuple[int, ...] = ()
    """As the model that found it wrote them, the end included; empty where none did."""
    log_probability: float | None = None
    """Sum over the tokens, natural logarithm; None where no model wrote it."""
    method: str = "imported"
    """How it was found, one of `METHODS`."""

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise UnknownNameError("caption language", self.language, LANGUAGES)
        if self.method not in METHODS:
            raise UnknownNameError("way to find candidates", self.method, METHODS)
        if not normal_form(self.text):
            raise DataError(f"{self.utterance}: a candidate says nothing ({self.text!r})")
        if self.log_probability is not None and not math.isfinite(self.log_probability):
            raise DataError(f"{self.utterance}: log-probability is {self.log_probability}")

    @property
    def key(self) -> str:
        """The same for all captions of an utterance that say the same in `normal_form`."""
        return digest(self.utterance, self.language, normal_form(self.text))


@dataclass(frozen=True, slots=True)
class ClipCandidates:
    """A clip and the candidates that one model gave of it, best first, each different."""

    clip: Clip
    language: str
    candidates: tuple[Candidate, ...]

    def __post_init__(self) -> None:
        for one in self.candidates:
            if (one.utterance, one.language) != (self.clip.utterance, self.language):
                raise DataError(f"{self.clip.utterance}: holds a candidate of {one.utterance}")
        if len({one.key for one in self.candidates}) < len(self.candidates):
            raise DataError(f"{self.clip.utterance}: two candidates say the same")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge thinks of a candidate."""

    candidate: str
    """The candidate's key."""
    judge: str
    """The judge's signature."""
    score: float
    """More is better; 1 is as good as can be, 0 worth nothing, below it worse than silence."""
    parts: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """What the score is made of, by name."""
    reason: str = ""
    """In words, for people."""

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.score, *self.parts.values()))):
            raise DataError(f"{self.judge}: a score must be a number, not {self.score}")


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """What a judge preferred for one utterance."""

    chosen: Candidate
    rejected: Candidate
    margin: float
    """By how much the judge likes the chosen one better."""

    def __post_init__(self) -> None:
        chosen, rejected = self.chosen, self.rejected
        if (chosen.utterance, chosen.language) != (rejected.utterance, rejected.language):
            raise DataError(
                f"{chosen.utterance}: is paired with a caption of {rejected.utterance} in "
                f"{rejected.language}; both must be of one utterance and language"
            )
        if chosen.key == rejected.key:
            raise DataError(f"{chosen.utterance}: chosen and rejected are the same caption")
        if not 0 < self.margin < math.inf:
            raise DataError(f"{chosen.utterance}: margin is {self.margin}, must be above 0")

    @property
    def utterance(self) -> str:
        """The utterance that both are captions of."""
        return self.chosen.utterance

    @property
    def language(self) -> str:
        """The language of both captions."""
        return self.chosen.language


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where candidates come from; its `key` changes with anything that could change them."""

    model: str
    """Its name; "corpus" for captions of the corpus."""
    fingerprint: str
    """Hash of the model's files."""
    method: str
    """One of `METHODS`."""
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    """Decode options and whatever else was set."""
    seed: int = 0
    version: str = ""
    """Of this package."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UnknownNameError("way to find candidates", self.method, METHODS)

    @property
    def key(self) -> str:
        """A hash of all of it."""
        named = (self.model, self.fingerprint, self.method, self.seed, self.version)
        return digest(*named, dict(self.options))


Asked = tuple[Clip, Sequence[Candidate]]
"""A clip and candidates of it in one language that are to be judged beside each other."""


class Judge(Protocol):
    """Says how good captions of a clip are."""

    @property
    def name(self) -> str:
        """As users ask for it: "evidence", "llm", "human"."""

    @property
    def signature(self) -> str:
        """Everything its scores depend on besides the clip: weights, vocabulary, model, version."""

    @property
    def at_once(self) -> int:
        """How many clips it likes to be asked of together; what it says of them is kept at once."""

    def judge(self, asked: Sequence[Asked]) -> list[list[Judgement]]:
        """What it thinks of the candidates of each clip, all of one language.

        May leave out candidates that it has nothing to say of.
        """

    def close(self) -> None:
        """Let go of what it holds open."""
