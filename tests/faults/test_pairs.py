"""Pairs as other tools write them: read as they are meant, or refused by file and line; what is
exported in any format is read back.
"""

import json
from pathlib import Path

import pytest

from aligncap.errors import DataError
from aligncap.preference.pairs import FORMATS, import_pairs, read_pairs, write_pairs
from aligncap.preference.store import Candidate, PreferencePair, PreferenceStore

SAD, ANGRY = "She sounds sad.", "An angry man shouts."
ROW = {"prompt": "Describe.", "chosen": SAD, "rejected": ANGRY}


def part(text: str) -> list[dict]:
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


def written(folder: Path, *rows: object, mark: bytes = b"", end: str = "\n") -> Path:
    path = folder / "p.jsonl"
    text = end.join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_bytes(mark + text.encode("utf-8"))
    return path


def clips(path: Path) -> list[str]:
    return [pair.utterance for pair, _ in read_pairs(path)]


@pytest.mark.parametrize(
    ("more", "name", "file"),
    [
        ({}, "p:1", ""),
        ({"id": 0}, "0", ""),
        ({"id": 0, "audios": ["x.wav"]}, "0", "x.wav"),
        ({"id": 17}, "17", ""),
        ({"id": ""}, "p:1", ""),
        ({"id": None, "audios": ["x.wav"]}, "x.wav", "x.wav"),
        ({"audios": "s/1.wav"}, "s/1.wav", "s/1.wav"),
        ({"audios": ["s/1.wav"]}, "s/1.wav", "s/1.wav"),
        ({"audios": []}, "p:1", ""),
        ({"audios": None}, "p:1", ""),
        ({"aligncap": None}, "p:1", ""),
        ({"chosen": part(SAD), "rejected": part(ANGRY)}, "p:1", ""),
        ({"chosen": {"from": "gpt", "value": SAD}}, "p:1", ""),
        ({"chosen": {"role": "assistant", "content": SAD}}, "p:1", ""),
        ({"chosen": [{"role": "user", "content": "D"}, *part(SAD)]}, "p:1", ""),
        ({"chosen": {"role": "assistant", "content": ["She ", "sounds sad."]}}, "p:1", ""),
    ],
)
def test_a_row_is_read_as_it_is_meant(tmp_path: Path, more: dict, name: str, file: str) -> None:
    [(pair, recording)] = read_pairs(written(tmp_path, {**ROW, **more}))
    assert (pair.utterance, recording) == (name, file)
    assert (pair.chosen.text, pair.rejected.text) == (SAD, ANGRY)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_marks_and_line_ends_are_passed_over(tmp_path: Path, end: str, mark: bytes) -> None:
    rows = [{**ROW, "id": "a"}, {**ROW, "id": "b"}]
    assert clips(written(tmp_path, *rows, mark=mark, end=end)) == ["a", "b"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ROW, "rejected": SAD}, "chosen and rejected are the same caption"),
        ({**ROW, "rejected": " she  sounds SAD."}, "chosen and rejected are the same caption"),
        ({**ROW, "rejected": "一名男性愤怒地喊叫。"}, "are in two languages"),
        ({**ROW, "chosen": "  "}, "'chosen' is empty"),
        ({**ROW, "chosen": None}, "'chosen' is no text"),
        ({**ROW, "chosen": []}, "'chosen' is an empty list"),
        ({**ROW, "chosen": [{"role": "assistant"}]}, "lacks 'content'"),
        (
            {**ROW, "chosen": {"content": [{"type": "image", "image": "x.png"}]}},
            "'chosen' has a part that is no text",
        ),
        ({"chosen": SAD}, "lacks 'rejected'"),
        ({**ROW, "id": 1.5}, "'id' is neither text nor a whole number"),
        ({**ROW, "id": True}, "'id' is neither text nor a whole number"),
        ({**ROW, "audios": ["a.wav", "b.wav"]}, "'audios' names 2 recordings, a pair is of one"),
        ({**ROW, "audios": [{"path": "a.wav"}]}, "'audios' is no text and no list of texts"),
        ({**ROW, "audios": {"path": "a.wav"}}, "'audios' is no text and no list of texts"),
        ({**ROW, "aligncap": "x"}, "'aligncap' is no object"),
        ({**ROW, "aligncap": {"margin": 0}}, "margin is 0, must be above 0"),
        ({**ROW, "aligncap": {"chosen": {}}}, "lacks 'token_ids'"),
        ('{"chosen": "a", "rejected": "b", "aligncap": {"margin": NaN}}', "holds NaN"),
        ('{"chosen": "a \\ud83d", "rejected": "b"}', "is no pair"),
        ("[1]", "holds a list; write one JSON object a line"),
        ("{", "not JSON"),
    ],
)
def test_what_is_no_pair_is_named_by_its_line(tmp_path: Path, row: object, message: str) -> None:
    path = written(tmp_path, {**ROW, "id": "good"}, row)
    with pytest.raises(DataError) as caught:
        list(read_pairs(path))
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "gb18030", "latin-1"])
def test_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "p.jsonl"
    text = json.dumps(
        {**ROW, "chosen": "é悲" if encoding != "latin-1" else "é"}, ensure_ascii=False
    )
    path.write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=r"p\.jsonl:1: not UTF-8; save the pairs as UTF-8"):
        list(read_pairs(path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no pair"),
        (
            [{**ROW, "id": 1, "audios": "a.wav"}, {**ROW, "id": 1, "audios": "b.wav"}],
            "clip '1' is of two recordings, 'a.wav' and 'b.wav'",
        ),
    ],
)
def test_a_store_is_not_filled_with_half_a_file(store, tmp_path, rows, message) -> None:
    with pytest.raises(DataError, match=message):
        import_pairs(store, written(tmp_path, *rows))
    assert not list(store.clips())


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_exported_is_read_back(tmp_path: Path, name: str) -> None:
    pairs = [
        (PreferencePair(Candidate("0", "en", SAD), Candidate("0", "en", ANGRY), 0.5), "0.wav"),
        (PreferencePair(Candidate("乙", "zh", "悲伤"), Candidate("乙", "zh", "愤怒"), 1.0), ""),
    ]
    path = tmp_path / "out.jsonl"
    write_pairs(path, pairs, format=name)
    assert list(read_pairs(path)) == pairs
    with PreferenceStore(tmp_path / "s.sqlite") as store:
        assert import_pairs(store, path) == 2
        again = list(store.pairs.all(store.pairs.latest()))
    assert sorted(again, key=lambda pair: pair.utterance) == [pair for pair, _ in pairs]
