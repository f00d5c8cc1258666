"""Plain captions say one emotion, in the word that P_act has for it."""

import pytest

from aligncap.clues import acoustic_prompt, clue_of, emotion_of, find_clues
from aligncap.data.captions import plain_captions
from aligncap.values import EMOTIONS


@pytest.mark.parametrize("emotion", EMOTIONS)
@pytest.mark.parametrize("gender", ["female", "male", None])
def test_each_says_the_emotion_in_the_word_of_the_acoustic_prompt(emotion, gender):
    prompt = acoustic_prompt([clue_of("emotion", emotion)], "en")
    captions = plain_captions(emotion, gender)
    assert len(set(captions)) == len(captions) == (3 if gender else 2)
    for caption in captions:
        clues = find_clues(caption, "en")
        assert emotion_of(clues) == emotion
        assert prompt.removeprefix("Feeling ") in caption
        assert {clue.meaning for clue in clues if clue.trait == "gender"} <= {gender}


def test_they_are_grammatical():
    assert plain_captions("angry", "female")[1] == "An angry woman is speaking."
    assert plain_captions("sad", None) == (
        "The speaker sounds sad.",
        "A sad speaker is speaking.",
    )
