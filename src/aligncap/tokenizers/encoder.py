"""The built-in speech encoder: spectrogram and prosody in, 12.5 discrete tokens a second out.

Convolutions see 200 ms, attention sees the whole utterance, and a vector-quantised bottleneck
(van den Oord et al. 2017) with one codebook turns every 80 ms into a token. Its heads predict
emotion, gender, pace and the signal itself from the *quantised* vectors, so that the tokens must
carry how something is said, not what. On disk it is config.json, model.safetensors and an ONNX
form.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from aligncap.errors import MissingModelError
from aligncap.foreign import AGAIN, check_tensors, read_table, reading
from aligncap.prosody.measurement import MELS
from aligncap.tokenizers import builtin
from aligncap.values import EMOTIONS

_DECAY = 0.98
_DEAD = 0.1


class VectorQuantizer(nn.Module):
    """One codebook whose entries are running means of the vectors nearest to them.

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
        self, x: Tensor, mask: Tensor, *, rounding: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`x` [batch, time, width], `mask` [batch, time] → quantised `x` of the same shape, codes
        [batch, time], and the commitment loss; padding neither counts nor moves the codebook.
        Without `rounding` the vectors pass the narrow projection but not the codebook."""
        vectors = self.enter(x)
        # Under autocast too, distances are compared in full precision.
        vectors = functional.layer_norm(vectors.float(), vectors.shape[-1:])
        flat, kept = vectors.flatten(0, 1), mask.flatten() > 0
        with torch.no_grad():
            distance = self.codebook.square().sum(1) - 2 * flat @ self.codebook.T
            codes = distance.argmin(1)
        chosen = self.codebook[codes]
        commitment = (flat - chosen).square().mean(1)[kept].mean()
        if self.training:
            self._update_codebook(flat.detach()[kept], codes[kept])
        passed = flat + (chosen - flat).detach() if rounding else flat
        return self.leave(passed.view_as(vectors)), codes.view(x.shape[:2]), commitment

    @torch.no_grad()
    def _update_codebook(self, vectors: Tensor, codes: Tensor) -> None:
        """Move every entry to the running mean of its vectors; reset unused entries to vectors."""
        size = len(self.codebook)
        self.counts.lerp_(torch.bincount(codes, minlength=size).to(self.counts), 1 - _DECAY)
        sums = torch.zeros_like(self.sums).index_add_(0, codes, vectors)
        self.sums.lerp_(sums, 1 - _DECAY)
        self.codebook.copy_(self.sums / (self.counts[:, None] + 1e-3))
        dead = torch.nonzero(self.counts < _DEAD)[:, 0]
        if len(dead) and len(vectors):
            sampled = vectors[torch.randint(len(vectors), (len(dead),), device=vectors.device)]
            self.codebook[dead] = sampled
            self.sums[dead] = sampled
            self.counts[dead] = 1.0


_MASKED = -1e4


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """Size of the encoder."""

    width: int = 160
    channels: int = 16
    """Of the first convolution; the third has three times as many."""
    convolutions: int = 3
    """Residual convolutions at 25 Hz."""
    layers: int = 3
    """Transformer layers at 12.5 Hz."""
    heads: int = 4
    codebook_size: int = 512
    code_width: int = 32
    dropout: float = 0.15
    prosody: bool = True
    """Whether the encoder uses the prosody stream."""
    band_view: bool = True
    """Whether it uses the second, per-band normalised view."""


class EncoderOutput(NamedTuple):
    """The encoder's output for a batch; `tokens` is frames / 8, rounded up."""

    codes: Tensor
    """Int64, shape [batch, tokens]."""
    emotion: Tensor
    """Logits, shape [batch, 8]."""
    gender: Tensor
    """Logit of a female voice, shape [batch]."""
    pace: Tensor
    """Logarithm of syllables a second, shape [batch]."""
    signal: Tensor
    """Mean input of each token's frames, shape [batch, tokens, 64 + 6]."""
    mask: Tensor
    """1 for tokens of the utterance, 0 for padding, shape [batch, tokens]."""
    commitment: Tensor
    """Mean squared distance from vectors to their codebook entries, a scalar."""


