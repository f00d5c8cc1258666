"""Preference rows on disk."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from aligncap.alignment.examples import Prompter
from aligncap.captioner.prompts import PromptBuilder
from aligncap.errors import DataError
from aligncap.preference.examples import (
    PairDataset,
    read_preference_rows,
    read_preferences,
    with_pairs,
    write_preference_rows,
)
from support.captioner import tiny_vocabulary
from support.preferences import preference_rows
from support.rows import SOURCE


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = preference_rows(5)
    assert write_preference_rows(tmp_path / "rows.jsonl", SOURCE, rows) == 5
    read, source = read_preferences([tmp_path / "rows.jsonl"])
    assert source == SOURCE
    for one, other in zip(rows, read, strict=True):
        assert (one.candidates, one.pairs, one.emotion) == (
            other.candidates, other.pairs, other.emotion
        )  # fmt: skip
        assert other.facts is not None
        assert dict(other.facts.by_name) == dict(one.facts.by_name)  # type: ignore[union-attr]
        assert other.clip.speech is not None
        assert (other.clip.speech == one.clip.speech).all()


def test_a_prompt_holds_what_the_act_mode_asks_for(tmp_path: Path) -> None:
    (plain,) = preference_rows(1)
    clip = replace(plain.clip, measured={"en": "feeling low"}, heard={"en": "feeling sad"})
    row = replace(plain, clip=clip, references={"zh": ("她很伤心。",)})
    write_preference_rows(tmp_path / "rows.jsonl", SOURCE, [row])
    (read,) = read_preference_rows(tmp_path / "rows.jsonl")
    assert read.references == {"zh": ("她很伤心。",)}
    vocabulary = tiny_vocabulary()
    prompter = Prompter(PromptBuilder(vocabulary), [read.clip])
    said = {}
    for mode in ("none", "measured", "heard"):
        book = PairDataset(prompter, [read], candidates=3, act_mode=mode)
        ids = book.row_of(book.all_samples()[0]).prompt_ids
        said[mode] = vocabulary.decode([one for one in ids if one < vocabulary.text_vocab_size])
    assert ("low" in said["measured"], "sad" in said["heard"]) == (True, True)
    assert "feeling" not in said["none"]


def test_the_least_that_a_line_needs(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_preference_rows(path, SOURCE, [])
    line = {"id": "a", "corpus": "c", "language": "en", "speech": [1, 2], "candidates": ["x"]}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    (row,) = read_preference_rows(path)
    assert (row.pairs, row.facts, row.language) == ((), None, "en")
    with pytest.raises(DataError, match="make pairs first"):
        with_pairs([row], candidates=9)


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
def test_a_bad_line_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "rows.jsonl"
    write_preference_rows(path, SOURCE, preference_rows(1))
    head, line = lines_of(path)
    path.write_text("\n".join(json.dumps(one) for one in (head, {**line, **change})))
    with pytest.raises(DataError, match=message):
        list(read_preference_rows(path))


def test_files_of_two_tokenizers_are_refused(tmp_path: Path) -> None:
    rows = preference_rows(3)
    write_preference_rows(tmp_path / "a.jsonl", SOURCE, rows)
    write_preference_rows(tmp_path / "b.jsonl", replace(SOURCE, fingerprint="0" * 16), rows)
    with pytest.raises(DataError, match="make both with one tokenizer"):
        read_preferences([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])


def test_training_rows_are_no_preference_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"training_rows": 1}\n')
    with pytest.raises(DataError, match="lacks 'preference_rows'"):
        read_preferences([tmp_path / "rows.jsonl"])
