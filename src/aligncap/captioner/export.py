"""From a trained model folder to one that captions without torch: CTranslate2 and ONNX.

aligncap.json     as it was, and how it was exported
tokenizer.json    the text tokenizer
ct2/              the language model, quantised
encoder.onnx      the built-in speech tokenizer, where the model uses it
README.md         the model card
"""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aligncap.captioner.checkpoint import (
    check_output,
    copy_encoder,
    load_torch,
    merged_meta,
)
from aligncap.captioner.meta import (
    ENCODER_FOLDER,
    TOKENIZER_FILE,
    ModelMeta,
    read_meta,
    write_meta,
)
from aligncap.captioner.runtime import CT2_FOLDER
from aligncap.captioner.vocabulary import Vocabulary
from aligncap.errors import DataError, MissingModelError, RecipeError, UnknownNameError
from aligncap.storage import atomic_folder

ENCODER_FILES = "encoder.*"

QUANTIZATIONS = ("float32", "float16", "bfloat16", "int16", "int8", "int8_float16", "int8_float32")
"""How CTranslate2 can store weights; int8 is the smallest and the fastest on a CPU."""


def export(model_folder: Path, out: Path, *, quantization: str = "int8") -> ModelMeta:
    """Write the exported folder and return its meta.

    An adapter is merged into its base first. The folder appears whole or not at all; DataError
    where `out` holds something else, RecipeError where CTranslate2 has no such language model.
    """
    from aligncap.captioner.adapters import has_adapter, merge

    if quantization not in QUANTIZATIONS:
        raise UnknownNameError("quantization", quantization, QUANTIZATIONS)
    check_output(model_folder, out, marker=CT2_FOLDER, kind="an exported model")
    meta = read_meta(model_folder)
    model = load_torch(model_folder)
    if has_adapter(model):
        model = merge(model)
    with atomic_folder(out) as partial:
        convert(model.causal_lm, model.vocabulary, partial / CT2_FOLDER, quantization=quantization)
        model.vocabulary.save(partial / TOKENIZER_FILE)
        _copy_beside(model_folder, partial, meta)
        exported = _exported(meta, quantization)
        write_meta(partial, exported)
    return exported


def convert(causal_lm: Any, vocabulary: Vocabulary, folder: Path, *, quantization: str) -> None:
    """Write a transformers model for CTranslate2; the model given is used up.

    The output projection keeps its text rows only: no response holds a speech token, so speech
    costs nothing when a caption is written and can never be chosen.
    """
    from ctranslate2.converters.converter import Converter

    class Loaded(Converter):  # type: ignore[misc]  # CTranslate2 has no types
        """A converter of a model that is in memory already."""

        def _load(self) -> Any:
            return _specification(causal_lm, vocabulary)

    Loaded().convert(str(folder), quantization=quantization)


def _specification(causal_lm: Any, vocabulary: Vocabulary) -> Any:
    """CTranslate2's description of the model, weights included."""
    import torch
    from ctranslate2.converters import transformers as converters

    kind = type(causal_lm.config).__name__
    loaders = converters._MODEL_LOADERS
    if kind not in loaders:
        raise RecipeError(f"CTranslate2 has no {kind.removesuffix('Config')} language model")
    rows = causal_lm.get_input_embeddings().weight.shape[0]
    _check_head_width(causal_lm.config)
    with torch.no_grad():
        spec = loaders[kind].get_model_spec(causal_lm)
        projection = spec.decoder.projection
        projection.weight = projection.weight[: vocabulary.text_rows].clone()
    spec.register_vocabulary(_names(vocabulary, rows))
    loaders[kind].set_config(spec.config, causal_lm, _special_names(vocabulary))
    epsilon = getattr(causal_lm.config, "layer_norm_epsilon", None)
    if epsilon is not None:  # GPT-2's loader leaves it at the default
        spec.config.layer_norm_epsilon = epsilon
    return spec


def _check_head_width(config: Any) -> None:
    heads, width = config.num_attention_heads, config.hidden_size
    if getattr(config, "head_dim", None) not in (None, width // heads):
        raise RecipeError(
            f"{config.model_type}: heads of {config.head_dim} in a model of {width} / {heads}; "
            "CTranslate2 cannot run it, caption with runtime='torch'"
        )


def _names(vocabulary: Vocabulary, rows: int) -> list[str]:
    """A name for each row of the embedding, those that stand for nothing included."""
    names = vocabulary.token_names()
    names = [*names, *(f"<unused_{number}>" for number in range(len(names), rows))]
    if len(set(names)) != rows:
        raise DataError(f"{rows - len(set(names))} token names stand for two ids; rename them")
    return names


def _special_names(vocabulary: Vocabulary) -> SimpleNamespace:
    """What CTranslate2 asks of a tokenizer."""
    shape = vocabulary.shape
    # Something has to stand for unknown words; prompts of ids have none.
    return SimpleNamespace(bos_token=shape.bos, eos_token=shape.eos, unk_token=shape.pad)


def _copy_beside(model_folder: Path, out: Path, meta: ModelMeta) -> None:
    for licence in model_folder.glob("LICENSE*"):
        shutil.copy(licence, out)
    if meta.tokenizer.name != "builtin":
        copy_encoder(model_folder, out)
        return
    files = sorted((model_folder / ENCODER_FOLDER).glob(ENCODER_FILES))
    if not any(file.suffix == ".onnx" for file in files):
        raise MissingModelError(f"{model_folder / ENCODER_FOLDER}: no encoder.onnx in it")
    for file in files:
        shutil.copy(file, out)


def _exported(meta: ModelMeta, quantization: str) -> ModelMeta:
    import ctranslate2

    return merged_meta(meta, quantization=quantization, ctranslate2=ctranslate2.__version__)
