"""The built-in encoder's network: shapes, padding, and which streams it hears."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from aligncap.prosody.measurement import MELS
from aligncap.tokenizers.builtin import FRAMES_A_TOKEN, PROSODY, VIEWS, EncoderInput
from aligncap.tokenizers.encoder import (
    EncoderConfig,
    EncoderOutput,
    SpeechEncoder,
    TransformerLayer,
)
from aligncap.tokenizers.encoder_training import UNKNOWN, EncoderExample, make_batch

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


def read(model: SpeechEncoder, inputs: Sequence[EncoderInput]) -> EncoderOutput:
    unknown = EncoderExample("made up", UNKNOWN, UNKNOWN)
    batch = make_batch(inputs, [unknown] * len(inputs), [math.nan] * len(inputs))
    with torch.no_grad():
        return model(batch.views, batch.prosody, batch.mask)


def vectors(model: SpeechEncoder, inputs: Sequence[EncoderInput]) -> Tensor:
    """What the transformer hears, before codes round small differences away."""
    unknown = EncoderExample("made up", UNKNOWN, UNKNOWN)
    batch = make_batch(inputs, [unknown] * len(inputs), [math.nan] * len(inputs))
    with torch.no_grad():
        return model._convolve(batch.views, batch.prosody, batch.mask[:, :: FRAMES_A_TOKEN // 2])


def test_a_token_is_eight_frames():
    reading = read(encoder(), [clip_of(96, 2), clip_of(41, 3)])
    assert reading.codes.shape == (2, 12)
    assert reading.mask.sum(1).tolist() == [12, 6]  # 41 frames reach into a sixth token
    assert reading.emotion.shape == (2, 8)
    assert reading.signal.shape == (2, 12, MELS + PROSODY)
    assert 0 <= reading.codes.min() <= reading.codes.max() < SIZE.codebook_size


def test_in_a_batch_of_like_length_each_clip_reads_as_alone():
    model, clips = encoder(), [clip_of(72, seed) for seed in range(3)]
    together = read(model, clips)
    for row, clip in enumerate(clips):
        alone = read(model, [clip])
        assert together.codes[row].tolist() == alone.codes[0].tolist()
        torch.testing.assert_close(together.emotion[row], alone.emotion[0], atol=1e-5, rtol=1e-4)


def test_before_attention_padding_reaches_the_last_three_tokens_and_no_other():
    """It is not exact: past a clip's end the first convolutions see normalised padding where a
    clip alone has none. `alignment.preparing.tokens_of` therefore batches clips of like length."""
    model, clip = encoder(), clip_of(96, 2)
    alone = vectors(model, [clip])[0]
    padded = vectors(model, [clip, clip_of(160, 3)])[0, : len(alone)]
    moved = (alone - padded).abs().amax(1) > 1e-5
    assert not moved[:-3].any()
    assert moved[-1]


def test_how_long_the_padding_is_does_not_matter():
    model, clip = encoder(), clip_of(96, 2)
    short, long = (read(model, [clip, clip_of(frames, 3)]) for frames in (128, 320))
    assert short.codes[0, :12].tolist() == long.codes[0, :12].tolist()
    torch.testing.assert_close(short.emotion[0], long.emotion[0], atol=1e-5, rtol=1e-4)


def test_attention_hears_no_padding():
    torch.manual_seed(0)
    layer = TransformerLayer(8, 2, 0.0).eval()
    x, heard = torch.randn(1, 6, 8), torch.tensor([[1.0, 1, 1, 1, 0, 0]])
    torch.testing.assert_close(layer(x, heard)[:, :4], layer(x[:, :4], heard[:, :4]))


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
    attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    middle = x + layer.output(attended.transpose(1, 2).reshape(2, 5, 8))
    expected = middle + layer.feedforward(layer.feedforward_norm(middle))
    torch.testing.assert_close(layer(x, torch.ones(2, 5)), expected)


def test_pooling_is_a_weighted_mean_and_deviation_of_what_is_heard():
    model = encoder()
    x, heard = torch.randn(1, 5, SIZE.width), torch.tensor([[1.0, 1, 1, 0, 0]])
    kept = x[0, :3].detach().numpy()
    with torch.no_grad():
        scores = model.attend(x)[0, :3, 0].numpy()
        pooled = model._pool(x, heard)[0].numpy()
    weights = np.exp(scores) / np.exp(scores).sum()
    mean = np.average(kept, axis=0, weights=weights)
    deviation = np.sqrt(np.average((kept - mean) ** 2, axis=0, weights=weights).clip(1e-4))
    np.testing.assert_allclose(pooled, np.concatenate((mean, deviation)), atol=1e-4)


@pytest.mark.parametrize("heard", [True, False])
def test_a_stream_that_is_switched_off_is_not_heard(heard):
    model = encoder(EncoderConfig(**{**_plain(SIZE), "prosody": heard, "band_view": heard}))
    views, prosody = random_inputs(1, 64)
    other = views.clone()
    other[:, 1] = 0.0
    with torch.no_grad():
        one = model._convolve(views, prosody, torch.ones(1, 16))
        without_prosody = model._convolve(views, torch.zeros_like(prosody), torch.ones(1, 16))
        without_view = model._convolve(other, prosody, torch.ones(1, 16))
    assert torch.equal(one, without_prosody) is not heard
    assert torch.equal(one, without_view) is not heard


def _plain(config: EncoderConfig) -> dict[str, float]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}
