"""What a long recording comes to: how emotion, arousal, pitch and pace go over time, and where they
turn.

Utterances are gathered in at most `MOST_STEPS` steps: when there are more, neighbours are made one,
so that memory does not grow with the recording. The course is cut into parts where that lowers the
squared deviations from the parts' means by more than chance does (optimal partitioning, Jackson et
al. 2005), and each cut changes something by more than its entry in `NOTICEABLE`.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aligncap.captioner.segments import Segment
from aligncap.captioner.transcripts import clock
from aligncap.values import EMOTIONS, Caption

Floats = NDArray[np.float64]

MOST_STEPS = 256
MOST_PARTS = 12
FEWEST = 3
"""Steps of a part, at least."""
CHANCE = 0.05
"""Of a turning point in a recording in which nothing turns, at most (values as of a normal
distribution)."""
NOTICEABLE = {"emotion": 0.15, "arousal": 0.15, "pitch_st": 1.0, "syllables_per_s": 0.4}
"""A smaller change is no turn; of the emotion, the share of probability that moves."""

_AROUSAL, _VALENCE, _PITCH, _LOUDNESS, _PACE = range(len(EMOTIONS), len(EMOTIONS) + 5)
_GROUPS = (slice(0, len(EMOTIONS)), *(slice(one, one + 1) for one in (_AROUSAL, _PITCH, _PACE)))


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a recording: means over its utterances, a second of speech each counting once;
    None where no utterance tells."""

    start_s: float
    """Where its first utterance begins."""
    end_s: float
    """Where its last utterance ends."""
    utterances: int
    speech_s: float
    """Seconds of its utterances."""
    emotion: Mapping[str, float]
    """Mean probability of each emotion; empty without utterances."""
    arousal: float | None
    valence: float | None
    pitch_hz: float | None
    """Geometric mean of the utterances' median pitches."""
    loudness_lufs: float | None
    syllables_per_s: float | None

    @property
    def likeliest(self) -> list[tuple[str, float]]:
        """The emotions with their mean probabilities, the likeliest first."""
        return sorted(self.emotion.items(), key=lambda one: -one[1])

    def to_dict(self) -> dict[str, Any]:
        """As plain values, rounded."""
        levels = {
            "arousal": self.arousal,
            "valence": self.valence,
            "pitch_hz": self.pitch_hz,
            "loudness_lufs": self.loudness_lufs,
            "syllables_per_s": self.syllables_per_s,
        }
        return {
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "utterances": self.utterances,
            "speech_s": round(self.speech_s, 3),
            "emotion": {name: round(share, 3) for name, share in self.emotion.items()},
            **{name: None if one is None else round(one, 2) for name, one in levels.items()},
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """What a recording comes to, or a channel of it."""

    channel: int | None
    """Counted from 0, where the channels were captioned apart."""
    duration_s: float
    """Where the last segment ends."""
    seconds: Mapping[str, float]
    """Of each kind of segment ("speech", "music" …); short pauses are of no kind."""
    wordless: int
    """Utterances without words: coughs, laughs …"""
    failed: int
    """Utterances without a caption."""
    whole: Part
    parts: tuple[Part, ...]
    """From turning point to turning point; one where nothing turns, none without utterances."""
    steps: tuple[Part, ...]
    """The utterances, or some neighbours together where there are more than `MOST_STEPS`."""

    def to_dict(self) -> dict[str, Any]:
        """The record that `aligncap caption --segments --format jsonl` ends with."""
        record: dict[str, Any] = {"start_s": 0.0, "end_s": round(self.duration_s, 3)}
        record["kind"] = "summary"
        if self.channel is not None:
            record["channel"] = self.channel + 1
        record["seconds"] = {kind: round(one, 3) for kind, one in self.seconds.items()}
        record |= {"wordless": self.wordless, "failed": self.failed}
        whole = self.whole.to_dict()
        del whole["start_s"], whole["end_s"]
        return record | whole | {"parts": [one.to_dict() for one in self.parts]}

    def lines(self) -> Iterator[str]:
        """The summary as text: what there is, and a line for each part and turning point."""
        name = "Summary" if self.channel is None else f"Summary of channel {self.channel + 1}"
        other = [f"{kind} {_time(one)}" for kind, one in self.seconds.items() if kind != "speech"]
        count = self.whole.utterances + self.wordless + self.failed
        yield (
            f"{name}: {_time(self.duration_s)}, {count} utterance{'s' * (count != 1)} of "
            f"{_time(self.seconds.get('speech', 0.0))} together"
            + "".join(f", {one}" for one in other)
        )
        before = None
        for one in self.parts:
            if before is not None:
                yield f"  {_time(one.start_s)} turns: {_turn(before, one)}"
            yield f"  {_time(one.start_s)} – {_time(one.end_s)}  {_described(one)}"
            before = one


def _time(seconds: float) -> str:
    return clock(seconds, ".")[:8]


def _described(part: Part) -> str:
    """ "sad 52%, neutral 21%; arousal -0.21, pitch 182 Hz, 4.1 syllables/s"."""
    feelings = [f"{name} {share:.0%}" for name, share in part.likeliest[:3] if share >= 0.1]
    facts = [
        form.format(value)
        for form, value in (
            ("arousal {:+.2f}", part.arousal),
            ("pitch {:.0f} Hz", part.pitch_hz),
            ("{:.1f} syllables/s", part.syllables_per_s),
        )
        if value is not None
    ]
    return "; ".join(filter(None, (", ".join(feelings), ", ".join(facts))))


def changes(before: Part, after: Part) -> dict[str, float]:
    """By how much `NOTICEABLE` differ from one part to the next; the emotion's is not signed."""
    found = {
        "emotion": sum(abs(after.emotion[one] - before.emotion[one]) for one in EMOTIONS) / 2,
    }
    for name, old, new in (
        ("arousal", before.arousal, after.arousal),
        ("pitch_st", _semitones(before.pitch_hz), _semitones(after.pitch_hz)),
        ("syllables_per_s", before.syllables_per_s, after.syllables_per_s),
    ):
        if old is not None and new is not None:
            found[name] = new - old
    return found


def _semitones(hertz: float | None) -> float | None:
    return None if hertz is None else 12 * math.log2(hertz)


def _turn(before: Part, after: Part) -> str:
    """ "more angry (12% → 48%), arousal +0.62, pitch +3.2 st"."""
    found, texts = changes(before, after), []
    if found["emotion"] >= NOTICEABLE["emotion"]:
        risen = max(EMOTIONS, key=lambda one: after.emotion[one] - before.emotion[one])
        texts.append(f"more {risen} ({before.emotion[risen]:.0%} → {after.emotion[risen]:.0%})")
    for name, form in (
        ("arousal", "arousal {:+.2f}"),
        ("pitch_st", "pitch {:+.1f} st"),
        ("syllables_per_s", "{:+.1f} syllables/s"),
    ):
        if abs(found.get(name, 0.0)) >= NOTICEABLE[name]:
            texts.append(form.format(found[name]))
    return ", ".join(texts)


def summarize(found: Iterable[Segment]) -> tuple[Summary, ...]:
    """The summary of the segments of a recording, in order; of several channels, one of each."""
    summarizer = Summarizer()
    for one in found:
        summarizer.add(one)
    return summarizer.summaries()


class Summarizer:
    """`summarize` for segments that come one by one; its memory does not grow with them."""

    def __init__(self) -> None:
        self._courses: dict[int | None, _Course] = {}

    def add(self, segment: Segment) -> None:
        """The next segment."""
        self._courses.setdefault(segment.channel, _Course()).add(segment)

    def summaries(self) -> tuple[Summary, ...]:
        """Of what came so far, by channel; an empty one where nothing came."""
        courses = self._courses or {None: _Course()}
        return tuple(
            course.summary(channel)
            for channel, course in sorted(courses.items(), key=lambda one: one[0] or 0)
        )


@dataclass(slots=True)
class _Step:
    """Utterances added up; `weights` and `totals` have an entry for each value."""

    start_s: float
    end_s: float
    utterances: int
    speech_s: float
    weights: Floats
    totals: Floats

    def join(self, other: "_Step") -> None:
        self.end_s = max(self.end_s, other.end_s)
        self.utterances += other.utterances
        self.speech_s += other.speech_s
        self.weights = self.weights + other.weights
        self.totals = self.totals + other.totals


@dataclass(slots=True)
class _Course:
    """A channel so far."""

    duration_s: float = 0.0
    wordless: int = 0
    failed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    steps: list[_Step] = field(default_factory=list)
    each: int = 1  # utterances in a step

    def add(self, segment: Segment) -> None:
        length_s = max(float(segment.end_s - segment.start_s), 0.0)
        self.duration_s = max(self.duration_s, segment.end_s)
        self.seconds[segment.kind] = self.seconds.get(segment.kind, 0.0) + length_s
        if segment.kind != "speech":
            return
        if not isinstance(segment.caption, Caption):
            self.failed += 1
        elif segment.caption.vocalization is not None:
            self.wordless += 1
        else:
            self._add(segment, segment.caption, length_s)

    def _add(self, segment: Segment, caption: Caption, length_s: float) -> None:
        values = _values(segment, caption)
        told = ~np.isnan(values)
        step = _Step(
            segment.start_s,
            segment.end_s,
            1,
            length_s,
            weights=told * length_s,
            totals=np.where(told, values, 0.0) * length_s,
        )
        if self.steps and self.steps[-1].utterances < self.each:
            self.steps[-1].join(step)
            return
        if len(self.steps) == MOST_STEPS:
            for first, second in zip(self.steps[::2], self.steps[1::2], strict=True):
                first.join(second)
            self.steps, self.each = self.steps[::2], 2 * self.each
        self.steps.append(step)

    def summary(self, channel: int | None) -> Summary:
        edges = _turns(self.steps)
        stretches = [self.steps[a:b] for a, b in itertools.pairwise(edges)]
        return Summary(
            channel,
            self.duration_s,
            dict(sorted(self.seconds.items(), key=lambda one: -one[1])),
            self.wordless,
            self.failed,
            _part(self.steps),
            tuple(map(_part, stretches)),
            tuple(_part([one]) for one in self.steps),
        )


def _values(segment: Segment, caption: Caption) -> Floats:
    pitch = segment.pitch_hz
    values = [caption.emotion.get(name, 0.0) for name in EMOTIONS]
    others = (
        *(caption.arousal, caption.valence, math.log2(pitch) if pitch else None),
        *(segment.loudness_lufs, segment.syllables_per_s),
    )
    return np.array([*values, *(math.nan if one is None else one for one in others)])


def _part(steps: Sequence[_Step]) -> Part:
    """Steps that follow each other, as one."""
    if not steps:
        return Part(0.0, 0.0, 0, 0.0, {}, None, None, None, None, None)
    weights = np.sum([one.weights for one in steps], axis=0)
    totals = np.sum([one.totals for one in steps], axis=0)
    means = [
        total / weight if weight > 0 else None
        for total, weight in zip(totals.tolist(), weights.tolist(), strict=True)
    ]
    pitch = means[_PITCH]
    return Part(
        steps[0].start_s,
        max(one.end_s for one in steps),
        sum(one.utterances for one in steps),
        sum(one.speech_s for one in steps),
        {name: means[number] or 0.0 for number, name in enumerate(EMOTIONS)},
        means[_AROUSAL],
        means[_VALENCE],
        None if pitch is None else 2.0**pitch,
        means[_LOUDNESS],
        means[_PACE],
    )


def _turns(steps: Sequence[_Step]) -> list[int]:
    """The steps that parts begin with, and their number at the end; [0, …, steps]."""
    count = len(steps)
    if count < 2 * FEWEST:
        return [0, count] if count else []
    cost = _costs(steps)
    # The chi-squared of as many degrees of freedom as there are groups exceeds this by chance only
    # (Laurent and Massart, 2000), at one of the places where the course could be cut.
    rare, freedom = math.log(count / CHANCE), len(_GROUPS)
    penalty = freedom + 2 * math.sqrt(freedom * rare) + 2 * rare
    edges = _partition(cost, penalty)
    while len(edges) - 1 > MOST_PARTS:
        penalty *= 1.5
        edges = _partition(cost, penalty)
    while (dull := _dullest(steps, edges)) is not None:
        del edges[dull]
    return edges


def _dullest(steps: Sequence[_Step], edges: Sequence[int]) -> int | None:
    """The cut that changes least, if that is less than can be noticed."""
    parts = [_part(steps[a:b]) for a, b in itertools.pairwise(edges)]
    sizes = [
        max(abs(change) / NOTICEABLE[name] for name, change in changes(before, after).items())
        for before, after in itertools.pairwise(parts)
    ]
    least = min(sizes, default=1.0)
    return None if least >= 1.0 else sizes.index(least) + 1


def _costs(steps: Sequence[_Step]) -> Floats:
    """The squared deviations from their mean of the steps [i, j), each group of values in units of
    how much neighbours differ; shape [steps + 1, steps + 1], infinite where j - i < `FEWEST`."""
    weights = np.stack([one.weights for one in steps])
    totals = np.stack([one.totals for one in steps])
    means = np.divide(totals, weights, out=np.zeros_like(totals), where=weights > 0)
    sums = [
        np.vstack((np.zeros(values.shape[1]), values.cumsum(axis=0)))
        for values in (weights, totals, totals * means)
    ]
    weight, total, square = (one[None] - one[:, None] for one in sums)
    mean_square = np.divide(total**2, weight, out=np.zeros_like(total), where=weight > 0)
    deviations = np.maximum(square - mean_square, 0.0)
    cost = np.zeros(weight.shape[:2])
    for group in _GROUPS:
        noise = _noise(weights[:, group], means[:, group])
        cost += deviations[:, :, group].sum(axis=2) / max(noise, 1e-12)
    first, stop = np.indices(cost.shape)
    cost[stop - first < FEWEST] = math.inf
    return cost


def _noise(weights: Floats, means: Floats) -> float:
    """The variance that values of one second of speech have, by the differences of neighbours."""
    before, after = weights[:-1], weights[1:]
    shared = np.divide(before * after, before + after, out=np.zeros_like(before), where=after > 0)
    told = (shared > 0).any(axis=1)
    if not told.any():
        return 1.0
    return float((np.square(np.diff(means, axis=0)) * shared).sum(axis=1)[told].mean())


def _partition(cost: Floats, penalty: float) -> list[int]:
    """The edges of the parts whose costs, with a penalty for each, are least together."""
    count = len(cost) - 1
    best = np.full(count + 1, math.inf)
    best[0], came = 0.0, [0] * (count + 1)
    for stop in range(FEWEST, count + 1):
        ways = best[:stop] + cost[:stop, stop] + penalty
        came[stop] = int(ways.argmin())
        best[stop] = ways[came[stop]]
    edges = [count]
    while edges[-1] > 0:
        edges.append(came[edges[-1]])
    return edges[::-1]
