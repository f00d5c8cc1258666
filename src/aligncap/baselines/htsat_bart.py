"""HTSAT-BART (WavCaps; Mei et al., 2023): a log-mel spectrogram → HTSAT → linear → BART.

HTSAT is transformers' CLAP audio tower. Its last map, two groups of frequency by 32 steps, is
averaged over the groups, each step repeated 32 times, and projected: 1,024 vectors, which go
through BART's own encoder. All of it trains; the cross-entropy has a label smoothing of 0.1.
"""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from aligncap.captioner.connectors import Connector

FRAMES = 1024
"""Of the spectrogram that HTSAT sees: shorter ones are stretched to it."""

TIME_MASKS, MEL_MASKS = (2, 64), (2, 8)
"""SpecAugment in training: how many stripes, each of fewer frames (or bands) than that."""


class HtsatConnector(Connector):
    """HTSAT and the projection to BART's width."""

    vectors = FRAMES

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        embed: int = 96,
        third_depth: int = 6,
        first_heads: int = 4,
        window: int = 8,
        frozen: int = 0,
    ) -> None:
        """`width` mel bands; the defaults are WavCaps', HTSAT-tiny. `frozen` 1: HTSAT itself does
        not train, nor do its running statistics move or its dropout act."""
        super().__init__()
        self.frozen = bool(frozen)
        from transformers import ClapAudioConfig, ClapAudioModel

        config = ClapAudioConfig(
            num_mel_bins=width,
            patch_embeds_hidden_size=embed,
            hidden_size=8 * embed,
            depths=[2, 2, third_depth, 2],
            num_attention_heads=[first_heads * 2**level for level in range(4)],
            window_size=window,
            enable_fusion=False,
        )
        self.htsat: nn.Module = ClapAudioModel(config)
        self.enc_to_dec_proj = nn.Linear(8 * embed, hidden)
        if frozen:
            self.htsat.requires_grad_(requires_grad=False)
            self.train()

    def train(self, mode: bool = True) -> Self:
        """As torch's, but for a frozen HTSAT, which stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.htsat.eval()
        return self

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """[clips, 1024, hidden] of log-mel spectrograms [clips, frames, bands]."""
        clips = [one[:length] for one, length in zip(features, lengths.tolist(), strict=True)]
        spectra = torch.stack([stretched(one) for one in clips])
        if self.training:
            spectra = masked(spectra)
        found = self.htsat(input_features=spectra[:, None]).last_hidden_state.mean(2)
        steps = found.transpose(1, 2)
        vectors: Tensor = self.enc_to_dec_proj(steps)
        return vectors.repeat_interleave(FRAMES // steps.shape[1], dim=1)


def stretched(spectrum: Tensor) -> Tensor:
    """A spectrogram [frames, bands] of 1,024 frames at most, stretched to them (bicubic)."""
    if len(spectrum) >= FRAMES:
        return spectrum[:FRAMES]
    size = (FRAMES, spectrum.shape[1])
    found = functional.interpolate(
        spectrum[None, None], size=size, mode="bicubic", align_corners=True
    )
    return found[0, 0]


def masked(spectra: Tensor) -> Tensor:
    """SpecAugment: stripes of frames and of bands set to 0, for each clip others."""
    spectra = spectra.clone()
    for axis, (stripes, widest) in ((1, TIME_MASKS), (2, MEL_MASKS)):
        size = spectra.shape[axis]
        for clip in spectra:
            for _ in range(stripes):
                width = int(torch.randint(min(widest, size), ()))
                start = int(torch.randint(size - width + 1, ()))
                clip.narrow(axis - 1, start, width).zero_()
    return spectra
