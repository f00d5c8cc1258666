"""Evidence: hand-worked verdicts, and the law that what is measured is supported."""

from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.clues import find_clues, judge, levels, measured_clues, opposites
from aligncap.clues.evidence import PACE, PITCH, SCALES, VOLUME
from aligncap.clues.vocabulary import clue_of, meanings
from aligncap.values import Clue, Fact, Facts, Verdict

RANGES = {
    "pitch_median_hz": (50.0, 500.0, "Hz"),
    "pitch_offset_st": (-15.0, 15.0, "st"),
    "pitch_range_st": (0.0, 30.0, "st"),
    "pitch_slope_st_per_s": (-20.0, 20.0, "st/s"),
    "pitch_jumps_per_s": (0.0, 5.0, "1/s"),
    "loudness_db": (-80.0, 0.0, "dBFS"),
    "loudness_range_db": (0.0, 60.0, "dB"),
    "loudness_slope_db_per_s": (-30.0, 30.0, "dB/s"),
    "pace_syllables_per_s": (0.0, 10.0, "syllables/s"),
    "pause_share": (0.0, 1.0, ""),
    "pauses_per_s": (0.0, 3.0, "1/s"),
    "jitter": (0.0, 0.2, ""),
    "shimmer": (0.0, 0.5, ""),
    "harmonicity_db": (-10.0, 40.0, "dB"),
    "spectral_tilt_db_per_octave": (-30.0, 5.0, "dB/octave"),
    "female_probability": (0.0, 1.0, ""),
}


def facts_of(speech_s: float = 3.5, confidence: float = 1.0, **values: float) -> Facts:
    """Facts with these numbers and nothing else."""
    rows = {n: Fact(n, v, RANGES[n][2], confidence) for n, v in values.items()}
    return Facts(duration_s=speech_s + 0.5, speech_s=speech_s, by_name=MappingProxyType(rows))


@st.composite
def any_facts(draw: st.DrawFn) -> Facts:
    rows = {}
    for name, (low, high, unit) in RANGES.items():
        if draw(st.booleans()) or draw(st.booleans()):
            value = draw(st.none() | st.floats(low, high, allow_nan=False))
            confidence = draw(st.floats(0, 1, allow_nan=False))
            reason = "too short" if value is None else ""
            rows[name] = Fact(name, value, unit, confidence, reason)
    speech_s = draw(st.floats(0.1, 20))
    return Facts(duration_s=speech_s + 1, speech_s=speech_s, by_name=rows)


@pytest.mark.parametrize(
    ("caption", "values", "verdict"),
    [
        ("a high-pitched voice", {"pitch_offset_st": 6.0}, "supported"),
        ("a high-pitched voice", {"pitch_offset_st": -2.0}, "contradicted"),
        ("a high-pitched voice", {"pitch_offset_st": 3.0}, "cannot tell"),
        ("a very high-pitched voice", {"pitch_offset_st": -0.2}, "contradicted"),
        ("a low voice", {"pitch_offset_st": 6.0}, "contradicted"),
        ("a very low voice", {"pitch_offset_st": 1.4}, "cannot tell"),
        ("a very low voice", {"pitch_offset_st": 1.6}, "contradicted"),
        ("a low voice", {"pitch_offset_st": 1.6}, "cannot tell"),
        ("normal pitch", {"pitch_offset_st": 0.3}, "supported"),
        ("normal pitch", {"pitch_offset_st": 9.0}, "contradicted"),
        ("he speaks loudly", {"loudness_db": -15.0, "female_probability": 0.5}, "supported"),
        ("speaks softly", {"loudness_db": -15.0}, "contradicted"),
        ("语速很慢", {"pace_syllables_per_s": 2.4}, "supported"),
        ("语速很慢", {"pace_syllables_per_s": 6.4}, "contradicted"),
        ("语速不快", {"pace_syllables_per_s": 6.4}, "contradicted"),
        ("not loud", {"loudness_db": -40.0}, "supported"),
        ("a woman", {"female_probability": 0.97}, "supported"),
        ("a woman", {"female_probability": 0.03}, "contradicted"),
        ("a woman", {"female_probability": 0.5}, "cannot tell"),
        ("rising intonation", {"pitch_slope_st_per_s": 5.0}, "supported"),
        ("音量渐弱", {"loudness_slope_db_per_s": -7.0}, "supported"),
        ("monotonous", {"pitch_range_st": 14.0}, "contradicted"),
        ("halting", {"pause_share": 0.5}, "supported"),
        ("hardly fluent", {"pause_share": 0.5}, "supported"),
        ("a trembling voice", {"jitter": 0.004}, "contradicted"),
        ("angry", {"loudness_db": -10.0}, "cannot tell"),
        ("sarcastic", {"loudness_db": -10.0}, "cannot tell"),
    ],
)
def test_hand_worked_verdicts(caption: str, values: dict[str, float], verdict: str) -> None:
    found = find_clues(caption)
    verdicts = {str(e.verdict) for e in judge(found, facts_of(**values)) if e.clue.word != "he"}
    assert verdicts == {verdict}


