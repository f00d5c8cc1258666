"""A long recording as a picture: waveform, pitch, loudness and emotion over time, with its captions
or, where they are too many to be read, its parts; for each channel that was captioned apart."""

import base64
import io
import logging
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from aligncap.audio.streams import stream
from aligncap.captioner.drawing import (
    LOUDNESS_COLOUR,
    PITCH_COLOUR,
    font_hint,
    fonts_here,
    new_figure,
)
from aligncap.captioner.segments import Segment, transcribed
from aligncap.captioner.summary import Summarizer, Summary
from aligncap.captioner.transcripts import Line, clock
from aligncap.errors import RecipeError
from aligncap.prosody import Envelope, pitch_track, streamed_envelope
from aligncap.storage import printable
from aligncap.values import EMOTIONS, RATE_HZ, Caption, Samples, Waveform

LOG = logging.getLogger(__name__)

SUFFIXES = (".png", ".svg", ".html")
EMOTION_COLOURS = {
    "angry": "#cf4a3c",
    "bored": "#93765f",
    "disgusted": "#7a8f2a",
    "fearful": "#7b56b3",
    "happy": "#e2a917",
    "neutral": "#a3aab2",
    "sad": "#3f7fc1",
    "surprised": "#d96a9f",
}
"""Those of the page of `aligncap serve`."""
KIND_COLOURS = {
    "speech": PITCH_COLOUR,
    "music": "#b98a2e",
    "noise": "#9a6d5f",
    "silence": "#8a8f98",
}
MOST_POINTS = 1600
MOST_LISTED = 24
"""Captions that are written under a picture; of more, the parts are."""
CONTOUR_S = 600.0
"""Pitch is drawn frame by frame up to this length; of a longer recording, that of utterances."""
LONGEST_PLAYED_S = 1800.0
"""A longer recording is not written into its page: an hour takes about 15 MB."""
_TICKS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400)
_ROWS = (1.1, 1.0, 0.8, 1.2)  # inches of waveform, pitch, loudness and emotion
_WIDTH = 12.0
_LEFT, _RIGHT = 0.075, 0.985  # of the width, where time begins and ends
_LINE = 0.17  # inches of a line of text
_TEXT_SIZE = 8


_Contour = tuple[NDArray[np.float64], NDArray[np.float64]]  # seconds and Hz, NaN where unvoiced


@dataclass(frozen=True, slots=True)
class _Note:
    """What is kept of a segment."""

    start_s: float
    end_s: float
    kind: str
    channel: int | None
    text: str
    emotion: str | None


def check_picture(path: Path) -> None:
    """RecipeError for a suffix that no picture has, MissingModelError without matplotlib."""
    if path.suffix.lower() not in SUFFIXES:
        raise RecipeError(
            f"{path}: pictures are {', '.join(SUFFIXES)}; give the file one of these suffixes"
        )
    new_figure("--plot")


