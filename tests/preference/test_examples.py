"""Preference rows on disk."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligncap.alignment.examples import Prompter
from aligncap.captioner.prompts import PromptBuilder
from aligncap.errors import DataError
from aligncap.preference import examples
from aligncap.preference.examples import read_preference_rows, write_preference_rows
from support.captioner import tiny_vocabulary
from support.preferences import preference_rows
from support.rows import SOURCE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def test_rows_come_back_as_they_were_written(path: Path) -> None:
    rows = preference_rows(5)
    assert write_preference_rows(path, SOURCE, rows) == 5
    read, source = examples.read_preferences([path])
    assert source == SOURCE
    for one, other in zip(rows, read, strict=True):
        names = ("candidates", "pairs", "emotion")
        assert [getattr(one, n) for n in names] == [getattr(other, n) for n in names]
        assert dict(other.facts.by_name) == dict(one.facts.by_name)
        assert (other.clip.speech == one.clip.speech).all()


def test_a_prompt_holds_what_the_act_mode_asks_for(path: Path) -> None:
    (plain,) = preference_rows(1)
    clip = replace(
        plain.clip,
        measured={"en": "feeling low"},
        heard={"en": "feeling sad"},
        retrieved={"en": "feeling slow"},
    )
    row = replace(plain, clip=clip, references={"zh": ("她很伤心。",)})
    write_preference_rows(path, SOURCE, [row])
    (read,) = read_preference_rows(path)
    assert read.references == {"zh": ("她很伤心。",)}
    vocabulary = tiny_vocabulary()
    prompter = Prompter(PromptBuilder(vocabulary), [read.clip])
    for mode, said in (
        ("none", ""),
        ("measured", "feeling low"),
        ("heard", "feeling sad"),
        ("retrieved", "feeling slow"),
    ):
        book = examples.PairDataset(prompter, [read], candidates=3, act_mode=mode)
        ids = book.row_of(book.all_samples()[0]).prompt_ids
        text = vocabulary.decode([one for one in ids if one < vocabulary.text_vocab_size])
        assert said in text
        assert ("feeling" in text) == bool(said)


def test_the_least_that_a_line_needs(path: Path) -> None:
    write_preference_rows(path, SOURCE, [])
    line = {"id": "a", "corpus": "c", "language": "en", "speech": [1, 2], "candidates": ["x"]}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    (row,) = read_preference_rows(path)
    assert (row.pairs, row.facts, row.language) == ((), None, "en")
    with pytest.raises(DataError, match="make pairs first"):
        examples.with_pairs([row], candidates=9)
    (paired,) = preference_rows(1)
    with pytest.raises(DataError, match=r"first 1 candidates; raise batch\.captions"):
        examples.with_pairs([paired], candidates=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": [[0, 3]]}, r"rows.jsonl:2: clip0: pair \[0, 3\] does not name two of 3"),
        ({"pairs": [[1, 1]]}, r"pair \[1, 1\]"),
        ({"speech": None}, "a preference row has speech"),
        ({"emotion": "sed"}, "did you mean 'sad'"),
        ({"pears": []}, "did you mean 'pairs'"),
        ({"language": "xx"}, "no language of captions"),
        ({"candidates": []}, "at least one"),
    ],
)
def test_a_bad_line_is_named(path: Path, change: dict[str, Any], message: str) -> None:
    write_preference_rows(path, SOURCE, preference_rows(1))
    head, line = path.read_text("utf-8").splitlines()
    path.write_text(f"{head}\n{json.dumps(json.loads(line) | change)}\n")
    with pytest.raises(DataError, match=message):
        list(read_preference_rows(path))


def test_files_of_two_tokenizers_or_of_another_kind_are_refused(path: Path) -> None:
    other = path.with_name("other.jsonl")
    write_preference_rows(path, SOURCE, preference_rows(3))
    write_preference_rows(other, replace(SOURCE, fingerprint="0" * 16), preference_rows(3))
    with pytest.raises(DataError, match="make both with one tokenizer"):
        examples.read_preferences([path, other])
    path.write_text('{"training_rows": 1}\n')
    with pytest.raises(DataError, match="lacks 'preference_rows'"):
        examples.read_preferences([path])
