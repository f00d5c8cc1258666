"""Tiny captioners: vocabularies, random backbones, model folders; fakes; oracles of likelihoods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aligncap.captioner.checkpoint import CaptionLimits, ModelMeta, ModelNotes, SpeechTokenizerMeta
from aligncap.captioner.prompts import PromptTemplate, SharedPromptRow
from aligncap.captioner.runtimes import DecodeOptions, Hypothesis, ResponseRules
from aligncap.captioner.vocabulary import Vocabulary, train_text_tokenizer
from aligncap.values import EMOTIONS, SpeechTokens, Waveform

if TYPE_CHECKING:
    import torch

    from aligncap.captioner.model import CaptionModel

TEXTS = (
    "She sounds calm and speaks slowly in a low voice.",
    "他说话很快，声音低沉。",
    "Is he angry? Yes!",
)

_NARROW = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_SIZES = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    # As in OPT-350m: embeddings narrower than the layers, so that both projections are there.
    "opt": _NARROW | {"ffn_dim": 64, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
    "qwen2": _NARROW | {"intermediate_size": 64, "num_key_value_heads": 1},
}
KINDS = ["llama", *_SIZES]


@cache
def tiny_vocabulary(codebooks: int = 1, codebook_size: int = 16) -> Vocabulary:
    tokenizer = train_text_tokenizer(TEXTS * 4, 320)
    return Vocabulary.of(tokenizer, codebook_size=codebook_size, codebooks=codebooks)


def wide_vocabulary() -> Vocabulary:
    """Room for the 512 codes of the built-in tokenizer."""
    return tiny_vocabulary(codebook_size=512)


def tiny_lm(kind: str, *, tied: bool = True, seed: int = 0) -> Any:
    """A random LLaMA, GPT-2, OPT or Qwen2 whose embedding holds tiny_vocabulary()."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from aligncap.captioner.model import add_speech_tokens, small_llama

    vocabulary = tiny_vocabulary()
    if kind == "llama":
        return small_llama(vocabulary, hidden=32, layers=2, heads=2, tied=tied, seed=seed)
    torch.manual_seed(seed)
    size = {"vocab_size": vocabulary.shape.base_size, "tie_word_embeddings": tied}
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **size, **_SIZES[kind]))
    add_speech_tokens(lm, vocabulary)
    return lm


def tiny_model(kind: str = "llama", *, tied: bool = True, seed: int = 0) -> "CaptionModel":
    from aligncap.captioner.model import CaptionModel

    return CaptionModel(tiny_lm(kind, tied=tied, seed=seed).eval(), tiny_vocabulary())


def random_adapter(model: "CaptionModel", *, deviation: float = 1.0) -> "CaptionModel":
    """The model with an adapter whose weights are drawn."""
    import torch

    from aligncap.captioner.model import AdapterSettings, add_adapter

    adapted = add_adapter(model, AdapterSettings(rank=2)).eval()
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.add_(deviation * torch.randn_like(parameter))
    return adapted


def sharpened(kind: str) -> Any:
    """A random model whose logits are far enough apart for float to see: deviation 2."""
    import torch

    vocabulary, model = tiny_vocabulary(), tiny_lm(kind, tied=False).eval()
    prompt = random_rows(vocabulary, seed=5, rows=1, responses=1)[0].prompt_ids
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[..., : vocabulary.text_vocab_size]
        model.get_output_embeddings().weight.mul_(2.0 / logits.std())
    return model


