"""NoAudioCap (Deshmukh et al. 2024): captions learnt from captions alone, by a frozen CLAP and a
frozen GPT-2.

What trains is the mapper, ClipCap's transformer (Mokady et al. 2021): a linear layer makes as many
vectors of the clip's as the prefix has; learnt constants stand behind them, and what a transformer
makes of the constants is the prefix. It learns to write a caption from its own vector in the joint
space, with noise (`alignment.text_rows`, `student.noise`); speech takes the vector's place when
captioning (`alignment.joint_features`). The same mapper serves the alignments before decoding.

Layers are named as in `clapcap_weights_2023.pth`, so that reading that checkpoint is a matter of
one prefix.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from aligncap.captioner.connectors import Connector
from aligncap.errors import RecipeError


class MapperAttention(nn.Module):
    """Attention of every vector to every other, without biases of queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[clips, vectors, width], as it comes."""
        clips, count, width = x.shape
        query = self.to_queries(x).view(clips, count, self.heads, -1).transpose(1, 2)
        both = self.to_keys_values(x).view(clips, count, 2, self.heads, -1)
        key, value = both.permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.project(found.transpose(1, 2).reshape(clips, count, width))
        return projected


class MapperMlp(nn.Module):
    """Two layers, twice as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[…, width], as it comes."""
        inner: Tensor = self.fc2(functional.relu(self.fc1(x)))
        return inner


class MapperLayer(nn.Module):
    """Attention and the two layers, norms first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = MapperAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MapperMlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """[clips, vectors, width], as it comes."""
        x = x + self.attn(self.norm1(x))
        found: Tensor = x + self.mlp(self.norm2(x))
        return found


class MapperLayers(nn.Module):
    """The layers, under the name that the checkpoint has for them."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MapperLayer(width, heads) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """[clips, vectors, width], as it comes."""
        for layer in self.layers:
            x = layer(x)
        return x


class PrefixMapper(Connector):
    """A clip's vector → a prefix of the language model's own vectors."""

    def __init__(
        self, width: int, hidden: int, *, vectors: int = 40, layers: int = 8, heads: int = 8
    ) -> None:
        """`vectors` are those of the prefix."""
        super().__init__()
        if hidden % heads:
            raise RecipeError(f"mapper: {hidden} numbers over {heads} heads; take other heads")
        self.vectors = vectors
        self.linear = nn.Linear(width, vectors * hidden)
        self.prefix_const = nn.Parameter(torch.randn(vectors, hidden))
        self.transformer = MapperLayers(hidden, heads, layers)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """`features` [clips, frames, width], of which the mean is taken → [clips, vectors,
        hidden]."""
        inside = torch.arange(features.shape[1], device=features.device) < lengths[:, None]
        mean = (features * inside[..., None]).sum(1) / lengths[:, None]
        x = self.linear(mean).view(len(mean), self.vectors, -1)
        constant = self.prefix_const.expand(len(mean), -1, -1)
        found: Tensor = self.transformer(torch.cat((x, constant), 1))
        return found[:, self.vectors :]
