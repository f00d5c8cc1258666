"""An evaluation as text, markdown and JSON, to the letter, and as a page: what it shows, in which
order, and that nothing breaks out of it."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from aligncap.metrics.evaluation import (
    SHOWN,
    ClipAnalysis,
    MetricResult,
    analyse,
    as_json,
    markdown_table,
    report_page,
    text_table,
    worst_first,
)
from aligncap.metrics.scores import ClaimCache, Difference, Score, ScoredClip, SmallSample

F1 = MetricResult(score=Score("clue-f1", 70.125, 60.0, 81.5, "clue-f1|n:2"))
PITCH = MetricResult(
    score=Score("hallucination/pitch", math.nan, None, None, "hallucination/pitch|n:2")
)
FULL = MetricResult(
    score=Score("clue-f1", 70.0, 60.0, 81.5, "clue-f1|n:2"),
    baseline=Score("clue-f1", 65.0, 55.0, 75.0, "clue-f1|n:2"),
    difference=Difference("clue-f1", 5.0, -1.0, 11.0, 0.0004, "clue-f1|n:2"),
    paper25=SmallSample("clue-f1", 69.5, 4.25, "clue-f1|draws:100x25"),
)
UNKNOWN = MetricResult(
    score=PITCH.score,
    baseline=PITCH.score,
    difference=Difference("hallucination/pitch", math.nan, None, None, 1.0, "x"),
    paper25=SmallSample("hallucination/pitch", math.nan, math.nan, "x"),
)


def test_a_table_for_a_terminal():
    assert text_table([F1, PITCH], "Two clips").splitlines() == [
        "Two clips",
        "",
        "metric   score   95 % interval",
        "clue-f1  70.12  60.00 to 81.50",
        "  pitch      –               –",
        "",
        "clue-f1|n:2",
    ]


def test_a_comparison_in_markdown():
    assert markdown_table([FULL, UNKNOWN], "Two systems").splitlines() == [
        "Two systems",
        "",
        "| metric | score | 95 % interval | baseline | difference | 95 % interval | p "
        "| 25 clips, mean ± sd |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| clue-f1 | 70.00 | 60.00 to 81.50 | 65.00 | +5.00 | -1.00 to 11.00 | <0.001 "
        "| 69.50 ± 4.25 |",
        "| &emsp;pitch | – | – | – | – | – | – | – |",
        "",
        "- `clue-f1|n:2`",
        "- `clue-f1|draws:100x25`",
    ]


def test_json_maps_each_metric_to_its_numbers():
    f1 = {"value": 70.0, "low": 60.0, "high": 81.5, "signature": "clue-f1|n:2"}
    unknown = {"low": None, "high": None, "signature": "hallucination/pitch|n:2"}
    assert json.loads(as_json([FULL, UNKNOWN])) == {
        "clue-f1": f1
        | {
            "baseline": {"value": 65.0, "low": 55.0, "high": 75.0, "signature": "clue-f1|n:2"},
            "difference": {
                "delta": 5.0, "low": -1.0, "high": 11.0, "p": 0.0004, "signature": "clue-f1|n:2"
            },
            "paper25": {"mean": 69.5, "sd": 4.25, "signature": "clue-f1|draws:100x25"},
        },
        "hallucination/pitch": {"value": None}
        | unknown
        | {
            "baseline": {"value": None} | unknown,
            "difference": {"delta": None, "low": None, "high": None, "p": 1.0, "signature": "x"},
            "paper25": {"mean": None, "sd": None, "signature": "x"},
        },
    }  # fmt: skip
    assert list(json.loads(as_json([F1]))["clue-f1"]) == ["value", "low", "high", "signature"]


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


def analysis(
    hypothesis: str, *references: str, name: str = "c", file: Path | None = None, signal=False
) -> ClipAnalysis:
    return analyse(
        ScoredClip(name, hypothesis, references, file), "en", ClaimCache(), signal=signal
    )


def page(
    *clips: ClipAnalysis, folder: Path = Path("/reports"), heading: str = "Heading"
) -> Elements:
    return Elements(
        report_page([F1], worst_first(clips), heading=heading, language="en", folder=folder)
    )


def test_claims_are_sorted_by_how_they_stand():
    one = analysis(
        "A happy woman speaks fast, not loudly.", "A sad woman speaks slowly.", "It is loud."
    )
    meanings = {
        kind: [f"{'not ' * clue.negated}{clue.meaning}" for clue in getattr(one, kind)]
        for kind in ("found", "contradicted", "invented", "missed")
    }
    assert meanings == {
        "found": ["female"],
        "contradicted": ["happy", "fast", "not loud"],
        "invented": [],
        "missed": ["sad", "slow"],
    }
    assert one.f1 == pytest.approx(2 * (1 / 4) * (1 / 3) / (1 / 4 + 1 / 3))


def test_the_worst_come_first():
    names = {
        "right": analysis("A sad man.", "A sad man.", name="right"),
        "silent": analysis("Hello.", "Goodbye.", name="silent"),
        "half": analysis("A sad man.", "A loud man.", name="half"),
        "against": analysis("A happy man.", "A sad man.", name="against"),
        "wrong": analysis("A loud man.", "A sad woman.", name="wrong"),
    }
    order = [one.clip.id for one in worst_first(list(names.values()))]
    assert order == ["wrong", "against", "half", "right", "silent"]


def test_it_shows_captions_clues_and_scores():
    found = page(analysis("A happy woman, trembling.", "A sad woman speaks slowly.", name="clip-7"))
    for shown in (
        "clip-7", "A happy woman, trembling.", "A sad woman speaks slowly.", "F1 of clues",
        "✓ woman gender", "○ slow", "+ trembling voice quality", "✗ happy emotion",
        "Found", "Missed", "Invented", "Against a reference",
        "clue-f1 70.12 60.00 to 81.50", "clue-f1|n:2",
    ):  # fmt: skip
        assert shown in found.text
    assert "Nothing was said." in page(analysis(" ", "Sad.")).text


def test_what_the_recording_contradicts_is_shown_with_the_measurement(example_clips):
    slow = next(file for file in example_clips if file.stem == "man-low-flat-slow-quiet")
    found = page(
        analysis("He speaks very fast.", "Speech.", file=slow, signal=True), folder=slow.parent
    )
    assert "Against the recording" in found.text
    assert "syllables/s" in found.text
    assert found.named("audio")[0]["src"] == "man-low-flat-slow-quiet.ogg"


@pytest.mark.parametrize(
    "evil", [EVIL, "\u202e\u0000\ud83d", "{{7*7}} ${x} %s", "<!--", "</style>"]
)
def test_nothing_breaks_out_of_it(evil, tmp_path):
    file = tmp_path / f"{evil.replace('/', '').replace(chr(0), '')}.wav"
    found = page(analysis(evil, evil, name=evil, file=file), folder=tmp_path, heading=evil)
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
        analysis("Sad.", "Sad.", name="a", file=Path("/clips/a b#1?.wav")),
        analysis("Sad.", "Sad.", name="b", file=Path("/clips/b.aiff")),
    )
    found = page(*clips)
    assert found.named("link") == []
    assert [one["src"] for one in found.named("audio")] == ["../clips/a%20b%231%3F.wav"]
    assert [one["href"] for one in found.named("a")] == ["#clips", "../clips/b.aiff"]
    (policy,) = (one for one in found.named("meta") if "http-equiv" in one)
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_a_large_set_is_cut_and_the_rest_counted():
    clips = [analysis("Sad.", "Sad.", name=f"c{n}") for n in range(SHOWN + 25)]
    found = page(*clips)
    assert len(found.named("article")) == SHOWN
    assert f"The worst {SHOWN} of {SHOWN + 25} clips; the other 25 are left out." in found.text
    assert "All 3 clips." in page(*clips[:3]).text
