"""Prompts, read back from their ids; and batches, in which every prediction reads the prompt and
its own response so far."""

from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncap.captioner.prompts import (
    ACOUSTIC_PROMPT_SOURCES,
    PADDING,
    TEACHER_PROMPTS,
    PromptBuilder,
    PromptTemplate,
    SharedPromptRow,
    TeacherPromptParts,
    collate,
    drop_columns,
    prompt_columns,
    student_acoustic_prompt,
)
from aligncap.errors import DataError, RecipeError, UnknownNameError
from aligncap.values import Fact, Facts, SpeechTokens
from support.captioner import tiny_vocabulary

VOCABULARY = tiny_vocabulary()
BUILDER = PromptBuilder(VOCABULARY)
TEXT = st.text(max_size=30)
SOME_TEXT = st.text(min_size=1, max_size=30)

PACE = Fact("pace_syllables_per_s", 7.0, "1/s", 0.9)
SLOW = Facts(3.0, 2.5, MappingProxyType({PACE.name: PACE}))
SAD = SpeechTokens(np.array([[1, 2]]), {"emotion": {"sad": 0.8, "happy": 0.2}})


@pytest.mark.parametrize(
    ("source", "english", "chinese"),
    [
        ("none", "", ""),
        ("measured", "Feeling fast", "感到语速快"),
        ("heard", "Feeling sad and fast", "感到悲伤和语速快"),
    ],
)
def test_the_acoustic_prompt_of_each_source(source, english, chinese):
    assert source in ACOUSTIC_PROMPT_SOURCES
    assert student_acoustic_prompt(source, SLOW, SAD, "en") == english
    assert student_acoustic_prompt(source, SLOW, SAD, "zh") == chinese


@given(st.integers(0, 20), TEXT, st.sampled_from(["en", "zh"]))
def test_the_students_prompt_is_bos_act_speech_instruction(frames, act, language):
    codes = np.arange(frames, dtype=np.int64)[None] % 16
    bos, *ids = BUILDER.student(SpeechTokens(codes), language=language, act=act)
    assert bos == VOCABULARY.bos_id
    opened = ids.index(VOCABULARY.speech_open_id)
    closed = ids.index(VOCABULARY.speech_close_id)
    assert VOCABULARY.decode(ids[:opened]) == (f"{act}\n" if act else "")
    assert ids[opened + 1 : closed] == [VOCABULARY.speech_base + code for code in codes[0]]
    assert VOCABULARY.decode(ids[closed + 1 :]) == BUILDER.template.instructions[language]


@given(TEXT, SOME_TEXT, SOME_TEXT, st.sampled_from(TEACHER_PROMPTS))
def test_the_teachers_prompt_is_the_text_that_it_names(act, sem, transcript, teacher_prompt):
    parts = TeacherPromptParts(act, sem, transcript)
    ids = BUILDER.teacher(parts, language="en", teacher_prompt=teacher_prompt)
    assert max(ids) < VOCABULARY.text_vocab_size  # no speech, whatever the texts are
    known = {"act": act, "sem": sem, "transcript": transcript}
    texts = [f"{known[name]}\n" for name in teacher_prompt.split("+") if known[name]]
    assert ids[0] == VOCABULARY.bos_id
    assert VOCABULARY.decode(ids) == "".join(texts) + BUILDER.template.instructions["en"]


def test_a_response_ends_with_eos():
    ids = BUILDER.response("She is calm.")
    assert ids[-1] == VOCABULARY.eos_id
    assert VOCABULARY.decode(ids) == "She is calm."


def test_instructions_and_separator_are_the_templates_and_what_is_missing_is_named():
    builder = PromptBuilder(VOCABULARY, PromptTemplate({"am": "ድምፁን ግለጽ።\n"}, separator=" | "))
    parts = TeacherPromptParts("Feeling sad")
    ids = builder.teacher(parts, language="am", teacher_prompt="act")
    assert VOCABULARY.decode(ids) == "Feeling sad | ድምፁን ግለጽ።\n"
    with pytest.raises(UnknownNameError, match="language"):
        builder.student(SAD, language="en")
    with pytest.raises(DataError, match="no sem text"):
        builder.teacher(parts, language="am", teacher_prompt="act+sem")
    with pytest.raises(UnknownNameError, match=r"act\+sem"):
        builder.teacher(parts, language="am", teacher_prompt="act+sems")
    with pytest.raises(UnknownNameError, match="guessed"):
        student_acoustic_prompt("guessed", SLOW, SAD, "en")
    with pytest.raises(RecipeError):
        PromptTemplate({"en": ""})


