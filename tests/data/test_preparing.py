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
    clips = list(read_manifest(out / "manifest.jsonl"))
    assert len(rows) == len(clips) == 6
    for row, clip in zip(rows, clips, strict=True):
        assert row["file"].startswith("../../src/Session")
        assert clip.path.is_file()
        assert clip.sha256 == hashlib.sha256(clip.path.read_bytes()).hexdigest()
        assert clip.duration_s == 0.3
    told = {row["id"]: (row.get("emotion"), row.get("label")) for row in rows}
    assert told["Ses01F_impro01_M000"] == ("happy", "excited")
    assert told["Ses01F_impro01_F001"] == (None, "no agreement")
    assert {clip.id: clip.label for clip in clips}["Ses01F_impro01_M000"] == "excited"


def test_what_cannot_be_used_is_left_out_and_listed(tmp_path: Path) -> None:
    source, out = corpora.nnime(tmp_path / "src"), tmp_path / "out"
    (source / "angry_01_A_5.wav").write_bytes(b"RIFF")
    told: list[Fault] = []
    report = prepare(open_corpus("nnime"), source, out, counts={"all": 6}, on_fault=told.append)
    assert [clip.id for clip in read_manifest(out / "manifest.jsonl")] == sorted(
        file.stem for file in source.glob("*.wav") if file.name != "angry_01_A_5.wav"
    )
    assert [str(fault) for fault in told] == (out / "faults.txt").read_text().splitlines()
    assert dict(report.tally.faults) == {"broken": 1, "count": 1}
    assert json.loads((out / "report.json").read_text())["faults"] == {"broken": 1, "count": 1}


def test_a_stopped_run_leaves_the_old_manifest_and_goes_on(tmp_path: Path) -> None:
    source, out = corpora.nnime(tmp_path / "src"), tmp_path / "out"
    (out).mkdir()
    (out / "manifest.jsonl").write_text("old\n")
    seen = 0

    def stop() -> None:
        nonlocal seen
        seen += 1
        if seen == 4:
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
    source, out = corpora.esd(tmp_path / "src"), tmp_path / "out"
    corpus = open_corpus("esd")
    report = prepare(corpus, source, out, counts=corpora.ESD_COUNTS, split=Split("random", "0"))
    assert report.parts is not None
    parts = {name: [c.id for c in read_manifest(out / name)] for name in report.parts}
    assert {name: len(clips) for name, clips in parts.items()} == dict(report.parts)
    assert sorted(chain(*parts.values())) == sorted(
        clip.id for clip in read_manifest(out / "manifest.jsonl")
    )
    prepare(corpus, source, out, counts=corpora.ESD_COUNTS)
    assert sorted(file.name for file in out.iterdir()) == [
        "faults.txt",
        "manifest.jsonl",
        "report.json",
        "sounds.sqlite",
    ]


def test_a_split_by_speaker_needs_speakers(tmp_path: Path) -> None:
    source = corpora.mer2023(tmp_path / "src")
    with pytest.raises(DataError, match="sample_00: has no speaker, so it cannot be split"):
        prepare(open_corpus("mer2023"), source, tmp_path / "out", split=Split("speaker"))
    with pytest.raises(UnknownNameError, match="no split called 'speakers'"):
        Split("speakers")
