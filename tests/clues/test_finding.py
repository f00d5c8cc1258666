"""The grammar parser: hand-labelled sentences, negation, degree, and any text at all."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.clues import detect_language, find_clues
from aligncap.errors import UnknownNameError
from aligncap.values import LANGUAGES, TRAITS
from clues.sentences import CHINESE, ENGLISH

SENTENCES = {**ENGLISH, **CHINESE}


def labels(text: str, language: str | None = None) -> set[str]:
    """What is found, as the tables write it."""
    found = find_clues(text, language)
    return {f"{'!' * c.negated}{c.trait}.{c.meaning}".replace(" ", "_") for c in found}


@pytest.mark.parametrize("text", SENTENCES)
def test_hand_labelled_sentences(text: str) -> None:
    expected = SENTENCES[text].replace("voice quality", "voice_quality").split()
    assert labels(text) == set(expected)


@pytest.mark.parametrize(
    ("text", "denied", "held"),
    [
        ("not very happy", "happy", ""),
        ("hardly any anger", "angry", ""),
        ("not without warmth", "", "warm"),
        ("no anger, sadness, or fear", "angry sad fearful", ""),
        ("not angry, sad", "angry", "sad"),
        ("never angry or sad", "angry sad", ""),
        ("she is not angry and speaks slowly", "angry", "slow female"),
        ("she does not understand and is angry", "", "angry female"),
        ("anything but calm", "neutral", ""),
        ("cannot help but laugh", "", "laughing"),
        ("not sad but happy", "sad", "happy"),
        ("not for one moment angry", "angry", ""),  # three words between: as far as it reaches
        ("not for one single moment angry", "", "angry"),
        ("rather than angrily, he answers softly", "angry", "male quiet"),
        ("not fast and not slow", "fast slow", ""),
        ("her voice isn't loud", "loud", "female"),
        ("her voice isn’t loud", "loud", "female"),
        ("并不紧张也不害怕", "fearful", ""),
        ("没有生气，很高兴", "angry", "happy"),
        ("不是生气，而是伤心", "angry", "sad"),
        ("不仅生气而且难过", "", "angry sad"),
        ("难掩悲伤", "", "sad"),
        ("毫不掩饰的厌恶", "", "disgusted"),
        ("不由得笑了", "", "laughing"),
        ("一点也不难过", "sad", ""),
        ("不无讽刺", "", "sarcastic"),
        ("看不出悲伤", "sad", ""),
    ],
)
def test_negation(text: str, denied: str, held: str) -> None:
    found = find_clues(text)
    assert {c.meaning for c in found if c.negated} == set(denied.split())
    assert {c.meaning for c in found if not c.negated} == set(held.split())


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    [
        ("slightly sad", "sad"),
        ("a little sad", "sad"),
        ("a hint of sadness", "sadness"),
        ("sad", "very sad"),
        ("very sad", "extremely sad"),
        ("sad", "deeply sad"),
        ("anger", "intense anger"),
        ("annoyed", "furious"),
        ("somewhat loud", "loud"),
        ("his pitch is slightly high", "his pitch is extremely high"),
        ("有点难过", "难过"),
        ("难过", "非常难过"),
        ("非常难过", "极其难过"),
        ("难过", "难过极了"),
        ("略带怒气", "怒气"),
        ("语速较快", "语速极快"),
        ("一丝悲伤", "浓浓的悲伤"),
    ],
)
def test_degree(weaker: str, stronger: str) -> None:
    (one,), (other,) = (
        [c for c in find_clues(t) if c.trait != "gender"] for t in (weaker, stronger)
    )
    assert one.degree < other.degree
    assert one.meaning == other.meaning


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("low pitch", "pitch.low"),
        ("low volume", "volume.quiet"),
        ("low energy", "volume.quiet"),
        ("low mood", "emotion.sad"),
        ("low speed", "pace.slow"),
        ("high speed", "pace.fast"),
        ("high energy", "volume.loud"),
        ("high spirits", "emotion.happy"),
        ("soft voice", "volume.quiet"),
        ("soft tone", "tone.gentle"),
        ("deep voice", "pitch.low"),
        ("flat intonation", "intonation.flat"),
        ("音调低", "pitch.low"),
        ("音量低", "volume.quiet"),
        ("情绪低", "emotion.sad"),
        ("语速低", "pace.slow"),
        ("声音大", "volume.loud"),
        ("声音尖", "pitch.high"),
    ],
)
def test_an_adjective_means_what_its_head_makes_of_it(text: str, label: str) -> None:
    assert labels(text) == {label}


def test_an_adjective_without_a_head_says_nothing() -> None:
    assert find_clues("low and high") == ()
    assert find_clues("高大") == ()


def test_words_are_lower_cased_lemmas_without_repeats() -> None:
    words = [clue.word for clue in find_clues("ANGRILY, angrily and Angry; whispers LOUDER")]
    assert words == ["angry", "whisper", "loud"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_order_of_clauses_does_not_change_what_is_found(language: str) -> None:
    clauses = {
        "en": ["speaks slowly", "with a low pitch", "sounds very sad", "not loud", "a woman"],
        "zh": ["语速很慢", "音调偏低", "非常难过", "声音不大", "一位女士"],
    }[language]
    expected = labels("; ".join(clauses), language)
    assert len(expected) == 5
    for seed in range(20):
        Random(seed).shuffle(clauses)
        assert labels("; ".join(clauses), language) == expected


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200), st.sampled_from([None, *LANGUAGES]))
def test_any_text_is_read(text: str, language: str | None) -> None:
    for clue in find_clues(text, language):
        assert clue.trait in TRAITS
        assert 0.0 < clue.degree <= 1.5


PIECES = (
    [w for s in SENTENCES for w in s.split()] + list("".join(CHINESE)) + ["not", ",", "，", "的"]
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=25), st.sampled_from(["", " "]))
def test_finding_is_stable_under_case_and_repetition(pieces: list[str], joint: str) -> None:
    text = joint.join(pieces)
    language = detect_language(text)
    found = find_clues(text, language)
    assert find_clues(text.swapcase(), language) == found
    assert labels(f"{text}. {text}", language) == labels(text, language)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a calm voice", "en"),
        ("声音平静", "zh"),
        ("声音平静 (calm)", "zh"),
        ("the word 静 means calm", "en"),
        ("", "en"),
        ("123 !?", "en"),
    ],
)
def test_language_is_detected(text: str, language: str) -> None:
    assert detect_language(text) == language


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(UnknownNameError, match="no caption language called 'fr'"):
        find_clues("calme", "fr")
