"""Residual vector quantisation: each codebook names what the ones before it left over."""

import torch
from torch import Tensor, nn
from torch.nn import functional

_BLOCK_FRAMES = 4096


class ResidualQuantizer(nn.Module):
    """Codebooks of shape [depth, entries, width], applied one after the other."""

    codebooks: Tensor

    def __init__(self, codebooks: Tensor) -> None:
        super().__init__()
        self.register_buffer("codebooks", codebooks)

    def forward(self, features: Tensor) -> Tensor:
        """[frames, width] → int64 [depth, frames]: in each codebook the nearest entry."""
        # In blocks, since frames × entries distances of an hour of speech would take a gigabyte.
        blocks = [self._codes(block) for block in torch.split(features, _BLOCK_FRAMES)]
        return torch.cat(blocks, dim=1)

    def _codes(self, residual: Tensor) -> Tensor:
        codes = []
        for codebook in self.codebooks:
            nearest = squared_distances(residual, codebook).argmin(dim=1)
            residual = residual - functional.embedding(nearest, codebook)
            codes.append(nearest)
        return torch.stack(codes)


def squared_distances(points: Tensor, entries: Tensor) -> Tensor:
    """‖point − entry‖² for points [n, width] and entries [m, width]: [n, m]."""
    # Expanded and summed in this order, a near tie rounds as it does in the official module.
    return (
        points.square().sum(1, keepdim=True)
        - 2 * points @ entries.T
        + entries.square().sum(1)[None, :]
    )
