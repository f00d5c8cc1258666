"""A model adapted to clips of one's own: from labels without torch, from captions with it."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from aligncap.alignment.examples import TrainingRow, read_rows
from aligncap.alignment.finetune import (
    LanguageReport,
    Raw,
    check_model,
    finetune,
    groups_of,
    hear,
    parts_of,
    plan,
    recall_of,
    write_own_rows,
)
from aligncap.captioner.captioner import load
from aligncap.captioner.checkpoint import find_encoder, read_meta
from aligncap.captioner.export import export
from aligncap.data.manifest import Utterance
from aligncap.data.own_clips import OwnClips, read_clips
from aligncap.errors import DataError
from aligncap.tokenizers.builtin import fingerprint_of, open_builtin
from aligncap.tokenizers.cache import TokenCache
from aligncap.tokenizers.emotion_head import HEAD_FILE, Clips
from aligncap.values import EMOTIONS, RATE_HZ
from cli.conftest import aligncap
from support.captioner import write_model
from support.signals import syllables

assert aligncap  # a fixture


def write_clips(folder: Path, *, count: int = 6, captions: bool = False) -> Path:
    """Voices of two speakers: fast and high where "angry", slow and low where "sad"."""
    for speaker, pitch_hz in (("ann", 150.0), ("bob", 145.0)):
        for emotion, rate_hz, factor in (("angry", 6.0, 1.4), ("sad", 2.5, 0.9)):
            for number in range(count):
                file = folder / speaker / emotion / f"{number}.wav"
                file.parent.mkdir(parents=True, exist_ok=True)
                pitch = pitch_hz * factor * (1 + number / 100)
                sound = syllables(rate_hz=rate_hz, length_s=1.0, pitch_hz=pitch)
                soundfile.write(file, sound, RATE_HZ)
                if captions:
                    text = f"Somebody sounds {emotion} indeed."
                    file.with_suffix(".txt").write_text(text + "\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tiny exported model; its encoder hears "sad" in everything, more or less."""
    folder = tmp_path_factory.mktemp("tiny")
    export(write_model(folder / "trained", hears=0.02), folder / "exported")
    return folder / "exported"


def test_labels_make_a_head_that_captions_use(tmp_path, model, example_clips):
    source = write_clips(tmp_path / "clips")
    for number in range(4):  # more of one emotion than of the other
        (source / "bob" / "sad" / f"{number}.wav").unlink()
    (source / "ann" / "sad" / "silent.wav").parent.mkdir(exist_ok=True)
    soundfile.write(source / "ann" / "sad" / "silent.wav", np.zeros(RATE_HZ), RATE_HZ)
    out = tmp_path / "own"
    report = finetune(read_clips(source), model, out, captions=False)
    assert report.head is not None
    assert report.head.emotions == {"angry": 12, "sad": 8}
    assert report.head.speakers == 2
    assert report.faults == (
        f"{source / 'ann' / 'sad' / 'silent.wav'}: nobody speaks in it; leave it out",
    )
    assert report.head.before.value == 0.5  # "sad" of everything
    meta = read_meta(out)
    assert meta.name == "own"
    assert meta.provenance["fine-tuned from"] == "tiny"
    assert meta.tokenizer.fingerprint == fingerprint_of(out / "encoder.onnx")
    assert meta.tokenizer.fingerprint != read_meta(model).tokenizer.fingerprint
    caption = load(out).caption(example_clips[0])
    rare = [name for name in EMOTIONS if name not in ("angry", "sad")]
    assert max(caption.emotion[name] for name in rare) < 0.05
    assert json.loads((out / "finetune.json").read_text("utf-8"))["clips"] == 20
    assert not (tmp_path / "own.work").exists()


def test_a_model_without_its_head_is_another_one(tmp_path, model):
    out = tmp_path / "own"
    finetune(read_clips(write_clips(tmp_path / "clips")), model, out, captions=False)
    again = tmp_path / "again"
    finetune(read_clips(tmp_path / "clips"), out, again, captions=False)
    # A head is fitted on the encoder itself, never on an earlier head.
    assert (again / HEAD_FILE).read_bytes() == (out / HEAD_FILE).read_bytes()
    assert read_meta(again).provenance["fine-tuned from"] == "own"
    (out / HEAD_FILE).unlink()
    with pytest.raises(DataError, match="its tokens mean something else"):
        load(out)


