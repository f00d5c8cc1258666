"""Each layout with each kind of fault: a file that is missing, a wrong count, a duplicate, a leak,
a label that cannot be read. What is planted must be found, and named.

Where the label files of a layout name its clips, one that is missing is named before the corpus is
prepared; where names of files are all there is, it is missed in the count, and named afterwards by
the manifest.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from aligncap.data.captioned import CORPORA, open_corpus
from aligncap.data.doctor import prepare
from aligncap.data.layouts import Fault, Kind
from aligncap.data.manifest import read_manifest
from aligncap.data.splits import Split
from data.test_doctor import faults_of
from support import corpora

Plant = Callable[[Path], object]


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


def another_line(file: str) -> Plant:
    """The last line of a label file once more."""

    def plant(source: Path) -> None:
        path = source / file
        text = path.read_text("utf-8")
        path.write_text(text + text.splitlines()[-1] + "\n", encoding="utf-8")

    return plant


def esd_sentence_torn(source: Path) -> None:
    file = next(source.rglob("0011.txt"))
    file.write_text(file.read_text() + "0011_00\tNo clip.\tSad\n")


def iemocap_unknown_code(source: Path) -> None:
    file = next(source.rglob("EmoEvaluation/Ses01F_impro01.txt"))
    file.write_text(file.read_text().replace("\texc\t", "\tjoy\t"))


LAYOUTS = {
    "emosec": Layout(
        "0011_000352.wav", "0011_000001.wav", "emosec esd", 20, True,
        copied("0011_000352.wav", "again/0011/Angry"),
        lambda s: (s / "merged_file.json").write_text("{"),
        "merged_file.json: not JSON in UTF-8",
    ),
    "mer2023": Layout(
        "sample_11.wav", "sample_21.wav", "mer2023", 8, True,
        another_line("test1-label.csv"),
        lambda s: corpora.table(s / "test1-label.csv", ("id", "label"), ("a", "b")),
        "test1-label.csv:1: has no column name, discrete (it has id, label)",
    ),
    "nnime": Layout(
        "angry_01_A_5.wav", "angry_01_B_5.wav", "nnime", 6, False,
        copied("angry_01_A_5.wav", "again"),
        lambda s: corpora.noise(s / "glad_01_A_1.wav"),
        "glad_01_A_1.wav: NNIME has no emotion glad",
    ),
    "secap": Layout(
        "tx_emulate_00_110_0001_000001.wav", "tx_emulate_00_111_0001_000002.wav", "secap", 4, True,
        another_line("wav.scp"),
        lambda s: corpora.lines(s / "text.txt", "tx_emulate_00_110_0001_000001"),
        "text.txt:1: 'tx_emulate_00_110_0001_000001' is one word",
    ),
    "esd": Layout(
        "0011_000352.wav", "0011_000001.wav", "esd 0011", 10, True,
        copied("0011_000352.wav", "again/0011/Angry"),
        esd_sentence_torn,
        "0011.txt:12: '0011_00\\tNo clip.\\tSad' is not",
    ),
    "iemocap": Layout(
        "Ses01F_impro01_M000.wav", "Ses01F_impro01_F000.wav", "iemocap Ses01", 3, True,
        copied("Ses01F_impro01_M000.wav", "again/Session1/sentences/wav/Ses01F_impro01"),
        iemocap_unknown_code,
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
        copied("03a01Fa.wav", "again"),
        lambda s: corpora.noise(s / "wav" / "03a01Xa.wav"),
        "03a01Xa.wav: EmoDB has no emotion X",
    ),
    "folder": Layout(
        "one.wav", "two.flac", "folder", 2, False,
        lambda s: corpora.noise(s / "one.flac"),
        lambda s: (s / "one.json").write_text('{"emotion": "joy"}'),
        "one.json: ",
    ),
}  # fmt: skip


@pytest.fixture(params=CORPORA)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def counts_of(name: str) -> dict[str, int]:
    """The miniature's; of a folder nobody knows any, so they are given by hand."""
    return dict(corpora.MINIATURES[name][1]) or {"all": 2}


