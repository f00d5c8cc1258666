"""Splits: nobody is on both sides, and nobody ever changes sides."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncap.data.manifest import Utterance, read_manifest
from aligncap.data.splits import VALIDATION_SPEAKERS, secap_source, split_by_hash, validation_split
from aligncap.errors import DataError

SPEECH = Path(__file__).parents[3] / "shared" / "data" / "speech"
CORPORA = ("ased", "emodb", "nemo", "ravdess", "secap")
"""Those whose validation speakers are fixed."""


@pytest.fixture(scope="module")
def utterances() -> list[Utterance]:
    if not SPEECH.is_dir():
        pytest.skip("the corpora are not here (../shared/data/speech)")
    return [u for name in CORPORA for u in read_manifest(SPEECH / name / "manifest.jsonl")]


def source(utterance: Utterance) -> str:
    return utterance.speaker or secap_source(utterance.id)


def golden(utterances: list[Utterance]) -> str:
    names = sorted(f"{u.corpus}/{u.id}" for u in utterances)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def test_no_speaker_and_no_source_is_on_both_sides(utterances: list[Utterance]) -> None:
    train, validation = validation_split(utterances)
    assert len(train) + len(validation) == len(utterances) == 7_646
    assert {source(u) for u in train}.isdisjoint(source(u) for u in validation)


def test_the_validation_set_is_the_one_that_was_agreed(utterances: list[Utterance]) -> None:
    _, validation = validation_split(utterances)
    voices = {(u.corpus, u.speaker): u.gender for u in validation if u.speaker != "ased_09"}
    by_corpus = Counter((corpus, gender) for (corpus, _), gender in voices.items())
    assert by_corpus["ravdess", "female"] == by_corpus["ravdess", "male"] == 2
    assert by_corpus["emodb", "female"] == by_corpus["emodb", "male"] == 1
    assert sum(count for (corpus, _), count in by_corpus.items() if corpus == "nemo") == 1
    speakers = sorted({u.speaker or "" for u in utterances if u.corpus == "ased"})
    kept_back = {u.speaker for u in validation if u.corpus == "ased"}
    assert kept_back == set(speakers[7::8])
    secap = [u.corpus for u in validation].count("secap")
    assert 0.09 <= secap / 472 <= 0.11


def test_the_split_never_changes(utterances: list[Utterance]) -> None:
    train, validation = validation_split(utterances)
    assert (golden(train), golden(validation)) == ("e106144e94b05757", "a500d3cd18c11468")


def test_a_part_of_a_corpus_is_split_like_the_whole(utterances: list[Utterance]) -> None:
    _, of_all = validation_split(utterances)
    _, of_part = validation_split(reversed(utterances[::3]))
    assert {u.id for u in of_part} == {u.id for u in utterances[::3]} & {u.id for u in of_all}


def test_clips_of_one_book_and_of_one_voice_share_a_source() -> None:
    assert secap_source("tx_emulate_00_110_0002_000039") == secap_source(
        "tx_emulate_00_110_0004_000001"
    )
    assert secap_source("tx_emotion_00303000130") == secap_source("tx_emotion_00301000019")
    assert secap_source("tx_emotion_00303000130") != secap_source("tx_emotion_00203000019")
    with pytest.raises(DataError, match="u1: not a secap id"):
        secap_source("u1")


@given(st.text(min_size=1))
def test_unknown_speakers_are_trained_on(name: str) -> None:
    stranger = Utterance(id="x", path=Path("x.wav"), corpus="other", speaker=f"other_{name}")
    assert stranger.speaker not in VALIDATION_SPEAKERS
    assert validation_split([stranger]) == ([stranger], [])


def test_shares_are_kept_and_the_salt_matters() -> None:
    shares = {"train": 8, "validation": 1, "test": 1}
    keys = [f"speaker{i}" for i in range(5_000)]
    parts = [split_by_hash(key, shares) for key in keys]
    counts = Counter(parts)
    assert abs(counts["train"] - 4_000) < 120  # four standard deviations
    assert abs(counts["validation"] - 500) < 90
    assert parts == [split_by_hash(key, {k: v / 10 for k, v in shares.items()}) for key in keys]
    assert parts != [split_by_hash(key, shares, salt="again") for key in keys]


def test_a_part_without_a_share_gets_nothing() -> None:
    assert {split_by_hash(str(i), {"a": 0, "b": 1, "c": 0}) for i in range(200)} == {"b"}
    with pytest.raises(DataError, match="above 0"):
        split_by_hash("x", {"a": 0})
