"""Corpora of every form become the same parquet; runs go on; other processes do their part."""

import dataclasses
import io
import json
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aligncap.errors import DataError, LostProcessError
from aligncap.tts import AnnotateSettings
from aligncap.tts.bins import read_bins
from aligncap.tts.runs import AnnotateRun, run_tasks
from aligncap.tts.sources import open_corpus
from tts.made import (
    COUNT,
    WRITERS,
    bytes_of,
    open_fake,
    read_out,
    write_folder,
    write_manifest,
    write_parquet,
    write_tars,
)

FAKE = AnnotateSettings()


def annotated(corpus: Path, out: Path, **changes: object) -> AnnotateRun:
    run = AnnotateRun(open_corpus(corpus, 3), out, FAKE, open_model=open_fake)
    return dataclasses.replace(run, **changes)


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_every_form_gives_the_same_rows(tmp_path: Path, form: str) -> None:
    corpus = WRITERS[form](tmp_path / "in")
    told: list[tuple[int, float]] = []
    summary = annotated(corpus, tmp_path / "out")(lambda *one: told.append(one))
    assert (summary.rows, summary.failed, summary.unmeasured) == (COUNT, 0, 0)
    assert sum(rows for rows, _ in told) == COUNT
    assert summary.sound_s == pytest.approx(COUNT * 1.0)
    rows = read_out(tmp_path / "out")
    assert [row["id"] for row in rows] == [f"clip{n}" for n in range(COUNT)]
    for number, row in enumerate(rows):
        assert row["audio"]["bytes"] == bytes_of(number)
        assert row["error"] is None
        if form != "folder":
            assert (row["input_emotion"], str(row["take"])) == ("sad", str(number))
            assert row["speaker_id"] == ("anna" if number % 2 else "ben")
            assert row["pitch_z"] is not None
        else:
            assert row["pitch_z"] is None


