"""Captions by plan: the plan in the prompt, and captions that say what the record says."""

from dataclasses import replace

import numpy as np
import pytest

from aligncap.audio import load
from aligncap.captioner.captioner import Captioner, CaptionGenerator
from aligncap.captioner.choosing import agrees
from aligncap.captioner.preparing import Preprocessor
from aligncap.captioner.prompts import PromptBuilder, plan_of, student_acoustic_prompt
from aligncap.captioner.runtimes import DecodeOptions
from aligncap.clues import emotion_of, find_clues
from aligncap.data.grammar import Meaning, Plan, split_plan
from aligncap.data.plans import meaning_of_prompt, plans_for, sentence_of
from aligncap.errors import AlignCapError, RecipeError, UnknownNameError
from aligncap.values import EMOTIONS, RATE_HZ, Facts, SpeechTokens, Waveform
from support.captioner import LoudnessTokenizer, Reciter, tiny_meta, wide_vocabulary

VOCABULARY = wide_vocabulary()
BUILDER = PromptBuilder(VOCABULARY)
NOTHING = Facts(3.0, 2.5, {})
LIKELY_SAD = {"emotion": {"sad": 0.5, "angry": 0.2, "happy": 0.3}}


def captioner(*texts: str, **changes: object) -> tuple[Captioner, Reciter]:
    reciter = Reciter(VOCABULARY, texts)
    known = {"vocabulary": VOCABULARY.shape, "act_mode": "heard", "plans": True}
    generator = CaptionGenerator(tiny_meta(**known | changes), BUILDER, reciter)
    hears = Preprocessor(LoudnessTokenizer(readout=LIKELY_SAD), 30.0)
    return Captioner(generator, hears, options=DecodeOptions(beam_size=4)), reciter


def text_after_speech(prompt: tuple[int, ...]) -> str:
    return VOCABULARY.decode(prompt[prompt.index(VOCABULARY.speech_close_id) + 1 :])


@pytest.mark.parametrize("style", ["full", "short", "tts"])
def test_the_prompt_ends_with_a_plan_that_fits_what_is_heard(example_clips, style):
    made, reciter = captioner("They are probably sad.")
    caption = made.caption(example_clips[0], style=style)
    [[prompt]] = reciter.batches
    act = VOCABULARY.decode(prompt[: prompt.index(VOCABULARY.speech_open_id)])
    assert act.startswith("Feeling probably sad")
    _, _, told = text_after_speech(prompt).rpartition("\n")
    plan, rest = split_plan(told)
    assert rest == ""
    assert Plan.parse(plan) in plans_for(meaning_of_prompt(act.strip(), "en"), style, "en")
    assert "|" not in caption.text
    made.caption(example_clips[0], style=style)
    assert reciter.batches[0] == reciter.batches[1], "the speech chooses the plan"


def test_the_best_caption_that_agrees_with_the_record_is_taken(example_clips):
    wrong = ("She is furious.", "She sounds sad.", "She is perhaps sad, perhaps cheerful.")
    made, _ = captioner(*wrong, "They are probably sad.")
    caption = made.caption(example_clips[0], candidates=4)
    assert caption.text == "They are probably sad."
    assert set(caption.candidates) == set(wrong)
    assert max(caption.emotion, key=caption.emotion.__getitem__) == emotion_of(caption.text)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_where_none_agrees_the_grammars_own_sentence_is_given(example_clips, language):
    made, reciter = captioner("She is furious.")
    caption = made.caption(example_clips[0], language=language)
    [prompt], *others = reciter.batches
    assert len({prompt, *(other for [other] in others)}) == 4, "each time another plan"
    act = VOCABULARY.decode(prompt[: prompt.index(VOCABULARY.speech_open_id)]).strip()
    plan = Plan.parse(split_plan(text_after_speech(prompt).split("\n")[-1])[0])
    assert caption.text == sentence_of(meaning_of_prompt(act, language), plan, language).text
    assert emotion_of(find_clues(caption.text, language)) == "sad"


def test_the_search_is_wider_where_the_first_caption_did_not_agree(example_clips):
    asked = []

    class Noting(Reciter):
        def generate(self, prompts, options):
            asked.append((options.beam_size, options.captions))
            return super().generate(prompts, options)

    made, _ = captioner()
    model = CaptionGenerator(made.meta, BUILDER, Noting(VOCABULARY, ["He is furious."]))
    hears = Preprocessor(LoudnessTokenizer(readout=LIKELY_SAD), 30.0)
    for beams in (1, 5):
        asked.clear()
        Captioner(model, hears, options=DecodeOptions(beam_size=beams)).caption(example_clips[0])
        assert asked == [(beams, beams), *[(max(3, beams),) * 2] * 3]


@pytest.mark.parametrize(
    ("plans", "tokenizer", "beams"),
    [(False, "builtin", 8), (True, "builtin", 1), (True, "speechtokenizer", 3)],
)
def test_beams_give_the_emotions_that_no_tokenizer_hears(plans, tokenizer, beams):
    meta = tiny_meta(plans=plans)
    meta = replace(meta, tokenizer=replace(meta.tokenizer, name=tokenizer))
    assert meta.usual_beams == beams