@pytest.mark.parametrize(
    ("caption", "fact", "supported", "open_", "contradicted"),
    [
        # The last value that supports, two between which nothing is told, the first against it.
        ("a low voice", "pitch_offset_st", -3.0, (-2.9, 2.9), 3.0),
        ("a high-pitched voice", "pitch_offset_st", 5.0, (4.9, -0.4), -0.5),
        ("quiet", "loudness_db", -30.0, (-29.9, -22.1), -22.0),
        ("loud", "loudness_db", -19.5, (-19.6, -27.4), -27.5),
        ("slow", "pace_syllables_per_s", 3.8, (3.9, 4.9), 5.0),
        ("fast", "pace_syllables_per_s", 5.5, (5.4, 4.4), 4.3),
        ("a man", "female_probability", 0.05, (0.06, 0.93), 0.94),
        ("a woman", "female_probability", 0.95, (0.94, 0.07), 0.06),
    ],
)
def test_verdicts_turn_at_the_documented_values(
    caption: str, fact: str, supported: float, open_: tuple[float, float], contradicted: float
) -> None:
    found = find_clues(caption)
    values = (supported, *open_, contradicted)
    verdicts = [str(judge(found, facts_of(**{fact: value}))[0].verdict) for value in values]
    assert verdicts == ["supported", "cannot tell", "cannot tell", "contradicted"]


@pytest.mark.parametrize(
    ("fact", "zone", "outside"),
    [
        ("pitch_offset_st", (-0.5, 3.5), (-0.6, 3.6)),
        ("loudness_db", (-27.0, -22.0), (-27.1, -21.9)),
        ("pace_syllables_per_s", (4.3, 5.0), (4.2, 5.1)),
    ],
)
def test_the_neutral_zone_has_its_documented_ends(
    fact: str, zone: tuple[float, float], outside: tuple[float, float]
) -> None:
    for value in zone:
        assert [clue.meaning for clue in measured_clues(facts_of(**{fact: value}))] == ["normal"]
    for value in outside:
        assert measured_clues(facts_of(**{fact: value})) == ()


@pytest.mark.parametrize(
    ("caption", "fact", "open_", "contradicted"),
    [
        # A margin beyond both sides: 1 st, 2 dB, 0.3 syllables/s.
        ("normal pitch", "pitch_offset_st", (-3.9, 5.9), (-4.0, 6.0)),
        ("normal volume", "loudness_db", (-31.9, -17.6), (-32.0, -17.5)),
        ("a normal pace", "pace_syllables_per_s", (3.6, 5.7), (3.45, 5.85)),
    ],
)
def test_the_neutral_meaning_is_contradicted_beyond_the_margin(
    caption: str, fact: str, open_: tuple[float, float], contradicted: tuple[float, float]
) -> None:
    found = find_clues(caption)
    for values, verdict in ((open_, Verdict.CANNOT_TELL), (contradicted, Verdict.CONTRADICTED)):
        for value in values:
            assert [e.verdict for e in judge(found, facts_of(**{fact: value}))] == [verdict]


def test_a_movement_is_judged_from_one_second_of_speech_on() -> None:
    clue = find_clues("rising intonation")
    verdicts = [judge(clue, facts_of(s, pitch_slope_st_per_s=9.0))[0].verdict for s in (0.95, 1.0)]
    assert verdicts == [Verdict.CANNOT_TELL, Verdict.SUPPORTED]


def test_a_fact_is_claimed_from_confidence_a_half_and_judged_from_three_tenths() -> None:
    loud = {"loudness_db": -10.0}
    assert levels(facts_of(confidence=0.5, **loud)).loudness == "loud"
    assert levels(facts_of(confidence=0.49, **loud)).loudness is None
    assert measured_clues(facts_of(confidence=0.49, **loud)) == ()
    clue = find_clues("a loud voice")
    assert judge(clue, facts_of(confidence=0.3, **loud))[0].verdict is Verdict.SUPPORTED
    assert judge(clue, facts_of(confidence=0.29, **loud))[0].verdict is Verdict.CANNOT_TELL