def built(name: str, tmp_path: Path) -> Path:
    return corpora.MINIATURES[name][0](tmp_path / "src")


def planted(name: str, source: Path) -> Path:
    """The sound file that a fault is planted in."""
    return next(source.rglob(LAYOUTS[name].sound))


def found_in(source: Path, name: str, *, counts: dict[str, int]) -> list[Fault]:
    return faults_of(source, corpus=open_corpus(name), counts=counts)


def messages(faults: list[Fault], kind: Kind) -> list[str]:
    return [fault.message for fault in faults if fault.kind is kind]


def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    source = built(name, tmp_path)
    prepare(open_corpus(name), source, tmp_path / "out", counts={})
    file = planted(name, source)
    file.unlink()
    (said,) = faults_of(tmp_path / "out", counts={})
    assert said.kind is Kind.MISSING
    assert f"{file.name}: does not exist; fetch " in said.message
    before = found_in(source, name, counts={})
    if LAYOUTS[name].named:
        (missing,) = messages(before, Kind.MISSING)
        assert file.stem in missing
        assert "fetch" in missing
    else:
        assert before == []


def test_a_wrong_count_is_named(name: str, tmp_path: Path) -> None:
    source, layout, counts = built(name, tmp_path), LAYOUTS[name], counts_of(name)
    assert messages(found_in(source, name, counts=counts), Kind.COUNT) == []
    fewer = {part: count - (count == layout.count) for part, count in counts.items()}
    many = messages(found_in(source, name, counts=fewer), Kind.COUNT)
    more = f"{layout.part}: {layout.count} clips, 1 more than it has; take away what is not of it"
    assert more in many
    planted(name, source).unlink()
    (few,) = messages(found_in(source, name, counts=counts), Kind.COUNT)
    part, count = layout.part, layout.count
    assert few.startswith(f"{part}: {count - 1} of {count} clips can be used; fetch ")


def test_a_sound_under_two_names_is_named(name: str, tmp_path: Path) -> None:
    source = built(name, tmp_path)
    one, other = planted(name, source), next(source.rglob(LAYOUTS[name].other))
    shutil.copy(one, other)
    (said,) = messages(found_in(source, name, counts={}), Kind.DUPLICATE)
    assert one.name in said
    assert other.name in said
    assert "is the same sound as" in said


def test_an_id_that_comes_twice_is_named(name: str, tmp_path: Path) -> None:
    source = built(name, tmp_path)
    LAYOUTS[name].twice(source)
    (said,) = messages(found_in(source, name, counts={}), Kind.DUPLICATE)
    assert "is also that of" in said or "has a line before" in said
    assert "take one " in said


def test_a_clip_on_both_sides_is_named(name: str, tmp_path: Path) -> None:
    source, out = built(name, tmp_path), tmp_path / "out"
    prepare(open_corpus(name), source, out, counts={}, split=Split("random"))
    # So small a corpus may leave a part empty, which is told as well.
    assert messages(faults_of(out, counts={}), Kind.LEAK) == []
    parts = {part: list(read_manifest(out / part)) for part in ("train.jsonl", "test.jsonl")}
    here = max(parts, key=lambda part: len(parts[part]))
    (there,) = parts.keys() - {here}
    line = (out / here).read_text("utf-8").splitlines()[0]
    with (out / there).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    by_id, by_sound = messages(faults_of(out, counts={}), Kind.LEAK)
    clip = json.loads(line)["id"]
    assert f": {clip} is in {out}" in by_id
    if here == "train.jsonl":
        assert f": {clip} is in {out / here}:1 too" in by_id
    assert by_sound == f"sound {clip}: is in train.jsonl and test.jsonl; split the corpus anew"


def test_a_label_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    source, layout = built(name, tmp_path), LAYOUTS[name]
    layout.bad_label(source)
    found = found_in(source, name, counts={})
    assert {fault.kind for fault in found} == {Kind.LABEL}
    said = messages(found, Kind.LABEL)
    assert all(str(source) in message for message in said)
    assert layout.said in said[0]
