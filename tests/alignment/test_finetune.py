"""A model adapted to clips of one's own: from labels without torch, from captions with it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from aligncap.alignment.finetune import Raw, check_model, finetune, groups_of, recall_of
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
    assert report.language.captions + report.language.validation == 32
    assert (out / HEAD_FILE).is_file()
    assert read_meta(out).name == "own"
    assert load(out).caption(example_clips[0]).text
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["README.md", "aligncap.json", "ct2", HEAD_FILE, "encoder.onnx", "finetune.json",
         "tokenizer.json"]
    )  # fmt: skip


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
