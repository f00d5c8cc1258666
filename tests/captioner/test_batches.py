"""Shared-prompt batches: every prediction reads the prompt and its own response so far."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncap.captioner.prompts import PADDING, SharedPromptRow, collate
from aligncap.errors import DataError

PAD = 99
TOKENS = st.lists(st.integers(0, 50), min_size=1, max_size=6)
ROWS = st.lists(
    st.builds(SharedPromptRow, TOKENS, st.lists(TOKENS, min_size=1, max_size=4)),
    min_size=1,
    max_size=4,
)


@given(ROWS)
def test_each_target_is_predicted_from_the_prompt_and_what_was_said(rows):
    batch = collate(rows, PAD)
    time = batch.input_ids.shape[1]
    expected = [
        (number, rank, [*row.prompt_ids, *response[:said]], response[said])
        for number, row in enumerate(rows)
        for rank, response in enumerate(row.responses)
        for said in range(len(response))
    ]
    assert len(batch.target_ids) == len(expected)
    for target, (number, rank, read, token) in enumerate(expected):
        place, at = divmod(int(batch.predict_index[target]), time)
        seen = np.flatnonzero(batch.attention[place, 0, at])
        order = seen[np.argsort(batch.position_ids[place, seen])]
        assert place == number
        assert batch.input_ids[place, order].tolist() == read
        assert batch.position_ids[place, order].tolist() == list(range(len(read)))
        assert batch.target_ids[target] == token
        response = batch.target_response[target]
        assert batch.response_row[response] == number
        assert batch.response_rank[response] == rank


@given(ROWS)
def test_nobody_sees_padding(rows):
    batch = collate(rows, PAD)
    padding = batch.segment_ids == PADDING
    assert (batch.input_ids[padding] == PAD).all()
    visible = batch.attention[:, 0]
    assert not visible.transpose(0, 2, 1)[padding].any()
    assert visible.any(2).all()  # a softmax over nothing would be NaN


@given(ROWS)
def test_nothing_is_fed_twice(rows):
    batch = collate(rows, PAD)
    fed = (batch.segment_ids != PADDING).sum(1)
    assert fed.tolist() == [row.length for row in rows]
    assert batch.input_ids.shape[1] == max(row.length for row in rows)
    assert batch.response_lengths.tolist() == [len(r) for row in rows for r in row.responses]


def test_by_hand():
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


def test_empty_rows_are_refused():
    with pytest.raises(DataError, match="prompt"):
        SharedPromptRow([], [[1]])
    with pytest.raises(DataError, match="response"):
        SharedPromptRow([1], [])
    with pytest.raises(DataError, match="token"):
        SharedPromptRow([1], [[1], []])
    with pytest.raises(DataError, match="row"):
        collate([], PAD)
