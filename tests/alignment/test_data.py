"""Training rows: what is written is read, and what is wrong is named with file and line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aligncap.alignment.examples import (
    SpeechSource,
    TrainingRow,
    read_rows,
    read_source,
    write_rows,
)
from aligncap.errors import DataError, UnknownNameError
from support.rows import SOURCE, tiny_rows

HEADER = json.dumps(
    {
        "training_rows": 1,
        "tokenizer": {
            "name": "fake",
            "fingerprint": "abc",
            "frame_rate_hz": 12.5,
            "codebooks": 1,
            "codebook_size": 8,
        },
    }
)


def write(folder: Path, *lines: str) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join((HEADER, *lines)) + "\n", encoding="utf-8")
    return path


def row(**changes: object) -> str:
    return json.dumps({"id": "a", "corpus": "c", "captions": {"en": ["Calm."]}, **changes})


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = tiny_rows(6)
    # Two codebooks, and captions alone.
    rows[0] = replace(rows[0], speech=np.array([[1, 2, 3], [4, 5, 6]]))
    rows[1] = replace(rows[1], speech=None, transcript="", weight=0.5)
    assert write_rows(tmp_path / "rows.jsonl", SOURCE, rows) == 6
    assert read_source(tmp_path / "rows.jsonl") == SOURCE
    for found, expected in zip(read_rows(tmp_path / "rows.jsonl"), rows, strict=True):
        assert replace(found, speech=None) == replace(expected, speech=None)
        np.testing.assert_array_equal(found.speech, expected.speech)


def test_a_row_needs_little(tmp_path: Path) -> None:
    (found,) = read_rows(write(tmp_path, row(speech=[3, 1])))
    assert found.captions == {"en": ("Calm.",)}
    assert (found.split, found.weight, dict(found.act)) == ("train", 1.0, {})
    assert found.speech is not None
    assert found.speech.tolist() == [[3, 1]]


def test_rows_are_read_as_a_stream(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, row(), "no json"))
    assert next(rows).id == "a"
    with pytest.raises(DataError, match=r"rows\.jsonl:3"):
        next(rows)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (row(caption={}), "'caption'.*did you mean 'captions'"),
        (row(captions={}), "a: captions are by language"),
        (row(captions={"en": [" "]}), "none empty"),
        (row(captions={"de": ["Ruhig."]}), "'de'"),
        (row(speech=[1.5]), "speech must be whole numbers"),
        (row(speech=[]), "speech"),
        (row(speech=[-1]), "speech is codes of 0 or more"),
        (row(speech=[[1, 2], [3]]), "inhomogeneous|speech must be whole numbers"),
        (row(split="test"), "split"),
        (row(weight=-1), "weight is -1"),
        ('{"id": "a", "captions": {"en": ["Calm."]}}', "lacks 'corpus'"),
    ],
)
def test_a_wrong_row_is_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: .*({message})"):
        list(read_rows(write(tmp_path, line)))


def test_a_file_that_is_no_file_of_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(DataError, match=r"other\.jsonl:1: lacks 'training_rows'"):
        read_source(tmp_path / "other.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="is empty"):
        read_source(tmp_path / "empty.jsonl")
    with pytest.raises(DataError, match="make it first: training rows by a recipe"):
        read_source(tmp_path / "none.jsonl")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def broken() -> "list[TrainingRow]":
        yield tiny_rows(1)[0]  # type: ignore[misc]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_rows(tmp_path / "rows.jsonl", SOURCE, broken())
    assert not (tmp_path / "rows.jsonl").exists()


def test_values_are_checked_at_birth() -> None:
    with pytest.raises(UnknownNameError, match="'train'"):
        replace(tiny_rows(1)[0], split="trian")
    with pytest.raises(DataError, match="codebooks"):
        SpeechSource(name="x", fingerprint="y", frame_rate_hz=1.0, codebooks=0, codebook_size=4)
