"""The built-in speech encoder: Whisper's lower layers, and a small network on top of them that
turns 80 ms into a token.

The lower layers (`whisper`) are fine-tuned. A learnt mix of their outputs is averaged to 12.5
vectors a second, passes one more transformer layer, and is quantised by residual codebooks
(Zeghidour et al. 2021) that are learnt with the emotion loss. A readout pools the vectors of a clip
and predicts emotion, gender, vocalisation and arousal: one reads the continuous vectors, and one
each what the first, the first two … codebooks keep, so that the tokens must carry how something is
said. A second readout of emotion (`statistics`) reads the lower layers as they came. Readouts also
take a speaker's baseline: the mean vector of other clips of the speaker. On disk it is config.json,
model.safetensors and an ONNX form.
"""

import json
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from aligncap.errors import MissingModelError
from aligncap.foreign import AGAIN, check_tensors, read_table, reading
from aligncap.tokenizers import builtin
from aligncap.tokenizers.builtin import LONGEST_FRAMES, WHISPER_MELS
from aligncap.tokenizers.statistics import (
    StatisticsReadout,
    SyllableReadout,
    distribution,
    of_two,
    pooled,
    width_of,
)
from aligncap.tokenizers.whisper import WhisperLayer, WhisperLayers
from aligncap.values import EMOTIONS, VOCALIZATIONS

QUANTILES = 33
"""Distances to the training data that are kept, evenly spaced among those of familiar clips."""

OUTPUTS = (
    "codes", "emotion", "female", "vocalization", "arousal", "syllables", "vector", "novelty"
)  # fmt: skip
"""Of the exported encoder, in the order in which it gives them."""

_DECAY = 0.98
_DEAD = 0.1
_EXCLUDED = -1e4


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """Size of the encoder."""

    whisper_width: int = 384
    layers: int = 3
    """Of Whisper's encoder."""
    width: int = 256
    heads: int = 4
    """Of the layer on top."""
    codebooks: int = 2
    """That are trained."""
    exported: int = 1
    """Codebooks whose codes are the speech tokens."""
    codebook_size: int = 512
    code_width: int = 32
    hidden: int = 256
    """Of a readout."""
    landmarks: int = 64
    """Points that stand for the training data when novelty is judged."""
    dropout: float = 0.1
    statistics_layers: int = 0
    """Whisper's layers as they came, whose outputs' statistics a second readout reads; 0: none."""
    statistics_hidden: int = 256
    syllable_hidden: int = 0
    """Of what counts syllables by the last of these layers; 0: the vectors of tokens do."""


