"""Prompts: spans that cover the ids and are what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncap.captioner.prompts import (
    SPAN_KINDS,
    TEACHER_PROMPTS,
    Prompt,
    PromptBuilder,
    PromptTemplate,
    Span,
    TeacherPromptParts,
)
from aligncap.errors import DataError, RecipeError, UnknownNameError
from aligncap.values import SpeechTokens
from captioner.tiny import tiny_vocabulary

TEXT = st.text(max_size=30)
SOME_TEXT = st.text(min_size=1, max_size=30)


def assert_spans_cover(prompt: Prompt) -> None:
    pieces = [i for span in prompt.spans for i in prompt.ids[span.start : span.stop]]
    assert pieces == list(prompt.ids)
    order = [SPAN_KINDS.index(span.kind) for span in prompt.spans]
    assert order == sorted(set(order))


@given(st.integers(0, 20), TEXT, st.sampled_from(["en", "zh"]))
def test_the_student_reads_bos_act_speech_instruction(frames, act, language):
    vocabulary = tiny_vocabulary()
    builder = PromptBuilder(vocabulary)
    codes = np.arange(frames, dtype=np.int64)[None] % 16
    prompt = builder.student(SpeechTokens(codes), language=language, act=act)

    assert_spans_cover(prompt)
    assert prompt.part("bos") == (vocabulary.bos_id,)
    assert vocabulary.decode(prompt.part("act")) == (f"{act}\n" if act else "")
    opened, *speech, closed = prompt.part("speech")
    assert (opened, closed) == (vocabulary.speech_open_id, vocabulary.speech_close_id)
    assert np.array_equal(vocabulary.speech_tokens(speech).codes, codes)
    said = builder.template.instructions[language]
    assert vocabulary.decode(prompt.part("instruct")) == said
    assert prompt.part("sem") == prompt.part("transcript") == ()
    assert vocabulary.decode(prompt.ids) == vocabulary.decode(prompt.part("act")) + said


@given(TEXT, SOME_TEXT, SOME_TEXT, st.sampled_from(TEACHER_PROMPTS))
def test_the_teacher_reads_only_what_its_prompt_names(act, sem, transcript, teacher_prompt):
    vocabulary = tiny_vocabulary()
    reading = TeacherPromptParts(act, sem, transcript)
    prompt = PromptBuilder(vocabulary).teacher(
        reading, language="en", teacher_prompt=teacher_prompt
    )
    assert_spans_cover(prompt)
    assert max(prompt.ids) < vocabulary.text_rows  # no speech, whatever the texts say
    wanted = {"sem": sem, "transcript": transcript}
    for kind, text in wanted.items():
        shown = f"{text}\n" if f"+{kind}" in teacher_prompt else ""
        assert vocabulary.decode(prompt.part(kind)) == shown
    assert vocabulary.decode(prompt.part("act")) == (f"{act}\n" if act else "")


def test_a_response_ends_with_eos():
    vocabulary = tiny_vocabulary()
    ids = PromptBuilder(vocabulary).response("She is calm.")
    assert ids[-1] == vocabulary.eos_id
    assert vocabulary.decode(ids) == "She is calm."


def test_a_teacher_without_its_text_says_so():
    builder = PromptBuilder(tiny_vocabulary())
    with pytest.raises(DataError, match="no sem text"):
        builder.teacher(TeacherPromptParts("Feeling calm"), language="en", teacher_prompt="act+sem")
    with pytest.raises(UnknownNameError, match=r"act\+sem"):
        builder.teacher(TeacherPromptParts(), language="en", teacher_prompt="act+sems")


def test_instructions_are_a_choice():
    template = PromptTemplate({"am": "ድምፁን ግለጽ።\n"}, separator=" | ")
    builder = PromptBuilder(tiny_vocabulary(), template)
    prompt = builder.teacher(TeacherPromptParts("Feeling sad"), language="am", teacher_prompt="act")
    assert builder.vocabulary.decode(prompt.ids) == "Feeling sad | ድምፁን ግለጽ።\n"
    with pytest.raises(UnknownNameError, match="language"):
        builder.student(SpeechTokens(np.zeros((1, 1), np.int64)), language="en")
    with pytest.raises(RecipeError):
        PromptTemplate({"en": ""})


@pytest.mark.parametrize(
    "spans",
    [
        (),
        (Span("bos", 0, 1),),
        (Span("bos", 0, 1), Span("act", 2, 3)),
        (Span("bos", 0, 2), Span("act", 1, 3)),
        (Span("bos", 0, 3), Span("act", 3, 3)),
        (Span("bos", 0, 4),),
    ],
)
def test_spans_that_do_not_cover_are_refused(spans):
    with pytest.raises(DataError, match="span"):
        Prompt((1, 2, 3), spans)


def test_an_unknown_span_is_named():
    with pytest.raises(UnknownNameError, match="speech"):
        Prompt((1,), (Span("speach", 0, 1),))
    with pytest.raises(UnknownNameError, match="speech"):
        Prompt((1,), (Span("bos", 0, 1),)).part("speach")
