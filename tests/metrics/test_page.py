"""The page of clips: what it shows, in which order, and that nothing breaks out of it."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from aligncap.metrics.evaluation import Line, MarkedClip, mark, worst_first
from aligncap.metrics.report import SHOWN, report_page
from aligncap.metrics.scores import Score, ScoredClip
from aligncap.metrics.table import ClaimCache

LINES = [Line(score=Score("clue-f1", 50.0, 40.0, 60.0, "clue-f1|n:2"))]
EVIL = "</article><script>alert('x')</script> & \"sad\" <img src=x onerror=alert(1)>"


class Elements(HTMLParser):
    """Every element with its attributes, and the text; that elements are closed in order."""

    VOID = ("meta", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def marked(
    hypothesis: str, *references: str, name: str = "c", file: Path | None = None, listen=False
) -> MarkedClip:
    return mark(ScoredClip(name, hypothesis, references, file), "en", ClaimCache(), listen=listen)


def page(*clips: MarkedClip, folder: Path = Path("/reports"), heading: str = "Heading") -> Elements:
    return Elements(
        report_page(LINES, worst_first(clips), heading=heading, language="en", folder=folder)
    )


def meanings(clues) -> list[str]:
    return [("not " if clue.negated else "") + clue.meaning for clue in clues]


def test_claims_are_sorted_by_how_they_stand():
    one = marked(
        "A happy woman speaks fast, not loudly.", "A sad woman speaks slowly.", "It is loud."
    )
    assert meanings(one.found) == ["female"]
    assert meanings(one.contradicted) == ["happy", "fast", "not loud"]
    assert meanings(one.invented) == []
    assert meanings(one.missed) == ["sad", "slow"]
    assert one.f1 == pytest.approx(2 * (1 / 4) * (1 / 3) / (1 / 4 + 1 / 3))


def test_the_worst_come_first():
    names = {
        "right": marked("A sad man.", "A sad man.", name="right"),
        "silent": marked("Hello.", "Goodbye.", name="silent"),
        "half": marked("A sad man.", "A loud man.", name="half"),
        "against": marked("A happy man.", "A sad man.", name="against"),
        "wrong": marked("A loud man.", "A sad woman.", name="wrong"),
    }
    order = [one.clip.id for one in worst_first(list(names.values()))]
    assert order == ["wrong", "against", "half", "right", "silent"]


def test_what_it_shows():
    found = page(marked("A happy woman, trembling.", "A sad woman speaks slowly.", name="clip-7"))
    for shown in (
        "clip-7",
        "A happy woman, trembling.",
        "A sad woman speaks slowly.",
        "F1 of clues",
    ):
        assert shown in found.text
    assert "✓ woman gender" in found.text
    assert "○ slowly pace" in found.text or "○ slow pace" in found.text
    assert "+ trembling voice quality" in found.text
    assert "✗ happy emotion" in found.text
    for heading in ("Found", "Missed", "Invented", "Against a reference"):
        assert heading in found.text
    assert "clue-f1 50.00 40.00 to 60.00" in found.text
    assert "clue-f1|n:2" in found.text


def test_what_the_recording_contradicts_is_shown_with_the_measurement(example_clips):
    slow = next(file for file in example_clips if file.stem == "man-low-flat-slow-quiet")
    found = page(
        marked("He speaks very fast.", "Speech.", file=slow, listen=True), folder=slow.parent
    )
    assert "Against the recording" in found.text
    assert "syllables/s" in found.text
    assert found.named("audio")[0]["src"] == "man-low-flat-slow-quiet.ogg"


@pytest.mark.parametrize(
    "evil", [EVIL, "\u202e\u0000\ud83d", "{{7*7}} ${x} %s", "<!--", "</style>"]
)
def test_nothing_breaks_out_of_it(evil, tmp_path):
    file = tmp_path / f"{evil.replace('/', '').replace(chr(0), '')}.wav"
    found = page(marked(evil, evil, name=evil, file=file), folder=tmp_path, heading=evil)
    assert found.named("script") == found.named("img") == []
    assert {name for tag, attributes in found.found for name in attributes} <= {
        "aria-hidden", "aria-label", "charset", "class", "content", "controls", "href",
        "http-equiv", "id", "lang", "name", "preload", "role", "scope", "src", "tabindex",
    }  # fmt: skip
    if "\ud83d" not in evil:
        assert unquote(found.named("audio")[0]["src"] or "") == file.name
        assert " ".join(evil.split()) in found.text


def test_it_loads_nothing_but_recordings():
    clips = (
        marked("Sad.", "Sad.", name="a", file=Path("/clips/a b#1?.wav")),
        marked("Sad.", "Sad.", name="b", file=Path("/clips/b.aiff")),
    )
    found = page(*clips)
    assert found.named("link") == []
    assert [one["src"] for one in found.named("audio")] == ["../clips/a%20b%231%3F.wav"]
    assert [one["href"] for one in found.named("a")] == ["#clips", "../clips/b.aiff"]
    (policy,) = (one for one in found.named("meta") if "http-equiv" in one)
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_a_caption_that_says_nothing_is_told():
    assert "Nothing was said." in page(marked(" ", "Sad.")).text


def test_a_large_set_is_cut_and_the_rest_counted():
    clips = [marked("Sad.", "Sad.", name=f"c{n}") for n in range(SHOWN + 25)]
    found = page(*clips)
    assert len(found.named("article")) == SHOWN
    assert f"The worst {SHOWN} of {SHOWN + 25} clips; the other 25 are left out." in found.text
    assert "All 3 clips." in page(*clips[:3]).text
