"""The vector-quantised bottleneck of the built-in encoder (van den Oord et al. 2017)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

_DECAY = 0.98
_DEAD = 0.1


class VectorQuantizer(nn.Module):
    """One codebook whose entries follow the mean of the vectors that choose them.

    Vectors are projected to few dimensions and normalised before they are compared, which keeps
    the whole codebook in use. The gradient passes straight through.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, width: int, size: int, code_width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, code_width)
        self.leave = nn.Linear(code_width, width)
        codebook = functional.layer_norm(torch.randn(size, code_width), (code_width,))
        self.register_buffer("codebook", codebook)
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("sums", codebook.clone())

    def forward(
        self, x: Tensor, heard: Tensor, *, rounding: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`x` [batch, time, width], `heard` [batch, time] → quantised `x` of the same shape, codes
        [batch, time], and the commitment loss; padding neither counts nor moves the codebook.
        Without `rounding` the vectors pass the narrow projection but not the codebook."""
        vectors = self.enter(x)
        # Under autocast too, distances are compared in full precision.
        vectors = functional.layer_norm(vectors.float(), vectors.shape[-1:])
        flat, kept = vectors.flatten(0, 1), heard.flatten() > 0
        with torch.no_grad():
            distance = self.codebook.square().sum(1) - 2 * flat @ self.codebook.T
            codes = distance.argmin(1)
        chosen = self.codebook[codes]
        commitment = (flat - chosen).square().mean(1)[kept].mean()
        if self.training:
            self._follow(flat.detach()[kept], codes[kept])
        passed = flat + (chosen - flat).detach() if rounding else flat
        return self.leave(passed.view_as(vectors)), codes.view(x.shape[:2]), commitment

    @torch.no_grad()
    def _follow(self, vectors: Tensor, codes: Tensor) -> None:
        """Move every entry to the running mean of its vectors; revive entries nobody chooses."""
        size = len(self.codebook)
        self.counts.lerp_(torch.bincount(codes, minlength=size).to(self.counts), 1 - _DECAY)
        sums = torch.zeros_like(self.sums).index_add_(0, codes, vectors)
        self.sums.lerp_(sums, 1 - _DECAY)
        self.codebook.copy_(self.sums / (self.counts[:, None] + 1e-3))
        dead = torch.nonzero(self.counts < _DEAD)[:, 0]
        if len(dead) and len(vectors):
            drawn = vectors[torch.randint(len(vectors), (len(dead),), device=vectors.device)]
            self.codebook[dead] = drawn
            self.sums[dead] = drawn
            self.counts[dead] = 1.0
