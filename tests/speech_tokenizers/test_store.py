"""Packing codes into the store and out again."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aligncap.errors import DataError
from aligncap.tokenizers.cache import TokenStore
from aligncap.values import SpeechTokens

SIZES = [2, 256, 1024, 1 << 16, (1 << 16) + 1, 1 << 20]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), size=st.sampled_from(SIZES), books=st.integers(1, 8))
def test_any_codes_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, size: int, books: int
) -> None:
    shape = (books, data.draw(st.integers(0, 30)))
    codes = data.draw(arrays(np.int64, shape, elements=st.integers(0, size - 1)))
    folder = tmp_path_factory.mktemp("store")
    meta = {"codebooks": str(books), "codebook_size": str(size)}
    store = TokenStore(folder / "tokens.sqlite", meta)
    store.add_tokens("a", SpeechTokens(codes))
    store.close()
    again = TokenStore(folder / "tokens.sqlite", meta)
    found = again.tokens("a")
    again.close()
    assert found is not None
    np.testing.assert_array_equal(found.codes, codes)


@pytest.mark.parametrize(
    "codes", [[[0, 4]], [[-1, 0]], [[0], [1]]], ids=["too large", "negative", "too many codebooks"]
)
def test_codes_out_of_range_are_refused(tmp_path: Path, codes: list[list[int]]) -> None:
    store = TokenStore(tmp_path / "s.sqlite", {"codebooks": "1", "codebook_size": "4"})
    with pytest.raises(DataError, match="do not fit 1 codebooks of 4 entries"):
        store.add_tokens("a", SpeechTokens(np.array(codes, dtype=np.int64)))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "tokens.sqlite"
    blocked.mkdir()
    with pytest.raises(DataError, match=r"tokens.sqlite: unable to open"):
        TokenStore(blocked, {"codebooks": "1", "codebook_size": "4"})
