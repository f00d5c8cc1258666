"""What was written before the modules moved still opens, and means what it meant."""

import json
from pathlib import Path
from typing import Any

import pytest

from golden import old_data
from golden.surface import ROOT, differences


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """What was made of the old data when it was written."""
    return dict(json.loads(old_data.EXPECTED.read_text("utf-8")))


def assert_same(found: Any, expected: Any) -> None:
    lines = differences(found, expected)
    assert not lines, "\n".join(lines[:20])


def test_old_models_give_their_captions(expected: dict[str, Any]) -> None:
    assert_same(old_data.captions(), expected["captions"])


def test_an_old_store_gives_its_pairs_rows_and_exports(
    tmp_path: Path, expected: dict[str, Any]
) -> None:
    assert_same(old_data.store(tmp_path), expected["store"])


def test_an_old_run_is_resumed_exactly(tmp_path: Path, expected: dict[str, Any]) -> None:
    assert_same(old_data.resumed(tmp_path), expected["run"])


def test_an_old_teacher_cache_is_used(tmp_path: Path, expected: dict[str, Any]) -> None:
    cache = old_data.copy(tmp_path, "teacher")
    before = old_data.written_at(cache)
    assert_same(old_data.distilled(tmp_path, cache), expected["teacher"])
    assert old_data.written_at(cache) == before


def test_old_features_are_used(tmp_path: Path) -> None:
    features = old_data.copy(tmp_path, "features")
    before = old_data.written_at(features)
    lines = old_data.rows(tmp_path, features)
    stored = (ROOT / old_data.OLD / "rows.jsonl").read_text("utf-8").splitlines()
    assert_same(lines, [json.loads(line) for line in stored])
    assert old_data.written_at(features) == before


def test_old_tokens_are_used(tmp_path: Path) -> None:
    assert "0 clips encoded, 6 there already, 0 failed" in old_data.kept_tokens(tmp_path)
