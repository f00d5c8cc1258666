"""What counts the encoder's syllables by Whisper's frames: by hand, and a run of its training."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from aligncap.errors import DataError
from aligncap.tokenizers import pace_training as training
from aligncap.tokenizers.encoder import EncoderConfig, SpeechEncoder, load_encoder, save_encoder
from aligncap.tokenizers.pace_training import PaceSettings, deviations
from aligncap.tokenizers.statistics import SyllableReadout
from aligncap.tokenizers.whisper import load_whisper
from aligncap.training.settings import FitSettings

SIZE = EncoderConfig(whisper_width=64, layers=1, width=32, heads=2, codebook_size=16,
                     code_width=8, hidden=16, landmarks=3, statistics_layers=1)  # fmt: skip


class TestSyllables:
    def test_by_hand(self):
        readout = SyllableReadout(1, 1).eval()
        readout.centre.fill_(2.0)
        readout.spread.fill_(4.0)
        with torch.no_grad():
            for weights in readout.parameters():
                weights.zero_()
            readout.enter.weight.fill_(1.0)
            readout.around.weight[0, 0, 2] = 1.0  # the vector itself
            readout.around.weight[0, 0, 0] = 2.0  # and the one two before
            readout.leave.weight.fill_(1.0)
            found = readout(torch.tensor([[[6.0], [2.0], [2.0]]]), torch.ones(1, 3).bool())

        def silu(x: float) -> float:
            return x / (1 + np.exp(-x))

        # Normalised: 1, 0, 0.
        inputs = [silu(silu(1.0)), 0.0, silu(2 * silu(1.0))]
        assert float(found) == pytest.approx(sum(np.log1p(np.exp(x - 3)) for x in inputs), rel=1e-5)

    def test_what_is_beyond_the_clip_does_not_count(self):
        torch.manual_seed(0)
        readout = SyllableReadout(6, 8).eval()
        vectors = torch.randn(1, 12, 6)
        alone = readout(vectors, torch.ones(1, 12).bool())
        padded = torch.cat((vectors, 50 + torch.randn(1, 8, 6)), 1)
        mask = torch.arange(20)[None] < 12
        torch.testing.assert_close(readout(padded, mask), alone)

    def test_two_clips_one_after_the_other_have_as_many_as_both(self):
        torch.manual_seed(0)
        readout = SyllableReadout(6, 8).eval()
        first, second = torch.randn(2, 30, 6)
        # So far apart that nothing reaches from one to the other.
        gap = readout.centre.expand(10, 6)
        both = torch.cat((first, gap, second, gap))[None]
        parts = torch.stack((torch.cat((first, gap)), torch.cat((second, gap))))
        total = readout(both, torch.ones(1, 80).bool())
        apart = readout(parts, torch.ones(2, 40).bool())
        torch.testing.assert_close(total, apart.sum()[None], rtol=0.02, atol=0)


def test_deviations_are_by_corpus_and_leave_out_a_common_factor():
    heard = torch.tensor([2.0, 4.0, 8.0, 3.0, 3.0])
    spoken = torch.tensor([1.0, 2.0, 4.0, 3.0, 3 * np.e**2])
    found = deviations(["a", "a", "a", "b", "b"], heard, spoken)
    assert found == pytest.approx({"deviation_a": 0.0, "deviation_b": 1.0}, abs=1e-6)


@pytest.fixture
def run(tmp_path: Path, whisper: Path, monkeypatch: pytest.MonkeyPatch) -> PaceSettings:
    """The settings of a small run on bursts, one a syllable, and the encoder it starts from."""
    # Exporting takes longer than all else here; `test_encoder` does it.
    monkeypatch.setattr("aligncap.tokenizers.encoder.export_encoder", lambda *_: None)
    rows = []
    for n in range(40):
        count = 3 + n % 6
        burst = np.concatenate((np.hanning(960) * np.sin(np.arange(960) * 0.4), np.zeros(640)))
        sound = np.tile(0.4 * burst, count)
        noise = np.random.default_rng(n).standard_normal(len(sound))
        soundfile.write(tmp_path / f"{n}.wav", sound + 0.002 * noise, 16_000)
        rows.append({"id": f"r{n}", "file": f"{n}.wav", "corpus": "bursts", "language": "en",
                     "text": " ".join(["dog"] * count), "emotion": "sad",
                     "speaker": ("ravdess_05" if n > 27 else f"s{n % 3}")})  # fmt: skip
    # Of too few syllables, and without words.
    rows[0]["text"], rows[1]["text"] = "dog", ""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "manifest.jsonl").write_text(text)
    torch.manual_seed(0)
    encoder = SpeechEncoder(SIZE)
    theirs = load_whisper(str(whisper), 1)
    encoder.whisper.load_state_dict(theirs.state_dict())
    encoder.pretrained.load_state_dict(theirs.layers.state_dict())
    save_encoder(tmp_path / "start", encoder)
    return PaceSettings(
        encoder=tmp_path / "start", data=(tmp_path / "manifest.jsonl",), shares={"bursts": 1.0},
        waveforms=tmp_path / "waveforms", hidden=12, batch_size=12,
        training=FitSettings(steps=40, learning_rate=2e-2, save_every=20, schedule="constant"),
    )  # fmt: skip


def test_a_run_learns_and_resumes_and_keeps_the_encoder(run, tmp_path):
    scores = training.train_pace(run, tmp_path / "once", resume=False)
    assert scores.keys() == {"deviation_bursts"}
    # One who always answers the same has the deviation of the counts themselves, .33.
    assert scores["deviation_bursts"] < 0.15
    shorter = replace(run, training=replace(run.training, steps=20))
    training.train_pace(shorter, tmp_path / "parts", resume=False)
    training.train_pace(run, tmp_path / "parts", resume=True)
    once, parts, before = (
        load_file(tmp_path / name / "model.safetensors")
        for name in ("once/encoder", "parts/encoder", "start")
    )
    torch.testing.assert_close(parts, once, atol=0, rtol=0)
    changed = {name for name, value in before.items() if not torch.equal(once[name], value)}
    assert changed == {"syllable_scale"}
    assert {name.partition(".")[0] for name in once.keys() - before.keys()} == {"syllables"}
    assert load_encoder(tmp_path / "once/encoder").config.syllable_hidden == 12


def test_an_encoder_without_a_second_readout_is_refused_with_the_command_for_it(run, tmp_path):
    save_encoder(run.encoder, SpeechEncoder(replace(SIZE, statistics_layers=0)))
    with pytest.raises(DataError, match=r"aligncap train recipes/mini/readout\.toml"):
        training.train_pace(run, tmp_path / "out", resume=False)


def test_where_no_validation_clip_has_text_it_trains_and_scores_nothing(run, tmp_path):
    rows = [json.loads(line) for line in run.data[0].read_text().splitlines()]
    for row in rows:
        if row["speaker"] == "ravdess_05":
            del row["text"]
    run.data[0].write_text("".join(json.dumps(row) + "\n" for row in rows))
    short = replace(run, training=replace(run.training, steps=2))
    assert training.train_pace(short, tmp_path / "out", resume=False) == {}
    kept = load_encoder(tmp_path / "out/encoder")
    assert kept.config.syllable_hidden == 12
    assert float(kept.syllable_scale) == 1.0


def test_clips_without_text_are_refused(run, tmp_path):
    path = run.data[0]
    path.write_text(path.read_text().replace("dog", ""))
    with pytest.raises(DataError, match=r"manifest\.jsonl: no clip to learn from has 3 syllables"):
        training.train_pace(run, tmp_path / "out", resume=False)
