"""The built-in encoder's network: shapes, padding, streams, and its codebook."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from aligncap.prosody.measurement import MELS
from aligncap.tokenizers.builtin import FRAMES_A_TOKEN, PROSODY, VIEWS, EncoderInput
from aligncap.tokenizers.encoder import (
    EncoderConfig,
    EncoderOutput,
    SpeechEncoder,
    TransformerLayer,
    VectorQuantizer,
)
from aligncap.tokenizers.encoder_training import UNKNOWN, EncoderBatch, EncoderExample, make_batch

SIZE = EncoderConfig(width=16, channels=2, convolutions=2, layers=1, heads=2, codebook_size=32,
                     code_width=8)  # fmt: skip


def encoder(config: EncoderConfig = SIZE) -> SpeechEncoder:
    """Random weights, and running statistics that are not the identity."""
    torch.manual_seed(0)
    model = SpeechEncoder(config)
    model(*random_inputs(4, 96), torch.ones(4, 96))
    return model.eval()


def random_inputs(clips: int, frames: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    views = torch.randn(clips, VIEWS, frames, MELS, generator=chance)
    return views, torch.randn(clips, frames, PROSODY, generator=chance)


def clip_of(frames: int, seed: int) -> EncoderInput:
    views, prosody = random_inputs(1, frames, seed)
    return EncoderInput(views[0].numpy(), prosody[0].numpy())


def batch_of(inputs: Sequence[EncoderInput]) -> EncoderBatch:
    unknown = EncoderExample("made up", UNKNOWN, UNKNOWN)
    return make_batch(inputs, [unknown] * len(inputs), [math.nan] * len(inputs))


def read(model: SpeechEncoder, inputs: Sequence[EncoderInput]) -> EncoderOutput:
    batch = batch_of(inputs)
    with torch.no_grad():
        return model(batch.views, batch.prosody, batch.mask)


def vectors(model: SpeechEncoder, inputs: Sequence[EncoderInput]) -> Tensor:
    """The input of the transformer, before quantisation hides small differences."""
    batch = batch_of(inputs)
    with torch.no_grad():
        return model._convolve(batch.views, batch.prosody, batch.mask[:, :: FRAMES_A_TOKEN // 2])


def test_a_token_is_eight_frames():
    reading = read(encoder(), [clip_of(96, 2), clip_of(41, 3)])
    assert reading.codes.shape == (2, 12)
    assert reading.mask.sum(1).tolist() == [12, 6]  # 41 frames reach into a sixth token
    assert reading.emotion.shape == (2, 8)
    assert reading.signal.shape == (2, 12, MELS + PROSODY)
    assert 0 <= reading.codes.min() <= reading.codes.max() < SIZE.codebook_size


class TestPadding:
    def test_in_a_batch_of_like_length_each_clip_is_encoded_as_alone(self):
        model, clips = encoder(), [clip_of(72, seed) for seed in range(3)]
        together, alone = read(model, clips), [read(model, [clip]) for clip in clips]
        assert torch.equal(together.codes, torch.cat([one.codes for one in alone]))
        emotion = torch.cat([one.emotion for one in alone])
        torch.testing.assert_close(together.emotion, emotion, atol=1e-5, rtol=1e-4)

    def test_before_attention_it_reaches_the_last_three_tokens_and_no_other(self):
        """It is not exact: past a clip's end the first convolutions see normalised padding where a
        clip alone has none. `alignment.rows.tokens_of` therefore batches clips of like length."""
        model, clip = encoder(), clip_of(96, 2)
        alone = vectors(model, [clip])[0]
        padded = vectors(model, [clip, clip_of(160, 3)])[0, : len(alone)]
        moved = (alone - padded).abs().amax(1) > 1e-5
        assert not moved[:-3].any()
        assert moved[-1]

    def test_how_long_it_is_does_not_matter(self):
        model, clip = encoder(), clip_of(96, 2)
        short, long = (read(model, [clip, clip_of(frames, 3)]) for frames in (128, 320))
        assert short.codes[0, :12].tolist() == long.codes[0, :12].tolist()
        torch.testing.assert_close(short.emotion[0], long.emotion[0], atol=1e-5, rtol=1e-4)

    def test_attention_ignores_it(self):
        torch.manual_seed(0)
        layer = TransformerLayer(8, 2, 0.0).eval()
        x, mask = torch.randn(1, 6, 8), torch.tensor([[1.0, 1, 1, 1, 0, 0]])
        torch.testing.assert_close(layer(x, mask)[:, :4], layer(x[:, :4], mask[:, :4]))


def test_attention_agrees_with_torchs_own():
    torch.manual_seed(0)
    layer = TransformerLayer(8, 2, 0.0).eval()
    x = torch.randn(2, 5, 8)
    q, k, v = (
        part.view(2, 5, 2, 4).transpose(1, 2)
        for part in layer.projections(layer.attention_norm(x)).chunk(3, dim=-1)
    )
    apart = torch.tensor([[abs(i - j) for j in range(5)] for i in range(5)], dtype=torch.float32)
    bias = -apart * torch.tensor([0.0, 0.3])[:, None, None]
    attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    middle = x + layer.output(attended.transpose(1, 2).reshape(2, 5, 8))
    expected = middle + layer.feedforward(layer.feedforward_norm(middle))
    torch.testing.assert_close(layer(x, torch.ones(2, 5)), expected)


def test_pooling_is_a_weighted_mean_and_deviation_without_padding():
    model = encoder()
    x, mask = torch.randn(1, 5, SIZE.width), torch.tensor([[1.0, 1, 1, 0, 0]])
    kept = x[0, :3].detach().numpy()
    with torch.no_grad():
        weights = model.attend(x)[0, :3, 0].softmax(0).numpy()
        pooled = model._pool(x, mask)[0].numpy()
    mean = np.average(kept, axis=0, weights=weights)
    deviation = np.sqrt(np.average((kept - mean) ** 2, axis=0, weights=weights).clip(1e-4))
    np.testing.assert_allclose(pooled, np.concatenate((mean, deviation)), atol=1e-4)


@pytest.mark.parametrize("used", [True, False])
def test_a_stream_that_is_switched_off_is_not_used(used):
    model = encoder(replace(SIZE, prosody=used, band_view=used))
    views, prosody = random_inputs(1, 64)
    one_view = views.clone()
    one_view[:, 1] = 0.0
    given = ((views, prosody), (views, 0 * prosody), (one_view, prosody))
    with torch.no_grad():
        whole, *without = (model._convolve(*inputs, torch.ones(1, 16)) for inputs in given)
    assert [torch.equal(whole, one) for one in without] == [not used] * 2


def quantizer(width: int = 6, size: int = 16, code_width: int = 4) -> VectorQuantizer:
    torch.manual_seed(0)
    return VectorQuantizer(width, size, code_width)


class TestQuantizer:
    def test_each_vector_gets_the_nearest_entry_or_passes_as_it_is(self):
        book = quantizer().eval()
        x, mask = torch.randn(3, 7, 6), torch.ones(3, 7)
        out, codes, commitment = book(x, mask)
        vectors = functional.layer_norm(book.enter(x), (4,))
        distances = torch.cdist(vectors.flatten(0, 1), book.codebook)
        assert codes.flatten().tolist() == distances.argmin(1).tolist()
        torch.testing.assert_close(out, book.leave(book.codebook[codes]))
        torch.testing.assert_close(commitment, distances.min(1).values.square().mean() / 4)
        torch.testing.assert_close(book(x, mask, rounding=False)[0], book.leave(vectors))

    def test_padding_does_not_count_in_the_commitment(self):
        book = quantizer().eval()
        x, mask = torch.randn(1, 5, 6), torch.tensor([[1.0, 1, 1, 0, 0]])
        torch.testing.assert_close(book(x, mask)[2], book(x[:, :3], mask[:, :3])[2])

    def test_the_gradient_passes_straight_through(self):
        """Rounded or not, the projection in front gets the same gradient."""
        x, mask, slope = torch.randn(2, 5, 6), torch.ones(2, 5), torch.randn(2, 5, 6)
        gradients = []
        for rounding in (True, False):
            book = quantizer().eval()
            (book(x, mask, rounding=rounding)[0] * slope).sum().backward()
            gradients.append(book.enter.weight.grad)
        torch.testing.assert_close(*gradients)
        assert gradients[0].abs().sum() > 0

    def test_entries_move_to_the_running_mean_of_their_vectors(self):
        book = quantizer(size=2, code_width=2)
        book.codebook.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        book.sums.copy_(book.codebook)
        book._update_codebook(torch.tensor([[2.0, 0.0], [4.0, -2.0]]), torch.tensor([0, 0]))
        # counts: 0.98 * 1 + 0.02 * 2, 0.98 * 1; sums: 0.98 * old + 0.02 * (6, -2), 0.98 * old.
        torch.testing.assert_close(book.counts, torch.tensor([1.02, 0.98]))
        torch.testing.assert_close(book.sums, torch.tensor([[1.10, -1.02], [-0.98, 0.98]]))
        torch.testing.assert_close(book.codebook[0], torch.tensor([1.10, -1.02]) / 1.021)

    def test_unused_entries_are_given_one_of_the_batch(self):
        book = quantizer(size=4, code_width=2)
        book.counts.copy_(torch.tensor([1.0, 0.05, 1.0, 1.0]))
        vectors = torch.tensor([[5.0, 6.0], [7.0, 8.0]])
        book._update_codebook(vectors, torch.tensor([0, 0]))
        given = [entry in vectors.tolist() for entry in book.codebook.tolist()]
        assert given[1:] == [True, False, False]
        assert book.counts[1] == 1.0
        torch.testing.assert_close(book.sums[1], book.codebook[1])

    @pytest.mark.parametrize("training", [True, False])
    def test_the_codebook_moves_in_training_only_and_not_by_padding(self, training):
        book, other = (quantizer().train(training) for _ in range(2))
        before = book.codebook.clone()
        x, mask = torch.randn(1, 6, 6), torch.tensor([[1.0, 1, 1, 0, 0, 0]])
        book(x, mask)
        assert torch.equal(before, book.codebook) is not training
        x[:, 3:] = 100.0
        other(x, mask)
        torch.testing.assert_close(book.codebook, other.codebook)