class Picture:
    """The picture of a recording whose segments come one by one.

    What is kept of a segment is its times and its caption; everything else is bounded.
    """

    def __init__(self, source: str | Path) -> None:
        self._source = Path(source)
        self._name = printable(self._source.name)
        self._notes: list[_Note] = []
        self._summarizer = Summarizer()

    def watched(self, found: Iterable[Segment]) -> Iterator[Segment]:
        """The segments as they come, each noted."""
        for one in found:
            self.add(one)
            yield one

    def add(self, one: Segment) -> None:
        """The next segment."""
        self._summarizer.add(one)
        emotion = None
        if isinstance(one.caption, Caption) and one.caption.emotion:
            emotion = max(one.caption.emotion, key=one.caption.emotion.__getitem__)
        text = str(one.caption) if one.kind == "speech" else one.text
        said = f" “{one.words}”" if one.words else ""
        self._notes.append(
            _Note(one.start_s, one.end_s, one.kind, one.channel, printable(text + said), emotion)
        )

    def figure(self) -> Any:
        """The picture as a figure of matplotlib; AudioError where the recording is gone."""
        return self._drawn(listed=True)[0]

    def save(self, file: IO[bytes], suffix: str) -> None:
        """Write the picture as ".png", ".svg" or ".html"."""
        import matplotlib as mpl

        # Text stays text: it can be searched, and is shown in any script that the viewer has.
        settings: Any = {"font.family": fonts_here(), "svg.fonttype": "none"}
        with mpl.rc_context(settings), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            if suffix.lower() == ".html":
                file.write(self._page().encode())
            else:
                self.figure().savefig(file, format=suffix[1:].lower(), dpi=150)
        if suffix.lower() == ".png" and any(
            "missing from font" in str(one.message) for one in told
        ):
            LOG.warning(
                "%s: no font here has all characters of its captions; write .svg or .html, or %s",
                self._source,
                font_hint(),
            )

    def _drawn(self, *, listed: bool) -> tuple[Any, float]:
        """The figure, and how long the recording is in seconds."""
        summaries = self._summarizer.summaries()
        spoken = [one for one in self._notes if one.kind == "speech"]
        numbered = spoken if len(spoken) <= MOST_LISTED else []
        lines = list(_lines(numbered, summaries)) if listed else []
        text = _LINE * (len(lines) + 1) if lines else 0.0
        each = sum(_ROWS) + 0.95
        height = each * len(summaries) + 0.3 + text
        figure, length_s = new_figure("the picture", figsize=(_WIDTH, height)), 0.0
        for number, summary in enumerate(summaries):
            axes = _axes(figure, height - each * number - 0.6, height)
            notes = [one for one in self._notes if one.channel == summary.channel]
            envelope, length_s = self._heard(summary.channel)
            _draw(axes, envelope, notes, summary)
            contours = self._contours([one for one in notes if one.kind == "speech"], summary)
            _draw_pitch(axes[1], list(contours), summary)
            _draw_numbers(axes[0], numbered, summary)
        figure.text(
            *(_LEFT, 1 - 0.15 / height, f"{self._name}  ({clock(length_s, '.')[:8]})"),
            fontsize=11, weight="bold", va="center", parse_math=False,
        )  # fmt: skip
        for number, (line, colour) in enumerate(lines):
            at = (text - _LINE * (number + 0.5)) / height
            figure.text(0.02, at, line, fontsize=_TEXT_SIZE, va="center", parse_math=False)
            if colour:
                figure.text(0.01, at, "■", fontsize=_TEXT_SIZE, color=colour, va="center")
        return figure, length_s

    def _heard(self, channel: int | None) -> tuple[Envelope, float]:
        """The envelope of the recording or a channel of it, and its length in seconds."""
        count = 0

        def counted() -> Iterator[Samples]:
            nonlocal count
            for block in stream(self._source, channel=channel):
                count += len(block)
                yield block

        envelope = streamed_envelope(counted(), most_points=MOST_POINTS)
        return envelope, count / RATE_HZ

    def _contours(self, spoken: Sequence[_Note], summary: Summary) -> Iterator[_Contour]:
        """The pitch in each utterance, of a recording that is not too long."""
        if summary.duration_s > CONTOUR_S:
            return
        each = 1 + int(summary.duration_s / 60)
        lines = [Line(one.start_s, one.end_s, "") for one in spoken]
        for one in transcribed(stream(self._source, channel=summary.channel), lines):
            track = pitch_track(Waveform(one.samples))
            hertz = np.where(track.voiced, track.frequency_hz, np.nan)
            yield (one.start_s + track.times_s)[::each], hertz[::each]

    def _page(self) -> str:
        (figure, length_s), drawing = self._drawn(listed=False), io.StringIO()
        figure.savefig(drawing, format="svg")
        svg = drawing.getvalue()
        summaries = self._summarizer.summaries()
        played = length_s <= LONGEST_PLAYED_S
        right_s = figure.axes[0].get_xlim()[1]
        return _PAGE.format(
            title=escape(self._name),
            svg=svg[svg.index("<svg") :],
            summary=escape("\n".join(line for one in summaries for line in one.lines())),
            player=f'<audio controls src="{sound_address(self._source)}"></audio>'
            if played
            else "",
            rows="\n".join(_row(one) for one in self._notes if one.kind != "silence"),
            left=_LEFT,
            each=(_RIGHT - _LEFT) / right_s,
        )


def _lines(numbered: Sequence[_Note], summaries: Sequence[Summary]) -> Iterator[tuple[str, str]]:
    """The lines under the picture: captions, with their emotion's colour, or what the parts are
    like."""
    if not numbered:
        for summary in summaries:
            for line in summary.lines():
                yield from ((one, "") for one in _wrapped(line, "    "))
    for number, one in enumerate(numbered, start=1):
        channel = "" if one.channel is None else f" channel {one.channel + 1}"
        text = f"{number:>2}  {clock(one.start_s, '.')[:8]}{channel}  {one.text}"
        colour = EMOTION_COLOURS.get(one.emotion or "", KIND_COLOURS["silence"])
        for at, line in enumerate(_wrapped(text, " " * 18)):
            yield line, "" if at else colour


def _wrapped(text: str, indent: str) -> list[str]:
    wide = sum(ord(one) > 0x2E80 for one in text) > len(text) / 3
    return textwrap.wrap(text, 85 if wide else 165, subsequent_indent=indent) or [""]