PAD = 99
TOKENS = st.lists(st.integers(0, 50), min_size=1, max_size=6)
ROWS = st.lists(
    st.builds(SharedPromptRow, TOKENS, st.lists(TOKENS, min_size=1, max_size=4)),
    min_size=1,
    max_size=4,
)


@given(ROWS)
def test_each_target_is_predicted_from_the_prompt_and_its_response_so_far(rows):
    batch = collate(rows, PAD)
    time = batch.input_ids.shape[1]
    responses = [(number, row, r) for number, row in enumerate(rows) for r in row.responses]
    expected = [
        (place, number, [*row.prompt_ids, *response[:length]], response[length])
        for place, (number, row, response) in enumerate(responses)
        for length in range(len(response))
    ]
    assert len(batch.target_ids) == len(expected)
    for target, (response, number, context, token) in enumerate(expected):
        place, at = divmod(int(batch.predict_index[target]), time)
        seen = np.flatnonzero(batch.attention[place, 0, at])
        order = seen[np.argsort(batch.position_ids[place, seen])]
        assert place == number
        assert batch.input_ids[place, order].tolist() == context
        assert batch.position_ids[place, order].tolist() == list(range(len(context)))
        assert batch.target_ids[target] == token
        assert batch.target_response[target] == response


@given(ROWS)
def test_nothing_attends_to_padding_and_nothing_is_fed_twice(rows):
    batch = collate(rows, PAD)
    padding = batch.segment_ids == PADDING
    assert (batch.input_ids[padding] == PAD).all()
    visible = batch.attention[:, 0]
    assert not visible.transpose(0, 2, 1)[padding].any()
    assert visible.any(2).all()  # a softmax over nothing would be NaN
    assert (~padding).sum(1).tolist() == [row.length for row in rows]
    assert batch.input_ids.shape[1] == max(row.length for row in rows)
    assert batch.response_lengths.tolist() == [len(r) for row in rows for r in row.responses]


def test_a_batch_by_hand():
    batch = collate([SharedPromptRow([7, 8], [[1, 2, 3], [4, 5]])], PAD)
    assert batch.input_ids.tolist() == [[7, 8, 1, 2, 4]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2]]
    assert batch.segment_ids.tolist() == [[0, 0, 1, 1, 2]]
    assert batch.predict_index.tolist() == [1, 2, 3, 1, 4]
    assert batch.target_ids.tolist() == [1, 2, 3, 4, 5]
    assert batch.target_response.tolist() == [0, 0, 0, 1, 1]
    assert batch.attention[0, 0].astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]


def test_dropped_columns_by_hand():
    batch = collate([SharedPromptRow([7, 8, 9], [[1, 2, 3], [4, 5]])], pad_id=0)
    assert prompt_columns(batch) == 2
    rest = drop_columns(batch, 2)
    assert rest.input_ids.tolist() == [[9, 1, 2, 4]]
    assert rest.position_ids.tolist() == [[2, 3, 4, 3]]
    assert rest.predict_index.tolist() == [0, 1, 2, 0, 3]
    assert rest.attention.astype(int).tolist() == [
        [[[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 1]]]
    ]
    np.testing.assert_array_equal(rest.target_ids, batch.target_ids)


@pytest.mark.parametrize(
    ("prompt", "responses", "named"),
    [([], [[1]], "prompt"), ([1], [], "response"), ([1], [[1], []], "token")],
)
def test_empty_rows_are_refused(prompt, responses, named):
    with pytest.raises(DataError, match=named):
        SharedPromptRow(prompt, responses)
    with pytest.raises(DataError, match="row"):
        collate([], PAD)
