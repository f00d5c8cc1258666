"""Evidence: hand-worked verdicts, the law that what is measured is supported, clues that a
tokenizer's heads hear, and the one definition of a claim, the metrics' and the judges'."""

import math
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.clues import (
    HeardEmotion,
    acoustic_prompt,
    audible_clues,
    audible_gender,
    emotion_of,
    find_clues,
    heard_clue,
    heard_emotion,
    heard_facts,
    judge,
    levels,
    measured_clues,
    opposites,
    shown_gender,
    signal_clues,
)
from aligncap.clues.evidence import (
    Claim,
    ClipKnowledge,
    check_by_references,
    claims_fingerprint,
    claims_of,
    without_composure,
)
from aligncap.clues.scales import PACE, PITCH, SCALES, VOLUME
from aligncap.clues.vocabulary import clue_of, meanings
from aligncap.errors import DataError
from aligncap.prosody.baseline import relative_to
from aligncap.values import EMOTIONS, LANGUAGES, Baseline, Clue, Fact, Facts, Verdict

SUPPORTED, CANNOT_TELL, CONTRADICTED = Verdict.SUPPORTED, Verdict.CANNOT_TELL, Verdict.CONTRADICTED

RANGES = {
    "pitch_median_hz": (50.0, 500.0, "Hz"), "pitch_offset_st": (-15.0, 15.0, "st"),
    "pitch_range_st": (0.0, 30.0, "st"), "pitch_slope_st_per_s": (-20.0, 20.0, "st/s"),
    "pitch_jumps_per_s": (0.0, 5.0, "1/s"), "loudness_db": (-80.0, 0.0, "dBFS"),
    "loudness_range_db": (0.0, 60.0, "dB"), "loudness_slope_db_per_s": (-30.0, 30.0, "dB/s"),
    "pace_syllables_per_s": (0.0, 10.0, "syllables/s"), "pause_share": (0.0, 1.0, ""),
    "pauses_per_s": (0.0, 3.0, "1/s"), "jitter": (0.0, 0.2, ""), "shimmer": (0.0, 0.5, ""),
    "harmonicity_db": (-10.0, 40.0, "dB"), "female_probability": (0.0, 1.0, ""),
    "spectral_tilt_db_per_octave": (-30.0, 5.0, "dB/octave"),
}  # fmt: skip


def facts_of(speech_s: float = 3.5, confidence: float = 1.0, **values: float) -> Facts:
    """Facts with these numbers and nothing else."""
    rows = {n: Fact(n, v, RANGES[n][2], confidence) for n, v in values.items()}
    return Facts(duration_s=speech_s + 0.5, speech_s=speech_s, by_name=MappingProxyType(rows))


@st.composite
def any_facts(draw: st.DrawFn) -> Facts:
    rows = {}
    for name, (low, high, unit) in RANGES.items():
        if draw(st.booleans()) or draw(st.booleans()):
            value = draw(st.none() | st.floats(low, high))
            reason = "too short" if value is None else ""
            rows[name] = Fact(name, value, unit, draw(st.floats(0, 1)), reason)
    speech_s = draw(st.floats(0.1, 20))
    return Facts(duration_s=speech_s + 1, speech_s=speech_s, by_name=rows)


def verdicts(caption: str, *every: Facts) -> list[Verdict]:
    """What each of the facts says of the only clue, pronouns aside."""
    (clue,) = (clue for clue in find_clues(caption) if clue.word != "he")
    return [evidence.verdict for facts in every for evidence in judge([clue], facts)]


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
        ("语速很快", {"pace_syllables_per_s": 7.4}, "supported"),
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
    assert verdicts(caption, facts_of(**values)) == [verdict]


