"""Each layout with each kind of fault: a file that is missing, a wrong count, a duplicate, a leak,
a label that cannot be read. What is planted is found, named, and told with what to do.

Where the label files of a layout name its clips, one that is missing is named before the corpus is
prepared; where names of files are all there is, it is missed in the count, and named afterwards by
the manifest.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
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

Plant = Callable[[Path], object]


def faults_of(target: Path, **wish: object) -> list[Fault]:
    """What the doctor finds, each in one line."""
    found: list[Fault] = []
    report = examine(target, on_fault=found.append, **wish)
    assert report.faults == len(found)
    assert not any("\n" in fault.message for fault in found)
    return found


def found_in(source: Path, name: str, **counts: int) -> list[Fault]:
    return faults_of(source, corpus=open_corpus(name), counts=counts)


def the_fault(faults: list[Fault], kind: Kind) -> str:
    """The message of the only fault."""
    assert [fault.kind for fault in faults] == [kind], [str(fault) for fault in faults]
    return faults[0].message


def messages(faults: list[Fault], kind: Kind) -> list[str]:
    return [fault.message for fault in faults if fault.kind is kind]


@dataclass(frozen=True)
class Layout:
    """Where in a miniature faults are planted."""

    sound: str
    """The name of a sound file."""
    other: str
    """The name of another one."""
    part: str
    """What of the corpus the first is counted in, and of how many."""
    count: int
    named: bool
    """Whether a label file names the clip."""
    twice: Plant
    """Has an id come twice."""
    bad_label: Plant
    said: str
    """What is said of the label."""


def copied(sound: str, to: str) -> Plant:
    """The same file name once more, in a folder of its own, with another sound."""
    return lambda source: corpora.noise(source / to / sound, length_s=0.4)


def appended(file: str, line: str | None = None) -> Plant:
    """One more line, or the last once more."""

    def plant(source: Path) -> None:
        (path,) = source.rglob(file)
        text = path.read_text("utf-8")
        path.write_text(text + (line or text.splitlines()[-1]) + "\n", encoding="utf-8")

    return plant


def replaced(file: str, old: str, new: str) -> Plant:
    def plant(source: Path) -> None:
        (path,) = source.rglob(file)
        path.write_text(path.read_text().replace(old, new))

    return plant


def silence(file: str, *, length_s: float = 0.5, level: float = 0.0) -> Plant:
    samples = np.tile([level, -level], round(length_s * 8_000))  # a constant is no sound
    return lambda source: soundfile.write(source / file, samples, 16_000)


LAYOUTS = {
    "emosec": Layout(
        "0011_000352.wav", "0011_000001.wav", "emosec esd", 20, True,
        copied("0011_000352.wav", "again/0011/Angry"),
        lambda s: (s / "merged_file.json").write_text("{"),
        "merged_file.json: not JSON in UTF-8",
    ),
    "mer2023": Layout(
        "sample_11.wav", "sample_21.wav", "mer2023", 8, True, appended("test1-label.csv"),
        lambda s: corpora.table(s / "test1-label.csv", ("id", "label"), ("a", "b")),
        "test1-label.csv:1: has no column name, discrete (it has id, label)",
    ),
    "nnime": Layout(
        "angry_01_A_5.wav", "angry_01_B_5.wav", "nnime", 6, False,
        copied("angry_01_A_5.wav", "again"), lambda s: corpora.noise(s / "glad_01_A_1.wav"),
        "glad_01_A_1.wav: NNIME has no emotion glad",
    ),
    "secap": Layout(
        "tx_emulate_00_110_0001_000001.wav", "tx_emulate_00_111_0001_000002.wav", "secap", 4, True,
        appended("wav.scp"), lambda s: corpora.lines(s / "text.txt", "tx_emulate_00_110_0001"),
        "text.txt:1: 'tx_emulate_00_110_0001' is one word",
    ),
    "esd": Layout(
        "0011_000352.wav", "0011_000001.wav", "esd 0011", 10, True,
        copied("0011_000352.wav", "again/0011/Angry"),
        appended("0011.txt", "0011_00\tNo clip.\tSad"),
        "0011.txt:12: '0011_00\\tNo clip.\\tSad' is not",
    ),
    "iemocap": Layout(
        "Ses01F_impro01_M000.wav", "Ses01F_impro01_F000.wav", "iemocap Ses01", 3, True,
        copied("Ses01F_impro01_M000.wav", "again/Session1/sentences/wav/Ses01F_impro01"),
        replaced("EmoEvaluation/Ses01F_impro01.txt", "\texc\t", "\tjoy\t"),
        "Ses01F_impro01.txt:6: '[6.2901",
    ),
    "ravdess": Layout(
        "03-01-05-02-01-02-01.wav", "03-01-02-01-01-02-01.wav", "ravdess 01", 2, False,
        copied("03-01-05-02-01-02-01.wav", "again"),
        lambda s: corpora.noise(s / "03-01-09-01-01-01-01.wav"),
        "03-01-09-01-01-01-01.wav: RAVDESS has no emotion 09",
    ),
    "emodb": Layout(
        "03a01Fa.wav", "08b03Lb.wav", "emodb", 4, False,
        copied("03a01Fa.wav", "again"), lambda s: corpora.noise(s / "wav" / "03a01Xa.wav"),
        "03a01Xa.wav: EmoDB has no emotion X",
    ),
    "folder": Layout(
        "one.wav", "two.flac", "folder", 2, False, lambda s: corpora.noise(s / "one.flac"),
        lambda s: (s / "one.json").write_text('{"emotion": "joy"}'), "one.json: ",
    ),
}  # fmt: skip


@pytest.fixture(params=CORPORA)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(name: str, tmp_path: Path) -> Path:
    return corpora.MINIATURES[name][0](tmp_path / "src")


def planted(name: str, source: Path) -> Path:
    """The sound file that a fault is planted in."""
    return next(source.rglob(LAYOUTS[name].sound))


def test_a_missing_file_is_named(name: str, source: Path, tmp_path: Path) -> None:
    assert prepare(open_corpus(name), source, tmp_path / "out", counts={}).faults == 0
    assert faults_of(tmp_path / "out", counts={}) == []
    file = planted(name, source)
    file.unlink()
    said = the_fault(faults_of(tmp_path / "out", counts={}), Kind.MISSING)
    assert f"{file.name}: does not exist; fetch " in said
    before = found_in(source, name)
    if LAYOUTS[name].named:
        (missing,) = messages(before, Kind.MISSING)
        assert file.stem in missing
        assert "fetch" in missing
    else:
        assert before == []


def test_a_wrong_count_is_named(name: str, source: Path) -> None:
    part, count = LAYOUTS[name].part, LAYOUTS[name].count
    # Of a folder nobody knows how many it has, so it is said by hand.
    counts = corpora.MINIATURES[name][1] or {"all": 2}
    assert found_in(source, name, **counts) == []
    fewer = {part: many - (many == count) for part, many in counts.items()}
    more = f"{part}: {count} clips, 1 more than it has; take away what is not of it"
    assert more in messages(found_in(source, name, **fewer), Kind.COUNT)
    planted(name, source).unlink()
    (few,) = messages(found_in(source, name, **counts), Kind.COUNT)
    assert few.startswith(f"{part}: {count - 1} of {count} clips can be used; fetch ")


def test_a_sound_under_two_names_is_named(name: str, source: Path) -> None:
    one, other = planted(name, source), next(source.rglob(LAYOUTS[name].other))
    shutil.copy(one, other)
    (said,) = messages(found_in(source, name), Kind.DUPLICATE)
    assert all(part in said for part in (one.name, other.name, "is the same sound as"))


def test_an_id_that_comes_twice_is_named(name: str, source: Path) -> None:
    LAYOUTS[name].twice(source)
    (said,) = messages(found_in(source, name), Kind.DUPLICATE)
    assert "is also that of" in said or "has a line before" in said
    assert "take one " in said


def test_a_clip_on_both_sides_is_named(name: str, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(open_corpus(name), source, out, counts={}, split=Split("random"))
    # So small a corpus may leave a part empty, which is told as well.
    assert messages(faults_of(out, counts={}), Kind.LEAK) == []
    parts = {part: list(read_manifest(out / part)) for part in ("train.jsonl", "test.jsonl")}
    here = max(parts, key=lambda part: len(parts[part]))
    (there,) = parts.keys() - {here}
    line = (out / here).read_text("utf-8").splitlines()[0]
    appended(there, line)(out)
    by_id, by_sound = messages(faults_of(out, counts={}), Kind.LEAK)
    clip = json.loads(line)["id"]
    assert f": {clip} is in {out}" in by_id
    if here == "train.jsonl":
        assert f": {clip} is in {out / here}:1 too" in by_id
    assert by_sound == f"sound {clip}: is in train.jsonl and test.jsonl; split the corpus anew"


def test_a_label_that_cannot_be_read_is_named(name: str, source: Path) -> None:
    LAYOUTS[name].bad_label(source)
    found = found_in(source, name)
    assert {fault.kind for fault in found} == {Kind.LABEL}
    assert all(str(source) in fault.message for fault in found)
    assert LAYOUTS[name].said in found[0].message


CLIP = "wav/03a01Fa.wav"


def cut_short(source: Path) -> None:
    (source / CLIP).write_bytes((source / CLIP).read_bytes()[:5000])


def changed(source: Path) -> None:
    shutil.copy(corpora.noise(source.parent / "another.wav"), source / "wav" / "03a01Wa.wav")


def esd_moved(source: Path) -> None:
    next(source.rglob("0003_000001.wav")).rename(next(source.rglob("0003")) / "0003_000001.wav")


def secap_uncaptioned(source: Path) -> None:
    captions = json.loads((source / "fid2captions.json").read_text("utf-8"))
    del captions["tx_emulate_00_110_0001_000001"]
    (source / "fid2captions.json").write_text(json.dumps(captions))


def captions_without_sentence(source: Path) -> None:
    head, row = ("name", "chinese", "english"), ("sample_00", "视频中有人。", "A man sits.")
    corpora.table(source / "EMER.csv", head, row)


@pytest.mark.parametrize(
    ("name", "plant", "kind", "message"),
    [
        ("emodb", cut_short, Kind.BROKEN, "cut short"),
        ("emodb", silence(CLIP), Kind.BROKEN, "nothing but silence"),
        ("emodb", lambda s: (s / CLIP).write_bytes(b""), Kind.BROKEN, "is empty"),
        ("emodb", lambda s: (s / CLIP).write_text("404: Not Found"), Kind.BROKEN, "is text"),
        ("emodb", silence(CLIP, length_s=61, level=0.1), Kind.DURATION,
         "lasts 61.00 s, must be 0.1 to 60 s"),
        ("emodb", lambda s: corpora.noise(s / CLIP, length_s=0.05), Kind.DURATION, "lasts 0.05 s"),
        ("emodb", lambda s: corpora.noise(s / CLIP, rate_hz=8000), Kind.RATE,
         "is at 8,000 Hz, must be 16,000 Hz"),
        ("emodb", lambda s: corpora.noise(s / "wav/99a01Fa.wav"), Kind.LABEL, "no speaker 99"),
        ("emosec", lambda s: shutil.rmtree(s / "IEMOCAP_full_release"), Kind.MISSING,
         "fetch IEMOCAP (10,039 clips) from"),
        ("emosec", lambda s: corpora.noise(next(s.rglob("0003/Sad")) / "0003_001053.wav"),
         Kind.CAPTION, "0003_001053.wav: has no caption in merged_file.json"),
        ("esd", lambda s: next(s.rglob("0003.txt")).unlink(), Kind.LABEL,
         "0003.txt: does not exist; fetch it"),
        ("esd", esd_moved, Kind.LABEL, "lies in no folder called Angry, Happy"),
        ("iemocap", lambda s: shutil.rmtree(s / "Session2/dialog/EmoEvaluation"), Kind.LABEL,
         "Ses02M_script01_1.txt: does not exist"),
        ("mer2023", lambda s: (s / "audio/sample_10.wav").unlink(), Kind.MISSING,
         "sample_10.wav: does not exist; fetch MER2023"),
        ("mer2023", lambda s: (s / "test2-label.csv").unlink(), Kind.LABEL,
         "test2-label.csv: does not exist; fetch it"),
        ("mer2023", lambda s: corpora.table(
            s / "test1-label.csv", ("name", "discrete"), ("sample_10", "joy")),
         Kind.LABEL, "test1-label.csv:2: sample_10 is 'joy', must be one of neutral"),
        ("mer2023", lambda s: corpora.lines(
            s / "test1-label.csv", "name,discrete", 'sample_10,"happy', "sample_11,sad"),
         Kind.LABEL, "test1-label.csv:2: no row of csv (unexpected end of data)"),
        ("mer2023", captions_without_sentence, Kind.CAPTION, "EMER.csv:2: sample_00 has no"),
        ("secap", secap_uncaptioned, Kind.CAPTION, "000001: has no caption in fid2captions.json"),
        ("secap", lambda s: (s / "fid2captions.json").write_text("{"), Kind.LABEL, "not JSON"),
        ("secap", lambda s: (s / "text.txt").write_bytes(b"a \xff\xff\x81\n"), Kind.LABEL,
         "text.txt: neither UTF-8, UTF-16 nor Chinese in GB 18030"),
        ("nnime", lambda s: corpora.noise(s / "angry_23_A_1.wav"), Kind.LABEL, "no speaker 23_"),
        ("folder", lambda s: corpora.lines(s / "one.json", '{"gender": "woman"}'), Kind.LABEL,
         "one.json: "),
    ],
)  # fmt: skip
def test_a_fault_of_a_layout_is_named(name, plant, kind, message, source) -> None:
    plant(source)
    found = found_in(source, name)
    assert {fault.kind for fault in found} == {kind}
    assert any(message in fault.message for fault in found), [str(fault) for fault in found]
    if name == "emodb":
        assert str(source) in the_fault(found, kind)


def test_counts_are_those_of_the_corpus_and_a_part_that_it_does_not_have_is_named(tmp_path):
    found = faults_of(corpora.secap(tmp_path / "secap"), corpus=open_corpus("secap"))
    assert the_fault(found, Kind.COUNT).startswith("secap: 4 of 600 clips can be used; fetch")
    source = corpora.esd(tmp_path / "esd")
    said = the_fault(found_in(source, "esd", **{"0003": 10}), Kind.COUNT)
    assert "esd 0011: 10 clips of a part that esd does not have" in said
    next(source.rglob("0011_000352.wav")).unlink()
    (said,) = messages(found_in(source, "esd", **corpora.ESD_COUNTS), Kind.COUNT)
    assert "https://github.com/HLTSingapore/Emotional-Speech-Data" in said
    with pytest.raises(DataError, match="say which: --corpus NAME"):
        examine(source)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """EmoDB in miniature, prepared without a fault; its sounds are in `src` beside it."""
    source, out = corpora.emodb(tmp_path / "src"), tmp_path / "out"
    assert prepare(open_corpus("emodb"), source, out, counts={"all": 4}).faults == 0
    return out


def test_a_prepared_corpus_whose_sound_changes_is_named_and_nothing_is_written(prepared, tmp_path):
    changed(tmp_path / "src")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    said = the_fault(faults_of(prepared, counts={}), Kind.CHANGED)
    assert "03a01Wa.wav: is not the file that the manifest was made of" in said
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_a_quick_look_reads_heads_only(prepared: Path, tmp_path: Path) -> None:
    cut_short(tmp_path / "src")
    changed(tmp_path / "src")
    found = faults_of(prepared, counts={}, headers_only=True)
    assert "cut short" in the_fault(found, Kind.BROKEN)


def test_bad_lines_of_a_manifest_are_all_named(prepared: Path) -> None:
    manifest = prepared / "manifest.jsonl"
    lines = manifest.read_text("utf-8").splitlines()
    lines[1] = lines[1].replace('"happy"', '"glad"').replace('"angry"', '"cross"')
    manifest.write_text("\n".join(["{oops", *lines]))
    first, second = messages(faults_of(manifest, counts={}), Kind.LABEL)
    assert f"{manifest}:1: not JSON" in first
    assert f"{manifest}:3: " in second


@pytest.fixture
def by_speaker(tmp_path: Path) -> Path:
    """Thirty speakers of one clip each, so that no part is empty."""
    for number in range(30):
        file = corpora.noise(tmp_path / "src" / f"clip{number}.wav", length_s=0.15)
        corpora.lines(file.with_suffix(".json"), json.dumps({"speaker": f"s{number}"}))
    corpus, split = open_corpus("folder"), Split("speaker", "0")
    assert prepare(corpus, tmp_path / "src", tmp_path / "out", split=split).faults == 0
    return tmp_path / "out"


def test_a_speaker_on_both_sides_of_a_split_by_speaker_is_a_leak(by_speaker, tmp_path) -> None:
    line = json.loads((by_speaker / "train.jsonl").read_text("utf-8").splitlines()[0])
    corpora.noise(tmp_path / "src" / "new.wav")
    other = {**line, "id": "new", "file": "../src/new.wav", "sha256": None}
    for file in ("test.jsonl", "manifest.jsonl"):
        appended(file, json.dumps(other))(by_speaker)
    said = the_fault(faults_of(by_speaker, counts={}), Kind.LEAK)
    assert said.startswith(f"speaker {line['speaker']}: is in train.jsonl and test.jsonl")


def test_a_clip_that_fell_out_of_its_part_and_a_part_that_is_gone_are_named(by_speaker) -> None:
    train = by_speaker / "train.jsonl"
    train.write_text("\n".join(train.read_text().splitlines()[1:]))
    assert "has 30 clips, its parts 29" in the_fault(faults_of(by_speaker), Kind.COUNT)
    (by_speaker / "test.jsonl").unlink()
    assert any(
        "test.jsonl: does not exist" in m for m in messages(faults_of(by_speaker), Kind.MISSING)
    )
