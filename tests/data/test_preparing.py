"""Preparing a corpus: what is written, what is left out, and how a stopped run goes on."""

import hashlib
import json
import os
from itertools import chain
from pathlib import Path

import pytest

from aligncap.data.captioned import open_corpus
from aligncap.data.doctor import prepare
from aligncap.data.layouts import Fault
from aligncap.data.manifest import read_manifest
from aligncap.data.splits import SoundBook, Split
from aligncap.errors import DataError, UnknownNameError
from support import corpora


def test_a_manifest_has_places_lengths_and_hashes(tmp_path: Path) -> None:
    source, out = corpora.iemocap(tmp_path / "src"), tmp_path / "deep" / "out"
    report = prepare(open_corpus("iemocap"), source, out, counts=corpora.IEMOCAP_COUNTS)
    assert (report.faults, report.tally.clips, report.speakers) == (0, 6, 4)
    assert report.tally.seconds == pytest.approx(1.8)
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    for row, clip in zip(rows, read_manifest(out / "manifest.jsonl"), strict=True):
        assert row["file"].startswith("../../src/Session")
        assert clip.sha256 == hashlib.sha256(clip.path.read_bytes()).hexdigest()
        assert clip.duration_s == 0.3
        assert clip.label == row.get("label", row.get("emotion"))
    told = {row["id"]: (row.get("emotion"), row.get("label")) for row in rows}
    assert len(told) == 6
    assert told["Ses01F_impro01_M000"] == ("happy", "excited")
    assert told["Ses01F_impro01_F001"] == (None, "no agreement")


def test_what_cannot_be_used_is_left_out_and_listed(tmp_path: Path) -> None:
    source, out = corpora.nnime(tmp_path / "src"), tmp_path / "out"
    (source / "angry_01_A_5.wav").write_bytes(b"RIFF")
    told: list[Fault] = []
    report = prepare(open_corpus("nnime"), source, out, counts={"all": 6}, on_fault=told.append)
    whole = sorted(file.stem for file in source.glob("*.wav") if file.name != "angry_01_A_5.wav")
    assert [clip.id for clip in read_manifest(out / "manifest.jsonl")] == whole
    assert [str(fault) for fault in told] == (out / "faults.txt").read_text().splitlines()
    written = json.loads((out / "report.json").read_text())
    assert written["faults"] == dict(report.tally.faults) == {"broken": 1, "count": 1}


def test_a_stopped_run_leaves_the_old_manifest_and_goes_on(tmp_path: Path) -> None:
    source, out = corpora.nnime(tmp_path / "src"), tmp_path / "out"
    out.mkdir()
    (out / "manifest.jsonl").write_text("old\n")
    left = iter(range(3))

    def stop() -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(open_corpus("nnime"), source, out, progress=stop)
    assert (out / "manifest.jsonl").read_text() == "old\n"
    # What was read is not read again: its bytes may rot, its size and time being the same.
    first = min(source.glob("*.wav"))
    with SoundBook(out / "sounds.sqlite") as book:
        known = book.sound(first)
    status = first.stat()
    first.write_bytes(b"\0" * status.st_size)
    os.utime(first, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert prepare(open_corpus("nnime"), source, out, counts={"all": 6}).faults == 0
    assert {clip.sha256 for clip in read_manifest(out / "manifest.jsonl")} > {known.sha256}
    first.touch()
    assert dict(prepare(open_corpus("nnime"), source, out, counts={}).tally.faults) == {"broken": 1}
    assert not list(out.glob("*.unfinished"))


def test_a_split_is_whole_and_forgotten_without(tmp_path: Path) -> None:
    source, out, corpus = corpora.esd(tmp_path / "src"), tmp_path / "out", open_corpus("esd")
    report = prepare(corpus, source, out, counts=corpora.ESD_COUNTS, split=Split("random", "0"))
    parts = {name: [c.id for c in read_manifest(out / name)] for name in report.parts or ()}
    assert {name: len(clips) for name, clips in parts.items()} == dict(report.parts or {})
    whole = sorted(clip.id for clip in read_manifest(out / "manifest.jsonl"))
    assert sorted(chain(*parts.values())) == whole
    prepare(corpus, source, out, counts=corpora.ESD_COUNTS)
    left = sorted(file.name for file in out.iterdir())
    assert left == ["faults.txt", "manifest.jsonl", "report.json", "sounds.sqlite"]


def test_a_split_by_speaker_needs_speakers(tmp_path: Path) -> None:
    source = corpora.mer2023(tmp_path / "src")
    with pytest.raises(DataError, match="sample_00: has no speaker, so it cannot be split"):
        prepare(open_corpus("mer2023"), source, tmp_path / "out", split=Split("speaker"))
    with pytest.raises(UnknownNameError, match="no split called 'speakers'"):
        Split("speakers")
