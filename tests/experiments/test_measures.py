"""Measures of captions against numbers counted by hand."""

import numpy as np
import pytest

from aligncap.experiments.validation import OverRuns, Share, measures
from aligncap.metrics.scores import ScoredClip, difference
from aligncap.preference.store import Clip
from support.preferences import facts_of

LOUD_AND_FAST = facts_of(loudness_db=-15.0, pace_syllables_per_s=6.1)
KNOWN = {
    "a": Clip("a", "", LOUD_AND_FAST, emotion="angry", gender="male").knowledge,
    "b": Clip("b", "", LOUD_AND_FAST, emotion="sad", gender="female").knowledge,
}


def clip(name: str, text: str) -> ScoredClip:
    return ScoredClip(
        name, text, ("A man sounds angry and loud.",), emotion=KNOWN[name].labels["emotion"]
    )


def values(*clips: ScoredClip) -> dict[str, float]:
    found = measures(KNOWN, language="en", tokens=lambda text: len(text.split()))
    return {
        one.name: one.measure(list(clips)).scale * one.measure(list(clips)).value for one in found
    }


def test_claims_are_counted() -> None:
    found = values(
        clip("a", "A man sounds angry and loud, but slow."),
        clip("b", "A woman sounds happy."),
    )
    # Six claims: man, angry, loud, slow; woman, happy. The signal can tell of loud and slow.
    assert found["contradicted by the signal"] == pytest.approx(50.0)
    assert found["clues a caption"] == pytest.approx(3.0)
    assert found["contradicted"] == pytest.approx(100 * 2 / 6)
    assert found["not borne out"] == pytest.approx(100 * 2 / 6)
    assert found["names an emotion"] == pytest.approx(100.0)
    assert found["emotion-recall"] == pytest.approx(50.0)
    assert found["tokens a caption"] == pytest.approx(6.0)


def test_a_claim_that_nothing_bears_on_is_not_borne_out() -> None:
    found = values(clip("a", "A man with a breathy voice."))
    assert found["contradicted"] == 0.0
    assert found["not borne out"] == pytest.approx(50.0)


def test_who_says_nothing_has_no_rate() -> None:
    assert np.isnan(values(clip("a", "Somebody speaks."))["contradicted by the signal"])


def test_runs_of_a_clip_are_one_clip() -> None:
    """Two runs that say the same are no more evidence than one."""
    metric = Share("long", lambda one: (len(one.hypothesis) > 1, 1))
    once = [ScoredClip(str(n), "x" * (1 + n % 3), ("r",)) for n in range(20)]
    twice = [ScoredClip(one.id, f"{one.hypothesis}\n{one.hypothesis}", ("r",)) for one in once]
    none = [ScoredClip(one.id, "x", ("r",)) for one in once]
    single = difference(OverRuns(metric), once, none)
    double = difference(OverRuns(metric), twice, none)
    assert single.delta == double.delta == pytest.approx(65.0)
    assert (single.low, single.high) == (double.low, double.high)