def test_a_head_that_does_not_help_is_not_written(tmp_path):
    export(write_model(tmp_path / "trained"), tmp_path / "deaf")
    out = tmp_path / "own"
    source = write_clips(tmp_path / "clips", count=5)
    report = finetune(read_clips(source), tmp_path / "deaf", out, captions=False)
    assert report.head is not None
    assert not report.head.kept
    assert "the labels did not help" in "\n".join(report.lines())
    assert not (out / HEAD_FILE).exists()
    assert read_meta(out).tokenizer == read_meta(tmp_path / "deaf").tokenizer


def test_what_was_heard_is_kept_when_a_run_is_stopped(tmp_path, model):
    source, out = write_clips(tmp_path / "clips", count=5), tmp_path / "own"
    found = read_clips(source)

    def interrupt(number: int) -> None:
        if number == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(found, model, out, captions=False, progress=interrupt)
    assert not out.exists()
    tokenizer = Raw(open_builtin(model), 30.0)
    with TokenCache(tmp_path / "own.work" / "tokens", tokenizer) as cache:
        assert len(cache) == 10
    finetune(found, model, out, captions=False)
    assert load(out).meta.name == "own"


@pytest.mark.slow
def test_captions_teach_the_language_model(tmp_path, model, example_clips):
    source = write_clips(tmp_path / "clips", count=8, captions=True)
    out = tmp_path / "own"
    report = finetune(read_clips(source), model, out, captions=True)
    assert report.language is not None
    assert report.language.kept
    assert report.language.after < report.language.before
    assert (report.language.captions, report.language.validation) == (16, 16)
    assert not report.language.met
    assert (out / HEAD_FILE).is_file()
    assert read_meta(out).name == "own"
    assert load(out).caption(example_clips[0]).text
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["README.md", "aligncap.json", "ct2", HEAD_FILE, "encoder.onnx", "finetune.json",
         "tokenizer.json"]
    )  # fmt: skip


def rows_of(source: Path, model: Path, work: Path) -> dict[str, list[TrainingRow]]:
    """The rows that the clips of a folder become, by split."""
    found = read_clips(source)
    heard = hear(found, open_builtin(model), work, max_speech_s=30.0)
    parts, _ = parts_of(heard.clips)
    rows = list(read_rows(write_own_rows(heard, heard.tokens, parts, model, work)))
    return {split: [one for one in rows if one.split == split] for split in ("train", "validation")}


def speakers_of(rows: list[TrainingRow]) -> Counter[str]:
    return Counter(one.id.split("/")[0] for one in rows)


def test_captions_of_one_speaker_are_learnt_from_and_those_of_another_held_out(tmp_path, model):
    source = write_clips(tmp_path / "clips", count=5, captions=True)
    for file in (source / "bob" / "sad").iterdir():  # fewer: nearer to a fifth
        file.unlink()
    rows = rows_of(source, model, tmp_path / "work")
    assert speakers_of(rows["train"]) == {"ann": 10}
    assert speakers_of(rows["validation"]) == {"bob": 5}
    # What is validated on is what people wrote; what is learnt from has both languages.
    assert {tuple(one.captions) for one in rows["validation"]} == {("en",)}
    assert {tuple(one.captions) for one in rows["train"]} == {("en", "zh")}


def test_captions_without_emotions_are_parted_alike(tmp_path, model):
    source = write_clips(tmp_path / "clips", count=5, captions=True)
    table = tmp_path / "clips.tsv"
    lines = ["id\tfile\tspeaker\tcaption"]
    for file in source.rglob("*.wav"):
        told = file.relative_to(source), file, file.relative_to(source).parts[0]
        lines.append("\t".join(map(str, (*told, "Somebody speaks."))))
    table.write_text("\n".join(lines) + "\n", "utf-8")
    assert read_clips(table).emotions == {}
    rows = rows_of(table, model, tmp_path / "work")
    found = [speakers_of(rows[split]) for split in ("train", "validation")]
    assert sorted(found, key=sorted) == [{"ann": 10}, {"bob": 10}]
    assert {tuple(one.captions) for part in rows.values() for one in part} == {("en",)}


