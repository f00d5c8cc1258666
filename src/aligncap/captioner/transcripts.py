"""Transcripts with times, and segments written as subtitles and labels for other programs."""

import html
import json
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


_TIMES = re.compile(r"((?:\d+:)?\d+:\d+[.,]\d+)\s+-->\s+((?:\d+:)?\d+:\d+[.,]\d+)[^\n]*")

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
    lines: list[Line] = []
    if path.suffix.lower() == ".json":
        try:
            lines = [
                Line(float(one["start"]), float(one["end"]), str(one["text"]).strip())
                for one in json.loads(text)["segments"]
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: has no segments with start, end and text; give whisper's own JSON"
            ) from error
    else:
        for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
            if found := _TIMES.search(block):
                words = " ".join(_MARKUP.sub("", block[found.end() :]).split())
                if path.suffix.lower() == ".vtt":
                    words = html.unescape(words)
                lines.append(Line(_seconds(found[1]), _seconds(found[2]), words))
    if not lines:
        raise DataError(f"{path}: has no times; give a transcript as .srt, .vtt or .json")
    return sorted(lines, key=lambda one: one.start_s)


def _seconds(text: str) -> float:
    """Of "01:02:03,450" or "02:03.450"."""
    parts = [float(part) for part in text.replace(",", ".").split(":")]
    return sum((part * 60.0**n for n, part in enumerate(reversed(parts))), 0.0)


def clock(seconds: float, mark: str) -> str:
    """ "01:02:03,450", `mark` before the milliseconds."""
    whole, ms = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{ms:03}"


def as_srt(segments: Iterable[Labelled]) -> Iterator[str]:
    """Lines of SubRip."""
    for number, one in enumerate(segments, start=1):
        yield str(number)
        yield f"{clock(one.start_s, ',')} --> {clock(one.end_s, ',')}"
        yield f"{one.text}\n"


def as_vtt(segments: Iterable[Labelled]) -> Iterator[str]:
    """Lines of WebVTT."""
    yield "WEBVTT\n"
    for one in segments:
        yield f"{clock(one.start_s, '.')} --> {clock(one.end_s, '.')}"
        yield one.text.replace("&", "&amp;").replace("<", "&lt;") + "\n"


def as_labels(segments: Iterable[Labelled]) -> Iterator[str]:
    """Lines of a label track of Audacity."""
    for one in segments:
        yield f"{one.start_s:.3f}\t{one.end_s:.3f}\t{one.text}"


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
