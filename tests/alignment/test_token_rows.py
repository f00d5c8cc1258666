"""Rows of any speech tokenizer's tokens; the built-in one's here, the paper's in test_whole_way."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from aligncap.alignment.examples import read_rows, read_source
from aligncap.alignment.rows import (
    TokenizerSettings,
    TokenRowsSettings,
    make_token_rows,
    plan_token_rows,
    split_clips,
)
from aligncap.audio import load
from aligncap.errors import DataError, RecipeError
from aligncap.tokenizers import open_tokenizer

MINI = Path(__file__).resolve().parents[2] / "src" / "aligncap" / "models" / "mini"


def manifest(folder: Path, name: str, clips: list[Path], **told: object) -> Path:
    path = folder / f"{name}.jsonl"
    lines = [{"id": clip.stem, "file": str(clip), **told} for clip in clips]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


@pytest.fixture
def settings(tmp_path: Path, example_clips: list[Path]) -> TokenRowsSettings:
    if not MINI.is_dir():
        pytest.skip("the model mini is not in this checkout")
    return TokenRowsSettings(
        data=(manifest(tmp_path, "train", example_clips[:2], emotion="sad"),),
        validation=(manifest(tmp_path, "validation", example_clips[2:3], emotion="happy"),),
        tokens=tmp_path / "tokens",
        tokenizer=TokenizerSettings(name="builtin", weights=MINI),
    )


def test_rows_hold_the_tokenizers_tokens(
    settings: TokenRowsSettings, tmp_path: Path, example_clips: list[Path]
) -> None:
    assert make_token_rows(settings, tmp_path / "run", resume=False) == {"rows": 3, "unsaid": 0}
    rows = list(read_rows(tmp_path / "run" / "rows.jsonl"))
    tokenizer = open_tokenizer("builtin", MINI)
    assert read_source(tmp_path / "run" / "rows.jsonl").fingerprint == tokenizer.fingerprint
    assert [row.split for row in rows] == ["train", "train", "validation"]
    for row, clip in zip(rows, example_clips, strict=False):
        assert row.id == f"{clip.stem}#0"
        assert row.speech is not None
        assert row.speech.tolist() == tokenizer.encode(load(clip)).codes.tolist()
    # Once more: what is in the cache is not encoded again, and the file is left as it is.
    before = (tmp_path / "run" / "rows.jsonl").read_bytes()
    assert make_token_rows(settings, tmp_path / "run", resume=True) == {"rows": 0, "unsaid": 0}
    make_token_rows(settings, tmp_path / "other", resume=False)
    assert (tmp_path / "other" / "rows.jsonl").read_bytes() == before


def test_a_clip_on_both_sides_is_refused(settings: TokenRowsSettings) -> None:
    with pytest.raises(DataError, match="was listed before, for train"):
        split_clips(replace(settings, validation=settings.data))


def test_without_a_validation_manifest_fixed_speakers_are_kept_back(
    settings: TokenRowsSettings, tmp_path: Path, example_clips: list[Path]
) -> None:
    people = [
        manifest(tmp_path, who, [clip], speaker=who)
        for who, clip in zip(("ravdess_05", "anna"), example_clips, strict=False)
    ]
    found = split_clips(replace(settings, data=tuple(people), validation=()))
    assert [split for _, split in found] == ["validation", "train"]
    found = split_clips(replace(settings, data=tuple(people)))
    assert [split for _, split in found] == ["train", "train", "validation"]


def test_what_cannot_be_learnt_from_is_one_line(
    settings: TokenRowsSettings, tmp_path: Path, example_clips: list[Path]
) -> None:
    bare = manifest(tmp_path, "bare", example_clips[:1])
    alone = replace(settings, data=(bare,), validation=())
    with pytest.raises(DataError, match="no clip has a caption or an emotion"):
        make_token_rows(alone, tmp_path / "run", resume=False)
    assert not (tmp_path / "run" / "rows.jsonl").exists()
    with pytest.raises(RecipeError, match="at least 1"):
        replace(settings, data=())
    with pytest.raises(RecipeError, match="codebooks is 0"):
        TokenizerSettings(codebooks=0)


def test_a_dry_run_says_what_to_fetch(settings: TokenRowsSettings, tmp_path: Path) -> None:
    lacking = replace(settings, tokenizer=TokenizerSettings(weights=tmp_path / "none"))
    ready, asked = (
        plan_token_rows(settings, tmp_path)["loads"],
        plan_token_rows(lacking, tmp_path)["loads"],
    )
    assert all(one["present"] for one in ready)  # type: ignore[attr-defined]
    assert [one["present"] for one in asked] == [True, True, False]  # type: ignore[attr-defined]
    cure = asked[-1]["cure"]  # type: ignore[index]
    assert "hf download fnlp/SpeechTokenizer" in cure
    assert str(tmp_path / "none") in cure
