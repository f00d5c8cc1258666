"""The grammar parser: hand-labelled sentences, negation, degree, and any text at all; the acoustic
prompt of Eq. 1, and the way from a caption back to a label."""

from itertools import permutations
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.clues import (
    acoustic_prompt,
    arousal_valence,
    clue_of,
    detect_language,
    emotion_of,
    emotions_of,
    find_clues,
)
from aligncap.clues.vocabulary import meanings
from aligncap.errors import UnknownNameError
from aligncap.values import EMOTIONS, LANGUAGES, TRAITS, Clue

LINES = Path(__file__).with_name("sentences.tsv").read_text("utf-8").splitlines()
SENTENCES = dict(line.split("\t") for line in LINES)
"""Captions made up for these tests, and what each says: "trait.meaning", "!" where denied."""
CHINESE = [text for text in SENTENCES if not text.isascii()]


def labels(text: str, language: str | None = None) -> set[str]:
    """What is found, as the table writes it."""
    found = find_clues(text, language)
    return {f"{'!' * c.negated}{c.trait}.{c.meaning}".replace(" ", "_") for c in found}


@pytest.mark.parametrize("text", SENTENCES)
def test_hand_labelled_sentences(text: str) -> None:
    assert labels(text) == set(SENTENCES[text].split())


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
        ("her voice is less loud than usual", "loud", "female"),
        ("less quickly", "fast", ""),
        ("less angry", "angry", ""),
        ("no less angry", "", "angry"),
        ("not less angry", "", "angry"),
        ("none the less angry", "", "angry"),
        ("nothing less than furious", "", "angry"),
        ("less and less quietly", "quiet", ""),
        ("less tense and anxious", "tense fearful", ""),
        ("less angry and more relaxed", "angry", "relaxed"),
        ("less loud but angry", "loud", "angry"),
        ("more or less calm", "", "neutral"),
        ("more-or-less calm", "", "neutral"),
        ("an emotion-less and loud voice", "", "neutral loud"),
        ("less than a second of laughter", "", "laughing"),
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
    "rising",
    [
        "slightly sad < sad < very sad < extremely sad",
        "a little sad < sad < deeply sad",
        "a hint of sadness < sadness",
        "anger < intense anger",
        "annoyed < furious",
        "somewhat loud < loud",
        "his pitch is slightly high < his pitch is extremely high",
        "有点难过 < 难过 < 非常难过 < 极其难过",
        "难过 < 难过极了",
        "略带怒气 < 怒气",
        "语速较快 < 语速极快",
        "一丝悲伤 < 浓浓的悲伤",
    ],
)
def test_degree(rising: str) -> None:
    found = [[c for c in find_clues(t) if c.trait != "gender"] for t in rising.split(" < ")]
    degrees = [clue.degree for (clue,) in found]
    assert degrees == sorted(set(degrees))
    assert len({clue.meaning for (clue,) in found}) == 1


@pytest.mark.parametrize(
    ("texts", "label"),
    [
        ("low pitch, deep voice, 音调低", "pitch.low"),
        ("声音尖", "pitch.high"),
        ("low volume, low energy, soft voice, 音量低", "volume.quiet"),
        ("high energy, 声音大", "volume.loud"),
        ("low mood, 情绪低", "emotion.sad"),
        ("high spirits", "emotion.happy"),
        ("low speed, 语速低", "pace.slow"),
        ("high speed", "pace.fast"),
        ("soft tone", "tone.gentle"),
        ("flat intonation", "intonation.flat"),
        ("low and high, 高大", ""),  # without a head it says nothing
    ],
)
def test_an_adjective_means_what_its_head_makes_of_it(texts: str, label: str) -> None:
    for text in texts.split(", "):
        assert labels(text) == set(label.split()), text


def test_words_are_lower_cased_lemmas_without_repeats() -> None:
    words = [clue.word for clue in find_clues("ANGRILY, angrily and Angry; whispers LOUDER")]
    assert words == ["angry", "whisper", "loud"]


@pytest.mark.parametrize(
    "clauses",
    [
        ["speaks slowly", "with a low pitch", "sounds very sad", "not loud", "a woman"],
        ["语速很慢", "音调偏低", "非常难过", "声音不大", "一位女士"],
    ],
)
def test_order_of_clauses_does_not_change_what_is_found(clauses: list[str]) -> None:
    expected = labels("; ".join(clauses))
    assert len(expected) == 5
    for seed in range(20):
        assert labels("; ".join(Random(seed).sample(clauses, 5))) == expected


@settings(max_examples=150)
@given(st.text(max_size=200), st.sampled_from([None, *LANGUAGES]))
def test_any_text_is_read(text: str, language: str | None) -> None:
    for clue in find_clues(text, language):
        assert clue.trait in TRAITS
        assert 0.0 < clue.degree <= 1.5


PIECES = [*(w for s in SENTENCES for w in s.split()), *"".join(CHINESE), "not", ",", "，", "的"]