@pytest.mark.parametrize(
    ("caption", "fact", "supported", "open_", "contradicted"),
    [
        # The last value that supports, two between which nothing is told, the first against it.
        ("a low voice", "pitch_offset_st", [-3.0], (-2.9, 2.9), [3.0]),
        ("a high-pitched voice", "pitch_offset_st", [6.0], (5.9, -0.4), [-0.5]),
        ("quiet", "loudness_db", [-38.0], (-37.9, -22.1), [-22.0]),
        ("loud", "loudness_db", [-19.5], (-19.6, -27.4), [-27.5]),
        # Listeners' "slow" is not what is slow by any count: nothing supports it.
        ("slow", "pace_syllables_per_s", [], (0.0, 4.9), [5.0]),
        ("fast", "pace_syllables_per_s", [6.8], (6.7, 3.1), [3.0]),
        ("a man", "female_probability", [0.05], (0.06, 0.93), [0.94]),
        ("a woman", "female_probability", [0.95], (0.94, 0.07), [0.06]),
        # A neutral zone, and beyond both sides a margin: 1 st, 2 dB, 0.3 syllables/s.
        ("normal pitch", "pitch_offset_st", (-0.5, 3.5), (-3.9, 6.9), (-4.0, 7.0)),
        ("normal volume", "loudness_db", (-27.0, -22.0), (-39.9, -17.6), (-40.0, -17.5)),
        ("a normal pace", "pace_syllables_per_s", (3.5, 6.0), (3.4, 7.0), (7.1, 7.2)),
    ],
)
def test_verdicts_turn_at_the_documented_values(caption, fact, supported, open_, contradicted):
    for values, verdict in (
        (supported, SUPPORTED), (open_, CANNOT_TELL), (contradicted, CONTRADICTED),
    ):  # fmt: skip
        assert {*verdicts(caption, *(facts_of(**{fact: value}) for value in values))} <= {verdict}


@pytest.mark.parametrize(
    ("scale", "level", "zone", "outside"),
    [
        (PITCH, "pitch", (-0.5, 3.5), (-0.6, 3.6)),
        (VOLUME, "loudness", (-27.0, -22.0), (-27.1, -21.9)),
        (PACE, "pace", (3.5, 6.0), (3.4, 6.1)),
    ],
)
def test_a_neutral_zone_has_its_documented_ends_and_gaps_are_left_open(scale, level, zone, outside):
    low = scale.low - 1 if math.isfinite(scale.low) else -math.inf
    values = (low, outside[0], *zone, outside[1], scale.high + 1)
    every = [facts_of(**{scale.fact: value}) for value in values]
    expected = [scale.low_meaning, None, "normal", "normal", None, scale.high_meaning]
    assert [getattr(levels(facts), level) for facts in every] == expected
    claimed = [[clue.meaning for clue in measured_clues(facts)] for facts in every]
    # The middle is read off, but not put into words.
    sides = {scale.low_meaning, scale.high_meaning}
    assert claimed == [[meaning] if meaning in sides else [] for meaning in expected]
    assert getattr(levels(facts_of(female_probability=0.5)), level) is None


def test_a_fact_is_claimed_from_confidence_a_half_and_judged_from_three_tenths() -> None:
    sure, unsure, clear, vague = (
        facts_of(confidence=c, loudness_db=-10.0) for c in (0.5, 0.49, 0.3, 0.29)
    )
    assert (levels(sure).loudness, levels(unsure).loudness) == ("loud", None)
    assert measured_clues(unsure) == ()
    assert verdicts("a loud voice", clear, vague) == [SUPPORTED, CANNOT_TELL]


STEPS = [
    # trait, fact, lower meaning, higher; supports the lower to, contradicts the higher to,
    # contradicts the lower from, supports the higher from; the middle of the neutral zone.
    ("pitch", "pitch_offset_st", "low", "high", -3.0, -0.5, 3.0, 6.0, 1.5),
    ("volume", "loudness_db", "quiet", "loud", -38.0, -27.5, -22.0, -19.5, -24.5),
    ("pace", "pace_syllables_per_s", "slow", "fast", -math.inf, 3.0, 5.0, 6.8, 4.75),
    ("gender", "female_probability", "male", "female", 0.05, 0.06, 0.94, 0.95, 0.5),
    ("intonation", "pitch_slope_st_per_s", "falling", "rising", -5.0, -2.0, 0.0, 2.0, -1.25),
    ("intonation", "pitch_range_st", "flat", "varied", 4.2, 5.5, 9.5, 12.0, 7.5),
    ("volume", "loudness_slope_db_per_s", "fading", "swelling", -5.0, -2.0, 0.0, 2.0, -1.25),
    ("volume", "loudness_range_db", "steady", "dynamic", 5.0, 7.0, 11.0, 13.5, 9.0),
    ("pace", "pause_share", "fluent", "halting", -0.01, 0.05, 0.13, 0.2, 0.09),
    ("voice quality", "harmonicity_db", "hoarse", "clear", 7.0, 8.5, 12.5, 14.0, 10.5),
    ("voice quality", "spectral_tilt_db_per_octave", "dull", "bright", -9.4, -8.2, -6.0, -4.7,
     -7.25),
    ("voice quality", "jitter", "steady", "trembling", 0.0055, 0.007, 0.0115, 0.0145, 0.0095),
]  # fmt: skip


