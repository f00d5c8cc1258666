"""The paraphrase grammar: its captions are well formed, varied, and say what they mean."""

import re
from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.clues import acoustic_prompt, emotions_of, find_clues, heard_clue, is_hedged
from aligncap.clues.emotion import HeardEmotion
from aligncap.clues.vocabulary import clue_of
from aligncap.data.captions import draw_captions
from aligncap.data.grammar import (
    ASPECTS,
    CERTAINTIES,
    CONTENT,
    INTENSITIES,
    STYLES,
    TRAIT_OF,
    WORDINGS,
    Meaning,
    Plan,
    open_grammar,
    parse,
    split_plan,
)
from aligncap.data.plans import (
    Sentence,
    evidence_of,
    meaning_of_prompt,
    plan_for,
    plans_for,
    sentence_of,
    sentences,
)
from aligncap.errors import DataError, UnknownNameError
from aligncap.values import EMOTIONS, LANGUAGES

GENDERS = (None, "female", "male")
HEARD = tuple(aspect for aspect in ASPECTS if aspect != "texture")
"""Aspects that are measured."""


def random_meaning(rng: Random) -> Meaning:
    """As clips give them: mostly pitch, loudness and pace, now and then the others."""
    levels = {
        aspect: rng.choice(ASPECTS[aspect])
        for aspect in HEARD
        if rng.random() < (0.75 if aspect in ("pitch", "loudness", "pace") else 0.25)
    }
    emotion, hedge = rng.choice(EMOTIONS), rng.choice(("sure", "sure", "likely", "unsure", "mixed"))
    second = rng.choice([one for one in EMOTIONS if one != emotion]) if hedge == "mixed" else None
    return Meaning(
        emotion,
        rng.choice((None, None, *INTENSITIES)),
        rng.choice(GENDERS),
        levels,
        emotion == "neutral" and rng.random() < 0.5,
        "unsure" if second else hedge,
        second,
    )


def caption(meaning: Meaning, style: str, language: str, number: int) -> str:
    return sentence_of(meaning, plan_for(meaning, style, language, number), language).text


def meanings() -> st.SearchStrategy[Meaning]:
    """Every meaning there is."""
    levels = st.fixed_dictionaries(
        {}, optional={aspect: st.sampled_from(known) for aspect, known in ASPECTS.items()}
    )
    return st.builds(
        Meaning,
        emotion=st.sampled_from(EMOTIONS[1:]),
        intensity=st.sampled_from((None, *INTENSITIES)),
        gender=st.sampled_from(GENDERS),
        levels=levels,
        calm=st.booleans(),
        certainty=st.sampled_from(CERTAINTIES),
        second=st.sampled_from((None, EMOTIONS[0])),
    )


def write(source: str, *filled: str, number: int = 0) -> str:
    return parse(source).render(str.upper, filled, number)


@pytest.mark.parametrize(
    ("source", "filled", "written"),
    [
        ("a {voice}, {who} voice", "voice", "a VOICE, WHO voice"),
        # An optional part comes with its content.
        ("she speaks[ in a {voice} voice][, {tail}]", "", "she speaks"),
        ("she speaks[ in a {voice} voice][, {tail}]", "tail", "she speaks, TAIL"),
        ("she speaks[ in a {voice} voice]", "voice tail", "she speaks in a VOICE voice"),
        ("she speaks[ in {her} {voice} voice]", "", "she speaks"),
    ],
)
def test_slots_and_optional_parts(source: str, filled: str, written: str) -> None:
    assert write(source, *filled.split()) == written


def test_the_number_of_the_wording_chooses() -> None:
    source = "(one|two (halves|thirds)|)"
    assert [write(source, number=n) for n in range(5)] == [
        *("one", "two thirds", "", "one", "two halves")
    ]


def test_a_template_knows_what_it_needs_and_is_closed() -> None:
    template = parse("{who} speaks[ in a {voice} voice], {tail}")
    assert (template.needs, template.holds) == ({"who", "tail"}, ("who", "voice", "tail"))
    for source in ("(one|two", "one) two", "[one", "one]"):
        with pytest.raises(ValueError, match="clos"):
            parse(source)


STOPS = ".。!?！？"
CONSONANT_AT_FIRST = {"uniform", "euphoric", "one", "useful", "usual", "unique"}
"""Words that are written with a vowel at first and spoken with a consonant."""


