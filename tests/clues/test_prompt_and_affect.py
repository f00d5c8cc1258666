"""The acoustic prompt of Eq. 1, and the way from a caption back to a label."""

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.clues import (
    acoustic_prompt,
    arousal_valence,
    clue_of,
    emotion_of,
    emotions_of,
    find_clues,
)
from aligncap.clues.vocabulary import meanings
from aligncap.errors import UnknownNameError
from aligncap.values import EMOTIONS, Clue

WORD = st.sampled_from([clue_of(t, m) for t, m in meanings()])


def test_the_template_of_equation_1() -> None:
    calm, low, slow = find_clues("calm, low-pitched and slow")
    assert acoustic_prompt([]) == ""
    assert acoustic_prompt([calm]) == "Feeling calm"
    assert acoustic_prompt([calm, low]) == "Feeling calm and low-pitched"
    assert acoustic_prompt([calm, low, slow]) == "Feeling calm, low-pitched, and slow"
    assert acoustic_prompt([calm, low, calm]) == "Feeling calm and low-pitched"


def test_the_chinese_template() -> None:
    found = find_clues("声音低沉，语速很慢，十分难过")
    assert acoustic_prompt(found, "zh") == "感到低沉、语速慢和难过"
    assert acoustic_prompt(found[:1], "zh") == "感到低沉"


def test_denied_clues_are_left_out_and_pronouns_written_out() -> None:
    assert acoustic_prompt(find_clues("she is not angry")) == "Feeling female"


def test_clues_change_language_by_their_meaning() -> None:
    assert acoustic_prompt(find_clues("语速很快，声音洪亮"), "en") == "Feeling fast and loud"
    assert acoustic_prompt(find_clues("a loud woman"), "zh") == "感到响亮和女性"
    with pytest.raises(UnknownNameError):
        acoustic_prompt((), "de")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_pair_of_meanings_survives_the_prompt(language: str) -> None:
    for pair in permutations([clue_of(t, m) for t, m in meanings()], 2):
        prompt = acoustic_prompt(pair, language)
        back = {(c.trait, c.meaning) for c in find_clues(prompt, language) if not c.negated}
        assert {(c.trait, c.meaning) for c in pair} <= back, prompt


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        ("She is furious.", "angry"),
        ("A joyful man.", "happy"),
        ("A composed but mournful voice.", "sad"),
        ("Sad, with a trace of anger.", "sad"),
        ("A little sad and extremely angry.", "angry"),
        ("Angry and sad.", "angry"),
        ("Sad and angry.", "sad"),
        ("Not angry, only calm.", "neutral"),
        ("Not happy.", None),
        ("A woman speaks fast.", None),
        ("", None),
        ("语气平静", "neutral"),
        ("并不生气，只是有些难过", "sad"),
        ("惊恐万分地尖叫", "fearful"),
        ("又惊又喜，兴高采烈", "surprised"),
        ("无聊透顶", "bored"),
        ("令人作呕的厌恶", "disgusted"),
    ],
)
def test_emotion_of_a_caption(text: str, emotion: str | None) -> None:
    assert emotion_of(text) == emotion
    assert emotion_of(find_clues(text)) == emotion


def test_emotions_come_dominant_first_and_neutral_last() -> None:
    assert emotions_of("calm, slightly sad and very angry") == ("angry", "sad", "neutral")


def test_every_emotion_has_words_in_both_languages() -> None:
    for emotion in EMOTIONS:
        clue = clue_of("emotion", emotion)
        for language in ("en", "zh"):
            assert emotion_of(acoustic_prompt([clue], language)) == emotion


def test_the_circumplex_has_its_corners() -> None:
    places = {name: arousal_valence(text) for name, text in CORNERS.items()}
    assert all(arousal is not None and valence is not None for arousal, valence in places.values())
    assert places["angry"][0] > 0 > places["angry"][1]
    assert places["happy"][0] > 0 < places["happy"][1]
    assert places["sad"][0] < 0 > places["sad"][1]
    assert places["calm"][0] < 0 < places["calm"][1]


CORNERS = {
    "angry": "She shouts angrily at a fast pace.",
    "happy": "语气欢快，声音响亮",
    "sad": "A sad, slow and quiet voice.",
    "calm": "语气平静温柔，语速缓慢",
}


def test_loudness_and_pace_move_arousal_alone() -> None:
    assert arousal_valence("a loud voice")[0] > 0 > arousal_valence("a quiet voice")[0]
    assert arousal_valence("a loud voice")[1] is None
    assert arousal_valence("a woman") == (None, None)
    assert arousal_valence("not angry") == (None, None)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORD, max_size=8))
def test_arousal_and_valence_stay_in_range(clues: list[Clue]) -> None:
    for value in arousal_valence(clues):
        assert value is None or -1.0 <= value <= 1.0
    assert arousal_valence(clues) == pytest.approx(arousal_valence(clues[::-1]))
