"""Pairs for other trainers: the rows they read, exact round trips, files made elsewhere."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligncap.errors import DataError, UnknownNameError
from aligncap.preference.judges import judge_all
from aligncap.preference.pairs import (
    FORMATS,
    PairOptions,
    import_pairs,
    pair_all,
    read_pairs,
    write_pairs,
)
from aligncap.preference.store import Candidate, PreferencePair, PreferenceStore, normal_form
from support.preferences import FakeJudge, candidate, fill

PAIR = PreferencePair(candidate("He is calm."), candidate("He is angry."), 0.25)


def rows(path: Path) -> list[dict[str, object]]:
    found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for row in found:
        del row["aligncap"]
    return found


def test_a_row_for_trl(tmp_path: Path) -> None:
    assert write_pairs(tmp_path / "p.jsonl", [(PAIR, "u1.wav")], format="trl") == 1
    assert rows(tmp_path / "p.jsonl") == [
        {
            "prompt": "Describe the speaker's emotion and voice in one sentence.",
            "chosen": "He is calm.",
            "rejected": "He is angry.",
        }
    ]


def test_a_row_for_llama_factory(tmp_path: Path) -> None:
    write_pairs(tmp_path / "p.jsonl", [(PAIR, "u1.wav")], format="llama-factory")
    asked = "<audio>Describe the speaker's emotion and voice in one sentence."
    assert rows(tmp_path / "p.jsonl") == [
        {
            "conversations": [{"from": "human", "value": asked}],
            "chosen": {"from": "gpt", "value": "He is calm."},
            "rejected": {"from": "gpt", "value": "He is angry."},
            "audios": ["u1.wav"],
        }
    ]


captions = st.text(st.characters(codec="utf-8"), min_size=1).filter(normal_form)
candidates = st.builds(
    Candidate,
    utterance=st.just("a/ü 1"),
    language=st.just("zh"),
    text=captions,
    token_ids=st.lists(st.integers(0, 1 << 17)).map(tuple),
    log_probability=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    method=st.sampled_from(["beam", "sample", "gold"]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    chosen=candidates,
    rejected=candidates,
    margin=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    name=st.sampled_from(sorted(FORMATS)),
)
def test_the_round_trip_is_exact(
    tmp_path: Path, chosen: Candidate, rejected: Candidate, margin: float, name: str
) -> None:
    if chosen.key == rejected.key:
        return
    pair = PreferencePair(chosen, rejected, margin)
    write_pairs(tmp_path / "p.jsonl", [(pair, "ü.wav"), (PAIR, "u1.wav")], format=name)
    assert list(read_pairs(tmp_path / "p.jsonl")) == [(pair, "ü.wav"), (PAIR, "u1.wav")]


@pytest.fixture
def store(store: PreferenceStore) -> PreferenceStore:
    fill(store, 3)
    list(judge_all(store, FakeJudge()))
    list(pair_all(store, PairOptions(least_margin=0)))
    return store


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_store_that_imports_exports_the_same_file(
    store: PreferenceStore, tmp_path: Path, name: str
) -> None:
    def export(opened: PreferenceStore, path: Path) -> str:
        files = {clip.utterance: clip.file for clip in opened.clips()}
        pairs = opened.pairs.all(opened.pairs.latest())
        write_pairs(path, ((one, files[one.utterance]) for one in pairs), format=name)
        return path.read_text("utf-8")

    first = export(store, tmp_path / "a.jsonl")
    with PreferenceStore(tmp_path / "other.sqlite") as other:
        for _ in range(2):  # once more changes nothing
            assert import_pairs(other, tmp_path / "a.jsonl") == 6
        assert export(other, tmp_path / "b.jsonl") == first


def test_rows_made_elsewhere_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    messages = [{"role": "assistant", "content": "He is calm."}]
    lines = [
        {"prompt": "…", "chosen": "He is calm.", "rejected": "He is angry."},
        {"prompt": "…", "chosen": messages, "rejected": "He is angry.", "id": "u7"},
        {
            "conversations": [],
            "chosen": {"from": "gpt", "value": "他很平静。"},
            "rejected": {"from": "gpt", "value": "他很愤怒。"},
            "audios": ["clips/u8.wav"],
        },
    ]
    path.write_text("\n\n".join(json.dumps(line) for line in lines), "utf-8")
    found = list(read_pairs(path))
    assert [(pair.utterance, pair.language, file) for pair, file in found] == [
        ("p:1", "en", ""),
        ("u7", "en", ""),
        ("clips/u8.wav", "zh", "clips/u8.wav"),
    ]
    assert {pair.margin for pair, _ in found} == {1.0}
    assert {pair.chosen.method for pair, _ in found} == {"imported"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is no pair"),
        ("[]", "is no pair"),
        ('{"chosen": "a"}', "is no pair .*rejected"),
        ('{"chosen": 1, "rejected": "a"}', "a caption is text, not 1"),
        ('{"chosen": "So.", "rejected": "so"}', "chosen and rejected are the same caption"),
        ('{"chosen": "", "rejected": "a"}', "a candidate says nothing"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"chosen": "a", "rejected": "b"}}\n{line}\n', "utf-8")
    with pytest.raises(DataError, match=rf"p\.jsonl:2: .*{message}"):
        list(read_pairs(path))


def test_a_file_that_cannot_be_read_and_a_format_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(read_pairs(tmp_path / "none.jsonl"))
    with pytest.raises(UnknownNameError, match="did you mean 'trl'"):
        write_pairs(tmp_path / "p.jsonl", [], format="tlr")
    assert not list(tmp_path.iterdir())
