"""A page of HTML that is one file: its look is written into it, and it loads nothing by itself.

Everything that comes from outside is to be `escaped`.
"""

from html import escape
from pathlib import Path

RECORDINGS = "media-src *"
"""The policy of a page that links to recordings; nothing else may be shown."""
EMBEDDED = "img-src data:; media-src data:"
"""That of a page that has its pictures and recordings in itself."""


def page(title: str, body: str, *, policy: str, style: str = "") -> str:
    """A whole page; `policy` says what it may show besides text, `style` is added to the look."""
    look = Path(__file__).with_name("page.css").read_text("utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        f"content=\"default-src 'none'; style-src 'unsafe-inline'; {policy}\">\n"
        f"<title>{escaped(title)}</title>\n<style>\n{look}{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def escaped(text: str) -> str:
    """Escaped; half a surrogate pair, which a file name may hold, becomes a question mark."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"))