def _axes(figure: Any, top: float, height: float) -> list[Any]:
    """Four axes over each other, the first at `top` inches, sharing their time."""
    found: list[Any] = []
    for row in _ROWS:
        top -= row
        box = (_LEFT, (top + 0.06) / height, _RIGHT - _LEFT, (row - 0.12) / height)
        found.append(figure.add_axes(box, sharex=found[0] if found else None))
        if len(found) == 3:
            top -= 0.25  # room for the names of the emotions
    return found


def _draw(
    axes: Sequence[Any], envelope: Envelope, notes: Sequence[_Note], summary: Summary
) -> None:
    """Draw a channel but for its pitch."""
    wave, _, loudness, emotion = axes
    times_s = (np.arange(len(envelope.peak)) + 0.5) * envelope.step_s
    _draw_waveform(wave, times_s, envelope.peak, _kinds(times_s, envelope.step_s, notes))
    loudness.fill_between(times_s, -70, envelope.loudness_lufs, color=LOUDNESS_COLOUR, linewidth=0)
    top = float(envelope.loudness_lufs.max())
    loudness.set(ylabel="loudness\n(LUFS)", ylim=(max(-70.0, top - 45.0), top + 3.0))
    _draw_emotion(emotion, summary)
    length_s = max(summary.duration_s, len(times_s) * envelope.step_s)
    wave.set_xlim(0, length_s)
    _draw_time(axes, length_s, [one.start_s for one in summary.parts[1:]])


def _draw_numbers(axis: Any, numbered: Sequence[_Note], summary: Summary) -> None:
    """The numbers that captions have below, over their utterances; not over each other."""
    if summary.channel is not None:
        axis.text(
            *(0.0, 1.2, f"channel {summary.channel + 1}"),
            transform=axis.transAxes, fontsize=9, va="bottom",
        )  # fmt: skip
    last = -np.inf
    for number, one in enumerate(numbered, start=1):
        middle = (one.start_s + one.end_s) / 2
        if one.channel == summary.channel and middle - last > axis.get_xlim()[1] / 80:
            axis.text(middle, 1.05, number, ha="center", va="bottom", fontsize=_TEXT_SIZE)
            last = middle


def _kinds(times_s: Any, step_s: float, notes: Sequence[_Note]) -> NDArray[Any]:
    """The kind of what is heard at each point; "silence" where there is none."""
    kinds = np.full(len(times_s), "silence", dtype="<U8")
    for one in notes:
        kinds[int(one.start_s / step_s) : max(1, round(one.end_s / step_s))] = one.kind
    return kinds


def _draw_waveform(axis: Any, times_s: Any, peak: NDArray[Any], kinds: NDArray[Any]) -> None:
    for kind, colour in KIND_COLOURS.items():
        if (kinds == kind).any():
            height = np.where(kinds == kind, peak, 0.0)
            axis.fill_between(
                times_s, -height, height, step="mid", color=colour, linewidth=0, label=kind
            )
    axis.set(ylabel="waveform", ylim=(-1.05, 1.05), yticks=(-1, 0, 1))
    _legend(axis, 1.18)


def _draw_pitch(axis: Any, contours: Sequence[_Contour], summary: Summary) -> None:
    """The contours where there are any, and the median of each step."""
    told = [one for one in summary.steps if one.pitch_hz]
    for times_s, hertz in contours:
        axis.plot(times_s, hertz, color=PITCH_COLOUR, linewidth=1)
    voiced = np.concatenate([np.zeros(0), *(hertz[hertz > 0] for _, hertz in contours)])
    middles = [one.pitch_hz for one in told]
    left, right = [one.start_s for one in told], [one.end_s for one in told]
    axis.hlines(middles, left, right, color="#1d3f66", linewidth=1.5)
    shown = np.concatenate((voiced, np.array(middles, np.float64)))
    low, high = (shown.min() / 1.1, shown.max() * 1.1) if len(shown) else (75.0, 400.0)
    axis.set_yscale("log", base=2)
    axis.set(ylabel="pitch\n(Hz)", ylim=(low, max(high, low * 1.5)))
    ticks = [one for one in (50, 75, 100, 150, 200, 300, 400, 600) if low <= one <= high]
    axis.set_yticks(ticks, [str(one) for one in ticks])
    axis.minorticks_off()


def _draw_emotion(axis: Any, summary: Summary) -> None:
    steps = summary.steps
    left = np.array([one.start_s for one in steps])
    width = np.array([one.end_s for one in steps]) - left
    bottom = np.zeros(len(steps))
    for name in EMOTIONS:
        share = np.array([one.emotion[name] for one in steps])
        axis.bar(
            *(left, share, width, bottom),
            align="edge", color=EMOTION_COLOURS[name], linewidth=0, label=name,
        )  # fmt: skip
        bottom += share
    axis.set(ylabel="emotion", ylim=(0, 1), yticks=(0, 0.5, 1))
    _legend(axis, 1.0)


