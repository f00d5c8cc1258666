"""Clue scores, emotion recall and hallucination against numbers counted by hand, scikit-learn and
real voices."""

from math import isnan, nan

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from aligncap.audio import load
from aligncap.clues import acoustic_prompt, clue_of, measured_clues, opposites
from aligncap.errors import DataError
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
from support.rows import clip

SCORES = ("clue-precision", "clue-recall", "clue-f1")


def value(name: str, *clips: ScoredClip, language: str = "en") -> float:
    return open_metric(name, MetricOptions(language=language)).measure(list(clips)).value


def values(*clips: ScoredClip, language: str = "en") -> tuple[float, ...]:
    return tuple(value(name, *clips, language=language) for name in SCORES)


# Claims: female, sad, slow.
SAD_SLOW = "A sad woman speaks slowly."


@pytest.mark.parametrize(
    ("hypothesis", "references", "expected"),
    [
        ("The lady is unhappy and talks at a slow pace.", [SAD_SLOW], (1, 1, 1)),
        # Claims female, angry, fast and loud; female is correct, of female, sad, slow one is
        # recalled: 2 (1/4) (1/3) / (1/4 + 1/3).
        ("An angry woman speaks fast and loudly.", [SAD_SLOW], (1 / 4, 1 / 3, 2 / 7)),
        # 男 高兴 语速快 against 男 高兴 语速慢 音量大: two of three, two of four.
        ("一位男性高兴地说话，语速很快。", ["一位男性高兴地说话，语速很慢，声音响亮。"],
         (2 / 3, 2 / 4, 4 / 7)),
        # What is denied is another claim.
        ("She is not angry.", ["She is angry."], (1 / 2, 1 / 2, 1 / 2)),
        ("She is not angry.", ["She isn't angry."], (1, 1, 1)),
        # Correct: female and sad by the first, loud by the second. Nearest: the first, 2 of 3.
        ("A sad woman speaks loudly.", [SAD_SLOW, "Loud and angry."], (1, 2 / 3, 4 / 5)),
        # Of references recalled alike the one that claims little else is nearest.
        ("A woman.", ["A sad woman.", "A sad, loud woman who hurries."], (1, 1 / 2, 2 / 3)),
        ("", [SAD_SLOW], (0, 0, 0)),
        ("Nothing of the voice.", [SAD_SLOW], (0, 0, 0)),
        (SAD_SLOW, ["Hello."], (0, nan, 0)),
        ("Hello.", ["Goodbye."], (nan, nan, nan)),
    ],
)  # fmt: skip
def test_clue_scores_counted_by_hand(hypothesis, references, expected) -> None:
    found = values(clip(hypothesis, *references), language="zh" if "男" in hypothesis else "en")
    assert found == pytest.approx(expected, nan_ok=True)


def test_claims_are_counted_over_clips() -> None:
    # 3 of 3 and 0 of 1 correct; 3 of 3 and 0 of 2 recalled.
    found = values(clip(SAD_SLOW, SAD_SLOW), clip("It is loud.", "A quiet man."))
    assert found == pytest.approx((3 / 4, 3 / 5, 2 / 3))


PHRASES = ["a woman", "sad", "very loud", "not fast", "low-pitched", "trembling", "xyz"]
CAPTIONS = st.lists(st.sampled_from(PHRASES), max_size=5).map(", ".join)
CLIP = st.builds(lambda said, meant: clip(said, *meant), CAPTIONS, st.lists(CAPTIONS, min_size=1))


@settings(max_examples=60)
@given(st.lists(CLIP, min_size=1, max_size=5), st.randoms())
def test_shares_are_shares_in_any_order_and_f1_lies_between(clips, random) -> None:
    precision, recall, f1 = found = values(*clips)
    assert all(isnan(value) or 0 <= value <= 1 for value in found)
    if not isnan(recall) and not isnan(precision):
        assert min(precision, recall) - 1e-9 <= f1 <= max(precision, recall) + 1e-9
    shuffled = [
        clip(one.hypothesis, *random.sample(one.references, len(one.references)))
        for one in random.sample(clips, len(clips))
    ]
    assert values(*shuffled) == pytest.approx(found, nan_ok=True)


@settings(max_examples=60)
@given(CAPTIONS, st.lists(CAPTIONS, max_size=2))
def test_a_caption_that_is_one_of_the_references_is_right(caption, others) -> None:
    assume(values(clip(caption, "Hello."))[0] == 0)  # it claims something
    assert values(clip(caption, caption, *others)) == (1, 1, 1)


@settings(max_examples=100)
@given(st.text(), st.text(), st.sampled_from(["en", "zh"]))
def test_any_text_is_scored(hypothesis, reference, language) -> None:
    for score in values(clip(hypothesis, reference), language=language):
        assert isnan(score) or 0 <= score <= 1
    assert value("hallucination", clip(hypothesis, hypothesis), language=language) == 0


