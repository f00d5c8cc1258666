"""The paper's figures as pictures: drawn of the numbers of `experiments.figures`, written as PNG,
SVG and JSON.

Colours are those of Okabe and Ito, which people with any colour vision can tell apart; what a
colour says is said by a shape or a word as well.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aligncap.captioner.drawing import font_hint, fonts_here, new_figure
from aligncap.errors import UnknownNameError
from aligncap.experiments.figures import Figure, figure_of
from aligncap.experiments.runs import StoredRun
from aligncap.storage import atomic_file, write_atomic

LOG = logging.getLogger(__name__)

FIGURES_FOLDER = "figures"

BLUE, RED, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
PALE, GREY, INK = "#9db8d6", "#6b7280", "#1b1f24"
VERDICT_COLOURS = {"right": "#0062a8", "wrong": "#c1121f", "not borne out": GREY}
_DPI = 160
_SETTINGS = {
    "font.size": 9,
    "svg.fonttype": "path",
    "svg.hashsalt": "aligncap",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(
    name: str, runs: Sequence[StoredRun], out: Path, data: Path, *, note: str = ""
) -> list[Path]:
    """Write a figure of the finished runs into `out`/figures: PNG, SVG, JSON; `note` is what a
    reader has to know, and ends its caption.

    Raises UnknownNameError for a name that is no figure's, DataError where no run that it needs is
    finished, MissingModelError without matplotlib.
    """
    figure = figure_of(name, runs, out, data)
    figure["caption"] = f"{figure['caption']} {note}".strip()
    return write_figure(figure, out / FIGURES_FOLDER)


def write_figure(figure: Figure, folder: Path) -> list[Path]:
    """Write the picture of these numbers, and the numbers."""
    new_figure("aligncap reproduce")
    import matplotlib as mpl

    name = figure["name"]
    if name not in DRAWN:
        raise UnknownNameError("figure", name, DRAWN)
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg", "json")]
    settings: Any = {**_SETTINGS, "font.family": fonts_here()}
    with mpl.rc_context(settings), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        picture = DRAWN[name](figure)
        for path in paths[:2]:
            kind = path.suffix[1:]
            # Neither a date nor a version: the same numbers give the same bytes.
            metadata: dict[str, Any] = {"svg": {"Date": None}, "png": {"Software": None}}[kind]
            with atomic_file(path, "wb") as file:
                picture.savefig(file, format=kind, dpi=_DPI, metadata=metadata)
    if any("missing from font" in str(one.message) for one in told):
        LOG.warning("%s: no font here has all letters of its captions; %s", paths[0], font_hint())
    write_atomic(paths[2], json.dumps(figure, indent=1, ensure_ascii=False) + "\n")
    return paths


def _rows(figure: Figure) -> dict[str, list[dict[str, Any]]]:
    """The panels by setting."""
    found: dict[str, list[dict[str, Any]]] = {}
    for panel in figure["panels"]:
        found.setdefault(panel["setting"], []).append(panel)
    return found


def _grid(figure: Figure, columns: int, size: tuple[float, float]) -> Iterator[tuple[Any, Any]]:
    """The picture, then each setting's name and axes; `size` is of one axes, in inches."""
    rows = _rows(figure)
    picture = new_figure(
        "the figure",
        figsize=(columns * size[0], len(rows) * size[1] + 0.35),
        layout="constrained",
    )
    picture.suptitle(figure["title"], fontsize=11, fontweight="bold")
    yield picture, None
    parts = picture.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for (setting, panels), part in zip(rows.items(), parts, strict=True):
        part.suptitle(setting, fontsize=9, color=GREY)
        yield panels, part


def _bars(figure: Figure) -> Any:
    """A bar for each alignment, by its name; those that align after decoding in another colour."""
    grid = _grid(figure, 3, (3.6, 2.7))
    picture, _ = next(grid)
    for panels, part in grid:
        for panel, axis in zip(
            panels, part.subplots(1, len(panels), squeeze=False)[0], strict=True
        ):
            points = [one for one in panel["points"] if one["value"] is not None]
            for at, one in enumerate(points):
                colour = BLUE if one["name"].startswith("KD") else PALE
                axis.bar(at, one["value"], width=0.66, color=colour, linewidth=0)
                _spread(axis, at, one)
            names = [f"{one['name'].removesuffix('-Align')}\n{one['value']:.1f}" for one in points]
            axis.set_xticks(range(len(points)), names, fontsize=8)
            top = max((one["high"] or one["value"] for one in points), default=1.0)
            # From 0 to 1 of a hundred at least: less than that is nothing.
            axis.set_ylim(0, max(1.0, top, *(max(one["seeds"].values()) for one in points)) * 1.16)
            _title(axis, panel, points)
    return picture


def _spread(axis: Any, at: float, one: Mapping[str, Any]) -> None:
    """The interval as a line with caps, single seeds as dots beside it."""
    if one["low"] is not None:
        axis.vlines(at, one["low"], one["high"], color=INK, linewidth=1.2, zorder=3)
        axis.hlines(
            [one["low"], one["high"]], at - 0.07, at + 0.07, color=INK, linewidth=1.2, zorder=3
        )
    seeds = [value for value in one["seeds"].values() if value is not None]
    axis.scatter([at + 0.2] * len(seeds), seeds, s=9, color=INK, linewidths=0, zorder=4)


