"""Transcripts with times, and segments written as subtitles and labels for other programs."""

import html
import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aligncap.errors import DataError


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a transcript."""

    start_s: float
    end_s: float
    words: str


class Labelled(Protocol):
    """A stretch of a recording with a text."""

    @property
    def start_s(self) -> float:
        """In seconds."""

    @property
    def end_s(self) -> float:
        """In seconds."""

    @property
    def text(self) -> str:
        """A single line."""

    @property
    def channel(self) -> int | None:
        """Counted from 0, or None."""


LOG = logging.getLogger(__name__)

_TIMES = re.compile(
    r"^(?:[ \t]*\d+[ \t]*\n)?[ \t]*(-?\d[\d:.,]*)[ \t]*-->[ \t]*(-?\d[\d:.,]*)[^\n]*",
    re.MULTILINE,
)
"""The line of a cue with its times, and the one before it that counts cues."""

_MARKUP = re.compile(r"</?(?:[bcisuv]|rt|ruby|lang|font)(?:[ .][^>]*)?>|<[\d:.]+>")
"""Of subtitles: who speaks, how it is drawn, when a word is said. Other words in angle brackets,
as <laughs>, are the transcript's."""


def read_transcript(path: Path) -> list[Line]:
    """The lines of a transcript in SubRip, WebVTT, or the JSON of whisper and its kin
    (`segments` with `start`, `end` in seconds and `text`); DataError for another file."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the transcript cannot be read ({error})") from error
    read = _of_json if path.suffix.lower() == ".json" else _of_subtitles
    if not (lines := list(read(path, text))):
        raise DataError(f"{path}: has no times; give a transcript as .srt, .vtt or .json")
    return sorted(lines, key=lambda one: one.start_s)


def _of_json(path: Path, text: str) -> Iterator[Line]:
    try:
        found = [
            (
                float(one["start"]),
                float(one["end"]),
                "" if one["text"] is None else str(one["text"]),
            )
            for one in json.loads(text)["segments"]
        ]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path}: has no segments with start, end and text; give whisper's own JSON"
        ) from error
    for number, (start_s, end_s, words) in enumerate(found, start=1):
        yield from _line(f"{path}: segment {number}", start_s, end_s, words)


def _of_subtitles(path: Path, text: str) -> Iterator[Line]:
    """The cues: of each the words up to an empty line, or to the next cue's times."""
    cues = list(_TIMES.finditer(text))
    ends = [*(one.start() for one in cues), len(text)][1:]
    number, counted = 1, 0
    for cue, end in zip(cues, ends, strict=True):
        number, counted = number + text.count("\n", counted, cue.start(1)), cue.start(1)
        words = re.split(r"\n\s*\n", text[cue.end() : end], maxsplit=1)[0]
        words = _MARKUP.sub("", words)
        if path.suffix.lower() == ".vtt":
            words = html.unescape(words)
        place = f"{path}:{number}"
        yield from _line(place, _seconds(cue[1], place), _seconds(cue[2], place), words)


def _line(place: str, start_s: float, end_s: float, words: str) -> Iterator[Line]:
    """A line of a transcript, but for one that lasts no time, of which a warning tells; DataError,
    beginning with its `place`, for times that are none."""
    words = " ".join(words.split())
    if not 0 <= start_s <= end_s < math.inf:
        raise DataError(
            f"{place}: from {start_s:g} to {end_s:g} s; a line begins at 0 or later and ends after "
            "that: mend or remove it"
        )
    if start_s < end_s:
        yield Line(start_s, end_s, words)
    elif words:
        LOG.warning("%s: lasts no time and is left out: “%s”", place, words)


def _seconds(text: str, place: str) -> float:
    """Of "01:02:03,450" or "02:03.450"."""
    sign = -1.0 if text.startswith("-") else 1.0
    parts = text.lstrip("-").replace(",", ".").split(":")
    try:
        if len(parts) > 3:
            raise ValueError("more than hours, minutes and seconds")
        return sign * sum(float(part) * 60.0**n for n, part in enumerate(reversed(parts)))
    except ValueError as error:
        raise DataError(f"{place}: {text} is no time; write it as 00:01:02,345") from error


def clock(seconds: float, mark: str) -> str:
    """ "01:02:03,450", `mark` before the milliseconds."""
    whole, ms = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{ms:03}"


def _speaker(one: Labelled) -> str:
    """ "channel 1: " before the text of one channel among several."""
    return "" if one.channel is None else f"channel {one.channel + 1}: "


def as_srt(segments: Iterable[Labelled]) -> Iterator[str]:
    """Lines of SubRip."""
    for number, one in enumerate(segments, start=1):
        yield str(number)
        yield f"{clock(one.start_s, ',')} --> {clock(one.end_s, ',')}"
        yield f"{_speaker(one)}{one.text}\n"


def as_vtt(segments: Iterable[Labelled]) -> Iterator[str]:
    """Lines of WebVTT."""
    yield "WEBVTT\n"
    for one in segments:
        yield f"{clock(one.start_s, '.')} --> {clock(one.end_s, '.')}"
        voice = "" if one.channel is None else f"<v channel {one.channel + 1}>"
        yield voice + one.text.replace("&", "&amp;").replace("<", "&lt;") + "\n"


def as_labels(segments: Iterable[Labelled]) -> Iterator[str]:
    """Lines of a label track of Audacity."""
    for one in segments:
        yield f"{one.start_s:.3f}\t{one.end_s:.3f}\t{_speaker(one)}{one.text}"


def as_textgrid(segments: Iterable[Labelled]) -> Iterator[str]:
    """Lines of a TextGrid of Praat: an interval tier for each channel, without gaps."""
    tiers: dict[int | None, list[Labelled]] = {}
    for one in segments:
        tiers.setdefault(one.channel, []).append(one)
    end_s = max((one.end_s for tier in tiers.values() for one in tier), default=0.0)
    yield 'File type = "ooTextFile"\nObject class = "TextGrid"\n'
    yield f"xmin = 0\nxmax = {end_s:.3f}\ntiers? <exists>\nsize = {len(tiers)}\nitem []:"
    for number, (channel, tier) in enumerate(tiers.items(), start=1):
        name = "caption" if channel is None else f"channel {channel + 1}"
        intervals = list(_intervals(tier, end_s))
        yield f'    item [{number}]:\n        class = "IntervalTier"\n        name = "{name}"'
        yield f"        xmin = 0\n        xmax = {end_s:.3f}"
        yield f"        intervals: size = {len(intervals)}"
        for place, (start, end, text) in enumerate(intervals, start=1):
            quoted = text.replace('"', '""')
            yield f"        intervals [{place}]:\n            xmin = {start:.3f}"
            yield f'            xmax = {end:.3f}\n            text = "{quoted}"'


def _intervals(tier: Sequence[Labelled], end_s: float) -> Iterator[tuple[float, float, str]]:
    """Segments and the empty intervals between them, from 0 to the end; where a segment begins
    before the last one's end, it is cut."""
    at = 0.0
    for one in tier:
        if round(one.start_s, 3) > round(at, 3):
            yield at, one.start_s, ""
        if round(one.end_s, 3) > round(max(at, one.start_s), 3):
            yield max(at, one.start_s), one.end_s, one.text
            at = one.end_s
    if round(end_s, 3) > round(at, 3):
        yield at, end_s, ""


FORMATS = {"srt": as_srt, "vtt": as_vtt, "textgrid": as_textgrid, "labels": as_labels}
"""Formats for other programs."""