def test_measurement_names_numbers_and_units() -> None:
    facts = facts_of(
        pitch_median_hz=231.0, pitch_offset_st=6.1, loudness_db=-18.4, pace_syllables_per_s=7.25
    )
    pitch, volume, pace = judge(find_clues("a high-pitched, loud, fast voice"), facts)
    # 231 Hz / 2^(6.1 / 12) = 162.4 Hz
    assert pitch.measurement.startswith(
        "median pitch 231 Hz, 6.1 st above the expected 162 Hz (low to -"
    )
    assert volume.measurement.startswith("loudness -18.4 dBFS (quiet to -")
    assert pace.measurement.startswith("pace 7.2 syllables/s (slow to ")
    assert f"fast from {PACE.high:g})" in pace.measurement


def test_every_reason_for_not_telling_is_said() -> None:
    clue = find_clues("a loud voice")
    unsure = judge(clue, facts_of(confidence=0.1, loudness_db=-10.0))[0]
    assert unsure.verdict is Verdict.CANNOT_TELL
    assert "little confidence" in unsure.measurement
    missing = judge(clue, facts_of())[0]
    assert missing.verdict is Verdict.CANNOT_TELL
    assert "not measured" in missing.measurement
    clipped = {"loudness_db": Fact("loudness_db", None, "dBFS", 0.0, "the signal is clipped")}
    told = judge(clue, Facts(duration_s=1.0, speech_s=1.0, by_name=clipped))[0]
    assert "clipped" in told.measurement
    short = judge(find_clues("rising intonation"), facts_of(0.4, pitch_slope_st_per_s=9.0))[0]
    assert short.verdict is Verdict.CANNOT_TELL
    assert "0.4 s of speech" in short.measurement


def test_levels_leave_the_gaps_open() -> None:
    for scale, level in ((PITCH, "pitch"), (VOLUME, "loudness"), (PACE, "pace")):
        low_gap = (scale.low + scale.neutral[0]) / 2
        high_gap = (scale.neutral[1] + scale.high) / 2
        steps = [scale.low - 1, low_gap, sum(scale.neutral) / 2, high_gap, scale.high + 1]
        found = [getattr(levels(facts_of(**{scale.fact: value})), level) for value in steps]
        assert found == [scale.low_meaning, None, "normal", None, scale.high_meaning]
    assert levels(facts_of(female_probability=0.5)).gender is None
    assert levels(facts_of()).pace is None


@settings(max_examples=150, deadline=None)
@given(any_facts())
def test_what_is_measured_is_supported(facts: Facts) -> None:
    measured = measured_clues(facts)
    for evidence in judge(measured, facts):
        assert evidence.verdict is Verdict.SUPPORTED, evidence


@settings(max_examples=80, deadline=None)
@given(any_facts(), st.sampled_from([0.5, 1.0, 1.5]))
def test_opposites_are_never_both_supported(facts: Facts, degree: float) -> None:
    every = [Clue(m, t, m, degree=degree) for t, m in meanings()]
    supported = {
        (e.clue.trait, e.clue.meaning)
        for e in judge(every, facts)
        if e.verdict is Verdict.SUPPORTED
    }
    for trait, meaning in supported:
        for opposite in opposites(trait, meaning):
            assert (trait, opposite) not in supported


@settings(max_examples=60, deadline=None)
@given(any_facts())
def test_denying_turns_the_verdict_around(facts: Facts) -> None:
    turned = {"supported": "contradicted", "contradicted": "supported"}
    plain = [Clue(m, t, m) for t, m in meanings()]
    denied = [Clue(m, t, m, negated=True) for t, m in meanings()]
    for one, other in zip(judge(plain, facts), judge(denied, facts), strict=True):
        assert str(other.verdict) == turned.get(str(one.verdict), str(one.verdict))


def test_both_ends_of_every_scale_have_a_meaning_and_are_opposites() -> None:
    for scale in SCALES:
        clue_of(scale.trait, scale.low_meaning)
        assert scale.high_meaning in opposites(scale.trait, scale.low_meaning)
        assert scale.low_meaning in opposites(scale.trait, scale.high_meaning)