def test_labels_and_captions_of_one_manifest_are_both_learnt_from(tmp_path, model):
    """Of three speakers one has labels only; of those with captions one is held out."""
    source = write_clips(tmp_path / "clips", count=5, captions=True)
    shutil.copytree(source / "ann", source / "cora")
    for text in (source / "cora").rglob("*.txt"):
        text.unlink()
    (source / "bob" / "sad" / "0.txt").unlink()  # held out, and with a label only
    rows = rows_of(source, model, tmp_path / "work")
    assert speakers_of(rows["train"]) == {"ann": 10, "cora": 10}
    assert speakers_of(rows["validation"]) == {"bob": 9}
    parts, met = parts_of(read_clips(source).clips)
    assert Counter(parts) == {"captions": 10, "written": 10, "validation": 9, "unused": 1}
    assert not met


@pytest.mark.parametrize("name", ["ann", "bob"])
def test_captions_of_one_speaker_only_are_parted_by_clip(tmp_path, model, name):
    source = write_clips(tmp_path / "clips", count=5, captions=True)
    for text in (source / name).rglob("*.txt"):
        text.unlink()
    other = "bob" if name == "ann" else "ann"
    rows = rows_of(source, model, tmp_path / "work")
    assert speakers_of(rows["train"]) == {name: 10, other: 8}
    assert speakers_of(rows["validation"]) == {other: 2}
    parts, met = parts_of(read_clips(source).clips)
    assert Counter(parts) == {"captions": 8, "written": 10, "validation": 2}
    assert met


def test_captions_of_unnamed_speakers_are_parted_by_clip():
    def named(speaker: str | None, count: int) -> list[Utterance]:
        clip = Utterance(id="a", path=Path("x"), speaker=speaker, captions=("Sad.",))
        return [clip] * count

    parts, met = parts_of([*named(None, 10), *named("a", 10)])
    assert (Counter(parts), met) == ({"captions": 16, "validation": 4}, True)
    parts, met = parts_of([one for name in "abcdefghij" for one in named(name, 2)])
    assert (Counter(parts), met) == ({"captions": 16, "validation": 4}, False)
    parts, met = parts_of([one for name in "abcdefghij" for one in named(name, 1)])
    assert (Counter(parts), met) == ({"captions": 8, "validation": 2}, False)


def test_what_captions_did_is_told_with_what_was_left_out():
    known = {"captions": 8, "written": 10, "validation": 2, "before": 2.0, "after": 1.0}
    report = LanguageReport(**known, unused=3, met=True, kept=True)
    told = "\n".join(report.lines())
    assert "captions of 2 held-out clips: 2.00 nats a token before, 1.00 after" in told
    assert "(8 clips with captions learnt from, 10 with a label only)" in told
    assert "3 clips with a label only are of the speakers held out, and were not learnt" in told
    assert "fewer than two speakers with captions are known" in told
    assert len(list(LanguageReport(**known, unused=0, met=False, kept=True).lines())) == 1


def test_labels_alone_leave_the_language_model(tmp_path, model):
    source = write_clips(tmp_path / "clips", count=5)
    report = finetune(read_clips(source), model, tmp_path / "own", captions=True)
    assert report.head is not None
    assert (report.language, report.few_captions) == (None, 0)
    (source / "ann" / "sad" / "0.txt").write_text("A sad voice.\n", "utf-8")
    few = finetune(read_clips(source), model, tmp_path / "few", captions=True)
    line = "the language model stays: 1 clips have captions, and it takes 20"
    assert line in list(few.lines())
    assert line in list(plan(read_clips(source), captions=True))