@pytest.mark.parametrize("seed", range(5))
def test_emotion_recall_is_scikit_learns_balanced_accuracy(seed) -> None:
    chance = np.random.default_rng(seed)
    truth = chance.choice(["sad", "happy", "angry"], 60, p=[0.7, 0.2, 0.1]).tolist()
    named = chance.choice(sorted(set(truth)), 60).tolist()
    expected = balanced_accuracy_score(truth, named)
    assert macro_recall(truth, named) == pytest.approx(expected)
    clips = [clip(f"She is {a}.", "Speech.", emotion=b) for a, b in zip(named, truth, strict=True)]
    assert value("emotion-recall", *clips) == pytest.approx(expected)


ANGRY, SAD = "She is angry.", "She is sad."


@pytest.mark.parametrize(
    ("clips", "language", "expected"),
    [
        # A caption that names nothing is wrong. sad: one of two; happy: one of one.
        ([clip("", "Sad."), clip("He is sad.", "Sad."), clip("Happy.", "Happy.")], "en", 0.75),
        # The label is the truth, or what most references name first.
        ([clip(SAD, ANGRY, emotion="sad")], "en", 1),
        ([clip(ANGRY, ANGRY, "Sad.", "An angry woman.")], "en", 1),
        ([clip(SAD, ANGRY, "Sad.", "An angry woman.")], "en", 0),
        # Of as many, the order of references does not decide.
        ([clip(ANGRY, "Sad.", "Angry.")], "en", 1),
        ([clip(ANGRY, "Angry.", "Sad.")], "en", 1),
        # A clip without an emotion is not counted.
        ([clip("悲伤的女性。", "她很悲伤。"), clip("她很高兴。", "一位女性。")], "zh", 1),
        ([clip("她很高兴。", "一位女性。")], "zh", nan),
    ],
)
def test_emotion_recall_counted_by_hand(clips, language, expected) -> None:
    found = value("emotion-recall", *clips, language=language)
    assert found == pytest.approx(expected, nan_ok=True)


def test_what_cannot_be_averaged_or_judged_is_an_error(tmp_path) -> None:
    for truth in ([], ["sad"]):
        with pytest.raises(DataError, match="macro recall"):
            macro_recall(truth, [])


@pytest.mark.parametrize(
    ("clips", "language", "expected"),
    [
        # female right, happy against sad, fast against slow, trembling invented; 1 of 1 right.
        ([clip("A happy woman speaks fast, her voice trembling.", SAD_SLOW),
          clip("It is loud.", "Loud and clear.")],
         "en", {"": 3 / 5, "/pace": 1, "/gender": 0, "/volume": 0, "/pitch": nan}),
        # 女 right, 高兴 against 悲伤, 语速快 invented.
        ([clip("一位女性高兴地说话，语速很快。", "一位女性悲伤地说话。", "她声音响亮。")],
         "zh", {"": 2 / 3, "/emotion": 1}),
        # What is denied is claimed against what is affirmed.
        ([clip("A loud voice.", "A sad voice, not loud.")], "en", {"": 1}),
        ([clip("The voice is not sad.", "An angry voice.")], "en", {"": 0}),
        # A caption without claims invents nothing.
        ([clip("", "A sad woman.")], "en", {"": 0, "/emotion": nan}),
    ],
)  # fmt: skip
def test_hallucination_counted_by_hand(clips, language, expected) -> None:
    found = {key: value(f"hallucination{key}", *clips, language=language) for key in expected}
    assert found == pytest.approx(expected, nan_ok=True)


def test_every_trait_but_the_unheard_is_judged_by_the_signal() -> None:
    unmeasured = set(HALLUCINATIONS["hallucination"]) - set(HALLUCINATIONS["hallucination-signal"])
    assert unmeasured == {"emotion", "tone"}
    assert "hallucination-signal/voice-quality" in SPLITS["hallucination-signal"]
    assert set(SPLITS["hallucination-signal"]) <= METRICS.keys()


@pytest.mark.speech_data
def test_the_truth_of_real_voices_is_borne_out_and_its_opposite_is_not(speech_data) -> None:
    true, false = [], []
    for file in sorted((speech_data / "ravdess").glob("*.flac"))[::150]:
        found = [c for c in measured_clues(measure(load(file))) if c.trait != "gender"]
        shown = [c for c in found if c.meaning != "normal"]
        turned = [clue_of(c.trait, opposites(c.trait, c.meaning)[0]) for c in shown]
        if shown:
            true.append(clip(acoustic_prompt(shown), "Speech.", file=file))
            false.append(clip(acoustic_prompt(turned), "Speech.", file=file))
    assert len(true) >= 4
    assert value("hallucination-signal", *true) == 0
    assert value("hallucination-signal", *false) == 1


def test_a_recording_is_measured_once_for_all_metrics(example_clips, tmp_path) -> None:
    copy = tmp_path / example_clips[0].name
    copy.write_bytes(example_clips[0].read_bytes())
    clips = [clip("It is loud and fast.", "Loud.", file=copy)]
    options = MetricOptions()
    first = open_metric("hallucination-signal", options).measure(clips).per_clip
    copy.unlink()
    again = [open_metric(name, options) for name in SPLITS["hallucination-signal"]]
    total = sum(metric.measure(clips).per_clip for metric in again)
    assert total[:, :2].tolist() == first[:, :2].tolist()