@settings(max_examples=80)
@given(st.lists(st.sampled_from(PIECES), max_size=25), st.sampled_from(["", " "]))
def test_finding_is_stable_under_case_and_repetition(pieces: list[str], joint: str) -> None:
    text = joint.join(pieces)
    language = detect_language(text)
    assert find_clues(text.swapcase(), language) == find_clues(text, language)
    assert labels(f"{text}. {text}", language) == labels(text, language)


def test_language_is_detected() -> None:
    texts = ["a calm voice", "the word 静 means calm", "", "123 !?", "声音平静", "声音平静 (calm)"]
    assert [detect_language(text) for text in texts] == ["en"] * 4 + ["zh"] * 2
    with pytest.raises(UnknownNameError, match="no caption language called 'fr'"):
        find_clues("calme", "fr")


@pytest.mark.parametrize(
    ("caption", "language", "prompt"),
    [
        ("", "en", ""),
        ("calm", "en", "Feeling calm"),
        ("calm, low-pitched", "en", "Feeling calm and low-pitched"),
        ("calm, low-pitched and slow", "en", "Feeling calm, low-pitched, and slow"),
        ("声音低沉，语速很慢，十分难过", "zh", "感到低沉、语速慢和难过"),
        ("声音低沉", "zh", "感到低沉"),
        # What is denied is left out, and pronouns are written out.
        ("she is not angry", "en", "Feeling female"),
        # Clues change language by their meaning.
        ("语速很快，声音洪亮", "en", "Feeling fast and loud"),
        ("a loud woman", "zh", "感到响亮和女性"),
    ],
)
def test_the_template_of_equation_1(caption: str, language: str, prompt: str) -> None:
    found = find_clues(caption)
    assert acoustic_prompt(found, language) == acoustic_prompt([*found, *found], language) == prompt
    with pytest.raises(UnknownNameError):
        acoustic_prompt(found, "de")


@pytest.mark.parametrize("language", LANGUAGES)
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
    assert emotion_of(text) == emotion_of(find_clues(text)) == emotion


def test_emotions_come_dominant_first_and_neutral_last() -> None:
    assert emotions_of("calm, slightly sad and very angry") == ("angry", "sad", "neutral")


@pytest.mark.parametrize(
    ("text", "emotions"),
    [
        ("She is probably sad.", "sad"),
        ("It is hard to be sure, but he may be afraid.", "fearful"),
        ("Somewhere between calm and sad, she speaks slowly.", "neutral sad"),
        ("He sounds annoyed, or perhaps furious, or sad.", "angry sad"),
        ("Part bored, part terrified.", "bored fearful"),
        ("She might be happy or surprised.", "happy surprised"),
        # Both hold: the stronger one first, and calm last.
        ("A calm but angry man.", "angry neutral"),
        ("Calm, or so it seems. He is angry.", "angry neutral"),
        ("听上去可能有点难过。", "sad"),
        ("说不准，也许是有点害怕。", "fearful"),
        ("又像生气又像难过。", "angry sad"),
        ("介于平静和悲伤之间。", "neutral sad"),
        ("不好说是害怕还是震惊。", "fearful surprised"),
        ("他还是很平静，只是有点难过。", "sad neutral"),
    ],
)
def test_a_hedge_denies_nothing_and_of_two_that_are_weighed_the_first_counts(
    text: str, emotions: str
) -> None:
    clues = find_clues(text)
    assert emotions_of(clues) == tuple(emotions.split())
    assert not any(clue.negated for clue in clues)


def test_every_emotion_has_words_in_both_languages() -> None:
    for emotion in EMOTIONS:
        for language in LANGUAGES:
            prompt = acoustic_prompt([clue_of("emotion", emotion)], language)
            assert emotion_of(prompt) == emotion


@pytest.mark.parametrize(
    ("text", "arousal", "valence"),
    [
        ("She shouts angrily at a fast pace.", 1, -1),
        ("语气欢快，声音响亮", 1, 1),
        ("A sad, slow and quiet voice.", -1, -1),
        ("语气平静温柔，语速缓慢", -1, 1),
        # Loudness and pace move arousal alone.
        ("a loud voice", 1, None),
        ("a quiet voice", -1, None),
        ("a woman", None, None),
        ("not angry", None, None),
    ],
)
def test_the_circumplex_has_its_corners(
    text: str, arousal: int | None, valence: int | None
) -> None:
    found = arousal_valence(text)
    assert [None if x is None else (x > 0) - (x < 0) for x in found] == [arousal, valence]


@settings(max_examples=60)
@given(st.lists(st.sampled_from([clue_of(t, m) for t, m in meanings()]), max_size=8))
def test_arousal_and_valence_stay_in_range(clues: list[Clue]) -> None:
    for value in arousal_valence(clues):
        assert value is None or -1.0 <= value <= 1.0
    assert arousal_valence(clues) == pytest.approx(arousal_valence(clues[::-1]))