class Codebook(nn.Module):
    """Entries that are running means of the vectors nearest to them."""

    entries: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        entries = functional.layer_norm(torch.randn(size, width), (width,))
        self.register_buffer("entries", entries)
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("sums", entries.clone())

    def forward(self, vectors: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """`vectors` [n, width] → the nearest entries [n, width] and their numbers [n]. In training
        the entries follow the vectors where `kept` [n] is 1."""
        with torch.no_grad():
            distance = self.entries.square().sum(1) - 2 * vectors @ self.entries.T
            codes = distance.argmin(1)
        nearest = self.entries[codes]
        if self.training:
            self._follow(vectors.detach(), codes, kept)
        return nearest, codes

    @torch.no_grad()
    def _follow(self, vectors: Tensor, codes: Tensor, kept: Tensor) -> None:
        """Move every entry to the running mean of its vectors; unused ones to vectors drawn."""
        size = len(self.entries)
        self.counts.lerp_(torch.zeros_like(self.counts).index_add_(0, codes, kept), 1 - _DECAY)
        sums = torch.zeros_like(self.sums).index_add_(0, codes, vectors * kept[:, None])
        self.sums.lerp_(sums, 1 - _DECAY)
        self.entries.copy_(self.sums / (self.counts[:, None] + 1e-3))
        dead = (self.counts < _DEAD)[:, None]
        drawn = vectors[torch.multinomial(kept + 1e-6, size, replacement=True)]
        self.entries.copy_(torch.where(dead, drawn, self.entries))
        self.sums.copy_(torch.where(dead, drawn, self.sums))
        self.counts.masked_fill_(dead[:, 0], 1.0)


class Reading(NamedTuple):
    """What a readout predicts of a batch of clips."""

    emotion: Tensor
    """Logits, [batch, 8]."""
    female: Tensor
    """Logit of a woman's voice, [batch]."""
    vocalization: Tensor
    """Logits in the order of `VOCALIZATIONS`, [batch, 11]."""
    arousal: Tensor
    """-1 to 1, [batch]."""


class Readout(nn.Module):
    """Pools the vectors of a clip and predicts how it was said."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        pooled = 2 * config.width
        self.attend = nn.Linear(config.width, 1)
        self.norm = nn.LayerNorm(pooled)
        self.hidden = nn.Linear(2 * pooled, config.hidden)
        self.emotion = nn.Linear(config.hidden, len(EMOTIONS))
        self.gender = nn.Linear(config.hidden, 1)
        self.vocalization = nn.Linear(config.hidden, len(VOCALIZATIONS))
        self.arousal = nn.Linear(config.hidden, 1)
        self.dropout = nn.Dropout(3 * config.dropout)

    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` [batch, tokens, width] → attention-weighted mean and deviation, normalised,
        [batch, 2 · width]: the clip's vector."""
        weights = self.attend(x)[..., 0].masked_fill(~mask, _EXCLUDED).softmax(1)[..., None]
        even = (mask.to(x) / mask.sum(1, keepdim=True))[..., None]
        centre = (x * even).sum(1, keepdim=True)
        variance = ((x - centre).square() * even).sum(1)
        pooled = torch.cat(((x * weights).sum(1), variance.clamp(min=1e-5).sqrt()), 1)
        vector: Tensor = self.norm(pooled)
        return vector

    def forward(self, vector: Tensor, baseline: Tensor, based: Tensor) -> Reading:
        """`vector` and `baseline` [batch, 2 · width]; `based` [batch] is 1 where the baseline is
        known and 0 where it is not."""
        relative = (vector - baseline) * based[:, None]
        x = self.dropout(torch.cat((vector, relative), 1))
        x = self.dropout(functional.silu(self.hidden(x)))
        arousal = self.arousal(x)[:, 0].tanh()
        return Reading(self.emotion(x), self.gender(x)[:, 0], self.vocalization(x), arousal)


class Encoded(NamedTuple):
    """The vectors of a batch of clips before any readout."""

    start: Tensor
    """After the convolutions, [batch, frames / 2, Whisper's width]."""
    stages: tuple[Tensor, ...]
    """Continuous, then after one, two … codebooks, each [batch, tokens, width]."""
    mask: Tensor
    """True for tokens of the clip, [batch, tokens]."""
    codes: Tensor
    """Int64, [batch, codebooks, tokens]."""
    commitment: Tensor
    """Mean squared distance from vectors to what the codebooks make of them, a scalar."""
    syllables: Tensor
    """Syllables spoken in each clip, [batch]."""


class SpeechEncoder(nn.Module):
    """The built-in tokenizer's network."""

    landmarks: Tensor
    distances: Tensor
    lifeless: Tensor
    temperature: Tensor
    syllable_scale: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        wide, width = config.whisper_width, config.width
        self.whisper = WhisperLayers(wide, config.layers, wide // 64, dropout=config.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(wide) for _ in range(config.layers + 1))
        self.mix = nn.Parameter(torch.zeros(config.layers + 1))
        self.narrow = nn.Linear(wide, width)
        self.narrow_norm = nn.LayerNorm(width)
        self.top = WhisperLayer(width, config.heads, dropout=1.5 * config.dropout)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.rate = nn.Sequential(nn.Linear(width, 64), nn.SiLU(), nn.Linear(64, 1))
        self.enter = nn.Linear(width, config.code_width)
        levels = range(config.codebooks)
        self.codebooks = nn.ModuleList(
            Codebook(config.codebook_size, config.code_width) for _ in levels
        )
        self.leave = nn.ModuleList(nn.Linear(config.code_width, width) for _ in levels)
        self.readouts = nn.ModuleList(Readout(config) for _ in range(config.codebooks + 1))
        layers = config.statistics_layers
        self.pretrained = nn.ModuleList(WhisperLayer(wide, wide // 64) for _ in range(layers))
        self.statistics = (
            StatisticsReadout(width_of(layers, wide), config.statistics_hidden) if layers else None
        )
        self.syllables = (
            SyllableReadout(wide, config.syllable_hidden) if config.syllable_hidden else None
        )
        self.register_buffer("landmarks", torch.zeros(config.landmarks, 2 * width))
        self.register_buffer("distances", torch.arange(QUANTILES, dtype=torch.float32))
        # Weights of a vector and a bias: a logit of sounds that no person makes.
        self.register_buffer("lifeless", torch.zeros(2 * width + 1))
        # Without and with a baseline.
        self.register_buffer("temperature", torch.ones(2))
        self.register_buffer("syllable_scale", torch.ones(()))

    @property
    def vector_width(self) -> int:
        """Numbers in a clip's vector: what the first readout pools, and what the second reads."""
        return 2 * self.config.width + width_of(
            self.config.statistics_layers, self.config.whisper_width
        )

    def forward(self, mel: Tensor, mask: Tensor) -> Encoded:
        """Encode a batch: `mel` [batch, frames, 80] and `mask` [batch, frames] (True for the clip);
        what is left of less than a token is cut off."""
        halves = mask[:, ::2]
        layers = self.whisper(mel, halves)
        x, kept = self._contextual(layers, halves)
        stages, codes, commitment = self._quantise(x, kept)
        steps = functional.softplus(self.rate(x)[..., 0]) * kept
        return Encoded(layers[0], (x, *stages), kept, codes, commitment, steps.sum(1))

    def as_it_came(self, start: Tensor, mask: Tensor) -> list[Tensor]:
        """What Whisper's layers as they came make of `start` (after the convolutions), each
        [batch, frames / 2, Whisper's width]; `mask` [batch, frames / 2] is True within the clip."""
        outputs: list[Tensor] = []
        for layer in self.pretrained:
            outputs.append(layer(outputs[-1] if outputs else start, mask))
        return outputs

    def _contextual(self, layers: Sequence[Tensor], halves: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, tokens, width] and the tokens' mask, 12.5 a second, of Whisper's outputs."""
        weights = self.mix.softmax(0)
        x = sum(
            (weights[n] * norm(layers[n]) for n, norm in enumerate(self.norms)),
            torch.zeros((), device=halves.device),
        )
        x, kept = pooled(x, halves)
        x = self.dropout(self.narrow_norm(self.narrow(self.dropout(x))))
        return self.norm(self.top(x, kept)).float(), kept

    def _quantise(self, x: Tensor, mask: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """What one, two … codebooks keep of `x`, the codes, and the commitment loss. The gradient
        passes straight through; distances are compared in full precision under autocast too."""
        with torch.autocast(x.device.type, enabled=False):
            vectors = self.enter(x.float())
            flat = functional.layer_norm(vectors, vectors.shape[-1:]).flatten(0, 1)
            kept = mask.flatten().to(flat)
            total, codes, stages = torch.zeros_like(flat), [], []
            commitment = torch.zeros((), device=x.device)
            for codebook, leave in zip(self.codebooks, self.leave, strict=True):
                nearest, numbers = codebook(flat - total, kept)
                total = total + nearest
                error = (flat - total).square().mean(1)
                commitment = commitment + (error * kept).sum() / kept.sum()
                passed = flat + (total - flat).detach()
                stages.append(leave(passed.view_as(vectors)))
                codes.append(numbers.view(mask.shape))
            return stages, torch.stack(codes, 1), commitment

    def read(self, encoded: Encoded, stage: int = 0) -> Reading:
        """The readout of one stage (0 continuous, 1 the first codebook …), without a baseline."""
        readout: Any = self.readouts[stage]
        vector = readout.pool(encoded.stages[stage], encoded.mask)
        reading: Reading = readout(vector, torch.zeros_like(vector), vector.new_zeros(len(vector)))
        return reading

    def novelty(self, vector: Tensor) -> Tensor:
        """The share of familiar clips that are nearer to the training data than clips with these
        vectors [batch, 2 · width], from 0 to 1, [batch]; 1 for what no person sounds like."""
        distance = (vector[:, None] - self.landmarks).square().mean(2).amin(1)
        below = (distance[:, None] >= self.distances).sum(1) - 1
        low = below.clamp(0, QUANTILES - 2)
        start, end = self.distances[low], self.distances[low + 1]
        share = ((distance - start) / (end - start).clamp(min=1e-6)).clamp(0, 1)
        lifeless = (vector * self.lifeless[:-1]).sum(1) + self.lifeless[-1] > 0
        return torch.maximum((low + share) / (QUANTILES - 1), lifeless.to(vector))


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


def rebuilt(model: SpeechEncoder, without: tuple[str, ...], **changes: int) -> SpeechEncoder:
    """The encoder with other settings, in evaluation mode. Weights are kept but for those whose
    names begin with one of `without`, which are new."""
    found = SpeechEncoder(replace(model.config, **changes))
    kept = {n: v for n, v in model.state_dict().items() if not n.startswith(without)}
    found.load_state_dict({**found.state_dict(), **kept})
    return found.eval()


def _fused_attention(projected: Tensor, heads: int, mask: Tensor) -> Tensor:
    """`self_attention` of whole clips as one operator of ONNX Runtime, which takes half the time of
    its parts. It can be exported, and not run."""
    del mask
    width = projected.shape[2] // 3
    found: Tensor = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        torch.split(projected, width, 2),
        attrs={"num_heads": heads},
        dtype=projected.dtype,
        shape=(*projected.shape[:2], width),
        version=1,
    )
    return found


class _Exported(nn.Module):
    """The exported form of a copy; its arguments' names are those of the ONNX inputs."""

    def __init__(self, encoder: SpeechEncoder) -> None:
        super().__init__()
        self.encoder = deepcopy(encoder)
        for part in self.modules():
            if isinstance(part, WhisperLayer):
                part.attention = _fused_attention

    def forward(self, mel: Tensor, baseline: Tensor, based: Tensor) -> Sequence[Tensor]:
        encoder = self.encoder
        mask = torch.ones(mel.shape[:2], dtype=torch.bool)
        encoded = encoder(mel, mask)
        readout: Any = encoder.readouts[0]
        pool = readout.pool(encoded.stages[0], encoded.mask)
        own = pool.shape[1]
        found = readout(pool, baseline[:, :own], based)
        vector, emotion, syllables = pool, found.emotion, encoded.syllables
        if encoder.statistics is not None:
            outputs = encoder.as_it_came(encoded.start, mask[:, ::2])
            if encoder.syllables is not None:
                syllables = encoder.syllables(outputs[-1], mask[:, ::2])
            statistics = distribution(torch.cat(outputs, 2), mel, mask)
            vector = torch.cat((pool, statistics), 1)
            logits = encoder.statistics(statistics, baseline[:, own:], based)
            emotion = encoder.statistics.joined(logits, emotion, based)
        return (
            encoded.codes[0, : encoder.config.exported],
            (emotion / of_two(encoder.temperature, based)[:, None]).softmax(1),
            found.female.sigmoid(),
            found.vocalization.softmax(1),
            found.arousal,
            syllables * encoder.syllable_scale,
            vector,
            encoder.novelty(pool),
        )


def export_encoder(model: SpeechEncoder, path: Path) -> None:
    """Write the encoder as ONNX with its matrices in int8: `mel` [1, frames, 80], two tokens or
    more, `baseline` [1, 2 · width] and `based` [1] to `OUTPUTS`; codes are those of the first
    codebooks, as many as `config.exported`."""

    example = (torch.zeros(1, 96, WHISPER_MELS), torch.zeros(1, model.vector_width), torch.zeros(1))
    frames = torch.export.Dim("frames", min=2 * builtin.FRAMES_A_TOKEN, max=LONGEST_FRAMES)
    exported = _Exported(model).eval()
    with warnings.catch_warnings():
        # torch copies what torch deprecates.
        warnings.filterwarnings("ignore", "`isinstance.treespec", FutureWarning)
        program = torch.onnx.export(
            exported,
            example,
            dynamo=True,
            input_names=list(builtin.WhisperTokenizer.INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes={"mel": {1: frames}, "baseline": None, "based": None},
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch gave no ONNX program")
    proto: Any = program.model_proto
    graph = proto.graph
    # torch notes where the source of every node lies on this machine.
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    quantised: Any = in_int8(proto)
    for key, value in (
        (builtin.CODEBOOK_SIZE, model.config.codebook_size),
        (builtin.CODEBOOKS, model.config.exported),
    ):
        quantised.metadata_props.add(key=key, value=str(value))
    path.write_bytes(quantised.SerializeToString())


def in_int8(model: Any) -> Any:
    """An ONNX model with the matrices of its products in int8, a scale for each output."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        return onnx.load(path)
