"""Hallucination beside numbers counted by hand, and beside real voices."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.audio import load
from aligncap.clues import acoustic_prompt, clue_of, measured_clues, opposites
from aligncap.errors import AudioError, DataError
from aligncap.metrics.scores import ScoredClip
from aligncap.metrics.table import HALLUCINATIONS, METRICS, SPLITS, MetricOptions, open_metric
from aligncap.prosody import measure
from aligncap.values import Facts


def value(name: str, *clips: ScoredClip, language: str = "en") -> float:
    return open_metric(name, MetricOptions(language=language)).measure(list(clips)).value


def clip(hypothesis: str, *references: str, file: Path | None = None) -> ScoredClip:
    return ScoredClip("c", hypothesis, references, file)


def test_counted_by_hand():
    # female right, happy against sad, fast against slow, trembling invented; then 1 of 1 right.
    clips = [
        clip("A happy woman speaks fast, her voice trembling.", "A sad woman speaks slowly."),
        clip("It is loud.", "Loud and clear."),
    ]
    assert value("hallucination", *clips) == 3 / 5
    assert value("hallucination/pace", *clips) == 1
    assert value("hallucination/gender", *clips) == 0
    assert value("hallucination/volume", *clips) == 0
    assert math.isnan(value("hallucination/pitch", *clips))


def test_counted_by_hand_in_chinese():
    # 女 right, 高兴 against 悲伤, 语速快 invented.
    found = clip("一位女性高兴地说话，语速很快。", "一位女性悲伤地说话。", "她声音响亮。")
    assert value("hallucination", found, language="zh") == 2 / 3
    assert value("hallucination/emotion", found, language="zh") == 1


def test_who_says_nothing_invents_nothing():
    assert value("hallucination", clip("", "A sad woman.")) == 0
    assert math.isnan(value("hallucination/emotion", clip("", "A sad woman.")))


@settings(max_examples=100, deadline=None)
@given(st.text(), st.sampled_from(["en", "zh"]))
def test_any_text_is_judged_and_what_equals_the_reference_is_borne_out(text, language):
    assert value("hallucination", clip(text, text), language=language) == 0


def test_every_trait_but_the_unheard_is_judged_by_the_signal():
    unmeasured = set(HALLUCINATIONS["hallucination"]) - set(HALLUCINATIONS["hallucination-signal"])
    assert unmeasured == {"emotion", "tone"}
    assert set(SPLITS["hallucination-signal"]) <= METRICS.keys()
    assert "hallucination-signal/voice-quality" in METRICS


def test_a_clip_without_a_recording_is_named():
    with pytest.raises(DataError, match="clip 'c' has no recording"):
        value("hallucination-signal", clip("It is loud.", "Loud."))


def test_a_recording_that_is_not_there_is_named(tmp_path):
    with pytest.raises(AudioError, match=r"absent\.wav"):
        value("hallucination-signal", clip("It is loud.", "Loud.", file=tmp_path / "absent.wav"))


def sides(facts: Facts) -> tuple[str, str]:
    """A caption of what is measured, and one of its opposite."""
    shown = [
        clue
        for clue in measured_clues(facts)
        if clue.meaning != "normal" and clue.trait != "gender"
    ]
    turned = [clue_of(clue.trait, opposites(clue.trait, clue.meaning)[0]) for clue in shown]
    return acoustic_prompt(shown), acoustic_prompt(turned)


@pytest.mark.speech_data
def test_the_truth_of_real_voices_is_borne_out_and_its_opposite_is_not(speech_data):
    files = sorted((speech_data / "ravdess").glob("*.flac"))[::150]
    captions = [(file, *sides(measure(load(file)))) for file in files]
    said = [one for one in captions if one[1]]
    assert len(said) >= 4
    true = [clip(truth, "Speech.", file=file) for file, truth, _ in said]
    false = [clip(turned, "Speech.", file=file) for file, _, turned in said]
    assert value("hallucination-signal", *true) == 0
    assert value("hallucination-signal", *false) == 1


def test_a_recording_is_measured_once_for_all_metrics(example_clips, tmp_path):
    copy = tmp_path / example_clips[0].name
    copy.write_bytes(example_clips[0].read_bytes())
    clips = [clip("It is loud and fast.", "Loud.", file=copy)]
    options = MetricOptions()
    first = open_metric("hallucination-signal", options).measure(clips).per_clip
    copy.unlink()
    again = [open_metric(name, options) for name in SPLITS["hallucination-signal"]]
    assert sum(metric.measure(clips).per_clip for metric in again).tolist() == first.tolist()
