"""Bins: dataspeech's rule by numpy, files that are none, sentences."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncap.errors import DataError, UnknownNameError
from aligncap.tts.bins import NAMES, TEXTS_OF, Scale, describe, read_bins, text_columns


@given(st.sampled_from(NAMES), st.sampled_from(sorted(TEXTS_OF)), st.floats(-50, 400))
def test_a_number_has_the_text_that_numpy_finds_as_dataspeech_does(name, edges, value) -> None:
    scale = read_bins(name).get(edges)
    if scale is None:
        return
    index = np.searchsorted(scale.edges, value, side="left")
    assert scale.text(value) == scale.texts[min(max(index - 1, 0), len(scale.texts) - 1)]


def test_edges_belong_below_and_nothing_has_no_text() -> None:
    scale = Scale((0.0, 1.0, 2.0), ("low", "high"))
    assert [scale.text(value) for value in (-5, 0, 1, 1.01, 9)] == [
        *("low", "low", "low", "high", "high")
    ]
    assert scale.text(None) is None


def test_the_sets_have_the_columns_of_their_makers() -> None:
    whole = ("pitch", "speaking_rate", "noise", "reverberation", "speech_monotony")
    assert [text_columns(read_bins(name)) for name in NAMES] == [
        *(whole, whole, ("pitch", "speaking_rate", "noise"))
    ]
    assert text_columns(read_bins("none")) == ("speaking_rate",)
    assert read_bins("v02")["pitch_bins_male"].text(148) == "slightly high-pitch"
    assert read_bins("v01")["noise"].text(63.0) == "quite clear"
    assert read_bins("paraspeechcaps")["speaking_rate"].text(15.0) == "measured speed"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "has none of"),
        ({"noise": [1, 2, 3], "snr_bins": ["a"]}, "3 edges for the 1 texts"),
        ({"noise": [3, 2, 1], "snr_bins": ["a", "b"]}, "rising"),
        ({"noise": [1, "b"], "snr_bins": ["a"]}, "needs numbers"),
        ({"noise": [1, 2]}, "needs numbers"),
    ],
)
def test_a_file_that_holds_no_bins_is_refused(tmp_path: Path, table, message) -> None:
    file = tmp_path / "own.json"
    file.write_text(json.dumps(table), "utf-8")
    with pytest.raises(DataError, match=message):
        read_bins(str(file))


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"noise": [0, 30, 60], "snr_bins": ["bad", "good"]}), "utf-8")
    assert read_bins(str(file))["noise"].text(40) == "good"
    with pytest.raises(UnknownNameError, match="v02"):
        read_bins("v2")


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ({}, ""),
        ({"pitch": "moderate pitch", "noise": None}, ""),
        (
            {"pitch": "low-pitch", "speech_monotony": "very monotone", "speaking_rate": "slowly"},
            "The voice is low-pitch and very monotone; the words are spoken slowly.",
        ),
        (
            {"pitch": "quite high pitch", "noise": "quite clear", "speaking_rate": "slow speed"},
            "The voice has quite high pitch; the words are spoken at slow speed; "
            "the recording is quite clear.",
        ),
        ({"noise": "clean environment"}, "The recording has a clean environment."),
        (
            {"noise": "clean", "reverberation": "slightly close-sounding"},
            "The recording is clean and slightly close-sounding.",
        ),
    ],
)
def test_texts_become_a_sentence(texts, sentence) -> None:
    assert describe(texts) == sentence