def test_shards_are_named_by_split_and_have_one_schema(tmp_path: Path) -> None:
    annotated(write_parquet(tmp_path / "in"), tmp_path / "out")()
    files = sorted((tmp_path / "out" / "data").iterdir())
    assert [file.name for file in files] == [
        "test-00000-of-00001.parquet",
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    assert len({pq.read_schema(file).to_string() for file in files}) == 1


def test_captions_are_relative_to_the_speakers_of_all_shards(tmp_path: Path) -> None:
    corpus = WRITERS["manifest"](tmp_path / "in")
    settings = dataclasses.replace(FAKE, per_speaker=True)
    run = annotated(corpus, tmp_path / "out", settings=settings)
    assert len(run.corpus.shards) == 3
    assert run().failed == 0
    clips = [row["baseline_clips"] for row in read_out(tmp_path / "out")]
    assert clips == [3 if number % 2 else 4 for number in range(COUNT)]
    with pytest.raises(DataError, match="another settings"):
        dataclasses.replace(run, settings=FAKE)()
    folder = annotated(
        WRITERS["folder"](tmp_path / "sounds"), tmp_path / "nobody", settings=settings
    )
    with pytest.raises(DataError, match="no row says who speaks"):
        folder()
    assert not folder.out.exists(), "so that another setting can be given"
    nobody = dataclasses.replace(settings, speaker="nobody")
    with pytest.raises(DataError, match="no row says who speaks"):
        annotated(corpus, tmp_path / "out", settings=nobody).remove_earlier()
    assert len(read_out(tmp_path / "out")) == COUNT, "what is there is kept"


def test_recordings_are_left_out_where_asked(tmp_path: Path) -> None:
    for form, write in (("a", write_parquet), ("b", write_tars)):
        annotated(write(tmp_path / form), tmp_path / f"{form}-out", audio=False)()
        rows = read_out(tmp_path / f"{form}-out")
        assert len(rows) == COUNT
        assert all("audio" not in row for row in rows)


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    corpus = write_manifest(tmp_path / "in")
    annotated(corpus, tmp_path / "whole")()

    def stop_after(count: int):
        left = [count]

        def told(rows: int, _: float) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        return told

    out = tmp_path / "out"
    for _ in range(8):
        with pytest.raises(KeyboardInterrupt):
            annotated(corpus, out)(stop_after(0))
        for file in out.glob("**/*.parquet"):
            pq.read_table(file)
        names = {file.name for file in (out / ".annotate").iterdir()}
        assert all(name == "plan.json" or name[:5].isdigit() for name in names)
        if len(list(out.glob("data/*.parquet"))) == 3:
            break
    annotated(corpus, out)()
    assert read_out(out) == read_out(tmp_path / "whole")


def test_parts_of_several_machines_make_one_corpus(tmp_path: Path) -> None:
    corpus = write_folder(tmp_path / "in")
    annotated(corpus, tmp_path / "whole")()
    first = annotated(corpus, tmp_path / "out", part=(1, 2))()
    assert first.unmeasured == 2
    assert not (tmp_path / "out" / "data").exists()
    second = annotated(corpus, tmp_path / "out", part=(0, 2))()
    assert (second.unmeasured, second.rows) == (0, COUNT)
    assert read_out(tmp_path / "out") == read_out(tmp_path / "whole")


def test_a_folder_that_was_begun_otherwise_is_refused(tmp_path: Path) -> None:
    corpus = write_folder(tmp_path / "in")
    annotated(corpus, tmp_path / "out")()
    with pytest.raises(DataError, match="begun with another settings"):
        annotated(corpus, tmp_path / "out", settings=AnnotateSettings(language="zh"))()
    (corpus / "more.wav").write_bytes(bytes_of(0))
    with pytest.raises(DataError, match="begun with another corpus"):
        annotated(corpus, tmp_path / "out")()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x", "utf-8")
    with pytest.raises(DataError, match="holds something else"):
        annotated(corpus, tmp_path / "mine")()


@pytest.mark.parametrize("form", ["manifest", "csv", "parquet", "saved", "tars"])
def test_a_corpus_that_has_changed_is_refused(tmp_path: Path, form: str) -> None:
    """Its names and its number of rows are as they were."""
    corpus = WRITERS[form](tmp_path / "in")
    annotated(corpus, tmp_path / "out")()
    annotated(corpus, tmp_path / "out")()
    if form == "manifest":
        corpus.write_text(corpus.read_text("utf-8").replace("anna", "hana"), "utf-8")
    elif form == "csv":
        table = corpus / "metadata.csv"
        table.write_text(table.read_text("utf-8").replace("anna", "hana"), "utf-8")
    else:
        ending = {"parquet": "parquet", "saved": "arrow", "tars": "tar"}[form]
        file = max(corpus.rglob(f"*.{ending}"))
        before = file.stat()
        file.write_bytes(file.read_bytes().replace(b"anna", b"hana"))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(DataError, match="begun with another corpus"):
        annotated(corpus, tmp_path / "out")()


def test_bins_that_have_changed_are_refused(tmp_path: Path) -> None:
    corpus, bins = write_folder(tmp_path / "in", 1), tmp_path / "bins.json"
    for text in ("slowly", "quickly"):
        table = {"speaking_rate": [0, 9, 99], "speaker_rate_bins": ["very slowly", text]}
        bins.write_text(json.dumps(table), "utf-8")
        read_bins.cache_clear()  # as in another process
        run = annotated(corpus, tmp_path / "out", settings=AnnotateSettings(bins=str(bins)))
        if text == "slowly":
            run()
    with pytest.raises(DataError, match="begun with another content of --bins"):
        run()


def test_a_run_that_another_version_began_is_refused_in_a_line(tmp_path: Path) -> None:
    corpus = write_folder(tmp_path / "in", 1)
    annotated(corpus, tmp_path / "out")()
    plan = tmp_path / "out" / ".annotate" / "plan.json"
    noted = json.loads(plan.read_text("utf-8"))
    older = {**noted, "settings": {**noted["settings"], "beam_size": 1}}
    del noted["bins"]
    for one in (noted, older):
        plan.write_text(json.dumps(one), "utf-8")
        with pytest.raises(DataError, match="begun by another version of aligncap"):
            annotated(corpus, tmp_path / "out")()


def test_bad_rows_of_every_kind_are_rows(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "in")
    with manifest.open("a", encoding="utf-8") as lines:
        lines.write('{"file": "gone.wav", "take": "many"}\n{"id": "nameless"}\nno json\n')
    summary = annotated(manifest, tmp_path / "out")()
    assert (summary.rows, summary.failed) == (COUNT + 3, 3)
    errors = {row["id"]: row["error"] for row in read_out(tmp_path / "out") if row["error"]}
    assert "does not exist" in errors["gone"]
    assert "names no recording" in errors["nameless"]
    assert any("not JSON" in error for error in errors.values())


def test_a_row_of_csv_ends_where_its_line_does(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", 3)
    table = folder / "metadata.csv"
    table.write_text(
        "file,text\nclip0.wav,Come\u2028in!\nclip1.wav,Come in, you!\nclip2.wav,Come\x0bin!\n",
        "utf-8",
    )
    summary = annotated(folder, tmp_path / "out")()
    assert (summary.rows, summary.failed) == (3, 1)
    rows = {row["id"]: row for row in read_out(tmp_path / "out")}
    assert rows["clip0"]["text"] == "Come\u2028in!"
    assert rows["clip2"]["text"] == "Come\x0bin!"
    assert "more cells than the heading" in rows[f"{table}:3"]["error"]


def test_a_table_without_a_heading_is_refused_before_anything_is_heard(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", 2)
    table = folder / "metadata.csv"  # as LJ Speech has it, and as some spreadsheets write csv
    for text in ("clip0|Come in, you.\nclip1|Come in, now.\n", "file;text\nclip0.wav;Come in.\n"):
        table.write_text(text, "utf-8")
        with pytest.raises(
            DataError, match=r"metadata\.csv: has no column 'file' \(its first line"
        ):
            open_corpus(folder, 3)


@pytest.mark.parametrize("form", ["csv", "jsonl", "text", "place", "bytes"])
@pytest.mark.parametrize("column", ["clip", "audio"])
def test_recordings_in_any_column_are_found_beside_the_corpus_and_written(
    tmp_path: Path, form: str, column: str
) -> None:
    folder = write_folder(tmp_path / "in", 2)
    values = ["clip0.wav", "clip1.wav"]
    if form in ("csv", "jsonl"):
        corpus = folder / f"corpus.{form}"
        lines = (
            [column, *values] if form == "csv" else [json.dumps({column: one}) for one in values]
        )
        corpus.write_text("\n".join(lines), "utf-8")
    else:
        corpus = folder / "corpus.parquet"
        made = {
            "text": values,
            "place": [{"bytes": None, "path": one} for one in values],
            "bytes": [(folder / one).read_bytes() for one in values],
        }
        pq.write_table(pa.table({"id": ["0", "1"], column: made[form]}), corpus)
    settings = AnnotateSettings(audio=column)
    opened = open_corpus(corpus, 1, column)
    for audio in (True, False):
        out = tmp_path / f"out-{audio}"
        AnnotateRun(opened, out, settings, audio=audio, open_model=open_fake)()
        rows = read_out(out)
        assert [row["error"] for row in rows] == [None, None]
        kept = "clip" if column == "clip" and form in ("place", "bytes") else "audio"
        assert [row.get(kept, {}).get("bytes") for row in rows] == [
            bytes_of(number) if audio else None for number in range(2)
        ]
        if column == "clip" and form in ("csv", "jsonl", "text"):
            assert [row["clip"] for row in rows] == values


def test_sound_of_films_and_telephones_is_in_the_corpus_too(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", 1)
    (folder / "call.m4a").write_bytes(b"no sound")
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "a.tar", "w") as tar:
        tar.add(folder / "call.m4a", "call.m4a")
    for corpus, names in ((folder, ["call", "clip0"]), (tmp_path / "tars", ["call"])):
        rows = [row for shard in open_corpus(corpus, 9).shards for row in shard.read()]
        assert [row["id"] for row in rows] == names
        assert isinstance(rows[0]["audio"], str | dict)


def test_a_tar_that_is_cut_short_says_so_in_its_last_row(tmp_path: Path) -> None:
    folder = write_tars(tmp_path / "in")
    tar = folder / "000001.tar"
    tar.write_bytes(tar.read_bytes()[:45_000])
    with tarfile.open(folder / "000002.tar", "w") as empty:
        info = tarfile.TarInfo("alone.json")
        info.size = 2
        empty.addfile(info, io.BytesIO(b"{}"))
    summary = annotated(folder, tmp_path / "out")()
    errors = {row["id"]: row["error"] for row in read_out(tmp_path / "out") if row["error"]}
    assert summary.failed == len(errors) >= 2
    assert "cut short or damaged" in errors["000001.tar:end"]
    assert "has no sound beside json" in errors["alone"]


def test_a_corpus_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    (tmp_path / "a.jsonl").write_bytes(b"")
    (tmp_path / "a.txt").write_bytes(b"")
    for name in ("empty", "a.parquet", "a.jsonl", "a.txt", "nowhere"):
        with pytest.raises(DataError, match=name):
            open_corpus(tmp_path / name, 10)


def test_columns_that_differ_between_shards_have_one_type(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", 4)
    values = [{"n": 1, "m": "a"}, {"n": 2.5, "m": 3}, {"n": None, "m": ["x"]}, {"k": True}]
    lines = [{"file": f"clip{n}.wav", **one} for n, one in enumerate(values)]
    manifest = folder / "m.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    run = AnnotateRun(open_corpus(manifest, 1), tmp_path / "out", FAKE, open_model=open_fake)
    run()
    rows = read_out(tmp_path / "out")
    assert [row["n"] for row in rows] == [1.0, 2.5, None, None]
    assert [row["m"] for row in rows] == ["a", "3", '["x"]', None]
    assert [row["k"] for row in rows] == [None, None, None, True]


def dies(*_: object):
    import os

    os._exit(3)
    yield 0, 0.0


def refuses(*_: object):
    yield 1, 0.5
    raise DataError("this one: cannot be; mend it")


def test_a_gender_that_is_heard_is_left_out_where_the_corpus_has_codes(tmp_path: Path) -> None:
    given = {"id": ["0", "1"], "gender": [1, None], "audio": [bytes_of(0), bytes_of(1)]}
    pq.write_table(pa.table(given), tmp_path / "corpus.parquet")
    annotated(tmp_path / "corpus.parquet", tmp_path / "out")()
    rows = read_out(tmp_path / "out")
    assert [row["gender"] for row in rows] == [1, None]
    assert [row["gender_source"] for row in rows] == ["corpus", "heard"]


def fills_the_disk(*_: object):
    yield 1, 0.5
    raise OSError(28, "No space left on device", "/out/00000.jsonl")


@pytest.mark.slow
def test_what_a_job_raises_of_the_system_is_passed_on() -> None:
    tasks = [(n, (n,)) for n in range(2)]
    with pytest.raises(OSError, match="No space left on device") as caught:
        run_tasks(fills_the_disk, tasks, 2, lambda *_: None)
    assert caught.value.filename == "/out/00000.jsonl"


@pytest.mark.slow
def test_what_becomes_of_other_processes_is_told() -> None:
    tasks = [(n, (n,)) for n in range(3)]
    with pytest.raises(LostProcessError, match="the same command goes on"):
        run_tasks(dies, tasks, 2, lambda *_: None)
    with pytest.raises(DataError, match="this one: cannot be"):
        run_tasks(refuses, tasks, 2, lambda *_: None)
