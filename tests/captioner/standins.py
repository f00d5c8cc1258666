"""Stand-ins for the parts of a captioner, and a whole tiny model folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from aligncap.captioner.checkpoint import ModelMeta
from aligncap.captioner.runtimes import DecodeOptions, Hypothesis
from aligncap.captioner.vocabulary import Vocabulary, train_text_tokenizer
from aligncap.values import EMOTIONS, SpeechTokens, Waveform
from captioner.test_checkpoint import tiny_meta
from captioner.tiny import TEXTS


def wide_vocabulary() -> Vocabulary:
    """Room for the 512 codes of the built-in tokenizer."""
    return Vocabulary.of(train_text_tokenizer(TEXTS * 4, 320), codebook_size=512)


@dataclass(frozen=True)
class LoudnessTokenizer:
    """A token each 80 ms: the more level, the higher."""

    name: str = "loudness"
    frame_rate_hz: float = 12.5
    codebooks: int = 1
    codebook_size: int = 512
    fingerprint: str = "ab12"
    readout: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def encode(self, waveform: Waveform) -> SpeechTokens:
        count = max(1, len(waveform.samples) // 1280)
        frames = np.resize(waveform.samples, (count, 1280))
        level = np.sqrt((frames.astype(np.float64) ** 2).mean(axis=1))
        codes = np.minimum(level * 512, 511).astype(np.int64)[None]
        return SpeechTokens(codes, self.readout)


@dataclass
class Reciter:
    """A language model that says the given texts, each a little less likely than the one before."""

    vocabulary: Vocabulary
    texts: Sequence[str]
    log_probabilities: Sequence[float] = (-1.0, -2.0, -3.0, -4.0)
    batches: list[list[tuple[int, ...]]] = field(default_factory=list)
    """The prompts it was given, call by call."""

    def generate(
        self, prompts: Sequence[Sequence[int]], options: DecodeOptions
    ) -> list[list[Hypothesis]]:
        self.batches.append([tuple(prompt) for prompt in prompts])
        said = [
            Hypothesis.of(tuple(self.vocabulary.encode_text(text)), log_probability, 1.0)
            for text, log_probability in zip(self.texts, self.log_probabilities, strict=False)
        ]
        return [said[: options.captions] for _ in prompts]


def small_meta(vocabulary: Vocabulary, **changes: object) -> ModelMeta:
    meta = tiny_meta(vocabulary=vocabulary.shape, act_mode="none")
    return replace(meta, **changes)  # type: ignore[arg-type]


def write_encoder(file: Path) -> None:
    """An ONNX graph with the inputs and outputs of the built-in encoder and no weights.

    A token is the position of the greatest of its 8 x 64 mean view values.
    """
    import onnx
    from onnx import TensorProto, helper

    def constant(name: str, values: list[float]) -> onnx.TensorProto:
        return helper.make_tensor(name, TensorProto.FLOAT, [1, len(values)], values)

    sad = [0.6 if name == "sad" else 0.4 / 7 for name in EMOTIONS]
    nodes = [
        helper.make_node("ReduceMean", ["views", "axis"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["tokens"]),
        helper.make_node("ArgMax", ["tokens"], ["codes"], axis=2, keepdims=0),
        # Every input must be used, or ONNX Runtime drops it.
        helper.make_node("ReduceMean", ["prosody", "both"], ["level"], keepdims=0),
        helper.make_node("Mul", ["level", "none"], ["nothing"]),
        helper.make_node("Add", ["sad", "nothing"], ["emotion"]),
        helper.make_node("Constant", [], ["female"], value_floats=[0.25]),
        helper.make_node("Constant", [], ["pace"], value_floats=[4.0]),
    ]
    numbers = [
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("both", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("shape", TensorProto.INT64, [3], [1, -1, 512]),
        helper.make_tensor("none", TensorProto.FLOAT, [1], [0.0]),
        constant("sad", sad),
    ]
    inputs = [
        helper.make_tensor_value_info("views", TensorProto.FLOAT, [1, 2, "frames", 64]),
        helper.make_tensor_value_info("prosody", TensorProto.FLOAT, [1, "frames", 6]),
        helper.make_tensor_value_info("heard", TensorProto.FLOAT, [1, "frames"]),
    ]
    outputs = [
        helper.make_tensor_value_info("codes", TensorProto.INT64, [1, "tokens"]),
        helper.make_tensor_value_info("emotion", TensorProto.FLOAT, [1, 8]),
        helper.make_tensor_value_info("female", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("pace", TensorProto.FLOAT, [1]),
    ]
    graph = helper.make_graph(nodes, "encoder", inputs, outputs, numbers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model.metadata_props.add(key="codebook_size", value="512")
    onnx.checker.check_model(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, file)


def write_model(folder: Path, **changes: object) -> Path:
    """A trained folder: a random LLaMA with opinions and the encoder above."""
    from aligncap.captioner.checkpoint import SpeechTokenizerMeta, save
    from aligncap.captioner.model import CaptionModel, small_llama
    from aligncap.tokenizers import open_tokenizer

    encoder = folder.with_name(f"{folder.name}-encoder")
    write_encoder(encoder / "encoder.onnx")
    vocabulary = wide_vocabulary()
    model = CaptionModel(
        small_llama(vocabulary, hidden=32, layers=2, heads=2, tied=False), vocabulary
    )
    model.causal_lm.lm_head.weight.data.mul_(12.0)
    made_for = SpeechTokenizerMeta(
        name="builtin",
        fingerprint=open_tokenizer("builtin", encoder).fingerprint,
        frame_rate_hz=12.5,
    )
    meta = small_meta(vocabulary, tokenizer=made_for, **changes)
    save(folder, model, meta, encoder=encoder)
    return folder
