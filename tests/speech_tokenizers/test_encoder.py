"""The built-in encoder's network: tokens, padding, codebooks, readouts, and its exported form."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from aligncap.errors import MissingModelError
from aligncap.tokenizers.builtin import whisper_log_mel
from aligncap.tokenizers.encoder import (
    OUTPUTS,
    QUANTILES,
    Codebook,
    EncoderConfig,
    SpeechEncoder,
    export_encoder,
    load_encoder,
    save_encoder,
)
from aligncap.tokenizers.statistics import distribution

SIZE = EncoderConfig(whisper_width=64, layers=1, width=32, heads=2, codebook_size=16,
                     code_width=8, hidden=16, landmarks=3)  # fmt: skip


def encoder(config: EncoderConfig = SIZE) -> SpeechEncoder:
    """Random weights, norms and biases too."""
    torch.manual_seed(0)
    model = SpeechEncoder(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    model.landmarks.normal_()
    return model.eval()


def mel(frames: int, seed: int = 1, clips: int = 1) -> Tensor:
    return torch.randn(clips, frames, 80, generator=torch.Generator().manual_seed(seed))


def ones(frames: int, clips: int = 1) -> Tensor:
    return torch.ones(clips, frames, dtype=torch.bool)


@pytest.mark.parametrize(("frames", "tokens"), [(16, 2), (23, 3), (24, 3), (97, 12)])
def test_a_token_is_eight_frames_and_each_codebook_gives_one(frames, tokens):
    found = encoder()(mel(frames), ones(frames))
    assert found.codes.shape == (1, 2, tokens)
    assert [stage.shape for stage in found.stages] == [(1, tokens, 32)] * 3
    assert 0 <= found.codes.min() <= found.codes.max() < 16


@torch.no_grad()
def test_frames_beyond_a_clips_end_reach_its_last_token_only():
    """By the convolutions; attention leaves padding out."""
    model, clip = encoder(), mel(64)
    alone = model(clip, ones(64))
    padded = torch.cat((clip, torch.zeros(1, 40, 80)), 1)
    mask = torch.cat((ones(64), ~ones(40)), 1)
    batch = model(torch.cat((padded, mel(104, 2))), torch.cat((mask, ones(104))))
    assert batch.mask.sum(1).tolist() == [8, 13]
    first = model.whisper(clip, ones(32))[0]
    second = model.whisper(padded, mask[:, ::2])[0]
    torch.testing.assert_close(first[:, :31], second[:, :31])
    longer = model(torch.cat((padded, torch.zeros(1, 80, 80)), 1), torch.cat((mask, ~ones(80)), 1))
    torch.testing.assert_close(longer.stages[0][0, :8], batch.stages[0][0, :8], atol=1e-5, rtol=0)
    torch.testing.assert_close(longer.syllables[0], batch.syllables[0])
    assert alone.codes.shape[2] == 8


class TestCodebook:
    def test_vectors_get_their_nearest_entry(self):
        book = Codebook(5, 3).eval()
        vectors = torch.randn(20, 3)
        nearest, codes = book(vectors, torch.ones(20))
        assert codes.tolist() == torch.cdist(vectors, book.entries).argmin(1).tolist()
        assert torch.equal(nearest, book.entries[codes])

    def test_in_training_entries_become_the_means_of_their_vectors(self):
        torch.manual_seed(0)
        centres = torch.tensor([[5.0, 0], [-5, 0], [0, 7]])
        vectors = centres.repeat_interleave(50, 0) + 0.1 * torch.randn(150, 2)
        book, kept = Codebook(3, 2).train(), torch.ones(150)
        for _ in range(400):
            book(vectors, kept)
        distance = torch.cdist(book.entries, vectors.view(3, 50, 2).mean(1)).amin(1)
        assert distance.max() < 0.05

    def test_padding_moves_nothing(self):
        torch.manual_seed(0)
        vectors = torch.randn(10, 4)
        books = Codebook(4, 4).train(), Codebook(4, 4).train()
        books[1].load_state_dict(books[0].state_dict())
        kept = torch.tensor([1.0] * 6 + [0.0] * 4)
        for book, some in zip(books, (vectors, vectors.clone()), strict=True):
            some[6:] = 100.0 if book is books[1] else some[6:]
            torch.manual_seed(1)
            book(some, kept)
        # Entries nobody uses are drawn anew, padding with a chance of one in a million.
        torch.testing.assert_close(books[0].sums, books[1].sums)


@torch.no_grad()
def test_each_codebook_reduces_what_is_left():
    model, inputs = encoder(), (mel(400), ones(400))
    encoded = model(*inputs)
    flat = torch.nn.functional.layer_norm(model.enter(encoded.stages[0]), (8,))[0]
    first, second = (
        book.entries[codes] for book, codes in zip(model.codebooks, encoded.codes[0], strict=True)
    )
    errors = [(flat - first).square().mean(), (flat - first - second).square().mean()]
    assert float(encoded.commitment) == pytest.approx(float(sum(errors)), rel=1e-5)
    torch.testing.assert_close(encoded.stages[2][0], model.leave[1](first + second))


def test_the_gradient_passes_the_codebooks_as_if_they_were_not_there():
    model = encoder().train()
    model.dropout.p = 0.0
    found = model(mel(32), ones(32))
    (found.stages[2] * 2.0).sum().backward()
    expected = 2.0 * model.leave[1].weight.sum(0)
    x = torch.randn(3, 8, requires_grad=True)
    torch.nn.functional.layer_norm(x, (8,)).backward(expected.expand(3, 8))
    assert model.enter.weight.grad.abs().sum() > 0
    assert expected.shape == (8,)


@torch.no_grad()
def test_a_readout_hears_a_baseline_only_where_one_is_given():
    model = encoder()
    encoded = model(mel(80, clips=2), ones(80, 2))
    readout = model.readouts[0]
    vector = readout.pool(encoded.stages[0], encoded.mask)
    baseline = torch.randn_like(vector)
    found = readout(vector, baseline, torch.tensor([0.0, 1.0]))
    plain = model.read(encoded)
    torch.testing.assert_close(found.emotion[0], plain.emotion[0])
    assert not torch.allclose(found.emotion[1], plain.emotion[1])
    own = readout(vector, vector, torch.ones(2))
    torch.testing.assert_close(own.emotion, plain.emotion)


def test_pooling_by_hand():
    readout = encoder().readouts[0]
    x = torch.randn(1, 5, 32)
    mask = torch.tensor([[True, True, True, False, False]])
    kept = x[0, :3].double()
    weights = (kept @ readout.attend.weight[0].double() + readout.attend.bias.double()).softmax(0)
    pooled = torch.cat(((weights[:, None] * kept).sum(0), kept.std(0, unbiased=False)))
    expected = torch.nn.functional.layer_norm(pooled, (64,)) * readout.norm.weight.double()
    torch.testing.assert_close(
        readout.pool(x, mask)[0].double(), expected + readout.norm.bias.double(), atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_novelty_is_a_share_of_familiar_clips():
    model = encoder()
    known = np.sort(np.random.default_rng(0).gamma(2.0, size=1000))
    model.distances.copy_(torch.from_numpy(np.quantile(known, np.linspace(0, 1, QUANTILES))))
    vectors = torch.randn(60, 64) * torch.linspace(0.2, 3, 60)[:, None]
    nearest = (vectors[:, None] - model.landmarks).square().mean(2).amin(1).numpy()
    expected = [(known < one).mean() for one in nearest]
    found = model.novelty(vectors).numpy()
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert found.min() >= 0
    assert found.max() == 1


@pytest.fixture(scope="module", params=[0, 8])
def saved(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SpeechEncoder, Path]:
    """A random encoder, whose syllables are counted by tokens or by frames, and the folder it was
    saved in; exporting takes some seconds."""
    folder = tmp_path_factory.mktemp("encoder")
    model = encoder(replace(SIZE, statistics_layers=1, syllable_hidden=request.param))
    model.temperature.copy_(torch.tensor([0.9, 1.7]))
    model.statistics.share.copy_(torch.tensor([0.3, 0.6]))
    model.syllable_scale.fill_(1.2)
    save_encoder(folder, model)
    return model, folder


@pytest.mark.slow
@pytest.mark.parametrize("frames", [16, 61, 403])
def test_onnx_gives_nearly_what_torch_gives(saved, frames):
    model, folder = saved
    session = onnxruntime.InferenceSession(folder / "encoder.onnx")
    clip, baseline = mel(frames), torch.randn(1, model.vector_width)
    values = session.run(
        None, {"mel": clip.numpy(), "baseline": baseline.numpy(), "based": np.ones(1, np.float32)}
    )
    found = dict(zip(OUTPUTS, values, strict=True))
    with torch.no_grad():
        encoded = model(clip, ones(frames))
        pooled = model.readouts[0].pool(encoded.stages[0], encoded.mask)
        reading = model.readouts[0](pooled, baseline[:, :64], torch.ones(1))
        layer = model.pretrained[0](encoded.start, ones(frames)[:, ::2])
        statistics = distribution(layer, clip, ones(frames))
        second = model.statistics(statistics, baseline[:, 64:], torch.ones(1))
        syllables = encoded.syllables
        if model.syllables is not None:
            syllables = model.syllables(layer, ones(frames)[:, ::2])
        vector = torch.cat((pooled, statistics), 1)
    assert found["codes"].shape == (1, frames // 8)
    same = (found["codes"] == encoded.codes[0, :1].numpy()).mean()
    assert same >= 0.7  # matrices are int8
    cosine = torch.nn.functional.cosine_similarity(torch.from_numpy(found["vector"]), vector)
    assert cosine.min() > 0.99
    # Both readouts as factors, one of them with an exponent.
    factors = second.softmax(1) * reading.emotion.softmax(1) ** 0.6
    emotion = (factors ** (1 / 1.7)).numpy()
    emotion /= emotion.sum()
    np.testing.assert_allclose(found["emotion"], emotion, atol=0.1)
    np.testing.assert_allclose(found["arousal"], reading.arousal.numpy(), atol=0.1)
    np.testing.assert_allclose(found["syllables"], 1.2 * syllables.numpy(), rtol=0.1)
    assert found["vocalization"].sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.slow
def test_the_exported_form_is_int8_and_says_what_its_codes_are(saved, tmp_path):
    model, folder = saved
    back = load_encoder(folder)
    assert back.config == model.config
    assert not back.training
    torch.testing.assert_close(back.state_dict(), model.state_dict(), atol=0, rtol=0)
    session = onnxruntime.InferenceSession(folder / "encoder.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert (metadata["codebooks"], metadata["codebook_size"]) == ("1", "16")
    data = (folder / "encoder.onnx").read_bytes()
    assert b"MatMulInteger" in data
    assert str(Path.cwd()).encode() not in data
    assert len(data) < (folder / "model.safetensors").stat().st_size
    export_encoder(model, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == data


def test_a_missing_encoder_is_named_with_a_hint(tmp_path):
    with pytest.raises(MissingModelError, match=r"nowhere.*aligncap train"):
        load_encoder(tmp_path / "nowhere")


def test_the_spectrogram_of_a_clip_is_whispers():
    """One frame every 10 ms: a token is 80 ms."""
    assert whisper_log_mel(np.zeros(16_000, np.float32)).shape == (100, 80)