def random_rows(
    vocabulary: Vocabulary, *, seed: int, rows: int, responses: int
) -> list[SharedPromptRow]:
    """Ragged prompts that hold speech, with ragged responses of text; some of one token."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(rows):
        codes = draw.integers(0, vocabulary.shape.codebook_size, (1, int(draw.integers(3, 14))))
        prompt = (vocabulary.bos_id, *vocabulary.speech_ids(SpeechTokens(codes)))
        texts = [
            draw.integers(3, vocabulary.text_vocab_size, int(draw.integers(0, 8))).tolist()
            for _ in range(responses)
        ]
        found.append(SharedPromptRow(prompt, tuple((*text, vocabulary.eos_id) for text in texts)))
    return found


def separate_log_probs(
    causal_lm: Any, rows: list[SharedPromptRow], text_rows: int
) -> "torch.Tensor":
    """The oracle: each response behind its own copy of the prompt, one plain forward each."""
    import torch

    alone = [(row.prompt_ids, response) for row in rows for response in row.responses]
    return torch.stack([_log_probs(causal_lm, *one, text_rows).sum() for one in alone])


def log_probability(
    causal_lm: Any,
    prompt: Sequence[int],
    response: Sequence[int],
    rules: ResponseRules,
    *,
    min_length: int = 0,
) -> float:
    """The oracle of one response's log-probability: text only, no stop before `min_length`."""
    import torch

    with torch.no_grad():
        return float(
            _log_probs(
                causal_lm, prompt, response, rules.text_vocab_size, rules.stop_ids, min_length
            ).sum()
        )


def _log_probs(
    causal_lm: Any,
    prompt: Sequence[int],
    response: Sequence[int],
    text_rows: int,
    stop_ids: Sequence[int] = (),
    min_length: int = 0,
) -> "torch.Tensor":
    import torch

    logits = causal_lm(input_ids=torch.tensor([[*prompt, *response]])).logits[0]
    logits = logits[len(prompt) - 1 : -1, :text_rows].clone()
    logits[:min_length, list(stop_ids)] = -torch.inf
    return logits.log_softmax(-1)[range(len(response)), list(response)]


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
    batches: list[list[tuple[int, ...]]] = field(default_factory=list)
    """The prompts it was given, call by call."""

    def generate(
        self, prompts: Sequence[Sequence[int]], options: DecodeOptions
    ) -> list[list[Hypothesis]]:
        self.batches.append([tuple(prompt) for prompt in prompts])
        said = [
            Hypothesis.of(tuple(self.vocabulary.encode_text(text)), -float(place), 1.0)
            for place, text in enumerate(self.texts, start=1)
        ]
        return [said[: options.captions] for _ in prompts]


def tiny_meta(**changes: object) -> ModelMeta:
    meta = ModelMeta(
        name="tiny",
        languages=("en", "zh"),
        tokenizer=SpeechTokenizerMeta(
            name="builtin", fingerprint="ab12", frame_rate_hz=12.5, options={"depth": 1}
        ),
        vocabulary=tiny_vocabulary().shape,
        prompts=PromptTemplate({"en": "Say how.\n", "zh": "怎么说？\n"}, separator="。"),
        limits=CaptionLimits(max_tokens=40),
        act_mode="measured",
        notes=ModelNotes(
            summary="A model for tests.",
            license="CC BY-NC-SA 4.0",
            trained_on=("nothing",),
            not_for=("anybody",),
            scores={"recall": "0.1 [toy]"},
        ),
        provenance={"seed": "0"},
    )
    return replace(meta, **changes)  # type: ignore[arg-type]


def write_model(folder: Path, *, hears: float = 0.0) -> Path:
    """A trained folder: a random LLaMA with opinions and the encoder below; by `hears` its emotions
    depend on the sound."""
    encoder = folder.with_name(f"{folder.name}-encoder")
    _write_encoder(encoder / "encoder.onnx", _ENCODER.replace("[0.0]", f"[{hears}]"))
    return _save_model(folder, encoder, wide_vocabulary())


def write_whisper_model(folder: Path) -> Path:
    """The same with an encoder that takes a baseline and gives two codebooks."""
    encoder = folder.with_name(f"{folder.name}-encoder")
    write_whisper_encoder(encoder / "encoder.onnx")
    return _save_model(folder, encoder, tiny_vocabulary(codebooks=2, codebook_size=80))


def _save_model(folder: Path, encoder: Path, vocabulary: Vocabulary) -> Path:
    from aligncap.captioner.checkpoint import save
    from aligncap.captioner.model import CaptionModel, small_llama
    from aligncap.tokenizers import open_tokenizer

    fingerprint = open_tokenizer("builtin", encoder).fingerprint
    lm = small_llama(vocabulary, hidden=32, layers=2, heads=2, tied=False)
    lm.lm_head.weight.data.mul_(12.0)
    meta = tiny_meta(
        vocabulary=vocabulary.shape,
        act_mode="none",
        tokenizer=SpeechTokenizerMeta(name="builtin", fingerprint=fingerprint, frame_rate_hz=12.5),
    )
    save(folder, CaptionModel(lm, vocabulary), meta, encoder=encoder)
    return folder