def _legend(axis: Any, height: float) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(
            loc="lower right", bbox_to_anchor=(1.0, height), borderaxespad=0.1, ncols=8,
            frameon=False, fontsize=_TEXT_SIZE, handlelength=1.0, columnspacing=1.2,
        )  # fmt: skip


def _draw_time(axes: Sequence[Any], length_s: float, turns_s: Sequence[float]) -> None:
    """Ticks as clocks, and a line at each turning point."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    step = next((one for one in _TICKS_S if length_s / one <= 14), _TICKS_S[-1])
    hours = length_s >= 3600
    axes[-1].xaxis.set_major_locator(MultipleLocator(step))
    axes[-1].xaxis.set_major_formatter(
        FuncFormatter(lambda at, _: clock(max(at, 0.0), ".")[0 if hours else 3 : 8])
    )
    for axis in axes:
        axis.tick_params(labelsize=_TEXT_SIZE, labelbottom=axis is axes[-1])
        axis.grid(axis="x", color="#d5d8dc", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.yaxis.label.set_size(9)
        axis.yaxis.set_label_coords(-0.04, 0.5)
        for at in turns_s:
            axis.axvline(at, color="black", linewidth=1, linestyle=(0, (4, 3)))


def sound_address(source: Path) -> str:
    """The recording, its channels mixed, as an address that holds it (MP3)."""
    import soundfile

    data = io.BytesIO()
    with soundfile.SoundFile(data, "w", RATE_HZ, 1, format="MP3") as file:
        for block in stream(source):
            file.write(block)
    return "data:audio/mpeg;base64," + base64.b64encode(data.getvalue()).decode()


def _row(one: _Note) -> str:
    colour = EMOTION_COLOURS.get(one.emotion or "", KIND_COLOURS.get(one.kind, "#000"))
    channel = "" if one.channel is None else f" channel {one.channel + 1}"
    where = f"{clock(one.start_s, '.')[:8]} – {clock(one.end_s, '.')[:8]}{channel}"
    return (
        f'<tr class="{one.kind}" data-start="{one.start_s:.3f}" data-end="{one.end_s:.3f}">'
        f"<td><button>{where}</button></td>"
        f'<td><i style="background:{colour}"></i>{escape(one.emotion or one.kind)}</td>'
        f"<td>{escape(one.text)}</td></tr>"
    )


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.4 system-ui, sans-serif; margin: 1rem auto; max-width: 76rem;
  padding: 0 1rem; color: #1b1e22; background: #fff; }}
#drawing {{ position: relative; cursor: pointer; }}
#drawing svg {{ width: 100%; height: auto; display: block; }}
#now {{ position: absolute; top: 0; bottom: 0; width: 0; border-left: 2px solid #b3261e;
  pointer-events: none; }}
audio {{ width: 100%; margin: .5rem 0; }}
pre {{ white-space: pre-wrap; font: inherit; font-size: .9rem; }}
table {{ border-collapse: collapse; width: 100%; font-size: .95rem; }}
td {{ padding: .3rem .5rem; vertical-align: top; border-top: 1px solid #e3e5e8; }}
td:nth-child(-n+2) {{ white-space: nowrap; }}
tr.music, tr.noise {{ color: #5d636b; }}
tr.now {{ background: #fdf3d8; }}
i {{ display: inline-block; width: .75em; height: .75em; margin-right: .4em; }}
button {{ font: inherit; font-variant-numeric: tabular-nums; border: 0; background: none;
  color: #1f5fa8; cursor: pointer; padding: 0; }}
</style>
</head>
<body>
<div id="drawing">{svg}<div id="now" hidden></div></div>
{player}
<pre>{summary}</pre>
<table>
{rows}
</table>
<script>
const sound = document.querySelector("audio"), now = document.getElementById("now");
const rows = [...document.querySelectorAll("tr")], left = {left}, each = {each};
function go(at) {{
  if (sound) {{ sound.currentTime = at; sound.play(); }} else show(at);
}}
function show(at) {{
  now.hidden = false;
  now.style.left = 100 * (left + each * at) + "%";
  for (const row of rows)
    row.classList.toggle("now", row.dataset.start <= at && at < row.dataset.end);
}}
for (const row of rows)
  row.querySelector("button").addEventListener("click", () => go(+row.dataset.start));
document.getElementById("drawing").addEventListener("click", event => {{
  const box = event.currentTarget.getBoundingClientRect();
  go(Math.max(0, ((event.clientX - box.left) / box.width - left) / each));
}});
if (sound) sound.addEventListener("timeupdate", () => show(sound.currentTime));
</script>
</body>
</html>
"""
