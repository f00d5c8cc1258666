"""An evaluation as one page of HTML: scores, then the clips, worst first, each with its clues.

The page is one file that loads nothing but the recordings it links to. Everything that comes from
outside is escaped; kinds of clues differ in heading, mark and border, not in colour alone.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from aligncap.scoring.evaluation import Line
from aligncap.scoring.listing import cells, headings, number, signatures
from aligncap.scoring.marking import MarkedClip
from aligncap.values import Clue

SHOWN = 200
"""Clips on a page at most: a browser that is to lay out thousands is slow."""

PLAYED = frozenset({".wav", ".mp3", ".ogg", ".oga", ".opus", ".flac"})
"""Recordings that browsers play; others are linked only."""

KINDS = (
    ("found", "✓", "Found", "found"),
    ("missed", "○", "Missed", "missed"),
    ("invented", "+", "Invented", "invented"),
    ("contradicted", "✗", "Against a reference", "wrong"),
)
"""What `MarkedClip` calls them, mark, heading and class, in the order shown."""


def report_page(
    lines: Sequence[Line],
    worst: Sequence[MarkedClip],
    *,
    heading: str,
    language: str,
    folder: Path,
) -> str:
    """The page, to lie in `folder`; `worst` are all clips, the worst first, in one language."""
    style = Path(__file__).with_name("page.css").read_text("utf-8")
    shown = worst[:SHOWN]
    body = "\n".join(
        [
            '<a class="skip" href="#clips">To the clips</a>',
            "<h1>Scores of captions</h1>",
            f"<p>{_text(heading)}</p>",
            *_scores(lines),
            '<h2 id="clips">Clips, worst first</h2>',
            f'<p class="faint">{_count(len(shown), len(worst))} By F1 of the clues, then by how '
            "many are contradicted. Missed are clues of the nearest reference.</p>",
            *(part for one in shown for part in _clip(one, language, folder)),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; media-src *\">\n"
        f"<title>Scores of captions</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _text(text: str) -> str:
    """Escaped; half a surrogate pair, which a file name may hold, becomes a question mark."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"))


def _count(shown: int, everything: int) -> str:
    if shown == everything:
        return f"All {everything} clips."
    return f"The worst {shown} of {everything} clips; the other {everything - shown} are left out."


def _scores(lines: Sequence[Line]) -> Iterator[str]:
    columns = headings(lines)
    yield '<div class="wide" tabindex="0" role="region" aria-label="Scores"><table>'
    heads = "".join(f'<th scope="col">{name}</th>' for name in columns)
    yield f"<thead><tr>{heads}</tr></thead><tbody>"
    for line in lines:
        name, *values = map(_text, cells(line, columns))
        kind = ' class="part"' if name.startswith(" ") else ""
        shown = "".join(f"<td>{value}</td>" for value in values)
        yield f'<tr{kind}><th scope="row">{name.strip()}</th>{shown}</tr>'
    yield "</tbody></table></div>"
    yield "<details><summary>What each number depends on</summary><ul>"
    yield from (f"<li><code>{_text(signature)}</code></li>" for signature in signatures(lines))
    yield "</ul></details>"


def _clip(marked: MarkedClip, language: str, folder: Path) -> Iterator[str]:
    clip = marked.clip
    yield f"<article><header><h3>{_text(clip.id)}</h3>"
    yield f'<span class="faint">F1 of clues {number(100 * marked.f1)}</span></header>'
    if clip.file is not None:
        yield from _recording(clip.file, clip.id, folder)
    said = _text(clip.hypothesis.strip()) or '<em lang="en">Nothing was said.</em>'
    yield f'<blockquote lang="{language}">{said}</blockquote>'
    references = "".join(f"<li>{_text(text)}</li>" for text in clip.references)
    yield f'<div class="faint">References<ul lang="{language}">{references}</ul></div>'
    yield "<dl>"
    for name, sign, heading, kind in KINDS:
        clues: tuple[Clue, ...] = getattr(marked, name)
        yield from _clues(sign, heading, kind, [(clue, "") for clue in clues])
    heard = [(one.clue, one.measurement) for one in marked.unheard]
    yield from _clues("✗", "Against the recording", "wrong", heard)
    yield "</dl></article>"


def _recording(file: Path, name: str, folder: Path) -> Iterator[str]:
    link = _text(quote(Path(os.path.relpath(file, folder)).as_posix(), errors="replace"))
    if file.suffix.lower() in PLAYED:
        label = _text(f"Recording of {name}")
        yield f'<audio controls preload="none" src="{link}" aria-label="{label}"></audio>'
    else:
        yield f'<p><a href="{link}">{_text(file.name)}</a></p>'


def _clues(sign: str, heading: str, kind: str, clues: Iterable[tuple[Clue, str]]) -> Iterator[str]:
    items = [
        f'<li><span aria-hidden="true">{sign}</span> {_text(_said(clue))} '
        f"<small>{_text(measured or clue.trait)}</small></li>"
        for clue, measured in clues
    ]
    if items:
        yield f'<dt class="{kind}">{heading}</dt>'
        yield f'<dd class="{kind}"><ul class="clues">{"".join(items)}</ul></dd>'


def _said(clue: Clue) -> str:
    return f"not {clue.word}" if clue.negated else clue.word