@settings(max_examples=150, deadline=None)
@given(meanings(), st.sampled_from(sorted(STYLES)), st.sampled_from(LANGUAGES), st.integers(0, 99))
def test_a_caption_ends_once_and_says_nothing_that_is_not_meant(meaning, style, language, number):
    plan = plan_for(meaning, style, language, number)
    sentence = sentence_of(meaning, plan, language)
    assert sentence == sentence_of(meaning, Plan.parse(str(plan)), language)
    assert sentence.gender in (None, meaning.gender)
    assert sentence.levels.items() <= meaning.levels.items()
    text = sentence.text
    assert [mark for mark in text if mark in STOPS] == [text[-1]]
    assert text[-1] == {"en": ".", "zh": "。"}[language]
    assert not set("{}[]()|_=\n<>") & set(text)
    assert re.search(r"WORD|\s{2}|[ ,;:][,;:.]|，，|，。|^[，、]|的的|地地", text) is None
    words = re.findall(r"[A-Za-z'-]+" if language == "en" else r"[\u4e00-\u9fff]", text)
    low, high = {"en": (2, 36), "zh": (3, 48)}[language]
    assert low <= len(words) <= high


@settings(max_examples=100, deadline=None)
@given(meanings(), st.sampled_from(sorted(STYLES)), st.integers(0, 2**31))
def test_english_agrees_with_itself(meaning: Meaning, style: str, number: int) -> None:
    sentence = sentence_of(meaning, plan_for(meaning, style, "en", number), "en")
    words = re.findall(r"[a-z'-]+", sentence.text.lower())
    for article, word in pairwise(words):
        if article in ("a", "an"):
            vowel = word[0] in "aeiou" and word not in CONSONANT_AT_FIRST
            assert (article == "an") == vowel, sentence.text
        if article in ("she", "he"):
            assert word.endswith(("s", "d", "t")) or word in ("may", "must", "probably"), sentence
        assert article != word
    assert sentence.text[0].isupper()
    pronouns = {"female": {"she", "her"}, "male": {"he", "his", "him"}, None: {"they", "their"}}
    for gender, own in pronouns.items():
        if gender != meaning.gender:
            assert not own & set(words), sentence.text


def check_read_back(meaning: Meaning, sentence: Sentence, language: str) -> None:
    """By the clue parser, which knows nothing of the grammar: each claim once, none denied."""
    clues = find_clues(sentence.text, language, repeats=True)
    assert not any(clue.negated for clue in clues), sentence
    assert emotions_of(clues) == tuple(filter(None, (meaning.emotion, meaning.second))), sentence
    found = Counter((clue.trait, clue.meaning) for clue in clues if clue.trait != "emotion")
    genders = {meaning for trait, meaning in found if trait == "gender"}
    # A pronoun inside of a phrase ("under her breath") is read with it.
    assert genders <= {sentence.gender} - {None}, sentence
    said = {(TRAIT_OF[aspect], level) for aspect, level in sentence.levels.items()}
    measured = {one: count for one, count in found.items() if one[0] != "gender"}
    assert measured == dict.fromkeys(said, 1), sentence
    assert len({trait for trait, _ in measured}) == len(measured), "one trait, one claim"
    assert is_hedged(sentence.text, language) == (meaning.hedge != "sure"), sentence


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("style", sorted(STYLES))
def test_what_is_said_is_read_back_and_nothing_else(language: str, style: str) -> None:
    rng = Random(5)
    for _ in range(400):
        meaning = random_meaning(rng)
        plan = plan_for(meaning, style, language, rng.randrange(2**31))
        check_read_back(meaning, sentence_of(meaning, plan, language), language)


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_plan_is_read_back(language: str) -> None:
    rng = Random(8)
    for number in range(60):
        meaning = random_meaning(rng)
        for _, sentence in islice(
            sentences(meaning, sorted(STYLES)[number % 3], language), number % 5, None, 5
        ):
            check_read_back(meaning, sentence, language)


# (a meaning, levels) and what the levels are to its emotion.
EVIDENCE_OF = (
    (Meaning("sad"), {"loudness": "loud"}, "contrast"),
    (Meaning("sad"), {"loudness": "quiet", "pace": "slow"}, "sign"),
    (Meaning("angry"), {"loudness": "loud", "pitch_movement": "falling"}, "sign"),
    (Meaning("angry"), {"loudness": "loud", "pace": "slow"}, ""),
    (Meaning("happy"), {"loudness": "normal", "pace": "fast"}, ""),
    (Meaning("happy"), {"pitch": "low"}, ""),
    (Meaning("fearful"), {"loudness": "quiet"}, ""),
    (Meaning("sad", second="angry"), {"loudness": "loud"}, ""),
    (Meaning("fearful", second="angry"), {"pace": "fast"}, "sign"),
    (Meaning("neutral"), {"pace": "fast"}, "contrast"),
    (Meaning("neutral"), {}, ""),
)