def test_every_scale_has_its_steps_below() -> None:
    assert sorted(row[1] for row in STEPS) == sorted(scale.fact for scale in SCALES)


@pytest.mark.parametrize("row", STEPS, ids=[row[1] for row in STEPS])
def test_every_threshold_is_where_it_is_written_down(row) -> None:
    trait, fact, low, high, *numbers = row
    supports_low, against_high, against_low, supports_high, middle = numbers

    def told(meaning: str, value: float, degree: float = 1.0) -> Verdict:
        (found,) = judge([Clue(meaning, trait, meaning, degree=degree)], facts_of(**{fact: value}))
        return found.verdict

    def said(value: float) -> list[str]:
        return [clue.meaning for clue in measured_clues(facts_of(**{fact: value}))]

    # One millionth of the whole scale beyond a threshold, its verdict is another.
    hair = 1e-6 * (supports_high - against_high)
    assert [told(low, supports_low), told(low, supports_low + hair)] == (
        [SUPPORTED, CANNOT_TELL] if math.isfinite(supports_low) else [SUPPORTED, SUPPORTED]
    )
    assert [told(low, against_low - hair), told(low, against_low)] == [CANNOT_TELL, CONTRADICTED]
    assert [told(high, supports_high - hair), told(high, supports_high)] == [CANNOT_TELL, SUPPORTED]
    assert [told(high, against_high), told(high, against_high + hair)] == [
        CONTRADICTED, CANNOT_TELL,
    ]  # fmt: skip
    # What is emphatic ("very") is contradicted by the middle already.
    assert told(high, max(middle, against_high), 1.5) is CONTRADICTED
    assert told(high, max(middle, against_high) + hair, 1.5) is CANNOT_TELL
    assert told(low, min(middle, against_low), 1.5) is CONTRADICTED
    assert told(low, min(middle, against_low) - hair, 1.5) is CANNOT_TELL
    assert [said(supports_high - hair), said(supports_high)] == [[], [high]]
    if math.isfinite(supports_low):
        assert [said(supports_low + hair), said(supports_low)] == [[], [low]]


FIRST = {"pace": {"syllables_per_s": 3.0}}
"""The readout of an encoder of the first kind."""


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"pitch_offset_st": 5.0}, "high"), ({"pitch_offset_st": 4.9}, ""),
        ({"pitch_offset_st": 3.5}, "normal"), ({"pitch_offset_st": -3.0}, "low"),
        ({"loudness_db": -30.0}, "quiet"), ({"loudness_db": -29.9}, ""),
        ({"loudness_db": -22.0}, "normal"), ({"loudness_db": -19.5}, "loud"),
        ({"pace_syllables_per_s": 3.8}, "slow"), ({"pace_syllables_per_s": 5.5}, "fast"),
        ({"pace_syllables_per_s": 4.3}, "normal"), ({"pace_syllables_per_s": 5.1}, ""),
    ],
)  # fmt: skip
def test_models_of_the_first_kind_read_the_steps_they_were_taught(values, told) -> None:
    facts = facts_of(confidence=0.125 if "pace_syllables_per_s" in values else 0.5, **values)
    assert " ".join(clue.meaning for clue in signal_clues(FIRST, facts)) == told
    for readout in ({}, FIRST | {"vocalization": {"speech": 1.0}}):
        assert signal_clues(readout, facts) == measured_clues(facts)