def _title(axis: Any, panel: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> None:
    clips = max((one["clips"] for one in points), default=0)
    seeds = sorted({len(one["seeds"]) for one in points})
    told = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}" if seeds else "0"
    plural = "" if seeds == [1] else "s"
    axis.set_title(
        f"{panel['metric']} (× 100)", fontsize=9, loc="left", fontweight="bold", color=INK
    )
    axis.set_title(f"n = {clips} clips, {told} seed{plural}", fontsize=7, loc="right", color=GREY)
    axis.tick_params(labelsize=8)
    axis.grid(axis="y", color="#e3e5e8", linewidth=0.6)
    axis.set_axisbelow(True)


def _curves(figure: Figure) -> Any:
    """Left pairs, right steps; a row for each metric of each setting."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for panel in figure["panels"]:
        rows.setdefault((panel["setting"], panel["metric"]), {})[panel["axis"]] = panel
    axes_names = list(dict.fromkeys(panel["axis"] for panel in figure["panels"]))
    picture = new_figure(
        "the figure",
        figsize=(max(2, len(axes_names)) * 4.2, len(rows) * 2.1 + 0.5),
        layout="constrained",
    )
    picture.suptitle(figure["title"], fontsize=11, fontweight="bold")
    grid = picture.subplots(len(rows), len(axes_names), squeeze=False, sharey="row")
    for ((setting, _), own), axes in zip(rows.items(), grid, strict=True):
        for label, axis in zip(axes_names, axes, strict=True):
            if label not in own:
                axis.set_visible(False)
                continue
            points = [one for one in own[label]["points"] if one["value"] is not None]
            _curve(axis, points)
            _title(axis, own[label], points)
            axis.set_xlabel(label, fontsize=8)
        axes[0].set_ylabel(setting.replace(": ", ":\n", 1), fontsize=6.5, color=GREY)
    return picture


def _curve(axis: Any, points: Sequence[Mapping[str, Any]]) -> None:
    at = [one["at"] for one in points]
    axis.plot(at, [one["value"] for one in points], color=BLUE, marker="o", markersize=4)
    known = [one for one in points if one["low"] is not None]
    axis.fill_between(
        [one["at"] for one in known],
        [one["low"] for one in known],
        [one["high"] for one in known],
        color=BLUE,
        alpha=0.15,
        linewidth=0,
    )
    for one in points:
        seeds = [value for value in one["seeds"].values() if value is not None]
        axis.scatter([one["at"]] * len(seeds), seeds, s=6, color=INK, linewidths=0, zorder=3)
    axis.set_xticks(at)


def _clouds(figure: Figure) -> Any:
    """Speech as blue circles, text as orange triangles, a line between the two of a clip."""
    grid = _grid(figure, 2, (4.6, 4.7))
    picture, _ = next(grid)
    for panels, part in grid:
        axes = part.subplots(1, max(2, len(panels)), squeeze=False)[0]
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        for letter, panel, axis in zip("abcdef", panels, axes, strict=False):
            speech, text = panel["points"]["speech"], panel["points"]["text"]
            for one, other in zip(speech, text, strict=True):
                axis.plot(*zip(one, other, strict=True), color="#c9d1d9", linewidth=0.5, zorder=1)
            kinds = ((speech, BLUE, "o", "speech"), (text, ORANGE, "^", "text"))
            for points, colour, marker, label in kinds:
                axis.scatter(
                    *zip(*points, strict=True), s=16, color=colour, marker=marker, label=label,
                    linewidths=0.3, edgecolors="white", zorder=2,
                )  # fmt: skip
            axis.set_title(
                f"({letter}) {panel['name']}, n = {panel['clips']} clips", fontsize=9, loc="left"
            )
            axis.set(xticks=[], yticks=[])
            axis.spines[["top", "right"]].set_visible(True)
            axis.set_xlabel(measured_text(panel), fontsize=7.5, loc="left")
            axis.legend(fontsize=8, frameon=False, loc="best", handletextpad=0.2)
    return picture


def measured_text(panel: Mapping[str, Any]) -> str:
    """The distances beside a cloud, of its seed, and their range over seeds."""
    every, own = list(panel["measures"].values()), panel["measures"][str(panel["seed"])]

    def told(key: str) -> str:
        values = [one[key] for one in every]
        more = f" (seeds {min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
        return f"{own[key]:.2f}{more}"

    bounds = ""
    if own["recall_low"] is not None:
        bounds = f", 95 % {own['recall_low']:.2f} to {own['recall_high']:.2f}"
    return (
        f"MMD² {told('mmd2')}, p {own['mmd2_p']:.3f} by shuffling\n"
        f"silhouette {told('silhouette')}\n"
        f"recall@1 {told('recall_at_1')}{bounds}; chance {own['chance']:.3f}"
    )


# Figure 7: text whose words have colours.

_LINE, _WIDTH, _LEFT, _TEXT = 0.19, 10.0, 1.75, 8.5  # inches of a line, the page, names; points


def _captions(figure: Figure) -> Any:
    """The captions of each clip, a line for each system; clues in colour, and underlined: right
    ones by a line, wrong ones by two."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    probe = new_figure("the figure", figsize=(_WIDTH, 1), dpi=100)
    canvas: Any = FigureCanvasAgg(probe)
    measure = _measure(probe, canvas.get_renderer())
    lines = list(_lines(figure["clips"], measure))
    height = _LINE * (len(lines) + 3)
    picture = new_figure("the figure", figsize=(_WIDTH, height))
    picture.text(0.01, 1 - _LINE / height, figure["title"], fontsize=11, fontweight="bold")
    legend = 0.33
    for name, colour in VERDICT_COLOURS.items():
        picture.text(legend, 1 - _LINE / height, name, fontsize=9, color=colour, fontweight="bold")
        _underline(picture, legend, 1 - _LINE / height, measure(name, bold=True), name, height)
        legend += 0.02 + measure(name, bold=True) / _WIDTH
    for number, line in enumerate(lines):
        base = 1 - _LINE * (number + 2.6) / height
        for at, text, style in line:
            colour = VERDICT_COLOURS.get(style, GREY if style == "faint" else INK)
            bold = style in ("bold", *VERDICT_COLOURS)
            weight = "bold" if bold else "normal"
            picture.text(at / _WIDTH, base, text, fontsize=_TEXT, color=colour, fontweight=weight)
            if style in VERDICT_COLOURS:
                _underline(picture, at / _WIDTH, base, measure(text, bold=True), style, height)
    return picture


