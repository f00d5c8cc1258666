"""A caption as a notebook shows it: the recording to play, its pitch and loudness, the evidence."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from aligncap.audio import load, recording
from aligncap.errors import MissingModelError
from aligncap.prosody import Curves, curves_of
from aligncap.values import RATE_HZ, Caption, Verdict, Waveform

WIDTH, HEIGHT = 640, 60
COLOURS = {
    Verdict.SUPPORTED: "#1f9d61",
    Verdict.CONTRADICTED: "#d9483b",
    Verdict.CANNOT_TELL: "#8a8f98",
}
PITCH_COLOUR, LOUDNESS_COLOUR = "#4a86c8", "#9db8d6"
"""Readable on white and on black: what a notebook's theme is, cannot be known."""
LINE = 0.25
"""Inches of a line of evidence."""
LONGEST_PLAYED_S = 120.0
"""A longer recording is drawn without a player: its sound would be written into the notebook."""
_FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC",
          "WenQuanYi Micro Hei", "PingFang SC", "Microsoft YaHei", "SimHei")  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """The recording of a caption, to be drawn with it."""

    source: object
    """As `Captioner.caption` was given it."""
    rate_hz: int | None = None

    def waveform(self, caption: Caption) -> Waveform:
        """What the caption is of; AudioError where the file is gone."""
        found = recording(self.source, self.rate_hz)
        whole = found if isinstance(found, Waveform) else load(found)
        if caption.part_s is None:
            return whole
        start, end = (round(edge * RATE_HZ) for edge in caption.part_s)
        return whole.part(start, end)

    def html(self, caption: Caption) -> str:
        """The caption with its player, curves and evidence, as HTML that loads nothing."""
        waveform = self.waveform(caption)
        curves = curves_of(waveform, most_points=WIDTH)
        parts = [
            f'<p style="font-size:1.1em;margin:.25em 0">{escape(caption.text)}</p>',
            _player(waveform) if waveform.duration_s <= LONGEST_PLAYED_S else "",
            _svg(_pitch_path(curves), f"fill:none;stroke:{PITCH_COLOUR};stroke-width:2", "pitch"),
            _svg(_loudness_path(curves), f"fill:{LOUDNESS_COLOUR};stroke:none", "loudness"),
            _table(caption),
        ]
        return f'<div style="max-width:{WIDTH}px">{"".join(parts)}</div>'

    def figure(self, caption: Caption) -> Any:
        """The caption over waveform, pitch, loudness and evidence, as a figure of matplotlib."""
        lines = LINE * len(caption.evidence)
        figure = new_figure("caption.plot()", figsize=(8, 5 + lines), layout="constrained")
        curves = curves_of(self.waveform(caption))
        times_s = (np.arange(len(curves.peak)) + 0.5) * curves.step_s
        grid = figure.add_gridspec(4, 1, height_ratios=[1.6, 1.6, 1.6, max(lines, 1e-3)])
        wave = figure.add_subplot(grid[0])
        pitch, loudness = (figure.add_subplot(grid[row], sharex=wave) for row in (1, 2))
        wave.fill_between(times_s, -curves.peak, curves.peak, color=PITCH_COLOUR, linewidth=0)
        wave.set(ylabel="waveform")
        # Where it wraps, matplotlib reads formulas whatever it is told.
        title = caption.text.replace("$", r"\$")
        wave.set_title(title, wrap=True, fontsize="medium")
        pitch.plot(times_s, curves.pitch_hz, color=PITCH_COLOUR)
        pitch.set(ylabel="pitch (Hz)")
        loudness.plot(times_s, curves.loudness_lufs, color=PITCH_COLOUR)
        loudness.set(ylabel="loudness (LUFS)", xlabel="time (s)")
        for one in (wave, pitch):
            one.tick_params(labelbottom=False)
        _write_evidence(figure.add_subplot(grid[3]), caption)
        return figure


def new_figure(what: str, **settings: Any) -> Any:
    """An empty figure of matplotlib; MissingModelError, naming `what` asks for it, without that."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingModelError(
            f"{what} needs matplotlib; run: pip install 'aligncap[plots]'"
        ) from error
    return Figure(**settings)


def _write_evidence(axes: Any, caption: Caption) -> None:
    """A line for each clue of a caption, in the colour of its verdict."""
    axes.axis("off")
    for number, one in enumerate(caption.evidence):
        height = 1 - (number + 0.5) / len(caption.evidence)
        text = f"{one.clue.word}: {one.verdict.value} · {one.measurement}"
        axes.text(
            *(0, height, text),
            color=COLOURS[one.verdict], va="center", fontsize="small", parse_math=False,
        )  # fmt: skip


def fonts_here() -> list[str]:
    """The fonts of matplotlib here that have the letters of captions; Chinese ones if there are."""
    from matplotlib import font_manager

    there = {one.name for one in font_manager.fontManager.ttflist}
    return [one for one in _FONTS if one in there] or ["sans-serif"]


def font_hint() -> str:
    """What to do where no font here has the letters of a text."""
    import matplotlib as mpl

    return (
        "install a font such as Noto Sans CJK, then remove the list of fonts that matplotlib "
        f"keeps: {mpl.get_cachedir()}/fontlist-*.json"
    )


def _player(waveform: Waveform) -> str:
    import soundfile

    data = io.BytesIO()
    soundfile.write(data, waveform.samples, RATE_HZ, format="WAV", subtype="PCM_16")
    sound = base64.b64encode(data.getvalue()).decode()
    return f'<audio controls="" style="width:100%" src="data:audio/wav;base64,{sound}"></audio>'


def _svg(path: str, style: str, name: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img" aria-label="{name}">'
        f'<path d="{path}" style="{style}"/><text x="4" y="12" font-size="11" '
        f'fill="currentColor" opacity=".7">{name}</text></svg>'
    )


def _scaled(values: Any, low: float, high: float) -> list[float]:
    share = (np.asarray(values) - low) / max(high - low, 1e-9)
    return [round(float(HEIGHT - 4 - one * (HEIGHT - 8)), 1) for one in np.clip(share, 0.0, 1.0)]


def _pitch_path(curves: Curves) -> str:
    voiced = np.flatnonzero(~np.isnan(curves.pitch_hz))
    if not len(voiced):
        return ""
    hertz = np.log(curves.pitch_hz[voiced])
    heights = _scaled(hertz, float(hertz.min()), float(hertz.max()))
    each, last, path = WIDTH / len(curves.peak), -2, []
    for at, height in zip(voiced.tolist(), heights, strict=True):
        path.append(f"{'L' if at == last + 1 else 'M'}{(at + 0.5) * each:.1f},{height}")
        last = at
    return "".join(path)


def _loudness_path(curves: Curves) -> str:
    top = float(curves.loudness_lufs.max())
    heights = _scaled(curves.loudness_lufs, top - 40.0, top)
    each = WIDTH / len(heights)
    line = "".join(f"L{(at + 0.5) * each:.1f},{height}" for at, height in enumerate(heights))
    return f"M0,{HEIGHT}{line}L{WIDTH},{HEIGHT}Z"


def _table(caption: Caption) -> str:
    rows: Iterable[str] = (
        f'<tr><td style="color:{COLOURS[one.verdict]};text-align:left"><b>{escape(one.clue.word)}'
        f"</b></td><td>{one.verdict.value}</td>"
        f'<td style="text-align:left">{escape(one.measurement)}</td></tr>'
        for one in caption.evidence
    )
    return f'<table style="font-size:.9em">{"".join(rows)}</table>'
