"""Clips, candidates and judges of a few lines, for tests of preferences."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from aligncap.captioner.captioner import CaptionCandidates, CaptionHypothesis
from aligncap.captioner.captioner import PreparedSpeech as Listened
from aligncap.captioner.runtimes import DecodeOptions, Hypothesis
from aligncap.errors import AlignCapError, AudioError
from aligncap.preference.evidence import Asked
from aligncap.preference.store import (
    Candidate,
    Clip,
    ClipCandidates,
    Judgement,
    PreferenceStore,
    Provenance,
    digest,
)
from aligncap.values import Fact, Facts, SpeechTokens

SOURCE = Provenance(model="fake", fingerprint="0123", method="beam", options={"count": 3})

UNITS = {
    "pitch_offset_st": "st",
    "loudness_db": "LUFS",
    "pace_syllables_per_s": "1/s",
    "female_probability": "",
}


def facts_of(**values: float) -> Facts:
    """Facts that can be relied on, with these numbers and nothing else."""
    rows = {name: Fact(name, value, UNITS[name], 1.0) for name, value in values.items()}
    return Facts(duration_s=4.0, speech_s=3.5, by_name=MappingProxyType(rows))


FAST_LOUD_WOMAN = facts_of(
    pitch_offset_st=1.0, loudness_db=-15.0, pace_syllables_per_s=6.1, female_probability=0.99
)


def candidate(text: str, utterance: str = "u1", **more: object) -> Candidate:
    """A candidate that a beam search found."""
    known = {"token_ids": (1, 2), "log_probability": -1.0, "method": "beam", **more}
    return Candidate(utterance, "en", text, **known)  # type: ignore[arg-type]


def finding(*texts: str, utterance: str = "u1", facts: Facts | None = None) -> ClipCandidates:
    """What a fake model gave of a clip."""
    clip = Clip(utterance, f"{utterance}.wav", facts)
    return ClipCandidates(clip, "en", tuple(candidate(text, utterance) for text in texts))


def fill(store: PreferenceStore, clips: int, each: int = 3) -> None:
    """Clips c00, c01 … with candidates "Caption 0 of c00." …"""
    for number in range(clips):
        name = f"c{number:02}"
        texts = [f"Caption {place} of {name}." for place in range(each)]
        store.add_findings([(finding(*texts, utterance=name), SOURCE)])


@dataclass(frozen=True)
class FakeJudge:
    """Scores by a hash of the caption, or as it is told."""

    name: str = "evidence"
    scores: Mapping[str, float] = field(default_factory=dict)
    batch_size: int = 1

    @property
    def signature(self) -> str:
        return f"{self.name}|fake"

    def judge(self, asked: Sequence[Asked]) -> list[list[Judgement]]:
        return [[self._judgement(one) for one in candidates] for _, candidates in asked]

    def close(self) -> None:
        pass

    def _judgement(self, one: Candidate) -> Judgement:
        drawn = int(digest(self.name, one.text)[:6], 16) / 16**6
        score = self.scores.get(one.text, drawn)
        return Judgement(one.key, self.signature, score, {"drawn": drawn}, f"why {one.text}")


@dataclass
class FakeModel:
    """Gives these captions of every recording; a file called broken.* cannot be read."""

    texts: Sequence[str]
    options: DecodeOptions = field(default_factory=DecodeOptions)
    heard: list[Path] = field(default_factory=list)
    asked: list[DecodeOptions] = field(default_factory=list)

    def hear_many(
        self, sources: Iterable[Path], *, language: str, options: DecodeOptions
    ) -> Iterator[CaptionCandidates | AlignCapError]:
        self.asked.append(options)
        for path in sources:
            self.heard.append(path)
            if path.stem == "broken":
                yield AudioError(f"{path}: is broken")
                continue
            wordings = tuple(
                CaptionHypothesis(text, Hypothesis((number, 2), -float(number + 1), -0.5))
                for number, text in enumerate(self.texts)
            )
            tokens = SpeechTokens(np.zeros((1, 4), dtype=np.int64))
            yield CaptionCandidates(Listened(3.0, None, FAST_LOUD_WOMAN, tokens), wordings)