class ResidualConvolution(nn.Module):
    """A dilated convolution over time with a short cut around it."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.spread = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.norm = nn.BatchNorm1d(width)
        self.mix = nn.Conv1d(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` [batch, width, time], `mask` [batch, time] → [batch, width, time]."""
        y = functional.silu(self.norm(self.spread(x * mask[:, None])))
        added: Tensor = self.dropout(self.mix(y))
        return x + added


class TransformerLayer(nn.Module):
    """Self-attention, which may learn to prefer near tokens, and a feed-forward network."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.projections = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)
        # Some heads begin as local, some as global.
        self.slope = nn.Parameter(torch.linspace(0.0, 0.3, heads))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` [batch, time, width], `mask` [batch, time] → [batch, time, width]."""
        batch, time, width = x.shape
        shaped = self.projections(self.attention_norm(x)).view(batch, time, 3, self.heads, -1)
        query, key, value = shaped.permute(2, 0, 3, 1, 4)
        place = torch.arange(time, device=x.device, dtype=x.dtype)
        nearness = -(place[:, None] - place).abs() * functional.relu(self.slope)[:, None, None]
        scores = query @ key.transpose(2, 3) / math.sqrt(width // self.heads) + nearness
        weights = (scores + (1.0 - mask[:, None, None]) * _MASKED).softmax(-1)
        attended = (weights @ value).transpose(1, 2).reshape(batch, time, width)
        x = x + self.dropout(self.output(attended))
        added: Tensor = self.dropout(self.feedforward(self.feedforward_norm(x)))
        return x + added


class SpeechEncoder(nn.Module):
    """The built-in tokenizer's network."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        width, channels = config.width, config.channels
        views = builtin.VIEWS if config.band_view else 1
        self.front = nn.ModuleList(
            (
                nn.Conv2d(views, channels, 5, stride=2, padding=2),
                nn.Conv2d(channels, 2 * channels, 3, stride=(1, 2), padding=1),
                nn.Conv2d(2 * channels, 3 * channels, 3, stride=(1, 2), padding=1),
            )
        )
        self.front_norms = nn.ModuleList(nn.BatchNorm2d((n + 1) * channels) for n in range(3))
        self.spectrum = nn.Linear(3 * channels * MELS // 8, width)
        self.prosody = nn.Sequential(
            nn.Conv1d(builtin.PROSODY, 48, 9, stride=2, padding=4),
            nn.SiLU(),
            nn.Conv1d(48, width, 5, stride=2, padding=2),
        )
        self.front_dropout = nn.Dropout(config.dropout)
        self.convolutions = nn.ModuleList(
            ResidualConvolution(width, n + 1, config.dropout) for n in range(config.convolutions)
        )
        self.shorten = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(
            TransformerLayer(width, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.quantizer = VectorQuantizer(width, config.codebook_size, config.code_width)
        self.attend = nn.Linear(width, 1)
        self.summary = nn.Sequential(nn.Linear(2 * width, 128), nn.SiLU(), nn.Dropout(0.2))
        self.emotion = nn.Linear(128, len(EMOTIONS))
        self.gender = nn.Linear(128, 1)
        self.pace = nn.Linear(128, 1)
        self.signal = nn.Sequential(
            nn.Linear(width, 128), nn.SiLU(), nn.Linear(128, MELS + builtin.PROSODY)
        )

    def forward(
        self, views: Tensor, prosody: Tensor, frame_mask: Tensor, *, quantize: bool = True
    ) -> EncoderOutput:
        """Encode a batch: `views` [batch, 2, frames, 64], `prosody` [batch, frames, 6] and
        `frame_mask` [batch, frames] (1 for the utterance, 0 for padding); frames is a multiple
        of 8. Without `quantize` the heads see vectors that are not rounded to the codebook."""
        x = self._convolve(views, prosody, frame_mask[:, :: builtin.FRAMES_A_TOKEN // 2])
        mask = frame_mask[:, :: builtin.FRAMES_A_TOKEN]
        for layer in self.layers:
            x = layer(x, mask)
        x = self.norm(x)
        x, codes, commitment = self.quantizer(x, mask, rounding=quantize)
        summary = self.summary(self._pool(x, mask))
        return EncoderOutput(
            codes,
            self.emotion(summary),
            self.gender(summary)[:, 0],
            self.pace(summary)[:, 0],
            self.signal(x),
            mask,
            commitment,
        )

    def _convolve(self, views: Tensor, prosody: Tensor, mask: Tensor) -> Tensor:
        """Convolutions from 100 Hz to 12.5 Hz; returns [batch, tokens, width]."""
        # Averaging pairs of frames first halves the cost and loses nothing that was measured.
        x = functional.avg_pool2d(views[:, : self.front[0].in_channels], (2, 1))
        x = x.contiguous(memory_format=torch.channels_last)
        for convolution, norm in zip(self.front, self.front_norms, strict=True):
            x = functional.silu(norm(convolution(x)))
        x = self.spectrum(x.permute(0, 2, 1, 3).flatten(2))
        if self.config.prosody:
            x = x + self.prosody(prosody.transpose(1, 2)).transpose(1, 2)
        x = self.front_dropout(x).transpose(1, 2)
        for convolution in self.convolutions:
            x = convolution(x, mask)
        shortened: Tensor = self.shorten(x * mask[:, None]).transpose(1, 2)
        return shortened

    def _pool(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attention-weighted mean and deviation over tokens, shape [batch, 2 · width]."""
        weights = (self.attend(x) + (mask[..., None] - 1.0) * -_MASKED).softmax(1)
        mean = (x * weights).sum(1)
        variance = (x.square() * weights).sum(1) - mean.square()
        return torch.cat((mean, variance.clamp(min=1e-4).sqrt()), dim=1)


CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


def save_encoder(folder: Path, model: SpeechEncoder) -> None:
    """Write the encoder's size, weights and ONNX form into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(asdict(model.config), indent=1) + "\n"
    (folder / CONFIG_FILE).write_text(config, encoding="utf-8")
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    export_encoder(model, folder / builtin.ENCODER_FILE)


def load_encoder(folder: Path) -> SpeechEncoder:
    """The encoder that `save_encoder` wrote, in evaluation mode."""
    if not (folder / WEIGHTS_FILE).exists():
        raise MissingModelError(
            f"{folder}: holds no speech encoder; run: aligncap train recipes/mini/encoder.toml"
        )
    table = read_table(folder / CONFIG_FILE, hint=AGAIN)
    check_tensors(folder / WEIGHTS_FILE, hint=AGAIN)
    with reading(folder, hint=AGAIN):
        model = SpeechEncoder(EncoderConfig(**table))
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    return model.eval()


class _Exported(nn.Module):
    """The exported form; its arguments' names are those of the ONNX inputs."""

    def __init__(self, encoder: SpeechEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, views: Tensor, prosody: Tensor, heard: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        found = self.encoder(views, prosody, heard)
        female = found.gender.sigmoid()
        return found.codes, found.emotion.softmax(-1), female, found.pace.exp()


def export_encoder(model: SpeechEncoder, path: Path) -> None:
    """Write the encoder as ONNX: `views` [1, 2, frames, 64], `prosody` [1, frames, 6] and `heard`
    [1, frames], frames a multiple of 8, to `codes`, `emotion` (probabilities), `female`, `pace`."""
    frames = 12 * builtin.FRAMES_A_TOKEN
    example = (
        torch.zeros(1, builtin.VIEWS, frames, MELS),
        torch.zeros(1, frames, builtin.PROSODY),
        torch.ones(1, frames),
    )
    tokens = torch.export.Dim("tokens", min=2, max=4096)
    training = model.training
    exported = _Exported(model).eval()
    program = torch.onnx.export(
        exported,
        example,
        dynamo=True,
        input_names=list(builtin.ONNX_INPUTS),
        output_names=["codes", "emotion", "female", "pace"],
        dynamic_shapes={
            "views": {2: tokens * builtin.FRAMES_A_TOKEN},
            "prosody": {1: tokens * builtin.FRAMES_A_TOKEN},
            "heard": {1: tokens * builtin.FRAMES_A_TOKEN},
        },
        verbose=False,
    )
    model.train(training)
    if program is None:
        raise RuntimeError("torch gave no ONNX program")
    model_proto = program.model_proto
    graph: Any = model_proto.graph
    # torch notes where the source of every node lies on this machine.
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    model_proto.metadata_props.add(key=builtin.CODEBOOK_SIZE, value=str(model.config.codebook_size))
    path.write_bytes(model_proto.SerializeToString())
