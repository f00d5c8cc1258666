"""A whole evaluation of a few clips: which metrics, in which order, with what beside them."""

from pathlib import Path

import pytest

from aligncap.errors import MissingModelError, UnknownNameError
from aligncap.metrics.evaluation import Draws, evaluate, language_of, usual_metrics, with_splits
from aligncap.metrics.scores import ScoredClip
from aligncap.metrics.table import DEFAULT_METRICS, METRICS, SET_METRICS, MetricOptions

TEXTS = [
    ("A sad woman speaks slowly.", "A sad woman speaks slowly."),
    ("An angry man shouts.", "A happy man speaks quietly."),
    ("", "A woman whispers in fear."),
]
CLIPS = [ScoredClip(str(n), said, (reference,)) for n, (said, reference) in enumerate(TEXTS)]
SAME = [ScoredClip(clip.id, clip.references[0], clip.references) for clip in CLIPS]
SILENT = [ScoredClip(clip.id, "", clip.references) for clip in CLIPS]
FEW = Draws(number=50)

AT_BEST_0 = ("hallucination", "repeated")
UNBOUND = ("cider", "cider-d", "meteor", "distinct2")
"""At their best, they are not 100 on every set."""


def scores(clips: list[ScoredClip], names=DEFAULT_METRICS) -> dict[str, float]:
    lines = evaluate(clips, names, MetricOptions(), draws=FEW)
    return {line.score.name: line.score.value for line in lines}


def test_what_is_equal_is_100_and_what_says_nothing_is_0():
    best, worst = scores(SAME), scores(SILENT)
    for name in DEFAULT_METRICS:
        if name in AT_BEST_0:
            assert best[name] == 0
        elif name not in UNBOUND:
            assert best[name] == pytest.approx(100, abs=1e-4), name
        if name != "repeated":
            assert worst[name] == pytest.approx(0, abs=1e-4), name
    assert worst["repeated"] == pytest.approx(100 * 2 / 3)


def test_the_order_of_clips_does_not_matter():
    assert scores(CLIPS[::-1]) == pytest.approx(scores(CLIPS), nan_ok=True)


def test_a_line_for_each_metric_with_interval_and_signature():
    names = ["distinct2", "clue-f1", "hallucination/pitch"]
    lines = list(evaluate(CLIPS, names, MetricOptions(), draws=FEW))
    assert [line.score.name for line in lines] == names
    diversity, f1, pitch = (line.score for line in lines)
    assert diversity.low is None
    assert diversity.signature.startswith("distinct2:of-set|tok:coco-en|refs:1|n:3|")
    assert f1.low is not None
    assert f1.high is not None
    assert f1.low <= f1.value <= f1.high
    assert f1.signature.startswith("clue-f1:micro+nearest|lang:en|refs:1|n:3|boot:50|seed:0|")
    assert (pitch.low, pitch.high) == (None, None)  # nobody speaks of pitch


def test_a_baseline_is_scored_and_compared():
    names = ["clue-f1", "repeated"]
    f1, repeated = evaluate(SAME, names, MetricOptions(), draws=FEW, baseline=CLIPS)
    assert f1.baseline is not None
    assert f1.difference is not None
    assert f1.difference.delta == pytest.approx(100 - f1.baseline.value)
    assert repeated.baseline is not None
    assert repeated.difference is None


def test_the_papers_way_is_given_where_asked_for():
    clips = [ScoredClip(str(n), "A sad man.", ("A sad man.",)) for n in range(30)]
    draws = Draws(number=10, paper25=True)
    line, diversity = evaluate(clips, ["clue-f1", "distinct1"], MetricOptions(), draws=draws)
    assert line.paper25 is not None
    assert (line.paper25.mean, line.paper25.sd) == (100, 0)
    assert diversity.paper25 is None


@pytest.mark.parametrize(
    ("name", "error"), [("clue-f2", UnknownNameError), ("similarity", MissingModelError)]
)
def test_what_cannot_be_opened_is_said_before_anything_is_measured(name, error):
    clip = ScoredClip("c", "Loud.", ("Loud.",), file=Path("absent.wav"))
    with pytest.raises(error):
        next(evaluate([clip], ["hallucination-signal", name], MetricOptions(), draws=FEW))


def test_an_unknown_name_is_answered_with_the_nearest_and_without_every_trait():
    with pytest.raises(UnknownNameError, match="did you mean 'clue-f1'"):
        scores(CLIPS, ["clue-f2"])
    with pytest.raises(UnknownNameError, match="known: ") as caught:
        scores(CLIPS, ["zzz"])
    assert "hallucination-signal" in str(caught.value)
    assert "/" not in str(caught.value)
    with pytest.raises(UnknownNameError, match="did you mean 'hallucination/pitch'"):
        scores(CLIPS, ["hallucination/pitsch"])


def test_the_signal_is_asked_where_every_clip_has_a_recording():
    recorded = [ScoredClip("a", "", ("A.",), file=Path("a.wav"))]
    assert "hallucination-signal" in usual_metrics(recorded)
    assert usual_metrics([*recorded, *CLIPS]) == list(DEFAULT_METRICS)
    assert set(DEFAULT_METRICS) <= METRICS.keys() | SET_METRICS.keys()


def test_splits_stand_behind_their_whole_once():
    found = with_splits(["clue-f1", "hallucination", "hallucination/pitch", "clue-f1"])
    assert found[:3] == ["clue-f1", "hallucination", "hallucination/emotion"]
    assert len(found) == len(set(found)) == 10


def test_the_language_is_that_of_most_references():
    chinese = [ScoredClip("a", "", ("她很高兴。", "高兴的女性。"))]
    assert language_of(chinese) == "zh"
    assert language_of([*chinese, *CLIPS]) == "en"
