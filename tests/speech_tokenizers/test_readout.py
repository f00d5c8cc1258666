"""The encoder's second readout: its statistics by hand, its batches, and a run of its training."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch import nn

from aligncap.data.manifest import Utterance
from aligncap.errors import DataError
from aligncap.tokenizers import readout_training as training
from aligncap.tokenizers.encoder import EncoderConfig, SpeechEncoder, load_encoder, save_encoder
from aligncap.tokenizers.readout_training import ReadoutBatches, ReadoutSettings
from aligncap.tokenizers.statistics import StatisticsReadout, distribution
from aligncap.training.settings import FitSettings
from aligncap.values import EMOTIONS

SIZE = EncoderConfig(whisper_width=64, layers=1, width=32, heads=2, codebook_size=16,
                     code_width=8, hidden=16, landmarks=3)  # fmt: skip


class TestDistribution:
    def test_by_hand_over_spans_in_which_somebody_speaks(self):
        vectors = torch.tensor([1.0, 3, 1, 3, 8, 8, 8, 8, 4, 4, 4, 4])[None, :, None]
        mel = torch.full((1, 24, 80), 1.0)
        mel[:, 8:16] = 0.0  # 4 decades of power below
        found = distribution(vectors, mel, torch.ones(1, 24, dtype=torch.bool))
        assert found.tolist() == [[3.0, 1.0]]  # spans of mean 2 and 4

    def test_what_is_beyond_the_clip_does_not_count(self):
        vectors, mel = torch.randn(1, 12, 5), torch.rand(1, 24, 80)
        mask = torch.ones(1, 24, dtype=torch.bool)
        alone = distribution(vectors, mel, mask)
        padded = distribution(
            torch.cat((vectors, 50 + torch.randn(1, 8, 5)), 1),
            torch.cat((mel, 5 + torch.rand(1, 16, 80)), 1),
            torch.cat((mask, torch.zeros(1, 16, dtype=torch.bool)), 1),
        )
        torch.testing.assert_close(alone, padded)


def test_beside_a_baseline_the_distance_counts_whole_and_the_clip_itself_less():
    torch.manual_seed(0)
    readout = StatisticsReadout(6, 8).eval()
    readout.within.fill_(2.0)
    clip, baseline = torch.randn(2, 6), torch.randn(2, 6)
    own, distance = readout.features(clip, baseline)
    torch.testing.assert_close(own, clip)
    torch.testing.assert_close(distance, (clip - baseline) / 2)
    found = readout(clip, baseline, torch.tensor([0.0, 1.0])).softmax(1)
    alone, against = readout.alone(clip).softmax(1), readout.against(distance).softmax(1)
    torch.testing.assert_close(found[0], alone[0])
    product = against[1] * alone[1] ** 0.3
    torch.testing.assert_close(found[1], product / product.sum())


def test_another_microphone_does_not_change_what_is_heard_against_a_baseline():
    torch.manual_seed(0)
    readout = StatisticsReadout(6, 8).eval()
    clip, baseline, microphone = torch.randn(3, 3, 6).unbind()
    _, distance = readout.features(clip, baseline)
    _, moved = readout.features(clip + microphone, baseline + microphone)
    torch.testing.assert_close(readout.against(moved), readout.against(distance))


def test_the_encoders_own_readout_counts_otherwise_beside_a_baseline():
    torch.manual_seed(0)
    readout = StatisticsReadout(6, 8)
    readout.share.copy_(torch.tensor([0.4, 0.1]))
    logits, others = torch.randn(2, 8), torch.randn(2, 8)
    found = readout.joined(logits, others, torch.tensor([0.0, 1.0])).softmax(1)
    for row, power in enumerate((0.4, 0.1)):
        product = logits[row].softmax(0) * others[row].softmax(0) ** power
        torch.testing.assert_close(found[row], product / product.sum())


def clips(count: int = 60) -> list[Utterance]:
    """Two corpora, one of them three times as large; six speakers, four emotions."""
    return [
        Utterance(
            id=f"c{n}", path=Path(f"{n}.wav"), corpus="small" if n % 4 == 0 else "large",
            speaker=f"s{n % 6}", emotion=("sad", "happy", "angry", "neutral")[n // 6 % 4],
        )
        for n in range(count)
    ]  # fmt: skip


SETTINGS = ReadoutSettings(
    encoder=Path("encoder"), data=(Path("m"),), shares={"small": 1.0, "large": 1.0},
    waveforms=Path("w"), batch_size=400, training=FitSettings(steps=1, learning_rate=1e-3),
)  # fmt: skip


class TestBatches:
    def test_corpora_are_drawn_by_their_shares(self):
        weights = training.sampling_weights(clips(), {"small": 3.0, "large": 1.0})
        small = sum(w for w, one in zip(weights, clips(), strict=True) if one.corpus == "small")
        assert small == pytest.approx(0.75)
        with pytest.raises(DataError, match="corpus 'small' has no share"):
            training.sampling_weights(clips(), {"large": 1.0})

    def test_a_baseline_is_of_the_speakers_other_clips_in_the_same_copy(self):
        rows = clips()
        speaker = np.array([int(str(one.speaker)[1:]) for one in rows], np.float32)
        # A clip's statistics: its own number, its speaker, and the copy.
        copies = [
            np.stack((np.arange(60, dtype=np.float32), speaker, np.full(60, n, np.float32)), 1)
            for n in range(2)
        ]
        batch = ReadoutBatches(rows, copies, SETTINGS)(3)
        based = batch.based.bool()
        assert 0.8 < batch.based.mean() < 0.98
        own, baseline = batch.statistics[based], batch.baseline[based]
        assert torch.equal(own[:, 1:], baseline[:, 1:])
        assert not torch.isclose(own[:, 0], baseline[:, 0]).all()
        assert not batch.baseline[~based].any()
        assert torch.equal(batch.based, batch.based[batch.partner])
        shares = Counter(batch.statistics[:, 2].tolist())
        assert 1.4 < shares[0.0] / shares[1.0] < 2.8
        first = [EMOTIONS[int(place)] for place in batch.emotion.argmax(1)]
        assert first == [rows[int(number)].emotion for number in batch.statistics[:, 0]]

    def test_they_depend_on_their_number_only(self):
        copies = [np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)]
        once, again = (ReadoutBatches(clips(), copies, SETTINGS)(5) for _ in range(2))
        other = ReadoutBatches(clips(), copies, SETTINGS)(6)
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
        assert not torch.equal(once.statistics, other.statistics)


@torch.no_grad()
def test_the_loss_of_mixtures_by_hand():
    torch.manual_seed(0)
    readout = StatisticsReadout(4, 8).eval()
    batch = training.ReadoutBatch(
        torch.randn(2, 4), torch.tensor([[0.0] * 4, [1.0] * 4]), torch.tensor([0.0, 1.0]),
        torch.eye(8)[[1, 5]], torch.tensor([1, 1]), torch.tensor([0.25, 1.0]),
    )  # fmt: skip
    own = batch.statistics
    first = readout.alone(0.25 * own[:1] + 0.75 * own[1:]).log_softmax(1)[0]
    second = readout.alone(own[1:]).log_softmax(1)[0]
    # The second clip has a baseline, and is mixed with itself.
    third = readout.against(own[1:] - 1).log_softmax(1)[0]
    expected = -(0.25 * first[1] + 0.75 * first[5] + second[5] + third[5]) / 3
    assert float(training.readout_loss(readout, batch)) == pytest.approx(float(expected), rel=1e-5)


def test_recall_is_better_beside_a_baseline_where_speakers_differ_more_than_emotions():
    random = np.random.default_rng(0)
    utterances = clips(240)
    voice = {f"s{n}": 20 * random.standard_normal(3) for n in range(6)}
    sad = np.array([one.emotion == "sad" for one in utterances])
    values = np.stack([voice[str(one.speaker)] for one in utterances]).astype(np.float32)
    values[:, 0] += np.where(sad, 1, -1)
    readout = StatisticsReadout(3, 2).eval()
    with torch.no_grad():
        for parameter in readout.parameters():
            parameter.zero_()
        for network in (readout.alone, readout.against):
            network[2].weight.fill_(1)
            network[1].weight[0, 0] = 1  # the first number
            network[5].weight[EMOTIONS.index("sad"), 0] = 5
            network[5].bias[EMOTIONS.index("happy")] = 1
    found = training.recalls(readout, values, torch.zeros(240, 8), utterances)
    for corpus in ("small", "large"):
        assert found[f"recall_{corpus}"] < 0.5
        assert found[f"recall_{corpus}_per_speaker"] == 0.5  # sad and happy, not the others


@pytest.fixture
def run(tmp_path: Path, whisper: Path, monkeypatch: pytest.MonkeyPatch) -> ReadoutSettings:
    """The settings of a small run on tones, and the encoder that it starts from."""
    # Exporting takes longer than all else here; `test_encoder` does it.
    monkeypatch.setattr("aligncap.tokenizers.encoder.export_encoder", lambda *_: None)
    rows = []
    for n in range(32):
        emotion = ("sad", "angry")[n % 2]
        tone = np.sin(2 * np.pi * (200 if emotion == "sad" else 1500) * np.arange(4800) / 16000)
        noise = np.random.default_rng(n).standard_normal(4800)
        soundfile.write(tmp_path / f"{n}.wav", 0.2 * tone + 0.002 * noise, 16_000)
        rows.append({"id": f"r{n}", "file": f"{n}.wav", "corpus": "tones", "emotion": emotion,
                     "speaker": ("ravdess_05" if n > 23 else f"s{n % 3}")})  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "manifest.jsonl").write_text(text)
    torch.manual_seed(0)
    encoder = SpeechEncoder(SIZE)
    theirs = training.load_whisper(whisper, 1)
    encoder.whisper.load_state_dict(theirs.state_dict())
    save_encoder(tmp_path / "start", encoder)
    return ReadoutSettings(
        encoder=tmp_path / "start", data=(tmp_path / "manifest.jsonl",), shares={"tones": 1.0},
        waveforms=tmp_path / "waveforms", start=str(whisper), layers=1, batch_size=24,
        share=(0.0, 0.0),
        training=FitSettings(steps=12, learning_rate=1e-2, save_every=4),
    )  # fmt: skip


def test_a_run_learns_and_resumes_and_keeps_the_encoder(run, tmp_path):
    scores = training.train_readout(run, tmp_path / "once", resume=False)
    assert scores == {"recall_tones": 1.0, "recall_tones_per_speaker": 1.0}
    shorter = replace(run, training=replace(run.training, steps=4))
    training.train_readout(shorter, tmp_path / "parts", resume=False)
    kept = sorted(run.waveforms.glob("statistics-*/*"))
    times = [file.stat().st_mtime_ns for file in kept]
    assert len(kept) == 2
    training.train_readout(run, tmp_path / "parts", resume=True)
    # What was heard serves other trainings, whatever they hold out.
    training.train_readout(replace(run, hold_out=("s1",)), tmp_path / "apart", resume=False)
    assert sorted(run.waveforms.glob("statistics-*/*")) == kept
    assert [file.stat().st_mtime_ns for file in kept] == times
    once, parts, before = (
        load_file(tmp_path / name / "model.safetensors")
        for name in ("once/encoder", "parts/encoder", "start")
    )
    # A schedule that ends elsewhere gives other weights; what it starts from is the same.
    assert once.keys() == parts.keys()
    assert all(torch.equal(once[name], value) for name, value in before.items())
    back = load_encoder(tmp_path / "once/encoder")
    theirs = training.load_whisper(run.start, 1)
    assert torch.equal(back.pretrained[0].wide.weight, theirs.layers[0].wide.weight)
    assert isinstance(back.statistics, nn.Module)


def test_a_sound_file_that_is_replaced_is_heard_again(run, tmp_path):
    training.train_readout(run, tmp_path / "before", resume=False)
    assert len(list(run.waveforms.glob("statistics-*"))) == 2
    soundfile.write(tmp_path / "0.wav", 0.2 * np.sin(0.5 * np.arange(4800)), 16_000)
    training.train_readout(run, tmp_path / "after", resume=False)
    assert len(list(run.waveforms.glob("statistics-*"))) == 4


def test_another_whisper_than_the_encoders_is_refused(run, tmp_path):
    encoder = load_encoder(run.encoder)
    with torch.no_grad():
        encoder.whisper.second.weight += 0.1
    save_encoder(run.encoder, encoder)
    with pytest.raises(DataError, match="is not the Whisper that"):
        training.train_readout(run, tmp_path / "out", resume=False)