def test_nuclei_are_put_into_words_from_three_of_them_on() -> None:
    """An eighth of the confidence that six give, a quarter."""
    facts = facts_of(confidence=0.12, pace_syllables_per_s=3.0)
    assert signal_clues(FIRST, facts) == ()


@pytest.mark.parametrize("scale", SCALES, ids=[scale.fact for scale in SCALES])
def test_a_movement_takes_one_second_of_speech(scale) -> None:
    movements = "pitch_slope_st_per_s pitch_range_st loudness_slope_db_per_s loudness_range_db"
    at_once = scale.fact not in [*movements.split(), "pause_share"]
    clue = Clue("x", scale.trait, scale.high_meaning)
    every = [facts_of(seconds, **{scale.fact: scale.high}) for seconds in (0.999, 1.0)]
    told = [evidence.verdict for facts in every for evidence in judge([clue], facts)]
    assert told == [SUPPORTED if at_once else CANNOT_TELL, SUPPORTED]


def test_measurement_names_numbers_and_units() -> None:
    numbers = {"pitch_median_hz": 231.0, "pitch_offset_st": 6.1, "loudness_db": -18.4}
    clues = find_clues("a high-pitched, loud, fast voice")
    pitch, volume, pace = judge(clues, facts_of(pace_syllables_per_s=7.25, **numbers))
    # 231 Hz / 2^(6.1 / 12) = 162.4 Hz
    start = "median pitch 231 Hz, 6.1 st above the expected 162 Hz (low to -"
    assert pitch.measurement.startswith(start)
    assert volume.measurement.startswith("loudness -18.4 dBFS (quiet to -")
    assert pace.measurement == "pace 7.2 syllables/s (fast from 6.8)"


CLIPPED = {"loudness_db": Fact("loudness_db", None, "dBFS", 0.0, "the signal is clipped")}


@pytest.mark.parametrize(
    ("caption", "facts", "reason"),
    [
        ("a loud voice", facts_of(confidence=0.1, loudness_db=-10.0), "little confidence"),
        ("a loud voice", facts_of(), "not measured"),
        ("a loud voice", Facts(duration_s=1.0, speech_s=1.0, by_name=CLIPPED), "clipped"),
        ("rising intonation", facts_of(0.4, pitch_slope_st_per_s=9.0), "0.4 s of speech"),
    ],
)
def test_every_reason_for_not_telling_is_said(caption: str, facts: Facts, reason: str) -> None:
    (told,) = judge(find_clues(caption), facts)
    assert told.verdict is CANNOT_TELL
    assert reason in told.measurement


@settings(max_examples=150)
@given(any_facts())
def test_what_is_measured_is_supported(facts: Facts) -> None:
    for evidence in judge(measured_clues(facts), facts):
        assert evidence.verdict is SUPPORTED, evidence


@settings(max_examples=80)
@given(any_facts(), st.sampled_from([0.5, 1.0, 1.5]))
def test_opposites_are_never_both_supported_and_denying_turns_a_verdict_around(facts, degree):
    plain = judge([Clue(m, t, m, degree=degree) for t, m in meanings()], facts)
    supported = {(e.clue.trait, e.clue.meaning) for e in plain if e.verdict is SUPPORTED}
    for trait, meaning in supported:
        assert not {(trait, opposite) for opposite in opposites(trait, meaning)} & supported
    turned = {SUPPORTED: CONTRADICTED, CONTRADICTED: SUPPORTED, CANNOT_TELL: CANNOT_TELL}
    plain = judge([Clue(m, t, m) for t, m in meanings()], facts)
    denied = judge([Clue(m, t, m, negated=True) for t, m in meanings()], facts)
    assert [e.verdict for e in denied] == [turned[e.verdict] for e in plain]


def test_both_ends_of_every_scale_have_a_meaning_and_are_opposites() -> None:
    for scale in SCALES:
        clue_of(scale.trait, scale.low_meaning)
        assert scale.high_meaning in opposites(scale.trait, scale.low_meaning)
        assert scale.low_meaning in opposites(scale.trait, scale.high_meaning)


