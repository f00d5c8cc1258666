"""Clips of one's own: where labels, speakers and captions are read from, and what is refused."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncap.data.manifest import read_csv
from aligncap.data.own_clips import OwnClips, check_clips, read_clips
from aligncap.errors import DataError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"RIFF")


def told(found: OwnClips) -> set[tuple[str, str | None, str | None]]:
    return {(one.id, one.emotion, one.speaker) for one in found.clips}


def test_folders_name_emotions_and_speakers_in_either_order(tmp_path):
    touch(tmp_path, "ann/Sadness/1.wav", "ann/angry/2.wav", "happy/bob/3.wav", "calm/4.wav")
    touch(tmp_path, "ann/other/5.wav")
    found = read_clips(tmp_path)
    assert told(found) == {
        ("ann/Sadness/1", "sad", "ann"),
        ("ann/angry/2", "angry", "ann"),
        ("happy/bob/3", "happy", "bob"),
        ("calm/4", "neutral", None),
    }
    assert len(found.faults) == 1
    assert "ann/other/5.wav: has neither an emotion nor a caption" in found.faults[0]
    assert found.speakers == 0  # one clip names none


def test_captions_beside_the_clips_name_an_emotion_where_no_folder_does(tmp_path):
    touch(tmp_path, "1.wav", "2.wav")
    (tmp_path / "1.txt").write_text("She sounds sad.\n", "utf-8")
    (tmp_path / "2.txt").write_text("A slow, low voice.\n", "utf-8")
    found = read_clips(tmp_path)
    assert told(found) == {("1", "sad", None), ("2", None, None)}
    assert found.captioned == 2


@pytest.mark.parametrize(("name", "mark"), [("clips.csv", ","), ("clips.tsv", "\t")])
def test_a_table_has_a_row_a_clip_and_its_bad_rows_are_named(tmp_path, name, mark):
    touch(tmp_path, "a.wav", "b.wav")
    lines = [
        ("File", "emotion", "speaker", "caption"),
        ("a.wav", "Anger", "1", "He shouts."),
        ("b.wav", "sad", "2", ""),
        ("b.wav", "sad", "2", ""),
        ("c.wav", "sad", "2", ""),
        ("a.wav", "peckish", "2", ""),
        ("", "sad", "2", ""),
    ]
    path = tmp_path / name
    path.write_text("\n".join(mark.join(line) for line in lines), "utf-8-sig")
    found = read_clips(path)
    assert told(found) == {("a", "angry", "1"), ("b", "sad", "2")}
    assert found.clips[0].captions == ("He shouts.",)
    assert found.speakers == 2
    wrong = ("b: is there twice", "c.wav: no such file", f"{path}:6: ", f"{path}:7: has no 'file'")
    assert len(found.faults) == len(wrong)
    assert all(one in fault for one, fault in zip(wrong, found.faults, strict=True))


def test_a_caption_keeps_its_lines_and_is_not_cut_at_a_comma(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "c.wav")
    path = tmp_path / "clips.csv"
    path.write_bytes(
        b"file,emotion,caption\r\n"
        b'a.wav,sad,"She is sad.\r\nShe is slow."\r\n'
        b"b.wav,sad,A sad woman, who speaks slowly.\r\n"
        b"c.wav,sad,Slow\xe2\x80\xa8and low.,,\r\n"  # a line separator; Excel's empty cells
    )
    found = read_clips(path)
    assert [one.captions for one in found.clips] == [
        ("She is sad.\r\nShe is slow.",),
        ("Slow\u2028and low.",),
    ]
    assert found.faults == (
        f"{path}:4: has more cells than the heading; put a text with ',' in double quotes",
    )


def eight(mark: str, **texts: str) -> str:
    """A table of eight clips."""
    rows = [f"c{n}.wav{mark}sad{mark}{texts.get(f'c{n}', 'Slow.')}" for n in range(1, 9)]
    return "\n".join([mark.join(("file", "emotion", "caption")), *rows]) + "\n"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"c3": '"She sounds sad.'}, "4: no row of csv (unexpected end of data)"),
        ({"c3": '"She sounds sad.', "c6": '"No.'}, "4: no row of csv (',' expected after '\"')"),
        ({"c3": '"She sounds sad.', "c6": 'No."'}, "4: the row 'c4.wav,sad,Slow.' lies within"),
        ({"c3": '"So.', "c4": 'No."'}, "4: the row 'c4.wav,sad,No.' lies within"),
    ],
)
def test_a_quote_that_is_not_closed_swallows_no_clip(tmp_path, texts, message):
    touch(tmp_path, *(f"c{n}.wav" for n in range(1, 9)))
    table = tmp_path / "clips.csv"
    table.write_text(eight(",", **texts), "utf-8")
    with pytest.raises(DataError) as caught:
        read_clips(table)
    assert str(caught.value).startswith(f"{table}:{message}")
    tabs = tmp_path / "clips.tsv"  # where nothing needs quotes, a quote is one of the text
    tabs.write_text(eight("\t", **texts), "utf-8")
    found = read_clips(tabs)
    assert found.faults == ()
    assert [one.captions for one in found.clips] == [
        (texts.get(f"c{n}", "Slow."),) for n in range(1, 9)
    ]


def test_a_quote_of_a_table_with_tabs_is_refused_where_it_may_hold_one(tmp_path):
    touch(tmp_path, "a.wav")
    table = tmp_path / "clips.tsv"
    table.write_text('file\temotion\tcaption\na.wav\tsad\t"She\tis sad.\n', "utf-8")
    with pytest.raises(DataError, match=r"clips\.tsv:2: no row of csv \(unexpected end of data\)"):
        read_clips(table)


lines_of_text = st.lists(
    st.text(st.sampled_from('ab ,"\n\r\t.。1'), max_size=20), min_size=1, max_size=4
)


@given(st.lists(lines_of_text, max_size=5), st.sampled_from(",\t"))
def test_a_table_that_a_library_wrote_is_read_as_written(tmp_path_factory, texts, mark):
    """Texts of several lines with quotes and marks, names and texts in either order."""
    path = tmp_path_factory.getbasetemp() / "written.csv"
    rows = [
        [f"{n}", "\n".join(lines).lstrip(" "), f"wav/c{n}.wav"] for n, lines in enumerate(texts)
    ]
    for turn in (1, -1):
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=mark).writerows(
                row[::turn] for row in [["id", "text", "file"], *rows]
            )
        read = [row for _, row in read_csv(path, what="table", delimiter=mark)]
        assert read == [dict(zip(("id", "text", "file"), row, strict=True)) for row in rows]


def test_a_manifest_in_the_folder_goes_before_its_folders(tmp_path):
    touch(tmp_path, "sad/a.wav", "sad/b.wav")
    row = {"file": "sad/a.wav", "emotion": "happiness", "speaker": "x"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row) + "\n{\n", "utf-8")
    found = read_clips(tmp_path)
    assert told(found) == {("a", "happy", "x")}
    assert "manifest.jsonl:2: not JSON" in found.faults[0]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"sad": 9, "angry": 4}, "only 4 of angry can be used"),
        ({"sad": 9}, "every clip is sad; give clips of two emotions or more"),
        ({}, "no clip has an emotion"),
    ],
)
def test_too_little_is_refused_in_one_line(tmp_path, counts, message):
    for emotion, count in counts.items():
        touch(tmp_path, *(f"{emotion}/{number}.wav" for number in range(count)))
    touch(tmp_path, "x.wav")
    with pytest.raises(DataError, match=message):
        check_clips(read_clips(tmp_path))


def test_enough_of_each_is_enough(tmp_path):
    touch(tmp_path, *(f"{name}/{n}.wav" for name in ("sad", "angry") for n in range(5)))
    found = read_clips(tmp_path)
    check_clips(found)
    assert found.emotions == {"sad": 5, "angry": 5}