@pytest.mark.parametrize(("meaning", "levels", "evidence"), EVIDENCE_OF)
def test_what_a_voice_is_a_sign_of(meaning: Meaning, levels: dict[str, str], evidence: str):
    assert evidence_of(meaning, list(levels.items())) == evidence


def test_a_reason_is_given_only_where_it_is_one() -> None:
    """ "She gives away her sorrow: her voice is loud" is never said, but "though" it is loud."""
    frames = open_grammar("en").frames["full"]
    for levels, other in (({"loudness": "loud"}, "sign"), ({"loudness": "quiet"}, "contrast")):
        meaning = Meaning("sad", gender="female", levels=levels)
        used = {frames[plan.frame].evidence for plan in plans_for(meaning, "full", "en")}
        assert used == {"", "sign", "contrast"} - {other}
    calm = Meaning("neutral", gender="male", levels={"pace": "fast"})
    assert not any(frames[plan.frame].moved for plan in plans_for(calm, "full", "en"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_level_gets_said(language: str) -> None:
    for aspect in HEARD:
        for level in ASPECTS[aspect]:
            meaning = Meaning("sad", gender="male", levels={aspect: level})
            plans = [plan_for(meaning, "full", language, number) for number in range(10)]
            said = [sentence_of(meaning, plan, language).levels for plan in plans]
            assert said == [{aspect: level}] * 10


@pytest.mark.parametrize("language", LANGUAGES)
def test_strong_feelings_have_stronger_words_and_weak_ones_weaker(language: str) -> None:
    def strength(intensity: str) -> float:
        texts = (caption(Meaning("angry", intensity), "full", language, n) for n in range(200))
        clues = (clue for text in texts for clue in find_clues(text, language))
        degrees = [clue.degree for clue in clues if clue.trait == "emotion"]
        return sum(degrees) / len(degrees)

    assert strength("strong") > strength("normal") + 0.1 > strength("weak") + 0.2


@pytest.mark.parametrize(
    ("language", "style", "frames"),
    [("en", "full", 150), ("zh", "full", 60)]
    + [(language, style, 10) for language in LANGUAGES for style in ("short", "tts")],
)
def test_how_many_frames_there_are_and_that_each_is_used(language, style, frames) -> None:
    known = open_grammar(language).frames[style]
    assert len(known) >= frames
    rng, used = Random(4), set[int]()
    for number in range(10_000):
        if len(used) == len(known):
            break
        meaning = random_meaning(rng)
        if number % 4 == 0:  # some sentences have room for one thing
            meaning = replace(meaning, levels=dict(list(meaning.levels.items())[:1]))
        used.add(plan_for(meaning, style, language, number).frame)
    assert used == set(range(len(known)))


def test_captions_of_a_typical_meaning_begin_in_many_ways() -> None:
    """Over the plans that it allows, no three words begin more than a tenth of the captions."""
    levels = {"pitch": "high", "pace": "fast", "steadiness": "trembling", "loudness": "normal"}
    for hedge in ({}, {"certainty": "likely"}, {"second": "sad"}):
        meaning = Meaning("fearful", gender="female", levels=levels, **hedge)
        texts = [sentence.text for _, sentence in sentences(meaning, "full", "en")]
        openings = Counter(" ".join(text.split()[:3]) for text in texts)
        assert max(openings.values()) <= 0.1 * len(texts)
        assert len(texts) >= 200
        assert len(set(texts)) >= 0.98 * len(texts)


@pytest.mark.slow
def test_how_many_words_there_are() -> None:
    rng, drawn = Random(6), Counter[str]()
    for _ in range(1_000):
        text = caption(random_meaning(rng), "full", "en", rng.randrange(2**31))
        drawn.update(set(re.findall(r"[a-z]+(?:[-'][a-z]+)*", text.lower())))
    assert len(drawn) >= 760
    reachable = set(drawn)
    for number in range(20_000):
        text = caption(random_meaning(rng), sorted(STYLES)[number % 3], "en", number)
        reachable.update(re.findall(r"[a-z]+(?:[-'][a-z]+)*", text.lower()))
    assert len(reachable) >= 950


@pytest.mark.parametrize("language", LANGUAGES)
def test_one_meaning_has_many_captions_that_the_seed_chooses(language: str) -> None:
    meaning = Meaning("fearful", "strong", "female", {"pitch": "high", "pace": "fast"})
    first, same, other = (
        draw_captions(meaning, language, 20, Random(seed)) for seed in ("one", "one", "another")
    )
    assert first == same != other
    assert len(set(first)) == 20


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_frame_says_each_content_once(language: str) -> None:
    """A frame with all it can hold writes each slot once, whatever its choices."""
    for frames in open_grammar(language).frames.values():
        for frame in frames:
            slots = Counter(slot for slot in frame.template.holds if slot in CONTENT)
            for number in range(WORDINGS):
                text = frame.template.render("<{}>".format, CONTENT, number)
                written = Counter(slot for slot in re.findall(r"<(.*?)>", text) if slot in CONTENT)
                assert written == Counter(slots.keys()), frame


def test_a_meaning_is_checked_at_birth_and_its_language_known() -> None:
    for message, meaning in {
        "emotion 'calm'": {"emotion": "calm"},
        "pitch 'loud': must be one of high, normal, low": {"levels": {"pitch": "loud"}},
        "gender 'woman'": {"gender": "woman"},
        "intensity 'huge'": {"intensity": "huge"},
        "certainty 'certain'": {"certainty": "certain"},
        "must be another one": {"second": "sad"},
    }.items():
        with pytest.raises(DataError, match=message):
            Meaning(**{"emotion": "sad", **meaning})
    with pytest.raises(UnknownNameError, match="no caption language called 'de'"):
        plans_for(Meaning("sad"), "full", "de")
    with pytest.raises(UnknownNameError, match="no style of captions called 'long'"):
        plans_for(Meaning("sad"), "long", "en")


def test_plans_are_written_and_read() -> None:
    assert split_plan("f17 3|She sounds sad.") == ("f17 3", "She sounds sad.")
    for text in ("She sounds sad.", "x1 2|She", "f1|She", "sad|She", "|She"):
        assert split_plan(text) == ("", text)
    assert Plan.parse("t2 15") == Plan("tts", 2, 15)
    with pytest.raises(DataError, match="is not written as"):
        Plan.parse("f17")
    with pytest.raises(DataError, match="wordings from 0 to 23"):
        Plan("full", 0, 24)
    with pytest.raises(DataError, match="does not fit"):
        sentence_of(Meaning("sad"), Plan("full", 999, 0), "en")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_number_draws_every_plan_and_those_only(language: str) -> None:
    meaning = Meaning("happy", gender="male", levels={"pace": "slow"}, certainty="unsure")
    plans = plans_for(meaning, "short", language)
    assert {plan_for(meaning, "short", language, n) for n in range(2_000)} == set(plans)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_meaning_is_read_from_its_p_act(language: str) -> None:
    rng = Random(11)
    for _ in range(200):
        meaning = random_meaning(rng)
        heard = HeardEmotion(meaning.emotion, meaning.second, meaning.certainty)
        strong = meaning.intensity if meaning.intensity != "normal" else None
        clues = [heard_clue(heard, language, strong)]
        clues += [clue_of("gender", meaning.gender)] if meaning.gender else []
        clues += [clue_of(TRAIT_OF[aspect], level) for aspect, level in meaning.levels.items()]
        read = meaning_of_prompt(acoustic_prompt(clues, language), language)
        assert (read.emotion, read.second) == (meaning.emotion, meaning.second)
        assert (read.hedge, read.gender) == (meaning.hedge, meaning.gender)
        assert read.levels.items() <= meaning.levels.items()
        assert len(read.levels) >= len(meaning.levels) - 1, "a range yields to a movement"
        assert read.intensity == (strong if meaning.hedge == "sure" else None)
    assert meaning_of_prompt("", language).emotion == "neutral"


@pytest.mark.parametrize(
    "written",
    [
        "An uninterested man speaks.",
        "In a uniform voice.",
        "A euphoric man speaks.",
        "An unimpressed tone.",
        "It is a one-note voice.",
        "She has an even voice.",
    ],
)
def test_an_article_goes_by_the_sound(written: str) -> None:
    plain = re.sub(r"\ban\b", "a", written[0].lower() + written[1:-1])
    assert open_grammar("en").finish(plain) == written
