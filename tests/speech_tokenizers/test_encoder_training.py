"""Losses beside torch's and hand-worked numbers, labels, splits, and a run of a few steps."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from aligncap.data.manifest import Utterance, read_manifest, trusted_gender
from aligncap.data.splits import VALIDATION_SPEAKERS, is_validation
from aligncap.errors import DataError, RecipeError
from aligncap.prosody.measurement import MELS
from aligncap.tokenizers import encoder_training
from aligncap.tokenizers.builtin import Features
from aligncap.tokenizers.encoder_training import (
    UNKNOWN,
    EncoderCorpus,
    EncoderExample,
    EncoderSettings,
    balanced,
    emotion_loss,
    encoder_losses,
    gender_loss,
    label_clips,
    make_batch,
    pace_loss,
    prepare,
    signal_loss,
    train_encoder,
)
from aligncap.training.loop import read_log
from aligncap.training.settings import FitSettings
from speech_tokenizers.test_encoder import SIZE, clip_of, encoder

CORPORA = ("ravdess", "nemo", "emodb", "ased", "secap")


def test_emotion_loss_is_torchs_smoothed_cross_entropy():
    torch.manual_seed(0)
    logits, named = torch.randn(6, 8), torch.randint(0, 8, (6,))
    target = functional.one_hot(named, 8).float()
    expected = functional.cross_entropy(logits, named, label_smoothing=0.1)
    torch.testing.assert_close(emotion_loss(logits, target, 0.1), expected)


def test_rare_emotions_are_told_as_readily_as_frequent_ones():
    """By Bayes: at full weight, p(emotion | speech) over how often it was drawn."""
    model = encoder().eval()
    shares = np.array([0.5, 0.02, 0.08, 0.1, 0.1, 0.1, 0.1, 0.0])
    inputs = [clip_of(64, seed) for seed in (1, 2)]
    batch = make_batch(inputs, [EncoderExample("", 0, 0)] * 2, [1.0] * 2)
    with torch.no_grad():
        before = model(batch.views, batch.prosody, batch.mask).emotion.softmax(1)
        after = balanced(model, shares, 1.0)(batch.views, batch.prosody, batch.mask).emotion
        same = model(batch.views, batch.prosody, batch.mask).emotion.softmax(1)
    expected = before / torch.tensor([0.5, 0.02, 0.08, 0.1, 0.1, 0.1, 0.1, 1.0])
    torch.testing.assert_close(after.softmax(1), expected / expected.sum(1, keepdim=True))
    torch.testing.assert_close(same, before)


def test_shares_are_of_labelled_draws():
    clips = [
        EncoderExample("a", 3, 1),
        EncoderExample("a", 3, 1),
        EncoderExample("b", 6, 0),
        EncoderExample("b", UNKNOWN, 0),
    ]
    corpus = EncoderCorpus(None, clips, np.array([0.1, 0.2, 0.1, 0.6]), [])
    assert corpus.emotion_shares == pytest.approx([0, 0, 0, 0.75, 0, 0, 0.25, 0])


def test_a_clip_without_an_emotion_adds_nothing():
    torch.manual_seed(0)
    logits, target = torch.randn(4, 8), torch.eye(8)[:4]
    target[2:] = 0.0
    both = emotion_loss(logits, target, 0.1)
    torch.testing.assert_close(both, emotion_loss(logits[:2], target[:2], 0.1) / 2)


def test_gender_loss_is_the_mean_over_known_voices():
    logits = torch.tensor([0.0, 2.0, -1.0])
    loss = gender_loss(logits, torch.tensor([1.0, UNKNOWN, 0.0]))
    expected = (math.log(2) + math.log1p(math.exp(-1.0))) / 2
    assert float(loss) == pytest.approx(expected)
    assert float(gender_loss(logits, torch.full((3,), float(UNKNOWN)))) == 0.0


def test_pace_loss_leaves_out_what_could_not_be_measured_even_of_the_gradient():
    predicted = torch.tensor([1.0, 5.0, 2.0], requires_grad=True)
    loss = pace_loss(predicted, torch.tensor([1.5, float("nan"), 1.0]))
    assert float(loss.detach()) == pytest.approx((0.5 + 1.0) / 2)
    loss.backward()
    assert predicted.grad.tolist() == [-0.5, 0.0, 0.5]


def test_signal_loss_by_hand_over_tokens_that_are_heard():
    inputs = [clip_of(16, 1), clip_of(8, 2)]
    batch = make_batch(inputs, [EncoderExample("a", 0, 0)] * 2, [math.nan] * 2)
    with torch.no_grad():
        reading = encoder()(batch.views, batch.prosody, batch.mask)
    errors = []
    for row, token in ((0, 0), (0, 1), (1, 0)):
        here = slice(8 * token, 8 * token + 8)
        mean = np.concatenate(
            (inputs[row].views[0, here].mean(0), inputs[row].prosody[here].mean(0))
        )
        errors.append(np.mean((reading.signal[row, token].numpy() - mean) ** 2))
    assert float(signal_loss(reading, batch)) == pytest.approx(float(np.mean(errors)), rel=1e-4)


def test_the_loss_is_the_weighted_sum_of_its_parts(tmp_path):
    settings = settings_of(tmp_path, [])
    batch = make_batch([clip_of(24, 1)] * 2, [EncoderExample("a", 3, 1)] * 2, [3.0, 4.0])
    parts = {k: v.item() for k, v in encoder_losses(encoder(), batch, settings).items()}
    total = (
        parts["emotion"] + 0.3 * parts["gender"] + 0.1 * parts["pace"] + 0.5 * parts["signal"]
        + 0.25 * parts["commitment"]
    )  # fmt: skip
    assert parts["loss"] == pytest.approx(total, rel=1e-5)


def test_labels_come_from_the_corpus_or_else_from_the_caption():
    clip = Utterance("x", Path("x.wav"), corpus="made up", emotion="sad", gender="female",
                     captions=("Happy.",))  # fmt: skip
    captioned = replace(clip, emotion=None, gender="male")
    bare = replace(clip, emotion=None, gender=None, captions=())
    found, _, _ = label_clips([clip, captioned, bare], settings_of(Path("unused"), []))
    assert [(one.emotion, one.gender) for one in found] == [(6, 1), (4, 0), (UNKNOWN, UNKNOWN)]


@pytest.mark.parametrize(("speaker", "trusted"), [("ased_49", "male"), ("ased_50", None)])
def test_doubtful_genders_are_left_out(speaker, trusted):
    clip = Utterance("x", Path("x.wav"), corpus="ased", speaker=speaker, gender="male")
    assert trusted_gender(clip) == trusted
    assert trusted_gender(replace(clip, corpus="emodb")) == "male"


def made_up(path: Path) -> Features:
    """Twenty frames to thirty-nine that depend on the name."""
    chance = np.random.default_rng(sum(path.stem.encode()))
    frames = int(chance.integers(20, 40))
    mel = chance.normal(-4, 1, (frames, MELS)).astype(np.float32)
    return Features(mel, np.full(frames, 150, np.float32), np.full(frames, 0.8, np.float32))


def settings_of(folder: Path, data: list[Path], **changes: object) -> EncoderSettings:
    plain = {
        "data": tuple(data) or (folder / "manifest.jsonl",), "features": folder / "features",
        "shares": {"made up": 1.0}, "batch_size": 4, "model": SIZE, "quantize_after": 0,
        "evaluate_every": 2, "hold_out": ("s3",),
        "training": FitSettings(steps=3, learning_rate=1e-3, save_every=2, log_every=1),
    }  # fmt: skip
    return EncoderSettings(**{**plain, **changes})


def test_no_validation_speaker_is_taught(speech_data, tmp_path, monkeypatch):
    manifests = [speech_data / name / "manifest.jsonl" for name in CORPORA]
    heard: list[Path] = []

    def note(path: Path) -> Features:
        heard.append(path)
        nothing = np.zeros(1, np.float32)
        return Features(np.zeros((1, MELS), np.float32), nothing, nothing)

    monkeypatch.setattr(encoder_training, "measure_file", note)
    settings = settings_of(
        tmp_path, manifests, shares=dict.fromkeys(CORPORA, 1.0), hold_out=("ravdess_06",)
    )
    corpus = prepare(settings)
    everyone = {one.path: one for path in manifests for one in read_manifest(path)}
    taught = [everyone[path] for path in heard]
    assert not VALIDATION_SPEAKERS & {one.speaker for one in taught}
    assert not any(is_validation(one) for one in taught)
    assert {one.corpus for one in taught} == set(CORPORA)
    assert corpus.weights.sum() == pytest.approx(1.0)
    held_out = [n for n, one in enumerate(taught) if one.speaker == "ravdess_06"]
    assert list(corpus.held_out) == held_out
    assert np.flatnonzero(corpus.weights == 0).tolist() == held_out != []


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest of made-up clips, and the features they are said to have."""
    monkeypatch.setattr(encoder_training, "measure_file", made_up)
    # Exporting takes longer than all else here; `test_builtin` does it.
    monkeypatch.setattr("aligncap.tokenizers.encoder.export_encoder", lambda *_: None)
    rows = [
        {"id": f"c{n}", "file": f"c{n}.wav", "corpus": "made up", "speaker": f"s{n % 4}",
         "gender": ("female", "male")[n % 2], "emotion": ("sad", "happy", "angry")[n % 3]}
        for n in range(24)
    ]  # fmt: skip
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_broken_off_run_ends_as_one_that_was_not(corpus):
    settings = settings_of(corpus, [])
    whole = train_encoder(settings, corpus / "whole", resume=False)
    assert set(whole) == {"recall_made up", "gender_made up"}
    shorter = replace(settings, training=replace(settings.training, steps=2, schedule="constant"))
    longer = replace(settings, training=replace(settings.training, schedule="constant"))
    train_encoder(shorter, corpus / "parts", resume=False)
    train_encoder(longer, corpus / "parts", resume=True)
    train_encoder(longer, corpus / "once", resume=False)
    parts, once = (
        [line["loss"] for line in read_log(corpus / name) if "loss" in line]
        for name in ("parts", "once")
    )
    assert parts == pytest.approx(once, abs=0)
    assert len(once) == 3
    weights = [
        (corpus / name / "encoder/model.safetensors").read_bytes() for name in ("parts", "once")
    ]
    assert weights[0] == weights[1]


def test_where_every_speaker_is_held_out_nothing_can_be_taught(corpus):
    with pytest.raises(DataError, match="hold_out"):
        prepare(settings_of(corpus, [], hold_out=("s0", "s1", "s2", "s3")))


def test_a_recipe_without_data_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"data is .*at least 1"):
        replace(settings_of(tmp_path, []), data=())
