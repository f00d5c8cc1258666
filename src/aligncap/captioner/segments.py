"""Recordings longer than a sentence: who speaks when, what they sound like, and what lies between.

The speech detector hears a stream frame by frame (`utterances`); what is cut out of it depends on
no block's length, and memory does not grow with that of the recording, but for some 20 kB of each
utterance where it is heard relative to the others. A caption is made of each utterance with a
little of the sound around it.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from aligncap.audio import SpeechDetector, from_array, sound_kind
from aligncap.audio.activity import AROUND_S, HOP_S, utterance_span
from aligncap.audio.detector import FRAME, FRAME_S, Floats
from aligncap.audio.streams import stream
from aligncap.captioner.preparing import Spoken
from aligncap.captioner.transcripts import Line, clock
from aligncap.errors import AlignCapError, AudioError, NoSpeechError, UnknownNameError
from aligncap.values import RATE_HZ, Baseline, Caption, Samples, Waveform

if TYPE_CHECKING:
    from aligncap.captioner.captioner import Captioner

LOG = logging.getLogger(__name__)

PAUSE_S = 0.5
"""A pause of this length ends an utterance."""
LONGEST_S = 15.0
"""A longer utterance is cut where the detector is least sure of speech, after half of this."""
SHORTEST_S = 0.2
"""What is shorter is no utterance."""
MARGIN_S = 1.0
"""How far from where the detector is sure of speech an utterance may begin and end."""
GAP_S = 1.0
"""What is shorter between two utterances is not named."""
_HOP = round(HOP_S * RATE_HZ)
_KIND_S = 5.0  # what lies between is named by stretches of this length
_EDGE = round(0.2 * RATE_HZ)  # samples at their ends that are not heard: words begin and end there
_BEGIN, _END = 0.5, 0.35  # the probabilities at which speech begins and ends
_FIRST_SIGN, _LATE_S = 0.1, 0.4
_HELD = 3  # frames for which the detector goes on when speech has ended
_TARGET = 0.5  # the largest amplitude of late, as the detector hears it
_FAINTEST = 0.003
_PIECE = 128 * FRAME  # heard at a time
_FADE = 0.5 ** (FRAME_S / 10)  # a peak counts half after ten seconds

KINDS = {"silence": "silence", "tones or music": "music", "noise": "noise", "short sounds": "noise"}
"""What lies between utterances, by `sound_kind`."""

MEASURED = ("pitch_hz", "loudness_lufs", "syllables_per_s")
"""What the record of speech holds besides that of its caption."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a recording."""

    start_s: float
    end_s: float
    kind: str
    """"speech", "silence", "music" or "noise"."""
    caption: Caption | AlignCapError | None = None
    """Of speech: its caption, or why it has none."""
    channel: int | None = None
    """Counted from 0, where the channels are captioned apart."""
    words: str | None = None
    """What is said, where a transcript was given."""

    @property
    def text(self) -> str:
        """What stands for the segment in a subtitle: its caption, or its kind in brackets."""
        return self.caption.text if isinstance(self.caption, Caption) else f"[{self.kind}]"

    @property
    def line(self) -> str:
        """Its times, its channel if there are several, its text and its words, as
        `aligncap caption --segments` prints them."""
        where = "" if self.channel is None else f" {self.channel + 1}:"
        said = f"  “{self.words}”" if self.words else ""
        times = f"{clock(self.start_s, '.')} – {clock(self.end_s, '.')}"
        return f"{times}{where}  {self.text}{said}"

    @property
    def pitch_hz(self) -> float | None:
        """The median pitch, of speech where it can be told."""
        return self._measured("pitch_median_hz")

    @property
    def loudness_lufs(self) -> float | None:
        """The loudness (ITU-R BS.1770), of speech where it can be told."""
        return self._measured("loudness_db")

    @property
    def syllables_per_s(self) -> float | None:
        """The pace, pauses included, of speech where it can be told."""
        return self._measured("pace_syllables_per_s")

    def _measured(self, name: str) -> float | None:
        facts = self.caption.facts if isinstance(self.caption, Caption) else None
        return facts.value(name) if facts and name in facts.by_name else None

    def to_dict(self) -> dict[str, Any]:
        """The segment as plain values; that of speech has the keys of its caption's record, and
        what was measured."""
        record: dict[str, Any] = {"start_s": round(self.start_s, 3), "end_s": round(self.end_s, 3)}
        record["kind"] = self.kind
        if self.channel is not None:
            record["channel"] = self.channel + 1
        if self.words is not None:
            record["words"] = self.words
        if isinstance(self.caption, Caption):
            record |= self.caption.to_dict()
            for name in MEASURED:
                value = getattr(self, name)
                record[name] = None if value is None else round(value, 2)
        elif self.caption is not None:
            record["error"] = str(self.caption)
        return record


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of sound that is cut out of a recording; `samples` of speech have a little of the
    sound around it."""

    start_s: float
    end_s: float
    kind: str
    samples: Samples
    words: str | None = None

    def waveform(self, source: object) -> Waveform:
        """What its caption is made of: the samples as a file of them would be read."""
        heard = from_array(self.samples, RATE_HZ)
        return Waveform(heard.samples, f"{source} at {self.start_s:.1f} s")


def segments(
    captioner: "Captioner",
    source: object,
    *,
    detector: SpeechDetector,
    channel: int | None = None,
    transcript: Sequence[Line] = (),
    baseline: Baseline | Literal["own"] | None = None,
    **options: Any,
) -> Iterator[Segment]:
    """As `Captioner.segments`."""
    if isinstance(baseline, str) and baseline != "own":
        raise UnknownNameError("baseline", baseline, ("own",))

    def cut() -> Iterator[Stretch]:
        blocks = stream(source, channel=channel)  # type: ignore[arg-type]
        return transcribed(blocks, transcript) if transcript else utterances(blocks, detector)

    usual: Iterable[Baseline | None] = repeat(None if baseline == "own" else baseline)
    if baseline == "own":
        usual = _own_baselines(captioner, cut(), source, channel)
    waiting: deque[Stretch] = deque()
    found, each = cut(), iter(usual)

    def speech() -> Iterator[Spoken]:
        for stretch in found:
            waiting.append(stretch)
            if stretch.kind == "speech":
                yield Spoken(stretch.waveform(source), following())

    def following() -> Baseline | None:
        try:
            return next(each)
        except StopIteration:
            raise AudioError(
                f"{source}: has grown since it was first read; caption it when it is whole"
            ) from None

    for caption in captioner.caption_many(speech(), **options):
        while waiting[0].kind != "speech":
            yield segment_of(waiting.popleft(), channel=channel)
        yield segment_of(waiting.popleft(), caption, channel)
    while waiting:
        yield segment_of(waiting.popleft(), channel=channel)


def _own_baselines(
    captioner: "Captioner", found: Iterable[Stretch], source: object, channel: int | None
) -> list[Baseline]:
    """For each utterance how the others of the recording sound, or of its channel."""
    name = str(source) if channel is None else f"{source}, channel {channel + 1}"
    names: list[str] = []

    def speech() -> Iterator[Waveform]:
        for stretch in found:
            if stretch.kind == "speech":
                names.append(name)
                yield stretch.waveform(source)

    return captioner.baselines(speech(), names, kind="file")


def segment_of(
    stretch: Stretch, caption: Caption | AlignCapError | None = None, channel: int | None = None
) -> Segment:
    """A stretch with its caption; where nobody is heard to speak in it after all, and no words of
    it are known, it is what lies between utterances."""
    kind = stretch.kind
    if isinstance(caption, NoSpeechError) and stretch.words is None:
        kind, caption = KINDS[sound_kind(stretch.samples)], None
    return Segment(stretch.start_s, stretch.end_s, kind, caption, channel, stretch.words)


class _Ear:
    """The detector on a stream whose level it follows."""

    def __init__(self, detector: SpeechDetector) -> None:
        self._listener, self._peak = detector.listener(), _FAINTEST

    def probabilities(self, samples: Samples) -> Floats:
        """Of speech in each frame; the level is that of what came before, never of what comes."""
        frames = samples.reshape(-1, FRAME)
        gains = np.empty(len(frames), np.float32)
        for number, peak in enumerate(np.abs(frames).max(axis=1).tolist()):
            self._peak = max(peak, self._peak * _FADE, _FAINTEST)
            gains[number] = _TARGET / self._peak
        return self._listener.probabilities((frames * gains[:, None]).ravel())


def utterances(blocks: Iterable[Samples], detector: SpeechDetector) -> Iterator[Stretch]:
    """The utterances of a stream of 16 kHz sound, and what lies between them, in order."""
    ear, cutter = _Ear(detector), _Cutter()
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate((rest, block))
        for at in range(0, len(rest) // FRAME * FRAME, _PIECE):
            piece = rest[at : min(at + _PIECE, len(rest) // FRAME * FRAME)]
            yield from cutter.add(piece, ear.probabilities(piece))
        rest = rest[len(rest) // FRAME * FRAME :]
    if len(rest):
        padded = np.pad(rest, (0, FRAME - len(rest)))
        yield from cutter.add(padded, ear.probabilities(padded))
    yield from cutter.finish(len(rest))


class _Cutter:
    """Cuts a stream of frames into utterances and what lies between. Numbers are frames."""

    def __init__(self) -> None:
        self._sound = np.zeros(0, np.float32)
        self._heard = np.zeros(0, np.float32)  # probabilities of the frames kept
        self._first = 0  # the frame that `_sound` begins with
        self._done = 0  # up to here all is handed out
        self._spoken = 0  # the sample that the last utterance ends before
        self._start: int | None = None  # of the utterance that is open
        self._last = 0  # its last frame of speech
        self._talking = False
        self._next = 0  # the frame to look at

    def add(self, samples: Samples, heard: Floats) -> Iterator[Stretch]:
        """What is complete with these frames."""
        self._sound = np.concatenate((self._sound, samples))
        self._heard = np.concatenate((self._heard, heard))
        for probability in heard.tolist():
            yield from self._look(probability)
            self._next += 1
        if self._start is None:
            yield from self._between(self._next - _frames(MARGIN_S + 2 * PAUSE_S), final=False)
        kept = max(self._first, self._done - _frames(AROUND_S) - 1)
        self._sound = self._sound[(kept - self._first) * FRAME :]
        self._heard = self._heard[kept - self._first :]
        self._first = kept

    def finish(self, left: int) -> Iterator[Stretch]:
        """What is left at the end; `left` samples of the last frame are sound, all of it if 0."""
        if left:
            self._sound = self._sound[: len(self._sound) - FRAME + left]
        if self._start is not None:
            yield from self._utterance(self._last + 1, held=_HELD)
        yield from self._between(self._next, final=True)

    def _look(self, probability: float) -> Iterator[Stretch]:
        self._talking = probability >= (_END if self._talking else _BEGIN)
        if self._start is None:
            if self._talking:
                self._start, self._last = self._onset(), self._next
            return
        if self._talking and self._next - self._last > _frames(PAUSE_S):
            yield from self._utterance(self._last + 1, held=_HELD)
            self._start = self._onset()
        if self._talking:
            self._last = self._next
        if self._next - self._last >= _frames(PAUSE_S + MARGIN_S):
            yield from self._utterance(self._last + 1, held=_HELD)
        elif self._next + 1 - self._start >= _frames(LONGEST_S):
            early = self._start + _frames(LONGEST_S / 2) - self._first
            heard = np.convolve(self._heard[early : self._next - self._first], np.ones(5), "valid")
            cut = self._first + early + int(heard.argmin()) + 2
            yield from self._utterance(cut)
            self._start = cut

    def _onset(self) -> int:
        """The frame that speech begins in, which the detector is only sure of a little later."""
        earliest = max(self._first, self._done, self._next - _frames(_LATE_S))
        start = self._next
        while start > earliest and self._heard[start - 1 - self._first] >= _FIRST_SIGN:
            start -= 1
        return start

    def _utterance(self, stop: int, *, held: int = 0) -> Iterator[Stretch]:
        start, self._start = self._start or 0, None
        if (stop - start) * FRAME_S < SHORTEST_S:
            return
        first, last = self._span(start, stop, held)
        yield from self._between(first // FRAME, final=True)
        around = round(AROUND_S * RATE_HZ)
        samples = self._cut(max(self._spoken, first - around), last + around)
        self._done, self._spoken = max(stop - held, -(-last // FRAME)), last
        yield Stretch(first / RATE_HZ, last / RATE_HZ, "speech", samples)

    def _span(self, start: int, stop: int, held: int) -> tuple[int, int]:
        """The first sample and the one past the last of an utterance: where its sound begins and
        ends, or, where that is further away than it can be, or leaves out what the detector hears
        for long, where the detector hears it."""
        margin, left_out = _frames(MARGIN_S), round(PAUSE_S * RATE_HZ)
        # On the grid of 10 ms: frames fall where they do in a file of its own.
        begin = -(-max(self._done, start - margin) * FRAME // _HOP) * _HOP
        end = min(stop + margin, self._next) * FRAME if held else stop * FRAME
        spoken = max(begin, start * FRAME), max(stop - held, start + _frames(SHORTEST_S)) * FRAME
        first, last = (
            begin + at
            for at in utterance_span(self._cut(begin, end), *(at - begin for at in spoken))
        )
        far = start - margin >= self._done, bool(held) and stop + margin <= self._next
        if (far[0] and first == begin) or first > spoken[0] + left_out:
            first = spoken[0]
        if (far[1] and last > end - _HOP) or last < spoken[1] - left_out:
            last = spoken[1]
        return first, min(last, end, self._first * FRAME + len(self._sound))

    def _between(self, stop: int, *, final: bool) -> Iterator[Stretch]:
        """What nobody speaks in, up to a frame: in stretches of `_KIND_S`, and their rest where
        this is the end of it and long enough."""
        size = _frames(_KIND_S)
        while stop - self._done >= 2 * size or (final and stop - self._done >= _frames(GAP_S)):
            end = stop if stop - self._done < 2 * size else self._done + size
            start = self._done * FRAME
            samples = self._cut(start, end * FRAME)  # the last frame may be filled up
            kind = KINDS[sound_kind(samples[_EDGE:-_EDGE])]
            yield Stretch(start / RATE_HZ, (start + len(samples)) / RATE_HZ, kind, samples)
            self._done = end

    def _cut(self, start: int, stop: int) -> Samples:
        """The samples from one to another, as far as they are kept."""
        first = self._first * FRAME
        return self._sound[max(0, start - first) : max(0, stop - first)].copy()


def _frames(seconds: float) -> int:
    return round(seconds / FRAME_S)


def transcribed(blocks: Iterable[Samples], lines: Sequence[Line]) -> Iterator[Stretch]:
    """The stretches of a stream of sound that a transcript's lines name, in order; how many lines
    lie beyond its end is logged."""
    left = deque(sorted(lines, key=lambda one: one.start_s))
    sound, first, at = np.zeros(0, np.float32), 0, 0

    def cut(line: Line) -> Iterator[Stretch]:
        start, stop = (round(time * RATE_HZ) for time in (line.start_s, line.end_s))
        samples = sound[max(0, start - first) : max(0, stop - first)].copy()
        if len(samples):
            end_s = (first + max(0, start - first) + len(samples)) / RATE_HZ
            yield Stretch(line.start_s, end_s, "speech", samples, line.words)

    for block in blocks:
        sound, at = np.concatenate((sound, block)), at + len(block)
        while left and left[0].end_s * RATE_HZ <= at:
            yield from cut(left.popleft())
        kept = min([at, *(round(one.start_s * RATE_HZ) for one in left)])
        sound, first = sound[max(0, kept - first) :], max(first, kept)
    for line in left:
        yield from cut(line)
    if beyond := [one.start_s for one in left if one.start_s * RATE_HZ >= at]:
        LOG.warning(
            "%d of %d lines of the transcript, from %.1f s on, are left out: the sound ends at "
            "%.1f s; is it of another recording?",
            *(len(beyond), len(lines), min(beyond), at / RATE_HZ),
        )


def joined(found: Iterable[Segment]) -> Iterator[Segment]:
    """Segments, neighbours of one kind without speech made one."""
    joiner = Joiner()
    for one in found:
        yield from joiner.add(one)
    yield from joiner.finish()


class Joiner:
    """Makes one of neighbours of one kind without speech."""

    def __init__(self) -> None:
        self._open: Segment | None = None

    def add(self, one: Segment) -> list[Segment]:
        """What is complete with a segment."""
        last = self._open
        if last is not None and one.kind == last.kind and one.start_s - last.end_s < GAP_S:
            self._open = replace(last, end_s=one.end_s)
            return []
        done = self.finish()
        if one.kind == "speech":
            return [*done, one]
        self._open = one
        return done

    def finish(self) -> list[Segment]:
        """What is left at the end."""
        done, self._open = self._open, None
        return [] if done is None else [done]
