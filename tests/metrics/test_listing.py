"""Scores as text, markdown and JSON, to the letter."""

import json
import math

from aligncap.metrics.evaluation import Line
from aligncap.metrics.report import as_json, markdown_table, text_table
from aligncap.metrics.scores import Difference, Score, SmallSample

F1 = Line(score=Score("clue-f1", 70.125, 60.0, 81.5, "clue-f1|n:2"))
PITCH = Line(score=Score("hallucination/pitch", math.nan, None, None, "hallucination/pitch|n:2"))
FULL = Line(
    score=Score("clue-f1", 70.0, 60.0, 81.5, "clue-f1|n:2"),
    baseline=Score("clue-f1", 65.0, 55.0, 75.0, "clue-f1|n:2"),
    difference=Difference("clue-f1", 5.0, -1.0, 11.0, 0.0004, "clue-f1|n:2"),
    paper25=SmallSample("clue-f1", 69.5, 4.25, "clue-f1|draws:100x25"),
)
UNTOLD = Line(
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
    assert markdown_table([FULL, UNTOLD], "Two systems").splitlines() == [
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
    assert json.loads(as_json([F1, PITCH])) == {
        "clue-f1": {"value": 70.125, "low": 60.0, "high": 81.5, "signature": "clue-f1|n:2"},
        "hallucination/pitch": {
            "value": None, "low": None, "high": None, "signature": "hallucination/pitch|n:2"
        },
    }  # fmt: skip


def test_json_of_a_comparison():
    found = json.loads(as_json([FULL, UNTOLD]))
    assert found["clue-f1"]["baseline"]["value"] == 65.0
    assert found["clue-f1"]["difference"] == {
        "delta": 5.0, "low": -1.0, "high": 11.0, "p": 0.0004, "signature": "clue-f1|n:2"
    }  # fmt: skip
    assert found["clue-f1"]["paper25"]["sd"] == 4.25
    assert found["hallucination/pitch"]["difference"]["delta"] is None
