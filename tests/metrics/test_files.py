"""Hypotheses and references: what is read, and the line that names each mistake."""

from pathlib import Path

import pytest

from aligncap.errors import DataError
from aligncap.metrics.evaluation import clips_of, read_hypotheses, read_references

GOOD = '{"id": "good", "caption": "Sad.", "captions": ["Sad."]}'


def written(folder: Path, name: str, *lines: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(
        b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
    )
    return path


def test_clips_come_in_the_order_of_the_references(tmp_path):
    hypotheses = written(
        tmp_path,
        "h.jsonl",
        '{"id": "b", "caption": "一位女性。"}',
        "",
        '{"id": "a", "caption": "", "x": 1}',
    )
    references = written(
        tmp_path,
        "r.jsonl",
        '{"id": "a", "captions": ["Sad.", "Unhappy."], "file": "deep/a.wav", "emotion": "sadness"}',
        '\ufeff{"id": "b", "captions": ["女性。"]}',
    )
    a, b = clips_of(read_hypotheses(hypotheses), read_references(references))
    assert (a.id, a.hypothesis, a.references) == ("a", "", ("Sad.", "Unhappy."))
    assert (a.file, a.emotion) == (tmp_path / "deep" / "a.wav", "sad")
    assert (b.id, b.hypothesis, b.file, b.emotion) == ("b", "一位女性。", None, None)


def test_what_caption_writes_is_read_by_the_stem_of_its_file(tmp_path):
    hypotheses = written(
        tmp_path,
        "h.jsonl",
        '{"file": "clips/one.two.wav", "caption": "Sad.", "clues": []}',
        '{"file": "clips/b.wav", "error": "clips/b.wav: nobody speaks in it"}',
    )
    references = written(
        tmp_path,
        "r.jsonl",
        '{"id": "b", "captions": ["B."]}',
        '{"file": "one.two.ogg", "captions": ["A."]}',
    )
    found = read_hypotheses(hypotheses)
    assert found.failed == 1
    clips = clips_of(found, read_references(references))
    assert [(clip.id, clip.hypothesis) for clip in clips] == [("b", ""), ("one.two", "Sad.")]


MISTAKES = [
    ('{"caption": "x", "captions": ["x"]}', "has no 'id'; name the clip"),
    ('{"id": 3, "caption": "x", "captions": ["x"]}', "'id' is 3; write it as text in quotes"),
    (GOOD, "clip 'good' is in line 1 already; keep one of the two"),
    ("[1]", "holds a list; write one JSON object a line"),
    ("null", "holds a NoneType; write one JSON object a line"),
    ('{"id": "x"', "not JSON (Expecting ',' delimiter); write one object a line"),
    ('{"id": "x", "n": NaN}', "holds NaN, which is not JSON; write a number or null"),
    ('{"id": "x", "n": -Infinity}', "holds -Infinity, which is not JSON; write a number or null"),
    ("[" * 100_000, "not JSON that can be read; write one object a line"),
]


@pytest.mark.parametrize("read", [read_hypotheses, read_references])
@pytest.mark.parametrize(("line", "message"), MISTAKES)
def test_a_mistake_names_file_and_line(tmp_path, read, line, message):
    path = written(tmp_path, "f.jsonl", GOOD, "", line, GOOD)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == f"{path}:3: {message}"


@pytest.mark.parametrize("read", [read_hypotheses, read_references])
def test_a_file_in_another_encoding(tmp_path, read):
    path = written(tmp_path, "f.jsonl", GOOD, '{"id": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"f\.jsonl:2: not UTF-8; save the (\w+) as UTF-8"):
        read(path)
    path = written(tmp_path, "wide.jsonl", GOOD.encode("utf-16"))
    with pytest.raises(DataError, match=r"wide\.jsonl:1: not UTF-8"):
        read(path)


@pytest.mark.parametrize("read", [read_hypotheses, read_references])
@pytest.mark.parametrize("lines", [[], ["", "  "]])
def test_an_empty_file(tmp_path, read, lines):
    path = written(tmp_path, "f.jsonl", *lines)
    what = "hypotheses" if read is read_hypotheses else "references"
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == f"{path}:1: the {what} are empty; write one JSON object a line"


@pytest.mark.parametrize("read", [read_hypotheses, read_references])
@pytest.mark.parametrize("name", ["absent.jsonl", "."])
def test_a_file_that_cannot_be_read(tmp_path, read, name):
    with pytest.raises(DataError, match="cannot read the"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "x"}', "has no 'caption'; write \"\" where the system said nothing"),
        ('{"id": "x", "caption": ["x"]}', "'caption' is ['x']; write it as text in quotes"),
        ('{"id": "x", "caption": null}', "'caption' is None; write it as text in quotes"),
        (
            '{"id": "x", "caption": "a \\ud83d"}',
            "holds half of a surrogate pair ('\\ud83d'); write the whole one",
        ),
    ],
)
def test_a_mistake_of_hypotheses(tmp_path, line, message):
    path = written(tmp_path, "h.jsonl", line)
    with pytest.raises(DataError) as caught:
        read_hypotheses(path)
    assert str(caught.value) == f"{path}:1: {message}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "x"}', "has no 'captions'; write a list of at least one text"),
        ('{"id": "x", "captions": []}', "has no 'captions'; write a list of at least one text"),
        ('{"id": "x", "captions": "Sad."}', "'captions' is 'Sad.'; write a list of texts"),
        ('{"id": "x", "captions": ["a", ""]}', "'captions' is ['a', '']; write a list of texts"),
        ('{"id": "x", "captions": ["a"], "file": 1}', "'file' is 1; write it as text in quotes"),
        (
            '{"id": "x", "captions": ["a"], "emotion": "joy"}',
            "x: emotion is 'joy', must be one of angry, bored, disgusted, fearful, happy, neutral, "
            "sad, surprised",
        ),
    ],
)
def test_a_mistake_of_references(tmp_path, line, message):
    path = written(tmp_path, "r.jsonl", line)
    with pytest.raises(DataError) as caught:
        read_references(path)
    assert str(caught.value) == f"{path}:1: {message}"


def test_a_clip_that_is_in_one_file_only(tmp_path):
    both = written(tmp_path, "both.jsonl", GOOD, '{"id": "a", "caption": "", "captions": ["A."]}')
    one = written(tmp_path, "one.jsonl", GOOD)
    with pytest.raises(DataError) as caught:
        clips_of(read_hypotheses(both), read_references(one))
    assert str(caught.value) == (
        f"{both}:2: clip 'a' has no reference in {one}; add one or remove the line"
    )
    with pytest.raises(DataError) as caught:
        clips_of(read_hypotheses(one), read_references(both))
    assert str(caught.value) == (
        f"{both}:2: clip 'a' has no hypothesis in {one}; "
        'add one ("caption": "" where the system said nothing) or remove the line'
    )