_Piece = tuple[float, str, str]  # inches from the left, text, style


def _measure(probe: Any, renderer: Any) -> Callable[..., float]:
    """Of a text: its width in inches."""
    known: dict[tuple[str, bool], float] = {}

    def width(text: str, *, bold: bool = False) -> float:
        key = (text, bold)
        if key not in known:
            # A blank at the end has no extent of its own.
            drawn = probe.text(
                0, 0, f"{text}.", fontsize=_TEXT, fontweight="bold" if bold else "normal"
            )
            known[key] = drawn.get_window_extent(renderer).width / probe.dpi
            drawn.remove()
        dot = "." if text else ""
        return known[key] - (width("", bold=bold) if dot else 0.0)

    return width


def _lines(
    clips: Sequence[Mapping[str, Any]], measure: Callable[..., float]
) -> Iterator[list[_Piece]]:
    setting = None
    for clip in clips:
        if clip["setting"] != setting:
            setting = clip["setting"]
            yield [(0.1, setting, "faint")]
        label = f"“{clip['emotion']}”" if clip["emotion"] else "no label"
        yield [(0.1, f"{label}, clip {clip['id']}", "bold")]
        for one in clip["captions"]:
            pieces = list(_pieces(one, clip["language"]))
            name: list[_Piece] = [(0.25, one["system"], "")]
            yield from _wrapped(pieces, name, measure)
        yield []


def _pieces(caption: Mapping[str, Any], language: str) -> Iterator[tuple[str, str]]:
    """Words or, in Chinese, characters, each with its style."""
    text, done = caption["text"], 0
    spans = sorted((one for one in caption["clues"] if one["end"]), key=lambda one: one["start"])
    for start, end, style in [(s["start"], s["end"], s["verdict"]) for s in spans] + [
        (len(text), len(text), "")
    ]:
        plain = text[done:start]
        if language == "zh":
            yield from ((one, "") for one in plain)
        else:
            words = plain.split(" ")
            yield from ((f"{one} ", "") for one in words[:-1])
            yield words[-1], ""
        yield text[start:end], style
        done = end
    if not text:
        yield "(nothing)", "faint"


def _wrapped(
    pieces: Sequence[tuple[str, str]], line: list[_Piece], measure: Callable[..., float]
) -> Iterator[list[_Piece]]:
    at = _LEFT
    for text, style in pieces:
        if not text:
            continue
        width = measure(text, bold=style in VERDICT_COLOURS)
        if at + width > _WIDTH - 0.15 and at > _LEFT and text.strip(" ,.。，"):
            yield line
            line, at = [], _LEFT
        line.append((at, text, style))
        at += width
    yield line


def _underline(
    picture: Any, left: float, base: float, inches: float, style: str, height: float
) -> None:
    from matplotlib.lines import Line2D

    solid: tuple[float, Any] = (0.0, "-")
    marks = {"right": [solid], "wrong": [solid, (0.022, "-")]}
    for lower, dash in marks.get(style, [(0.0, ":")]):
        y = base - (0.028 + lower) / height
        right = left + inches / _WIDTH
        colour = VERDICT_COLOURS[style]
        picture.add_artist(
            Line2D([left, right], [y, y], color=colour, linewidth=0.8, linestyle=dash)
        )


DRAWN: Mapping[str, Callable[[Figure], Any]] = {
    "figure2": _bars,
    "figure3": _clouds,
    "figure7": _captions,
    "figure8": _bars,
    "figure9": _curves,
}
"""Name → picture of its numbers."""
