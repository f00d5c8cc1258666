"""corpus, tokens, train, merge, export: what is printed, and one line for what goes wrong."""

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from aligncap.cli.train import CORPORA as VERBS
from aligncap.data.captioned import CORPORA
from support import corpora
from support.killer import finish, start


def test_every_corpus_is_a_verb(aligncap, capsys) -> None:
    assert list(VERBS) == list(CORPORA)
    assert aligncap("corpus", "--help").code == 0
    page = capsys.readouterr().out
    assert all(f"  {name} " in page for name in (*CORPORA, "split", "doctor"))


def test_a_corpus_is_prepared_split_and_well(aligncap, tmp_path: Path) -> None:
    corpora.esd(tmp_path / "ESD")
    out = tmp_path / "out"
    options = ("--out", out, "--split", "random", "--subset", "--salt", "0")
    ran = aligncap("corpus", "esd", tmp_path / "ESD", *options)
    assert (ran.code, ran.err) == (0, "")
    first, split, leaks = ran.out.splitlines()
    assert first.startswith(f"{out / 'manifest.jsonl'}: 20 clips, 0.00 h, 2 speakers, 0 captions")
    assert first.endswith("16,000 Hz; faults: none")
    assert split.startswith("split by random, salt '0': train.jsonl ")
    assert leaks.startswith("in more than one part: 1 speakers, 2 sentences, ")
    assert aligncap("corpus", "doctor", out, "--subset").code == 0
    assert aligncap("corpus", "doctor", tmp_path / "ESD", "--corpus", "esd", "--subset").code == 0


def test_faults_are_said_counted_and_exit_with_1(aligncap, tmp_path: Path) -> None:
    source, out = corpora.emosec(tmp_path / "src"), tmp_path / "out"
    captions = json.loads((source / "merged_file.json").read_text())
    captions |= {f"0020_{number:06}": ["One."] for number in range(8)}
    (source / "merged_file.json").write_text(json.dumps(captions))
    ran = aligncap("corpus", "emosec", source, "--out", out, "--subset")
    assert ran.code == 1
    said = ran.err.splitlines()
    assert len(said) == 6
    assert all(line.startswith("aligncap: missing: 0020_") for line in said[:5])
    assert said[5] == f"aligncap: missing: 3 more are in {out / 'faults.txt'}"
    assert len((out / "faults.txt").read_text().splitlines()) == 8
    assert "faults: 8 missing" in ran.out


def test_the_doctor_prints_every_fault(aligncap, tmp_path: Path) -> None:
    source = corpora.emodb(tmp_path / "src")
    (source / "wav" / "03a01Fa.wav").write_bytes(b"")
    ran = aligncap("corpus", "doctor", source, "--corpus", "emodb", "--quick")
    assert (ran.code, ran.err) == (1, "")
    broken, count, summary = ran.out.splitlines()
    assert broken == f"broken: {source}/wav/03a01Fa.wav: is empty; copy or export it again"
    assert count.startswith("count: emodb: 3 of 535 clips can be used; fetch download.zip")
    assert summary.endswith("faults: 1 broken, 1 count")


def test_a_manifest_is_split(aligncap, tmp_path: Path) -> None:
    rows = [{"file": f"{n}.wav", "speaker": f"s{n % 50}"} for n in range(500)]
    manifest = corpora.lines(tmp_path / "m.jsonl", *map(json.dumps, rows))
    how = ("--by", "speaker", "--salt", "57", "-o", tmp_path / "parts")
    ran = aligncap("corpus", "split", manifest, *how)
    assert ran.code == 0
    assert "in more than one part: 0 speakers" in ran.out
    assert sum(len(f.read_text().splitlines()) for f in (tmp_path / "parts").iterdir()) == 500
    first = json.loads((tmp_path / "parts" / "train.jsonl").read_text().splitlines()[0])
    assert first["file"].startswith("../")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["corpus", "esd", "nowhere", "-o", "out"], "nowhere: no such folder"),
        (["corpus", "doctor", "nowhere"], "say which: --corpus NAME"),
        (["corpus", "doctor", "nowhere", "--corpus", "esb"], "did you mean 'esd'"),
        (["corpus", "split", "m.jsonl", "-o", "out"], "m.jsonl: cannot read the manifest"),
        (["tokens", "rows", "--tokenizer", "mimo", "--output", "out"], "did you mean 'mimi'"),
        (["export", "nowhere", "out"], "nowhere"),
        (["merge", "nowhere", "out"], "nowhere"),
        (["train", "no.toml"], "no.toml"),
    ],
)
def test_a_mistake_is_one_line(aligncap, arguments, message, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows").touch()
    aligncap(*arguments).refused(message)


HELD_RUN = """
import io, sys
from aligncap.cli.main import main
from aligncap.cli.console import Console
from support.killer import hold

class Held(io.StringIO):
    def flush(self):
        said = self.getvalue()
        self.seek(self.truncate(0))
        sys.stderr.write(said)
        sys.stderr.flush()
        if "broken" in said:
            hold()

sys.exit(main(sys.argv[1:], console=Console(stderr=Held())))
"""


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_read(aligncap, tmp_path: Path) -> None:
    """A run that has said of the last file that it is broken is stopped there."""
    source, out = tmp_path / "src", tmp_path / "out"
    for number in range(30):
        corpora.noise(source / f"{number:02}.wav", length_s=0.11)
    (source / "30.wav").write_bytes(b"")
    process = start("-c", HELD_RUN, "corpus", "folder", source, "-o", out)
    assert process.stderr
    assert "30.wav: is empty" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, said = finish(process, 130)
    assert said == "aligncap: stopped; what was read so far is kept; the same command goes on\n"
    assert not (out / "manifest.jsonl").exists()
    with closing(sqlite3.connect(out / "sounds.sqlite")) as book:
        assert book.execute("SELECT count(*) FROM sounds").fetchone() == (30,)
    (source / "30.wav").unlink()
    assert "30 clips" in aligncap("corpus", "folder", source, "-o", out).out