FAST = facts_of(confidence=0.9, pace_syllables_per_s=7.5)


def readout(sad: float, female: float) -> dict[str, dict[str, float]]:
    emotion = {"happy": (1 - sad) / 2, "neutral": (1 - sad) / 2, "sad": sad}
    return {"emotion": emotion, "gender": {"female": female, "male": 1 - female}}


@pytest.mark.parametrize(
    ("heads", "facts", "told"),
    [
        (readout(0.8, 0.99), FAST, "sad female fast"),  # what is heard before what is measured
        # The likeliest emotion is told however near the others are.
        ({"emotion": {"sad": 0.34, "happy": 0.33, "angry": 0.33}}, FAST, "sad fast"),
        # A tokenizer without heads hears nothing.
        ({}, FAST, "fast"),
        ({}, facts_of(confidence=0.9, female_probability=0.02), "male"),
    ],
)
def test_which_clues_are_heard_and_in_which_order(heads, facts, told) -> None:
    assert [clue.meaning for clue in audible_clues(heads, facts)] == told.split()


@pytest.mark.parametrize(
    ("head", "voice", "told"),
    [
        (0.96, None, "female"),  # told only where the head is sure
        (0.94, None, None),
        (0.06, None, None),
        (0.04, None, "male"),
        (0.85, 0.85, "female"),  # two witnesses, 17/3 twice: odds of 32 to 1
        (0.85, 0.70, None),  # 17/3 * 7/3: 13 to 1, below 19 to 1
        (0.99, 0.20, "female"),  # 99 / 4
        (0.99, 0.01, None),  # they contradict each other
        (0.10, 0.20, "male"),  # 1 to 36
    ],
)
def test_a_gender_is_told_by_head_and_measured_voice(head, voice, told) -> None:
    facts = FAST if voice is None else facts_of(confidence=0.9, female_probability=voice)
    assert audible_gender(readout(0.8, head), facts) == told
    if voice is None:
        found = {clue.meaning for clue in audible_clues(readout(0.8, head), facts)}
        assert found & {"female", "male"} == {told} - {None}


@pytest.mark.parametrize(
    ("chances", "heard"),
    [
        ({"sad": 0.60, "angry": 0.40}, ("sad", None, "sure")),
        ({"sad": 0.59, "angry": 0.24}, ("sad", None, "likely")),
        ({"angry": 0.24, "sad": 0.40, "bored": 0.36}, ("sad", "bored", "likely")),
        ({"sad": 0.52, "angry": 0.40, "bored": 0.08}, ("sad", "angry", "likely")),  # .12 apart
        ({"sad": 0.53, "angry": 0.40, "bored": 0.07}, ("sad", None, "likely")),
        ({"sad": 0.36, "angry": 0.25, "bored": 0.20}, ("sad", "angry", "unsure")),
        ({"sad": 0.30, "angry": 0.24, "bored": 0.23}, ("sad", None, "unsure")),
        ({"happy": 1.0}, ("happy", None, "sure")),
    ],
)
def test_an_emotion_is_heard_with_its_certainty_and_its_rival(chances, heard) -> None:
    found = heard_emotion(chances)
    assert (found.first, found.second, found.certainty) == heard


@given(st.lists(st.floats(0.0, 1.0), min_size=8, max_size=8))
def test_the_first_is_the_likeliest_and_no_mixed_one_is_sure(chances) -> None:
    total = sum(chances) or 1.0
    shares = dict(zip(EMOTIONS, (chance / total for chance in chances), strict=True))
    found = heard_emotion(shares)
    assert shares[found.first] == max(shares.values())
    assert found.second is None or found.certainty != "sure"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("first", EMOTIONS)
def test_p_act_says_the_certainty_and_is_read_back_to_the_first_emotion(first, language) -> None:
    written = set()
    for second, certainty in [(None, "sure"), (None, "likely"), (None, "unsure")] + [
        (other, "likely") for other in EMOTIONS if other != first
    ]:
        heard = heard_clue(HeardEmotion(first, second, certainty), language)
        prompt = acoustic_prompt(audible_clues({}, FAST, heard), language)
        assert emotion_of(prompt) == first
        assert not any(clue.negated for clue in find_clues(prompt, language))
        written.add(prompt)
    assert len(written) == 10


