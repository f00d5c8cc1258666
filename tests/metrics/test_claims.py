"""Clue scores, emotion recall and hallucination against numbers counted by hand, scikit-learn and
real voices."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from aligncap.audio import load
from aligncap.clues import acoustic_prompt, clue_of, measured_clues, opposites
from aligncap.errors import AudioError, DataError
from aligncap.metrics.claims import macro_recall
from aligncap.metrics.scores import (
    HALLUCINATIONS,
    METRICS,
    SPLITS,
    MetricOptions,
    ScoredClip,
    open_metric,
)
from aligncap.prosody import measure
from aligncap.values import Facts
from support.rows import clip

SCORES = ("clue-precision", "clue-recall", "clue-f1")


def value(name: str, *clips: ScoredClip, language: str = "en") -> float:
    return open_metric(name, MetricOptions(language=language)).measure(list(clips)).value


def values(*clips: ScoredClip, language: str = "en") -> tuple[float, ...]:
    return tuple(value(name, *clips, language=language) for name in SCORES)


# Claims: female, sad, slow.
SAD_SLOW = "A sad woman speaks slowly."


@pytest.mark.parametrize(
    ("hypothesis", "references", "language", "expected"),
    [
        ("The lady is unhappy and talks at a slow pace.", [SAD_SLOW], "en", (1, 1, 1)),
        # Claims female, angry, fast and loud; female is correct, of female, sad, slow one is
        # recalled: 2 (1/4) (1/3) / (1/4 + 1/3).
        ("An angry woman speaks fast and loudly.", [SAD_SLOW], "en", (1 / 4, 1 / 3, 2 / 7)),
        # 男 高兴 语速快 against 男 高兴 语速慢 音量大: two of three, two of four.
        (
            "一位男性高兴地说话，语速很快。",
            ["一位男性高兴地说话，语速很慢，声音响亮。"],
            "zh",
            (2 / 3, 2 / 4, 4 / 7),
        ),
        # What is denied is another claim.
        ("She is not angry.", ["She is angry."], "en", (1 / 2, 1 / 2, 1 / 2)),
        ("She is not angry.", ["She isn't angry."], "en", (1, 1, 1)),
        # Correct: female and sad by the first, loud by the second. Nearest: the first, 2 of 3.
        ("A sad woman speaks loudly.", [SAD_SLOW, "Loud and angry."], "en", (1, 2 / 3, 4 / 5)),
        # Of references recalled alike the one that claims little else is nearest.
        ("A woman.", ["A sad woman.", "A sad, loud woman who hurries."], "en", (1, 1 / 2, 2 / 3)),
        ("", [SAD_SLOW], "en", (0, 0, 0)),
        ("Nothing of the voice.", [SAD_SLOW], "en", (0, 0, 0)),
        (SAD_SLOW, ["Hello."], "en", (0, math.nan, 0)),
        ("Hello.", ["Goodbye."], "en", (math.nan, math.nan, math.nan)),
    ],
)
def test_clue_scores_counted_by_hand(hypothesis, references, language, expected):
    found = values(clip(hypothesis, *references), language=language)
    assert found == pytest.approx(expected, nan_ok=True)


def test_claims_are_counted_over_clips():
    # 3 of 3 and 0 of 1 correct; 3 of 3 and 0 of 2 recalled.
    found = values(clip(SAD_SLOW, SAD_SLOW), clip("It is loud.", "A quiet man."))
    assert found == pytest.approx((3 / 4, 3 / 5, 2 / 3))


CAPTIONS = st.lists(
    st.sampled_from(["a woman", "sad", "very loud", "not fast", "low-pitched", "trembling", "xyz"]),
    max_size=5,
).map(", ".join)
CLIPS = st.lists(
    st.builds(
        lambda hypothesis, references: clip(hypothesis, *references),
        CAPTIONS,
        st.lists(CAPTIONS, min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(CLIPS, st.randoms())
def test_shares_are_shares_in_any_order_and_f1_lies_between(clips, random):
    precision, recall, f1 = values(*clips)
    assert all(math.isnan(value) or 0 <= value <= 1 for value in (precision, recall, f1))
    if not math.isnan(recall) and not math.isnan(precision):
        assert min(precision, recall) - 1e-9 <= f1 <= max(precision, recall) + 1e-9
    shuffled = [
        clip(one.hypothesis, *random.sample(one.references, len(one.references))) for one in clips
    ]
    random.shuffle(shuffled)
    assert values(*shuffled) == pytest.approx((precision, recall, f1), nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(CAPTIONS, st.lists(CAPTIONS, max_size=2))
def test_a_caption_that_is_one_of_the_references_is_right(caption, others):
    assume(values(clip(caption, "Hello."))[0] == 0)  # it claims something
    assert values(clip(caption, caption, *others)) == (1, 1, 1)


@settings(max_examples=100, deadline=None)
@given(st.text(), st.text(), st.sampled_from(["en", "zh"]))
def test_any_text_is_scored(hypothesis, reference, language):
    for score in values(clip(hypothesis, reference), language=language):
        assert math.isnan(score) or 0 <= score <= 1
    assert value("hallucination", clip(hypothesis, hypothesis), language=language) == 0


@pytest.mark.parametrize("seed", range(5))
def test_emotion_recall_is_scikit_learns_balanced_accuracy(seed):
    chance = np.random.default_rng(seed)
    truth = chance.choice(["sad", "happy", "angry"], 60, p=[0.7, 0.2, 0.1]).tolist()
    named = chance.choice(sorted(set(truth)), 60).tolist()
    expected = balanced_accuracy_score(truth, named)
    assert macro_recall(truth, named) == pytest.approx(expected)
    clips = [clip(f"She is {a}.", "Speech.", emotion=b) for a, b in zip(named, truth, strict=True)]
    assert value("emotion-recall", *clips) == pytest.approx(expected)


def test_a_caption_that_names_nothing_is_wrong():
    # sad: one of two; happy: one of one.
    assert macro_recall(["sad", "sad", "happy"], [None, "sad", "happy"]) == 0.75
    clips = [clip("", "Sad."), clip("He is sad.", "Sad."), clip("A happy man.", "Happy.")]
    assert value("emotion-recall", *clips) == 0.75


@pytest.mark.parametrize(("truth", "named"), [([], []), (["sad"], [])])
def test_nothing_to_average_is_an_error(truth, named):
    with pytest.raises(DataError, match="macro recall"):
        macro_recall(truth, named)


def test_the_label_is_the_truth_or_what_most_references_name_first():
    angry, sad = "She is angry.", "She is sad."
    references = (angry, "Sad.", "An angry woman.")
    assert value("emotion-recall", clip(sad, angry, emotion="sad")) == 1
    assert value("emotion-recall", clip(angry, *references)) == 1
    assert value("emotion-recall", clip(sad, *references)) == 0
    # Of as many, the order of references does not decide.
    assert value("emotion-recall", clip(angry, "Sad.", "Angry.")) == 1
    assert value("emotion-recall", clip(angry, "Angry.", "Sad.")) == 1


def test_a_clip_without_an_emotion_is_not_counted():
    labelled = clip("悲伤的女性。", "她很悲伤。")
    assert value("emotion-recall", labelled, clip("她很高兴。", "一位女性。"), language="zh") == 1
    assert math.isnan(value("emotion-recall", clip("她很高兴。", "一位女性。"), language="zh"))


def test_an_emotion_that_is_no_category_is_refused():
    with pytest.raises(DataError, match="c: emotion is 'joyous', must be one of angry, bored"):
        clip("", "Happy.", emotion="joyous")


def test_hallucination_counted_by_hand():
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

    # 女 right, 高兴 against 悲伤, 语速快 invented.
    found = clip("一位女性高兴地说话，语速很快。", "一位女性悲伤地说话。", "她声音响亮。")
    assert value("hallucination", found, language="zh") == 2 / 3
    assert value("hallucination/emotion", found, language="zh") == 1
    # A caption without claims invents nothing.
    assert value("hallucination", clip("", "A sad woman.")) == 0
    assert math.isnan(value("hallucination/emotion", clip("", "A sad woman.")))


def test_every_trait_but_the_unheard_is_judged_by_the_signal():
    unmeasured = set(HALLUCINATIONS["hallucination"]) - set(HALLUCINATIONS["hallucination-signal"])
    assert unmeasured == {"emotion", "tone"}
    assert set(SPLITS["hallucination-signal"]) <= METRICS.keys()
    assert "hallucination-signal/voice-quality" in METRICS


def test_a_recording_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="clip 'c' has no recording"):
        value("hallucination-signal", clip("It is loud.", "Loud."))
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
