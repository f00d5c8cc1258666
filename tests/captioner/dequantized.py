"""The torch twin of an exported int8 LLaMA: the weights that CTranslate2 computes with in float.

A model that comes with the package has no torch weights, but both runtimes can be compared on it.
"""

import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from aligncap.captioner.vocabulary import Vocabulary

DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def torch_twin(ct2_folder: Path, vocabulary: Vocabulary) -> Any:
    """A LlamaForCausalLM with the dequantised weights of model.bin."""
    from transformers import LlamaConfig, LlamaForCausalLM

    read = read_weights(ct2_folder / "model.bin")
    layers = sum(name.endswith("/ffn/linear_0/weight") for name in read)
    hidden = read["decoder/embeddings/weight"].shape[1]
    heads = int(read["decoder/num_heads"])
    key_heads = int(read.get("decoder/num_heads_kv", read["decoder/num_heads"]))
    config = LlamaConfig(
        vocab_size=len(read["decoder/embeddings/weight"]),
        hidden_size=hidden,
        intermediate_size=len(read["decoder/layer_0/ffn/linear_0/weight"]),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        rms_norm_eps=json.loads((ct2_folder / "config.json").read_text())["layer_norm_epsilon"],
        rope_parameters={
            "rope_type": "default",
            "rope_theta": float(read["decoder/layer_0/self_attention/rotary_base"]),
        },
        tie_word_embeddings=False,
        bos_token_id=vocabulary.bos_id,
        eos_token_id=vocabulary.eos_id,
    )
    model = LlamaForCausalLM(config)
    model.load_state_dict(_renamed(read, layers, hidden, key_heads * hidden // heads))
    return model.eval()


def _renamed(
    read: dict[str, np.ndarray], layers: int, hidden: int, key_width: int
) -> dict[str, torch.Tensor]:
    """CTranslate2's weights under transformers' names; it keeps q, k and v in one."""
    projection = np.zeros_like(read["decoder/embeddings/weight"])
    text = read["decoder/projection/weight"]
    projection[: len(text)] = text
    found = {
        "model.embed_tokens": read["decoder/embeddings/weight"],
        "model.norm": read["decoder/layer_norm/gamma"],
        "lm_head": projection,
    }
    for number in range(layers):
        theirs, ours = f"decoder/layer_{number}", f"model.layers.{number}"
        joined = read[f"{theirs}/self_attention/linear_0/weight"]
        parts = np.split(joined, [hidden, hidden + key_width])
        found |= {
            f"{ours}.self_attn.{name}_proj": part for name, part in zip("qkv", parts, strict=True)
        }
        found |= {
            f"{ours}.self_attn.o_proj": read[f"{theirs}/self_attention/linear_1/weight"],
            f"{ours}.input_layernorm": read[f"{theirs}/self_attention/layer_norm/gamma"],
            f"{ours}.post_attention_layernorm": read[f"{theirs}/ffn/layer_norm/gamma"],
            f"{ours}.mlp.gate_proj": read[f"{theirs}/ffn/linear_0/weight"],
            f"{ours}.mlp.up_proj": read[f"{theirs}/ffn/linear_0_noact/weight"],
            f"{ours}.mlp.down_proj": read[f"{theirs}/ffn/linear_1/weight"],
        }
    return {f"{name}.weight": torch.tensor(np.asarray(value)) for name, value in found.items()}


def read_weights(file: Path) -> dict[str, np.ndarray]:
    """The variables of a CTranslate2 model.bin, int8 rows multiplied out."""
    found: dict[str, np.ndarray] = {}
    with file.open("rb") as stream:
        _number(stream, "I")  # version
        _text(stream)
        _number(stream, "I")  # revision
        for _ in range(_number(stream, "I")):
            name = _text(stream)
            shape = [_number(stream, "I") for _ in range(_number(stream, "B"))]
            dtype = DTYPES[_number(stream, "B")]
            data = stream.read(_number(stream, "I"))
            found[name] = np.frombuffer(data, dtype).reshape(shape)
        for _ in range(_number(stream, "I")):
            alias, name = _text(stream), _text(stream)
            found[alias] = found[name]
    return {
        name: value / found[f"{name}_scale"][:, None]
        if value.dtype == np.int8 and value.ndim == 2
        else value
        for name, value in found.items()
    }


def _number(stream: BinaryIO, kind: str) -> int:
    [number] = struct.unpack(kind, stream.read(struct.calcsize(kind)))
    return int(number)


def _text(stream: BinaryIO) -> str:
    return stream.read(_number(stream, "H"))[:-1].decode("utf-8")