def test_how_p_act_words_a_certainty() -> None:
    told = [("sad", None, "likely"), ("sad", None, "unsure"), ("sad", "angry", "unsure")]
    heard = [HeardEmotion(*one) for one in told]
    assert [heard_clue(one).word for one in heard] == [
        "probably sad",
        "perhaps sad",
        "sad or angry",
    ]
    with pytest.raises(DataError):
        heard_emotion({})
    with pytest.raises(DataError):
        HeardEmotion("sad", certainty="certain")


LOW_SAD = {("pitch", "low", False), ("volume", "loud", True), ("emotion", "sad", False)}
BOTH = {("pitch", "low", False), ("pitch", "high", False), ("emotion", "sad", False)}
BOTH |= {("emotion", "sad", True)}


@pytest.mark.parametrize(
    ("references", "claim", "status"),
    [
        (LOW_SAD, ("pitch", "low", False), "supported"),
        (LOW_SAD, ("pitch", "high", False), "contradicted"),
        (LOW_SAD, ("pitch", "normal", False), "contradicted"),
        (LOW_SAD, ("pitch", "high", True), "supported"),  # not high: it is low
        (LOW_SAD, ("pitch", "low", True), "contradicted"),
        (LOW_SAD, ("volume", "loud", False), "contradicted"),  # a reference denies it
        (LOW_SAD, ("volume", "loud", True), "supported"),
        (LOW_SAD, ("pace", "slow", False), "unsupported"),
        (LOW_SAD, ("pace", "slow", True), "unsupported"),
        # One emotion is no other, though few are opposites.
        (LOW_SAD, ("emotion", "happy", False), "contradicted"),
        (LOW_SAD, ("emotion", "angry", False), "contradicted"),
        (LOW_SAD, ("emotion", "angry", True), "supported"),
        # What one reference claims is supported whatever another says.
        *((BOTH, claim, "supported") for claim in sorted(BOTH)),
        # References that affirm nothing verify nothing.
        (set(), ("pace", "slow", False), "unverifiable"),
        ({("volume", "loud", True)}, ("pace", "slow", False), "unverifiable"),
    ],
)
def test_verdicts_by_references(references: set[Claim], claim: Claim, status: str) -> None:
    assert check_by_references(claim, references)[0] == status


CLAIMS = st.tuples(st.sampled_from(sorted(meanings())), st.booleans()).map(lambda c: (*c[0], c[1]))


@given(CLAIMS, st.frozensets(CLAIMS, max_size=6))
def test_the_metric_and_the_judge_give_one_verdict(claim, references) -> None:
    """A clip without labels and facts is judged by its references alone, as the metric is."""
    trait, meaning, denied = claim
    judged = ClipKnowledge(None, {}, references).check(Clue("x", trait, meaning, negated=denied))
    assert judged.status is check_by_references(claim, references)[0]


def test_calm_beside_an_emotion_is_a_claim_of_the_words_and_none_of_the_emotion() -> None:
    """Clue scores count every word; what is known of a clip has one emotion."""
    found = claims_of(find_clues("A sad but calm voice.", "en"))
    assert list(found) == [("emotion", "sad", False), ("emotion", "neutral", False)]
    assert list(without_composure(found)) == [("emotion", "sad", False)]
    calm = claims_of(find_clues("A calm voice, not sad.", "en"))
    assert without_composure(calm) == calm


def test_the_fingerprint_is_that_of_earlier_judgements() -> None:
    """Stores that were judged before the next change of vocabulary or rules stay judged."""
    assert claims_fingerprint() == "e9aae8530290"


