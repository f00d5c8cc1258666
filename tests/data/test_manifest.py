"""Manifests: what is read, what is written, and what a mistake in one says."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from aligncap.data.manifest import Utterance, read_manifest, write_manifest
from aligncap.errors import DataError


def manifest(folder: Path, *lines: str | bytes) -> Path:
    path = folder / "manifest.jsonl"
    path.write_bytes(b"".join((x.encode() if isinstance(x, str) else x) + b"\n" for x in lines))
    return path


KNOWN = {
    "corpus": "emodb", "language": "de", "speaker": "emodb_03", "gender": "male", "text": "Lappen",
}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            KNOWN | {"id": "u1", "emotion": "boredom", "duration": 1.5, "something": "else"},
            KNOWN | {"id": "u1", "emotion": "bored", "label": "boredom", "duration_s": 1.5},
        ),
        ({}, {"id": "u"}),  # only the file is needed
        # A code may be a whole number.
        (
            {"id": 7, "speaker": 3, "sentence": 1},
            {"id": "7", "speaker": "3", "sentence": "1"},
        ),
    ],
)
def test_a_line_becomes_an_utterance_beside_its_manifest(row, expected, tmp_path: Path) -> None:
    path = manifest(tmp_path, "", json.dumps({"file": "wav/u.flac", **row}))
    assert list(read_manifest(path)) == [Utterance(path=tmp_path / "wav/u.flac", **expected)]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = [
        Utterance(id="a", path=tmp_path / "a.wav", emotion="neutral", label="calm"),
        Utterance(id="b", path=tmp_path / "deep" / "b.wav", captions=("声音颤抖。", "难过。")),
    ]
    for place in (tmp_path / "m.jsonl", tmp_path / "other" / "m.jsonl"):
        assert write_manifest(place, iter(written)) == 2
        back = list(read_manifest(place))
        assert [u.path.resolve() for u in back] == [u.path for u in written]
        assert [(u.id, u.emotion, u.label, u.captions) for u in back] == [
            (u.id, u.emotion, u.label, u.captions) for u in written
        ]
    assert "声音颤抖" in (tmp_path / "m.jsonl").read_text(encoding="utf-8")


def test_a_write_that_fails_leaves_the_old_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_manifest(path, [Utterance(id="a", path=tmp_path / "a.wav")])

    def broken() -> Iterator[Utterance]:
        yield Utterance(id="b", path=tmp_path / "b.wav")
        raise DataError("no more")

    with pytest.raises(DataError, match="no more"):
        write_manifest(path, broken())
    assert [u.id for u in read_manifest(path)] == ["a"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "not JSON"),
        ("[1, 2]", "holds a list; write one JSON object"),
        ('{"id": "x"}', "has no 'file'"),
        ('{"file": 3}', "'file' is 3; write it as text"),
        ('{"file": "x.wav", "gender": "woman"}', "gender is 'woman', must be female or male"),
        ('{"file": "x.wav", "emotion": "angri"}', "emotion is 'angri', must be angry, bored"),
        ('{"file": "x.wav", "captions": "sad"}', "write a list of texts"),
        ('{"file": "x.wav", "duration": "3 s"}', "write seconds as a number"),
        ('{"file": "x.wav", "duration": -1}', "must be 0 s or more"),
        ('{"file": "x.wav", "duration": NaN}', "holds NaN, which is not JSON"),
        ('{"file": "x.wav", "speaker": 3.5}', "'speaker' is 3.5; write it as text"),
        (b'{"file": "\xff.wav"}', "not UTF-8"),
    ],
)
def test_a_mistake_names_file_line_and_cure(line, message: str, tmp_path: Path) -> None:
    path = manifest(tmp_path, '{"file": "good.wav"}', "", line, '{"file": "good.wav"}')
    reader = read_manifest(path)
    assert next(reader).id == "good"
    with pytest.raises(DataError) as caught:
        next(reader)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_a_manifest_that_cannot_be_opened_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot read the manifest"):
        next(read_manifest(tmp_path / name))
