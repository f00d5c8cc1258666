"""The evidence judge: scores worked by hand, laws of the formula, and real recordings."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncap.audio import load
from aligncap.clues import levels
from aligncap.data.manifest import read_manifest
from aligncap.errors import RecipeError
from aligncap.preference.judges import EvidenceJudge, EvidenceWeights
from aligncap.preference.store import Candidate, Clip, Judgement
from aligncap.prosody import measure
from support.preferences import FAST_LOUD_WOMAN, candidate, facts_of

CLIP = Clip("u1", "u1.wav", FAST_LOUD_WOMAN, emotion="angry")
"""There is to say: angry (2), female, loud, fast (1 each); a normal pitch is not remarked on."""

KNOWN = 5.0


def judged(text: str, clip: Clip = CLIP, judge: EvidenceJudge | None = None) -> Judgement:
    language = "zh" if any("\u4e00" <= letter <= "\u9fff" for letter in text) else "en"
    ((found,),) = (judge or EvidenceJudge()).judge([(clip, [Candidate("u1", language, text)])])
    return found


@pytest.mark.parametrize(
    ("caption", "points"),
    [
        ("A person speaks.", 0),
        ("An angry woman speaks fast and loudly in a normal pitch.", 5),
        ("An angry woman speaks fast and loudly.", 5),
        ("A woman speaks fast.", 2),
        ("A woman speaks fast, and her pace is fast and quick.", 2 - 2 * 0.25),
        ("An angry, enraged woman: the woman is angry.", 3),
        ("A fast woman with a loud, not a quiet voice: she speaks loudly.", 3 - 0.25),
        ("A man speaks slowly.", -1.5 - 1.5),
        ("A sad woman speaks fast.", -2 + 1 + 1),
        ("A woman speaks fast; she is not angry.", 1 + 1 - 2),
        ("A woman speaks fast, not slowly.", 1 + 1),
        ("An angry but calm woman.", 2 + 1),
        ("A woman with a tender voice.", 1 - 0.1),
        ("A woman whose voice is not tender.", 1),
        ("一个女人愤怒地大声说话，语速很快。", 5),
    ],
)
def test_scores_worked_by_hand(caption: str, points: float) -> None:
    assert judged(caption).score == pytest.approx(points / KNOWN)


def test_the_parts_and_the_reason_say_why() -> None:
    found = judged("A sad man speaks slowly in a tender voice.")
    none = dict.fromkeys(("said", "invented", "repeated"), 0.0)
    some = {"known": KNOWN, "contradicted": 2.0, "untold": 1.0, "wrong_emotion": 1.0}
    assert found.parts == none | some
    for why in (
        "says 'sad' but the clip is labelled angry",
        "says 'slow' but pace 7.1 syllables/s (fast from 6.8)",
        "leaves out angry (emotion), loud (volume), fast (pace), female (gender)",
    ):
        assert why in found.reason
    assert judged("A woman speaks fast.").reason.startswith("rightly says 'woman', 'fast'")


def test_a_label_goes_before_the_signal() -> None:
    boy = replace(CLIP, gender="male")
    assert judged("A man speaks.", boy).score > 0 > judged("A woman speaks.", boy).score
    assert "the clip is labelled male" in judged("A woman speaks.", boy).reason


def test_a_gender_that_cannot_be_heard_need_not_be_said() -> None:
    unclear = dict(FAST_LOUD_WOMAN.by_name)
    del unclear["female_probability"]
    clip = replace(CLIP, gender="female", facts=replace(FAST_LOUD_WOMAN, by_name=unclear))
    person, woman, man = (
        judged(f"A {who} speaks fast.", clip) for who in ("person", "woman", "man")
    )
    assert person.score == woman.score > man.score
    assert judged("A woman speaks.", replace(clip, facts=None)).score > 0


def test_people_speak_where_signal_and_labels_cannot_tell() -> None:
    clip = Clip("u1", "u1.wav", references={"en": ("He sounds sad, his voice tender.",)})
    assert judged("A sad man with a tender voice.", clip).score == 1.0
    wrong = judged("An angry man with a whispering voice.", clip)
    assert (wrong.parts["wrong_emotion"], wrong.parts["invented"]) == (1, 1)
    assert "says 'angry' but a reference says sad" in wrong.reason
    assert "no reference says so" in wrong.reason
    # A claim has no language.
    assert judged("他很伤心。", clip).score > 0 > judged("他很愤怒。", clip).score
    # They do not overrule the signal.
    clip = Clip("u1", "u1.wav", FAST_LOUD_WOMAN, references={"en": ("A woman speaks slowly.",)})
    parts = judged("A woman speaks slowly.", clip).parts
    assert (parts["contradicted"], parts["known"]) == (1, 3.0)


def test_little_known_is_neither_worth_nor_costs_much() -> None:
    found = judged("A woman speaks fast.", Clip("u1", "u1.wav"))
    assert (found.score, found.parts["known"]) == (pytest.approx(-0.2), 1.0)
    unclear = Clip("u1", "u1.wav", facts_of(pace_syllables_per_s=5.2))
    assert judged("A fast pace.", unclear).score == pytest.approx(-0.1)


def test_weights_are_settings_and_in_the_signature() -> None:
    harsh = EvidenceJudge(EvidenceWeights(contradicted=4.0))
    assert judged("A man speaks slowly.", judge=harsh).score == pytest.approx(-8 / KNOWN)
    assert harsh.signature.startswith("evidence|weights:4,0.5,0.1,2,2,0.25,0.25|clues:")
    assert harsh.signature != EvidenceJudge().signature
    with pytest.raises(RecipeError, match="invented is -1"):
        EvidenceWeights(invented=-1)


TRUE = ("an angry tone", "a woman's voice", "a fast pace", "a loud volume")
FALSE = ("a slow pace", "a quiet volume", "a man's voice", "a sad tone")


@given(said=st.sets(st.sampled_from(TRUE), min_size=1), wrong=st.sets(st.sampled_from(FALSE)))
def test_a_true_word_more_is_better_and_a_false_one_worse(said: set[str], wrong: set[str]) -> None:
    def score(parts: list[str]) -> float:
        return judged(f"There is {', '.join(parts)}." if parts else "A person speaks.").score

    all_of_it = sorted(said) + sorted(wrong)
    assert score(all_of_it) > score(all_of_it[1:])
    assert score(all_of_it) <= score(sorted(said))
    for one in set(FALSE) - wrong:
        assert score([*all_of_it, one]) < score(all_of_it)


TURNS = {"male": "female", "quiet": "loud", "slow": "fast", "low": "high"}
OPPOSITE = TURNS | {new: old for old, new in TURNS.items()}
PERSON = {"male": "man", "female": "woman"}
SAID = {
    "gender": "The voice is that of a {}. ",
    "pitch": "It has a {} pitch. ",
    "loudness": "The volume is {}. ",
    "pace": "The pace is {}. ",
}


@pytest.mark.speech_data
def test_on_real_clips_the_truth_beats_its_opposite_and_saying_nothing(speech_data: Path) -> None:
    compared = 0
    for utterance in list(read_manifest(speech_data / "ravdess" / "manifest.jsonl"))[::60]:
        facts = measure(load(utterance.path))
        told = {name: getattr(levels(facts), name) for name in SAID}
        told = {name: one for name, one in told.items() if one in OPPOSITE}
        if not told:
            continue
        false = {name: OPPOSITE[one] for name, one in told.items()}
        texts = [
            "".join(SAID[name].format(PERSON.get(one, one)) for name, one in words.items())
            for words in (told, false)
        ]
        clip = Clip(utterance.id, str(utterance.path), facts, utterance.emotion)
        asked = [candidate(text, utterance.id) for text in (*texts, "A person speaks.")]
        ((true, wrong, empty),) = EvidenceJudge().judge([(clip, asked)])
        assert true.score > empty.score > wrong.score, (texts, true.reason, wrong.reason)
        compared += 1
    assert compared > 10