@pytest.mark.slow
def test_captions_of_one_speaker_only_teach_and_are_told(tmp_path, model):
    source = write_clips(tmp_path / "clips", count=11, captions=True)
    for text in (source / "ann").rglob("*.txt"):
        text.unlink()
    report = finetune(read_clips(source), model, tmp_path / "own", captions=True)
    assert report.language is not None
    assert (report.language.captions, report.language.written) == (18, 22)
    assert (report.language.validation, report.language.unused) == (4, 0)
    assert "fewer than two speakers with captions are known" in "\n".join(report.lines())


def test_captions_that_the_model_cannot_read_are_one_line(tmp_path, model, monkeypatch):
    monkeypatch.setattr("aligncap.alignment.trainer.max_positions", lambda _: 500)
    source = write_clips(tmp_path / "clips", count=11, captions=True)
    for text in (source / "bob").rglob("*.txt"):
        text.write_text("Somebody sounds " + "very " * 200 + "sad.\n", "utf-8")
    (source / "bob" / "sad" / "0.txt").unlink()  # fewer, so that bob is held out
    with pytest.raises(DataError, match=r"can read none of the \d+ clips held out.*--labels-only"):
        finetune(read_clips(source), model, tmp_path / "own", captions=True)


def test_labels_need_no_torch():
    code = (
        "import sys, aligncap.alignment.finetune, aligncap.cli.train;"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_speakers_are_left_out_together_only_where_all_are_known():
    def named(*speakers: str | None) -> list[int]:
        clips = [Utterance(id=str(n), path=Path("x"), speaker=s) for n, s in enumerate(speakers)]
        return groups_of(clips).tolist()

    assert named("b", "a", "b") == [1, 0, 1]
    assert named("b", None, "b") == [0, 1, 2]
    assert named("b", "b", "b") == [0, 1, 2]


def test_recall_is_the_mean_over_emotions_and_its_interval_is_over_speakers():
    labels, groups = np.array([0, 0, 0, 3, 3, 3]), np.array([0, 0, 1, 0, 1, 1])
    clips = Clips(np.zeros((6, 8)), np.zeros((6, 1)), labels, groups)
    found = recall_of(np.array([1.0, 1.0, 0.0, 0.0, 1.0, 0.0]), clips)
    assert found.value == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert found.low is not None
    # Of a speaker alone: (1 + 0) / 2, and (0 + 1/2) / 2.
    assert found.low == pytest.approx(0.25)
    assert found.high == pytest.approx(0.5)


def test_a_model_of_another_tokenizer_and_one_that_is_not_exported_are_refused(tmp_path):
    with pytest.raises(DataError, match="is not exported; run: aligncap export"):
        check_model(write_model(tmp_path / "trained"))


def test_an_encoder_is_found_by_its_fingerprint(tmp_path, model):
    own = fingerprint_of(model / "encoder.onnx")
    assert find_encoder(own, [tmp_path, model]) == model
    shipped = open_builtin().fingerprint
    assert find_encoder(shipped, [model]) == open_builtin()._path.parent
    assert find_encoder("0" * 64, [model]) is None


def test_the_verb_says_what_there_is_and_what_it_gained(tmp_path, model, aligncap):
    source, out = write_clips(tmp_path / "clips", count=5), tmp_path / "own"
    options = ("finetune", source, "--out", out, "--model", model)
    plan = aligncap(*options, "--dry-run")
    assert plan.code == 0
    assert "20 clips, 2 speakers: 10 angry, 10 sad; 0 with captions; 0 cannot be used" in plan.out
    assert not out.exists()
    (source / "ann" / "sad" / "9.wav").write_bytes(b"no sound")
    ran = aligncap(*options)
    assert ran.code == 1
    assert "emotion recall on held-out speakers: " in ran.out
    assert f"aligncap caption FILE --model {out}" in ran.out
    assert ran.err.startswith(f"aligncap: {source / 'ann' / 'sad' / '9.wav'}: ")
    aligncap(*options).refused("--overwrite")
    shutil.rmtree(source / "bob")
    shutil.rmtree(source / "ann" / "sad")
    aligncap(*options, "--overwrite").refused("every clip is angry")


def test_own_clips_count_speakers_only_where_each_names_one():
    clip = Utterance(id="a", path=Path("a"), speaker="x")
    assert OwnClips((clip,), ()).speakers == 1