@pytest.mark.parametrize(
    ("heads", "measured", "gender"),
    [
        (None, 0.7, None),
        (None, 0.96, "female"),
        (0.9, 0.7, "female"),  # odds of 9 and 7/3 multiply to 21, more than 19
        (0.9, 0.65, None),  # 9 times 13/7 is 17
        (0.1, 0.3, "male"),
        (0.999, None, "female"),
        (0.999, 0.001, None),
    ],
)
def test_gender_is_judged_by_heads_and_signal_together(heads, measured, gender):
    fact = Fact(
        "female_probability", measured, "", 0.9 if measured else 0.0, "" if measured else "no"
    )
    facts = Facts(3.0, 2.5, MappingProxyType({fact.name: fact}))
    readout = {"gender": {"female": heads}} if heads else {}
    joint = heard_facts(readout, facts)
    assert shown_gender(joint) == audible_gender(readout, facts) == gender
    told = {one.clue.meaning: one.verdict for one in judge([FEMALE, MALE], joint)}
    supported = [name for name, verdict in told.items() if verdict is SUPPORTED]
    assert supported == [gender] * bool(gender)
    [evidence] = judge([FEMALE], joint)
    assert ("by encoder and signal" in evidence.measurement) == bool(heads and measured)
    assert ("by the encoder" in evidence.measurement) == bool(heads and not measured)


FEMALE, MALE = clue_of("gender", "female"), clue_of("gender", "male")


class TestAgainstASpeakersBaseline:
    """A usual pitch of 200 Hz, loudness of -25 LUFS and pace of 5 syllables a second."""

    @pytest.mark.parametrize(
        ("measured", "value", "trait", "meaning", "said"),
        [
            (
                "pitch_median_hz",
                238.0,
                "pitch",
                "high",
                "238 Hz, 3.0 st above the speaker's usual 200 Hz",
            ),
            (
                "pitch_median_hz",
                168.0,
                "pitch",
                "low",
                "168 Hz, 3.0 st below the speaker's usual 200 Hz",
            ),
            ("pitch_median_hz", 217.0, "pitch", "normal", "1.4 st above"),
            ("pitch_median_hz", 230.0, "pitch", None, ""),
            (
                "loudness_db",
                -22.0,
                "volume",
                "loud",
                "-22.0 LUFS, 3.0 dB above the speaker's usual -25.0",
            ),
            ("loudness_db", -28.0, "volume", "quiet", "3.0 dB below"),
            ("loudness_db", -24.0, "volume", "normal", ""),
            ("loudness_db", -23.0, "volume", None, ""),
            (
                "pace_syllables_per_s",
                5.75,
                "pace",
                "fast",
                "5.8 syllables/s, 1.15 times the speaker's",
            ),
            ("pace_syllables_per_s", 4.25, "pace", "slow", "0.85 times the speaker's usual 5.0"),
            ("pace_syllables_per_s", 5.3, "pace", "normal", ""),
            ("pace_syllables_per_s", 5.5, "pace", None, ""),
        ],
    )
    def test_high_loud_and_fast_are_against_the_usual(self, measured, value, trait, meaning, said):
        usual = {"pitch_median_hz": 200.0, "loudness_db": -25.0, "pace_syllables_per_s": 5.0}
        numbers = {**usual, measured: value, "pitch_offset_st": 9.0}
        facts = relative_to(facts_of(**numbers), Baseline("speaker a", 3, *usual.values()))
        found = levels(facts)
        shown = {"pitch": found.pitch, "volume": found.loudness, "pace": found.pace}
        assert shown[trait] == meaning
        told = [clue.meaning for clue in measured_clues(facts)]
        assert told == ([meaning] if meaning not in (None, "normal") else [])
        others = {"pitch", "volume", "pace"} - {trait}
        assert {shown[one] for one in others} == {"normal"}
        if meaning:
            [evidence] = judge([clue_of(trait, meaning)], facts)
            assert evidence.verdict is SUPPORTED
            assert said in evidence.measurement

    def test_what_the_baseline_cannot_tell_is_judged_as_without_it(self):
        facts = facts_of(pitch_offset_st=9.0, pitch_median_hz=400.0)
        unknown = Baseline("speaker a", 3, None, None, None)
        [evidence] = judge([clue_of("pitch", "high")], relative_to(facts, unknown))
        assert "the expected" in evidence.measurement
        with pytest.raises(DataError, match="speaker a"):
            Baseline("speaker a", 0)
