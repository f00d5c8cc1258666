"""Training of the built-in encoder: labels, batches, losses, a run that is stopped, its plan."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.spatial.distance import jensenshannon
from transformers import WhisperForConditionalGeneration

from aligncap.audio.activity import AROUND_S
from aligncap.data.manifest import Utterance
from aligncap.errors import DataError
from aligncap.tokenizers import encoder_training as training
from aligncap.tokenizers.augmentation import Views
from aligncap.tokenizers.encoder import Reading, SpeechEncoder
from aligncap.tokenizers.encoder_training import UNKNOWN, LossWeights
from aligncap.training.loop import read_log
from aligncap.training.settings import FitSettings
from aligncap.values import RATE_HZ, Waveform
from speech_tokenizers.test_encoder import SIZE

RANDOM, CPU = np.random.default_rng(5), torch.device("cpu")


def clip(number: int = 0, **changes: object) -> Utterance:
    plain = {"id": f"c{number}", "path": Path(f"c{number}.wav"), "corpus": "made up",
             "language": "en", "speaker": "s0", "emotion": "sad", "gender": "female"}  # fmt: skip
    return Utterance(**{**plain, **changes})


def test_labels_by_hand():
    found = training.labels_of(
        [
            clip(text="Say the word bean."),
            clip(emotion=None, gender=None, speaker=None, arousal="high", language="ar"),
            clip(emotion="neutral", label="calm", intensity="strong", gender="male"),
            clip(emotion=None, vocalization="coughing"),
        ]
    )
    assert found["emotion"].tolist() == [6, UNKNOWN, 5, UNKNOWN]
    assert found["female"].tolist() == [1, UNKNOWN, 0, 1]
    assert found["vocalization"].tolist() == [0, 0, 0, 1]
    assert found["syllables"].tolist() == [4, 0, 0, 0]
    assert found["arousal"].tolist() == pytest.approx([-0.5, 0.7, -0.2 - 0.3 + 0.15, 0.0])
    assert found["arousal_weight"].tolist() == [0.5, 1.0, 0.5, 0.0]


class TestSampler:
    CLIPS = (
        *(clip(n, emotion=("sad", "sad", "sad", "happy")[n % 4]) for n in range(40)),
        *(clip(n, speaker="s1") for n in range(40, 52)),
        *(clip(n, corpus="small", speaker=f"t{n}") for n in range(52, 55)),
    )

    def sampler(self, **shares: float) -> training.Sampler:
        settings = settings_of(Path("unused"), shares=shares, speakers=6, clips=4)
        return training.Sampler(self.CLIPS, settings)

    def test_clips_of_a_group_are_different_ones_of_one_speaker(self):
        sampler = self.sampler(**{"made up": 1.0, "small": 0.3})
        for number in range(20):
            chosen, groups = sampler(number)
            assert len(chosen) == len(groups) == 24
            for group in {*groups} - {UNKNOWN}:
                of_one = [c for c, g in zip(chosen, groups, strict=True) if g == group]
                assert len({self.CLIPS[c].speaker for c in of_one}) == 1
                assert len(set(of_one)) == 4
            mixed = {self.CLIPS[c].corpus for c, g in zip(chosen, groups, strict=True) if g < 0}
            assert mixed <= {"small"}
        assert sampler(3) == sampler(3)
        assert sampler(3) != sampler(4)

    def test_corpora_come_by_their_shares_and_rare_emotions_more_often_than_they_are(self):
        sampler = self.sampler(**{"made up": 3.0, "small": 1.0})
        drawn = [c for number in range(400) for c in sampler(number)[0]]
        small = np.mean([self.CLIPS[c].corpus == "small" for c in drawn])
        assert small == pytest.approx(0.25, abs=0.03)
        of_one = [self.CLIPS[c].emotion for c in drawn if c < 40]
        # A quarter are happy; weights go with the inverse root of the corpus' 42 and 10.
        assert 0.27 < np.mean([emotion == "happy" for emotion in of_one]) < 0.5

    def test_a_corpus_without_a_share_is_named(self):
        with pytest.raises(DataError, match="corpus 'small' has no share"):
            self.sampler(**{"made up": 1.0})


def test_mates_are_the_others_of_a_group():
    found = training.speaker_mates(torch.tensor([0, 0, UNKNOWN, UNKNOWN, 4, 0]))
    expected = np.zeros((6, 6), bool)
    for one, other in ((0, 1), (0, 5), (1, 5)):
        expected[one, other] = expected[other, one] = True
    assert np.array_equal(found, expected)


class TestLosses:
    def reading(self, batch: int = 4) -> Reading:
        torch.manual_seed(0)
        return Reading(
            torch.randn(batch, 8), torch.randn(batch), torch.randn(batch, 11), torch.rand(batch)
        )

    def test_the_divergence_of_views_is_scipys(self):
        logits = self.reading().emotion
        p = logits.double().softmax(1).numpy()
        expected = np.mean([jensenshannon(p[n], p[n + 2]) ** 2 for n in range(2)])
        assert float(training.view_divergence(logits)) == pytest.approx(expected, rel=1e-5)
        assert float(training.view_divergence(logits[:2].repeat(2, 1))) == pytest.approx(
            0, abs=1e-6
        )

    def test_a_reading_by_hand(self):
        reading, weights = self.reading(), LossWeights()
        labels = {
            "emotion": torch.tensor([3, UNKNOWN, 5, 0]), "female": torch.tensor([1, 0, UNKNOWN, 1]),
            "vocalization": torch.tensor([0, 2, 0, 0]),
            "arousal": torch.tensor([0.5, 0, -0.2, 0.9]),
            "arousal_weight": torch.tensor([1.0, 0.0, 0.5, 0.5]),
        }  # fmt: skip
        ratio = torch.tensor([1.0, 1.0, 1.0, 1.3])  # the last voice is another's
        found = training.reading_losses(reading, labels, ratio, weights)
        log_p = reading.emotion.log_softmax(1).numpy()
        emotion = -np.mean(
            [0.9 * log_p[n, e] + 0.1 * log_p[n].mean() for n, e in ((0, 3), (2, 5), (3, 0))]
        )
        female = 1 / (1 + np.exp(-reading.female.numpy()))
        gender = -(np.log(female[0]) + np.log(1 - female[1])) / 4
        sounds = reading.vocalization.log_softmax(1).numpy()
        vocal = -np.mean([sounds[n, v] for n, v in enumerate((0, 2, 0, 0))])
        apart = np.abs(reading.arousal.numpy() - labels["arousal"].numpy())
        huber = np.where(apart < 0.3, apart**2 / 0.6, apart - 0.15)
        arousal = np.mean(huber * labels["arousal_weight"].numpy())
        same = float(training.view_divergence(reading.emotion))
        assert float(found["emotion"]) == pytest.approx(emotion, rel=1e-5)
        assert float(found["loss"]) == pytest.approx(
            emotion + same + 0.25 * gender + 0.4 * vocal + 0.5 * arousal, rel=1e-4
        )

    def test_syllables_by_hand(self):
        predicted = torch.tensor([7.0, 3.0, 5.0, 9.0])
        counted = torch.tensor([10, 3, 2, 9])
        whole = torch.tensor([True, True, True, False])
        found = float(training.syllable_loss(predicted, counted, whole))
        assert found == pytest.approx(abs(math.log(0.7)) / 2, rel=1e-5)
        assert float(training.syllable_loss(predicted, 0 * counted, whole)) == 0

    @torch.no_grad()
    def test_the_loss_is_the_weighted_sum_over_readouts(self, tmp_path):
        torch.manual_seed(0)
        model = SpeechEncoder(SIZE).eval()
        mask = torch.ones(4, 64, dtype=torch.bool)
        views = Views(torch.randn(4, 64, 80), mask, torch.ones(4), torch.ones(4, dtype=torch.bool))
        labels = training.labels_of([clip(text="a big dog"), clip(emotion="angry")] * 2)
        batch = training.EncoderBatch(views, torch.full((4,), UNKNOWN), labels)
        found = training.encoder_losses(model, batch, settings_of(tmp_path))
        encoded = model(views.mel, mask)
        total = 0.3 * encoded.commitment + 0.5 * found["syllables"]
        for stage, weight in ((0, 1.0), (1, 0.6), (2, 0.6)):
            reading = model.read(encoded, stage)
            one = training.reading_losses(reading, labels, views.voice_ratio, LossWeights())
            total = total + weight * one["loss"]
            assert float(one["emotion"]) == pytest.approx(
                float(found[f"emotion_{stage}"]), rel=1e-4
            )
        assert float(found["loss"]) == pytest.approx(float(total), rel=1e-4)


def settings_of(folder: Path, **changes: object) -> training.EncoderSettings:
    plain = {
        "data": (folder / "manifest.jsonl",), "waveforms": folder / "waveforms",
        "shares": {"made up": 1.0}, "speakers": 2, "clips": 2, "longest_s": 0.4, "model": SIZE,
        "evaluate_every": 2, "hold_out": ("s3",), "start": "nowhere/whisper",
        "training": FitSettings(precision="float32", steps=3, learning_rate=1e-3, save_every=2,
                                log_every=1,
                                schedule="constant", rate_shares={"whisper.": 0.1}),
    }  # fmt: skip
    return training.EncoderSettings(**{**plain, **changes})


def write_corpus(folder: Path) -> None:
    """24 clips: a third is of a speaker that no model is trained on, a third of s3."""
    rows = [
        {"id": f"c{n}", "file": f"c{n}.wav", "corpus": "made up", "duration": 0.3,
         "gender": ("female", "male")[n % 2], "speaker": ("s0", "s3", "ravdess_05")[n % 3],
         "emotion": ("sad", "happy", "angry", "neutral")[n % 4]}
        for n in range(24)
    ]  # fmt: skip
    rows.append({**rows[0], "id": "tested", "speaker": "ravdess_03"})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "manifest.jsonl").write_text(text)
    for row in rows:
        samples = 0.1 * RANDOM.standard_normal(4800)
        soundfile.write(folder / row["file"], samples, 16_000, subtype="PCM_16")


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, whisper, monkeypatch):
    # Exporting takes longer than all else here; `test_encoder` does it.
    monkeypatch.setattr("aligncap.tokenizers.encoder.export_encoder", lambda *_: None)
    write_corpus(tmp_path)
    longer = settings_of(tmp_path, start=str(whisper))
    shorter = replace(longer, training=replace(longer.training, steps=2))
    training.train_encoder(shorter, tmp_path / "parts", resume=False)
    training.train_encoder(longer, tmp_path / "parts", resume=True)
    scores = training.train_encoder(longer, tmp_path / "once", resume=False)
    assert set(scores) == {"recall_made up", "recall_made up_tokens"}
    (parts, weights), (once, same_weights) = (
        (
            [line["loss"] for line in read_log(tmp_path / name) if "loss" in line],
            (tmp_path / name / "encoder/model.safetensors").read_bytes(),
        )
        for name in ("parts", "once")
    )
    assert parts == once
    assert len(once) == 3
    assert weights == same_weights


def test_it_starts_from_whisper_whose_convolutions_stay_and_steps_are_smaller(tmp_path, whisper):
    model = training.new_encoder(settings_of(tmp_path, start=str(whisper)))
    theirs = WhisperForConditionalGeneration.from_pretrained(whisper).get_encoder()
    assert torch.equal(model.whisper.second.weight, theirs.conv2.weight)
    assert torch.equal(model.whisper.layers[0].wide.weight, theirs.layers[0].fc1.weight)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {f"whisper.{n}.{p}" for n in ("first", "second") for p in ("weight", "bias")}
    wide = replace(SIZE, whisper_width=128)
    with pytest.raises(DataError, match="has 64 channels, not 128; set"):
        training.new_encoder(settings_of(tmp_path, start=str(whisper), model=wide))


def test_sounds_that_no_person_makes_are_told_by_their_vectors():
    torch.manual_seed(0)
    model = SpeechEncoder(SIZE).eval()
    noise = [0.1 * RANDOM.standard_normal(4800) for _ in range(12)]
    tones = [np.sin(np.arange(4800) * RANDOM.uniform(0.2, 0.5)) / 3 for _ in range(12)]
    people, sounds = (
        training.vectors_of(
            model,
            training.as_recordings([Waveform(one.astype(np.float32)) for one in some], CPU),
        )[0]
        for some in (noise, tones)
    )
    training.tell_sounds(model, people, sounds)
    novelty = []
    with torch.no_grad():
        for one in (*noise, *tones):
            mel = training.as_input(torch.from_numpy(np.rint(one * 32767).astype(np.int16)))
            encoded = model(mel, torch.ones(mel.shape[:2], dtype=torch.bool))
            vector = model.readouts[0].pool(encoded.stages[0], encoded.mask)
            model.distances.copy_(torch.linspace(1e6, 2e6, len(model.distances)))  # all familiar
            novelty.append(float(model.novelty(vector)))
    assert novelty == [0.0] * 12 + [1.0] * 12


def test_the_scale_of_syllables_by_hand():
    spoken, heard = torch.tensor([4, 6, 9, 2, 0]), np.array([2.0, 4.0, 9.0, 9.0, 5.0], np.float32)
    assert training.syllable_scale(spoken, heard) == pytest.approx(1.5)  # of 2, 1.5 and 1
    assert training.syllable_scale(spoken[3:], heard[3:]) == 1.0


def plan_of(settings: training.EncoderSettings) -> dict:
    return json.loads(json.dumps(training.plan(settings, Path("unused"))))


def test_a_run_is_what_was_planned_and_no_kept_speaker_is_in_it(tmp_path):
    write_corpus(tmp_path)
    settings = settings_of(tmp_path)
    found = plan_of(settings)
    assert found["loads"][0]["present"]
    assert found["notes"][0] == "8 clips to train on"
    memory = found["memory_bytes"]
    assert memory["total"] == sum(value for key, value in memory.items() if key != "total")
    assert found["disk_bytes"]["waveforms"] == 8 * 4800 * 2
    train, evaluated = training.read_clips(settings.data, settings.hold_out)
    assert {one.speaker for one in train} == {"s0"}
    assert {one.speaker for one in evaluated} == {"s3", "ravdess_05"}
    paths = [one.path for one in train]
    store = training.store_waveforms(settings.waveforms, paths, training.load_utterance)
    # All of a clip is its utterance, and nothing is around it.
    around = round(AROUND_S * RATE_HZ)
    assert store.lengths.tolist() == [4800 + 2 * around] * 8
    first, _ = soundfile.read(train[1].path, dtype="int16")
    start = store.starts[1] + around
    assert np.abs(store.samples[start : start + 4800] - first).max() <= 1


def test_a_missing_manifest_is_named_and_one_that_does_not_fit_refused(tmp_path):
    settings = settings_of(tmp_path)
    found = plan_of(settings)
    assert not found["loads"][0]["present"]
    assert found["disk_bytes"]["waveforms"] is None
    assert "not here" in found["notes"][0]
    write_corpus(tmp_path)
    with pytest.raises(DataError, match="corpus 'made up' has no share"):
        plan_of(replace(settings, shares={"another": 1.0}))
    with pytest.raises(DataError, match="no clip is left"):
        plan_of(replace(settings, hold_out=("s0", "s3")))