@pytest.mark.parametrize(("plans", "read_s"), [(True, 10.0), (False, 24.0)])
def test_of_long_speech_with_a_plan_the_first_seconds_are_read(example_clips, plans, read_s):
    clip = load(example_clips[0]).samples
    long = np.tile(clip, 24 * RATE_HZ // len(clip) + 1)[: 24 * RATE_HZ]
    made, reciter = captioner("They are probably sad.", plans=plans)
    caption = made.caption(long, rate_hz=RATE_HZ)
    assert caption.duration_s == 24.0
    [[prompt]] = reciter.batches
    codes = prompt[
        prompt.index(VOCABULARY.speech_open_id) + 1 : prompt.index(VOCABULARY.speech_close_id)
    ]
    whole = LoudnessTokenizer().encode(Waveform(long, "long"))
    assert list(codes) == VOCABULARY.speech_ids(whole)[: round(12.5 * read_s)]


def test_only_those_without_a_caption_that_agrees_are_asked_again(example_clips):
    right, wrong = (Reciter(VOCABULARY, [text]) for text in ("They seem sad.", "He is furious."))

    class Slow(Reciter):
        def generate(self, prompts, options):
            rest = wrong.generate(prompts[1:], options)
            return [*right.generate(prompts[:1], options), *rest]

    made, _ = captioner()
    model = CaptionGenerator(made.meta, BUILDER, Slow(VOCABULARY, ()))
    hears = Preprocessor(LoudnessTokenizer(readout=LIKELY_SAD), 30.0)
    three = Captioner(model, hears, options=DecodeOptions(beam_size=1), workers=4)
    sources = [*example_clips[:2], "nowhere.wav", example_clips[2]]
    captions = list(three.caption_many(sources))
    assert isinstance(captions.pop(2), AlignCapError)
    assert [one.text for one in captions] == ["They seem sad."] * 3
    assert [len(batch) for batch in wrong.batches] == [2, 1, 0]


def test_a_model_without_plans_is_asked_as_before_and_has_one_style(example_clips):
    made, reciter = captioner("She is furious.", plans=False)
    assert made.caption(example_clips[0]).text == "She is furious."
    [[prompt]] = reciter.batches
    assert text_after_speech(prompt) == BUILDER.template.instructions["en"]
    assert VOCABULARY.decode(prompt).startswith("Feeling sad")
    with pytest.raises(RecipeError, match="tiny: writes captions of style 'full' only"):
        made.caption(example_clips[0], style="short")
    with pytest.raises(UnknownNameError, match="no style of captions called 'long'"):
        made.caption(example_clips[0], style="long")


SURE = Meaning("sad", gender="female", levels={"pitch": "low"})


@pytest.mark.parametrize(
    ("text", "meaning", "right"),
    [
        ("She sounds sad, in a deep voice.", SURE, True),
        ("She sounds sad, in a deep voice, her pitch low.", SURE, False),  # twice
        ("She sounds sad, loud and getting louder.", SURE, False),  # one trait twice
        ("He sounds sad.", SURE, False),
        ("Somebody sounds sad.", SURE, True),
        ("She sounds angry.", SURE, False),
        ("She sounds sad and angry.", SURE, False),
        ("She sounds perhaps sad.", SURE, True),
        ("She sounds sad, her voice wav\ufffd.", SURE, False),  # half a character
        ("She sounds sad.", Meaning("sad", gender="female", certainty="unsure"), False),
        ("Somewhere between sad and angry.", Meaning("sad", second="angry"), True),
        ("Somewhere between angry and sad.", Meaning("sad", second="angry"), False),
    ],
)
def test_what_agrees_with_a_meaning(text, meaning, right):
    assert agrees(text, meaning, NOTHING, language="en") is right


def test_a_response_and_a_prompt_have_the_same_ids_for_a_plan():
    speech = SpeechTokens(np.array([[1, 2, 3]]))
    plain = BUILDER.student(speech, language="en")
    planned = BUILDER.student(speech, language="en", plan="f17 3")
    ids = BUILDER.response("f17 3|She sounds sad.")
    own = planned[len(plain) :]
    assert planned[: len(plain)] == plain
    assert tuple(ids[: len(own)]) == own
    assert ids[len(own) :] == BUILDER.response("She sounds sad.")


def test_a_copy_with_other_tokens_has_the_same_plan():
    codes = np.arange(44)[None]
    act = student_acoustic_prompt("heard", NOTHING, SpeechTokens(codes, LIKELY_SAD), "en")
    plan = plan_of(act, SpeechTokens(codes), "en")
    assert plan == plan_of(act, SpeechTokens(codes[:, ::-1] + 7), "en")
    assert plan == plan_of(act, SpeechTokens(codes[:, :42]), "en")


def test_plans_depend_on_what_is_heard_and_for_how_long():
    acts = [
        f"Feeling {emotion}, {trait}" for emotion in EMOTIONS for trait in ("low", "loud", "fast")
    ]
    speech = [SpeechTokens(np.zeros((1, 8 * 2**octave), dtype=int)) for octave in range(4)]
    plans = [plan_of(act, one, "en") for act in acts for one in speech]
    assert plans == [plan_of(act, one, "en") for act in acts for one in speech]
    assert len(set(plans)) >= 0.9 * len(plans)
    assert len({plan_of(acts[0], speech[0], "en", attempt=one) for one in range(20)}) >= 15
