"""Every fault that is planted in a corpus is found, named, and told with what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from aligncap.data.captioned import CORPORA, open_corpus
from aligncap.data.doctor import examine, prepare
from aligncap.data.layouts import Fault, Kind
from aligncap.data.manifest import read_manifest
from aligncap.data.splits import Split
from aligncap.errors import DataError
from support import corpora


def prepared(name: str, tmp_path: Path, *, split: Split | None = None) -> Path:
    """A miniature, prepared without a fault."""
    build, counts = corpora.MINIATURES[name]
    out = tmp_path / "out"
    faults: list[Fault] = []
    prepare(
        open_corpus(name),
        build(tmp_path / "src"),
        out,
        counts=counts,
        split=split,
        on_fault=faults.append,
    )
    assert faults == []
    return out


def faults_of(target: Path, **wish: object) -> list[Fault]:
    """What the doctor finds."""
    found: list[Fault] = []
    report = examine(target, on_fault=found.append, **wish)  # type: ignore[arg-type]
    assert report.faults == len(found)
    return found


def the_fault(faults: list[Fault]) -> tuple[Kind, str]:
    """The only fault; it is one line."""
    assert len(faults) == 1, [str(fault) for fault in faults]
    assert "\n" not in faults[0].message
    return faults[0].kind, faults[0].message


@pytest.mark.parametrize("name", CORPORA)
def test_a_whole_corpus_is_well_before_and_after(name: str, tmp_path: Path) -> None:
    _, counts = corpora.MINIATURES[name]
    out = prepared(name, tmp_path)
    assert faults_of(tmp_path / "src", corpus=open_corpus(name), counts=counts) == []
    assert faults_of(out, counts=counts) == []


Plant = Callable[[Path], object]

EMODB_CLIP = "wav/03a01Fa.wav"


def silence(source: Path) -> None:
    soundfile.write(source / EMODB_CLIP, np.zeros(8000), 16_000)


def cut_short(source: Path) -> None:
    file = source / EMODB_CLIP
    file.write_bytes(file.read_bytes()[:5000])


def too_long(source: Path) -> None:
    soundfile.write(source / EMODB_CLIP, 0.1 * np.ones(61 * 16_000), 16_000)


@pytest.mark.parametrize(
    ("plant", "kind", "message"),
    [
        (cut_short, Kind.BROKEN, "cut short"),
        (silence, Kind.BROKEN, "nothing but silence"),
        (lambda s: (s / EMODB_CLIP).write_bytes(b""), Kind.BROKEN, "is empty"),
        (lambda s: (s / EMODB_CLIP).write_text("404: Not Found"), Kind.BROKEN, "is text"),
        (too_long, Kind.DURATION, "lasts 61.00 s, must be 0.1 to 60 s"),
        (
            lambda s: corpora.noise(s / EMODB_CLIP, length_s=0.05),
            Kind.DURATION,
            "lasts 0.05 s",
        ),
        (
            lambda s: corpora.noise(s / EMODB_CLIP, rate_hz=8000),
            Kind.RATE,
            "is at 8,000 Hz, must be 16,000 Hz",
        ),
        (lambda s: corpora.noise(s / "wav/99a01Fa.wav"), Kind.LABEL, "no speaker 99"),
    ],
)
def test_a_fault_of_one_sound_is_named(
    plant: Plant, kind: Kind, message: str, tmp_path: Path
) -> None:
    source = corpora.emodb(tmp_path)
    plant(source)
    found = faults_of(source, corpus=open_corpus("emodb"), counts={})
    there, said = the_fault(found)
    assert there == kind
    assert message in said
    assert str(source) in said


def test_a_wrong_count_says_what_to_fetch(tmp_path: Path) -> None:
    source = corpora.esd(tmp_path)
    next(source.rglob("0011_000352.wav")).unlink()
    found = faults_of(source, corpus=open_corpus("esd"), counts=corpora.ESD_COUNTS)
    kind, said = the_fault([fault for fault in found if fault.kind != Kind.MISSING])
    assert kind == Kind.COUNT
    assert said.startswith("esd 0011: 9 of 10 clips can be used; fetch ESD")
    assert "https://github.com/HLTSingapore/Emotional-Speech-Data" in said


def test_the_true_counts_are_asked_for_if_none_are_given(tmp_path: Path) -> None:
    found = faults_of(corpora.secap(tmp_path), corpus=open_corpus("secap"))
    assert the_fault(found)[1].startswith("secap: 4 of 600 clips can be used; fetch")


def test_a_part_that_the_corpus_does_not_have_is_named(tmp_path: Path) -> None:
    found = faults_of(corpora.esd(tmp_path), corpus=open_corpus("esd"), counts={"0003": 10})
    assert "esd 0011: 10 clips of a part that esd does not have" in the_fault(found)[1]


def emosec_without_iemocap(source: Path) -> None:
    shutil.rmtree(source / "IEMOCAP_full_release")


def esd_moved(source: Path) -> None:
    next(source.rglob("0003_000001.wav")).rename(next(source.rglob("0003")) / "0003_000001.wav")


def mer_as_shipped(source: Path) -> None:
    (source / "test1").mkdir()
    (source / "audio" / "sample_10.wav").rename(source / "test1" / "sample_10.mp4")


def captions_without_sentence(source: Path) -> None:
    corpora.table(
        source / "EMER.csv",
        ("name", "chinese", "english"),
        ("sample_00", "视频中有人。", "A man sits."),
    )


def secap_uncaptioned(source: Path) -> None:
    file = source / "fid2captions.json"
    captions = json.loads(file.read_text("utf-8"))
    captions.pop("tx_emulate_00_110_0001_000001")
    file.write_text(json.dumps(captions))


@pytest.mark.parametrize(
    ("name", "plant", "kind", "message"),
    [
        ("emosec", emosec_without_iemocap, Kind.MISSING, "fetch IEMOCAP (10,039 clips) from"),
        ("emosec", lambda s: corpora.noise(next(s.rglob("0003/Sad")) / "0003_001053.wav"),
         Kind.CAPTION,
         "0003_001053.wav: has no caption in merged_file.json"),
        ("esd", lambda s: next(s.rglob("0003.txt")).unlink(), Kind.LABEL,
         "0003.txt: does not exist; fetch it"),
        ("esd", esd_moved, Kind.LABEL, "lies in no folder called Angry, Happy"),
        ("iemocap", lambda s: shutil.rmtree(s / "Session2/dialog/EmoEvaluation"), Kind.LABEL,
         "Ses02M_script01_1.txt: does not exist"),
        ("mer2023", mer_as_shipped, Kind.BROKEN, "sample_10.mp4 -vn -ac 1 -ar 16000"),
        ("mer2023", lambda s: (s / "audio/sample_10.wav").unlink(), Kind.MISSING,
         "sample_10.wav: does not exist; fetch MER2023"),
        ("mer2023", lambda s: (s / "test2-label.csv").unlink(), Kind.LABEL,
         "test2-label.csv: does not exist; fetch it"),
        ("mer2023", lambda s: corpora.table(
            s / "test1-label.csv", ("name", "discrete"), ("sample_10", "joy")),
         Kind.LABEL, "test1-label.csv:2: sample_10 is 'joy', must be one of neutral"),
        ("mer2023", captions_without_sentence, Kind.CAPTION, "EMER.csv:2: sample_00 has no"),
        ("secap", secap_uncaptioned, Kind.CAPTION, "000001: has no caption in fid2captions.json"),
        ("secap", lambda s: (s / "fid2captions.json").write_text("{"), Kind.LABEL, "not JSON"),
        ("secap", lambda s: (s / "text.txt").write_bytes(b"a \xff\xff\x81\n"), Kind.LABEL,
         "text.txt: neither UTF-8, UTF-16 nor GB 18030"),
        ("nnime", lambda s: corpora.noise(s / "angry_23_A_1.wav"), Kind.LABEL, "no speaker 23_"),
        ("folder", lambda s: corpora.lines(s / "one.json", '{"gender": "woman"}'), Kind.LABEL,
         "one.json: "),
    ],
)  # fmt: skip
def test_a_fault_of_a_layout_is_named(
    name: str, plant: Plant, kind: Kind, message: str, tmp_path: Path
) -> None:
    build, _ = corpora.MINIATURES[name]
    source = build(tmp_path)
    plant(source)
    found = faults_of(source, corpus=open_corpus(name), counts={})
    assert {fault.kind for fault in found} == {kind}
    assert any(message in fault.message for fault in found), [str(fault) for fault in found]


def test_a_prepared_corpus_whose_sound_changes_is_named(tmp_path: Path) -> None:
    out = prepared("emodb", tmp_path)
    shutil.copy(corpora.noise(tmp_path / "another.wav"), tmp_path / "src" / "wav" / "03a01Wa.wav")
    kind, said = the_fault(faults_of(out, counts={}))
    assert kind == Kind.CHANGED
    assert "03a01Wa.wav: is not the file that the manifest was made of" in said


def test_a_quick_look_reads_heads_only(tmp_path: Path) -> None:
    out = prepared("emodb", tmp_path)
    cut_short(tmp_path / "src")
    shutil.copy(corpora.noise(tmp_path / "another.wav"), tmp_path / "src/wav/03a01Wa.wav")
    kind, said = the_fault(faults_of(out, counts={}, headers_only=True))
    assert (kind, "cut short" in said) == (Kind.BROKEN, True)


def test_bad_lines_of_a_manifest_are_all_named(tmp_path: Path) -> None:
    out = prepared("emodb", tmp_path)
    manifest = out / "manifest.jsonl"
    lines = manifest.read_text("utf-8").splitlines()
    lines[1] = lines[1].replace('"happy"', '"glad"').replace('"angry"', '"cross"')
    manifest.write_text("\n".join(["{oops", *lines]))
    found = faults_of(manifest, counts={})
    assert [fault.kind for fault in found] == [Kind.LABEL, Kind.LABEL]
    assert f"{manifest}:1: not JSON" in found[0].message
    assert f"{manifest}:3: " in found[1].message


def append(part: Path, line: str) -> None:
    part.write_text(part.read_text("utf-8") + line + "\n", encoding="utf-8")


def test_a_speaker_on_both_sides_of_a_split_by_speaker_is_a_leak(tmp_path: Path) -> None:
    out = prepared_by_speaker(tmp_path)
    line = json.loads((out / "train.jsonl").read_text("utf-8").splitlines()[0])
    manifest = {json.loads(x)["id"]: x for x in (out / "manifest.jsonl").read_text().splitlines()}
    other = {**line, "id": "new", "file": "../src/new.wav", "sha256": None}
    corpora.noise(tmp_path / "src" / "new.wav")
    append(out / "test.jsonl", json.dumps(other))
    (out / "manifest.jsonl").write_text("\n".join([*manifest.values(), json.dumps(other)]))
    kind, said = the_fault(faults_of(out, counts={}))
    assert kind == Kind.LEAK
    assert said.startswith(f"speaker {line['speaker']}: is in train.jsonl and test.jsonl")


def prepared_by_speaker(tmp_path: Path) -> Path:
    """Thirty speakers of one clip each, so that no part is empty."""
    for number in range(30):
        file = corpora.noise(tmp_path / "src" / f"clip{number}.wav", length_s=0.15)
        corpora.lines(file.with_suffix(".json"), json.dumps({"speaker": f"s{number}"}))
    out = tmp_path / "out"
    corpus, split = open_corpus("folder"), Split("speaker", "0")
    assert prepare(corpus, tmp_path / "src", out, split=split).faults == 0
    return out


def test_a_clip_that_fell_out_of_its_part_is_named(tmp_path: Path) -> None:
    out = prepared_by_speaker(tmp_path)
    train = out / "train.jsonl"
    train.write_text("\n".join(train.read_text().splitlines()[1:]))
    kind, said = the_fault(faults_of(out))
    assert (kind, "has 30 clips, its parts 29" in said) == (Kind.COUNT, True)
    (out / "test.jsonl").unlink()
    assert (Kind.MISSING, True) in {
        (fault.kind, "test.jsonl: does not exist" in fault.message) for fault in faults_of(out)
    }


def test_a_folder_of_which_nothing_is_said_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="say which: --corpus NAME"):
        examine(corpora.esd(tmp_path))


def test_the_doctor_changes_nothing(tmp_path: Path) -> None:
    out = prepared("emodb", tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    faults_of(out, counts={})
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before
    assert len(list(read_manifest(out / "manifest.jsonl"))) == 4