# A token is the position of the greatest of its 8 x 64 mean view values. Every input must be used,
# or ONNX Runtime drops it.
_ENCODER = f"""<ir_version: 10, opset_import: ["" : 18]>
encoder (float[1,2,frames,64] views, float[1,frames,6] prosody, float[1,frames] heard)
    => (int64[1,tokens] codes, float[1,8] emotion, float[1] female, float[1] pace)
{{
    axis = Constant <value_ints = [1]> ()
    both = Constant <value_ints = [1, 2]> ()
    shape = Constant <value_ints = [1, -1, 512]> ()
    none = Constant <value_floats = [0.0]> ()
    sad = Constant <value_floats = {[0.6 if name == "sad" else 0.06 for name in EMOTIONS]}> ()
    mean = ReduceMean <keepdims = 0> (views, axis)
    tokens = Reshape (mean, shape)
    codes = ArgMax <axis = 2, keepdims = 0> (tokens)
    level = ReduceMean <keepdims = 1> (prosody, both)
    flat = Squeeze (level, axis)
    nothing = Mul (flat, none)
    emotion = Add (sad, nothing)
    female = Constant <value_floats = [0.25]> ()
    pace = Constant <value_floats = [4.0]> ()
}}"""


# Codes: the loudest and the faintest band of each eighth frame. The vector: the mean of the four
# lowest bands. The arousal: the mean of the baseline. With a baseline the voice is happy, not sad.
WHISPER_ENCODER = f"""<ir_version: 10, opset_import: ["" : 18]>
encoder (float[1,frames,80] mel, float[1,4] baseline, float[1] based)
    => (int64[2,tokens] codes, float[1,8] emotion, float[1] female, float[1,11] vocalization,
        float[1] arousal, float[1] syllables, float[1,4] vector, float[1] novelty)
{{
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    four = Constant <value_ints = [4]> ()
    eight = Constant <value_ints = [8]> ()
    last = Constant <value_ints = [9999]> ()
    each = Slice (mel, zero, last, one, eight)
    loudest = ArgMax <axis = 2, keepdims = 0> (each)
    faintest = ArgMin <axis = 2, keepdims = 0> (each)
    codes = Concat <axis = 0> (loudest, faintest)
    lowest = Slice (mel, zero, four, two, one)
    vector = ReduceMean <keepdims = 0> (lowest, one)
    arousal = ReduceMean <keepdims = 0> (baseline, one)
    half = Constant <value_float = 0.5> ()
    known = Greater (based, half)
    sad = Constant <value_floats = {[0.58 if name == "sad" else 0.06 for name in EMOTIONS]}> ()
    happy = Constant <value_floats = {[0.58 if name == "happy" else 0.06 for name in EMOTIONS]}> ()
    heard = Where (known, happy, sad)
    emotion = Unsqueeze (heard, zero)
    female = Constant <value_floats = [0.25]> ()
    sounds = Constant <value_floats = {[0.9, *[0.01] * 10]}> ()
    vocalization = Unsqueeze (sounds, zero)
    syllables = Constant <value_floats = [6.0]> ()
    novelty = Constant <value_floats = [0.5]> ()
}}"""


def write_whisper_encoder(file: Path, graph: str = WHISPER_ENCODER) -> Path:
    """An encoder that takes Whisper's spectrogram and a baseline, without weights."""
    return _write_encoder(file, graph, codebook_size="80", codebooks="2")


def _write_encoder(file: Path, graph: str = _ENCODER, **metadata: str) -> Path:
    """An ONNX graph with the inputs and outputs of a built-in encoder and no weights."""
    import onnx

    model = onnx.parser.parse_model(graph)
    for key, value in ({"codebook_size": "512"} | metadata).items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, file)
    return file
