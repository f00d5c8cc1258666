"""Other forms of a trained model folder.

`export` makes a folder that captions without torch, by CTranslate2 and ONNX Runtime:

aligncap.json     as it was, and how it was exported
tokenizer.json    the text tokenizer
ct2/              the language model, quantised
encoder.onnx      the built-in speech tokenizer, where the model uses it
README.md         the model card

`merge_folder` makes a plain checkpoint that transformers and vLLM load:

config.json, model.safetensors     all weights, an adapter folded in, rows for every speech token
generation_config.json             where a caption ends, and that it is text
tokenizer.json, tokenizer_config.json    speech tokens as ordinary tokens: <speech>, <speech_0_17> …
aligncap.json, text_tokenizer.json, encoder/     what AlignCap needs beside, so that it captions too
README.md                          the model card, with the prompt to send
"""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, pre_tokenizers

from aligncap.captioner import checkpoint
from aligncap.captioner.prompts import PromptBuilder
from aligncap.captioner.runtimes import CT2_FOLDER
from aligncap.captioner.vocabulary import SPEECH_CLOSE, Vocabulary, read_tokenizer
from aligncap.errors import DataError, MissingModelError, RecipeError, UnknownNameError
from aligncap.storage import atomic_folder
from aligncap.values import SpeechTokens

QUANTIZATIONS = ("float32", "float16", "bfloat16", "int16", "int8", "int8_float16", "int8_float32")
"""How CTranslate2 can store weights; int8 is the smallest and the fastest on a CPU."""


def export(model_folder: Path, out: Path, *, quantization: str = "int8") -> checkpoint.ModelMeta:
    """Write the exported folder and return its meta.

    An adapter is merged into its base first. The folder appears whole or not at all; DataError
    where `out` holds something else, RecipeError where CTranslate2 has no such language model.
    """
    from aligncap.captioner.model import has_adapter, merge_adapter

    if quantization not in QUANTIZATIONS:
        raise UnknownNameError("quantization", quantization, QUANTIZATIONS)
    checkpoint.check_output(model_folder, out, marker=CT2_FOLDER, kind="an exported model")
    meta = checkpoint.read_meta(model_folder)
    model = checkpoint.load_torch(model_folder)
    if has_adapter(model):
        model = merge_adapter(model)
    with atomic_folder(out) as partial:
        convert(model.causal_lm, model.vocabulary, partial / CT2_FOLDER, quantization=quantization)
        model.vocabulary.save(partial / checkpoint.TOKENIZER_FILE)
        _copy_beside(model_folder, partial, meta)
        exported = _exported(meta, quantization)
        checkpoint.write_meta(partial, exported)
    return exported


def convert(causal_lm: Any, vocabulary: Vocabulary, folder: Path, *, quantization: str) -> None:
    """Write a transformers model for CTranslate2; the model given is used up.

    The output projection keeps its text rows only: no response holds a speech token, so speech
    costs nothing when a caption is written and can never be chosen.
    """
    from ctranslate2.specs.model_spec import visit_spec

    spec = _specification(causal_lm, vocabulary)
    spec.validate()
    spec.optimize(quantization=quantization)
    visit_spec(spec, _to_seven_bits)
    folder.mkdir()
    spec.save(str(folder))


LARGEST_INT8 = 63
"""Of quantised weights. A processor without VNNI adds two products of eight bits in sixteen, which
is too few for weights up to 127: what a caption said depended on the processor."""


def _to_seven_bits(layer: Any, name: str, value: Any) -> None:
    """Give a layer's weights in int8 `LARGEST_INT8` as their largest."""
    from ctranslate2.specs.model_spec import NumpyVariable

    key = name.rpartition("/")[2]
    scale = getattr(layer, f"{key}_scale", None)
    if isinstance(value, NumpyVariable) and value.dtype == "int8" and scale is not None:
        share = np.float32(LARGEST_INT8 / 127)
        setattr(layer, key, NumpyVariable(np.rint(value.numpy() * share).astype(np.int8)))
        setattr(layer, f"{key}_scale", NumpyVariable(scale.numpy() * share))


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
        projection.weight = projection.weight[: vocabulary.text_vocab_size].clone()
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


def _copy_beside(model_folder: Path, out: Path, meta: checkpoint.ModelMeta) -> None:
    for licence in model_folder.glob("LICENSE*"):
        shutil.copy(licence, out)
    if meta.tokenizer.name != "builtin":
        checkpoint.copy_encoder(model_folder, out)
        return
    files = sorted((model_folder / checkpoint.ENCODER_FOLDER).glob(checkpoint.ENCODER_FILES))
    if not any(file.suffix == ".onnx" for file in files):
        raise MissingModelError(
            f"{model_folder / checkpoint.ENCODER_FOLDER}: no encoder.onnx in it"
        )
    for file in files:
        shutil.copy(file, out)


def _exported(meta: checkpoint.ModelMeta, quantization: str) -> checkpoint.ModelMeta:
    import ctranslate2

    return checkpoint.merged_meta(
        meta, quantization=quantization, ctranslate2=ctranslate2.__version__
    )


def merge_folder(model_folder: Path, out: Path) -> checkpoint.ModelMeta:
    """Write the merged folder and return its meta.

    The folder appears whole or not at all; DataError where `out` holds something else than a model,
    or where the text tokenizer leaves no room to name the speech tokens.
    """
    from aligncap.captioner.model import has_adapter, merge_adapter

    checkpoint.check_output(
        model_folder, out, marker=checkpoint.TEXT_TOKENIZER_FILE, kind="a merged model"
    )
    meta = checkpoint.read_meta(model_folder)
    model = checkpoint.load_torch(model_folder)
    if has_adapter(model):
        model = merge_adapter(model)
    causal_lm, vocabulary = model.causal_lm, model.vocabulary
    merged = checkpoint.merged_meta(meta)
    with atomic_folder(out) as partial:
        vocabulary.save(partial / checkpoint.TEXT_TOKENIZER_FILE)
        named = _with_speech(read_tokenizer(partial / checkpoint.TEXT_TOKENIZER_FILE), vocabulary)
        _save_tokenizer(named, vocabulary, partial)
        _tell_generation(causal_lm, vocabulary, meta)
        causal_lm.save_pretrained(partial)
        for licence in model_folder.glob("LICENSE*"):
            shutil.copy(licence, partial)
        checkpoint.copy_encoder(model_folder, partial)
        checkpoint.write_meta(partial, merged)
        card = partial / checkpoint.CARD_FILE
        card.write_text(card.read_text("utf-8") + _serving(merged, vocabulary, named), "utf-8")
    return merged


def prompt_text(vocabulary: Vocabulary, ids: tuple[int, ...]) -> str:
    """A student's prompt as the text that a merged model's tokenizer turns into `ids`."""
    names = vocabulary.token_names()
    first = vocabulary.text_vocab_size
    parts: list[str] = []
    text: list[int] = []
    for i in ids:
        if i == vocabulary.bos_id or i >= first:
            parts += [vocabulary.decode(text), names[i]]
            text = []
        else:
            text.append(i)
    return "".join([*parts, vocabulary.decode(text)])


def _with_speech(tokenizer: Tokenizer, vocabulary: Vocabulary) -> Tokenizer:
    """The text tokenizer with a name for each speech token, at its id; no token added by itself."""
    names = vocabulary.token_names()[vocabulary.text_vocab_size :]
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in names])
    for number, name in enumerate(names, start=vocabulary.text_vocab_size):
        if tokenizer.token_to_id(name) != number:
            raise DataError(
                f"vocabulary: {name} cannot have the id {number}, the text tokenizer leaves ids "
                "unused or has such a token; serve the model by aligncap instead of merging it"
            )
    # A prompt begins with bos itself: a server must not put a second one before it.
    tokenizer.post_processor = None
    _begin_each_part(tokenizer)
    return tokenizer


def _begin_each_part(tokenizer: Tokenizer) -> None:
    """Let text after a speech token begin as text does: LLaMA puts a space before the first only,
    but the parts of a prompt were tokenised one by one in training."""
    spaces = tokenizer.pre_tokenizer
    if isinstance(spaces, pre_tokenizers.Metaspace) and spaces.prepend_scheme == "first":
        spaces.prepend_scheme = "always"
        tokenizer.pre_tokenizer = spaces


def _save_tokenizer(tokenizer: Tokenizer, vocabulary: Vocabulary, folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    shape = vocabulary.shape
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=shape.bos,
        eos_token=shape.eos,
        pad_token=shape.pad,
        clean_up_tokenization_spaces=False,
        # transformers 4 would add token_type_ids, which no causal LM takes.
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    # transformers 5 writes a name that transformers 4, and what builds on it, does not know.
    table = {**json.loads(config.read_text("utf-8")), "tokenizer_class": "PreTrainedTokenizerFast"}
    config.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _tell_generation(causal_lm: Any, vocabulary: Vocabulary, meta: checkpoint.ModelMeta) -> None:
    """Decision 8 in the words of generation_config.json."""
    rows = causal_lm.get_input_embeddings().weight.shape[0]
    config = causal_lm.generation_config
    config.bos_token_id, config.pad_token_id = vocabulary.bos_id, vocabulary.pad_id
    config.eos_token_id = list(vocabulary.stop_ids(meta.limits.stop_characters))
    config.suppress_tokens = list(range(vocabulary.text_vocab_size, rows))
    config.min_new_tokens = meta.limits.min_tokens
    config.max_new_tokens = meta.limits.max_tokens
    config.do_sample = False


def _serving(meta: checkpoint.ModelMeta, vocabulary: Vocabulary, named: Tokenizer) -> str:
    """The section of the card that says how to use the checkpoint without AlignCap."""
    shape = vocabulary.shape
    frame = SpeechTokens(np.zeros((shape.codebooks, 1), dtype=np.int64))
    act = "P_act" if meta.act_mode != "none" else ""
    builder = PromptBuilder(vocabulary, meta.prompts)
    ids = builder.student(frame, language=meta.languages[0], act=act)
    text = prompt_text(vocabulary, ids)
    shown = text.replace(SPEECH_CLOSE, f"…{SPEECH_CLOSE}").replace("\n", "\\n")
    exact = tuple(named.encode(text, add_special_tokens=False).ids) == ids
    safe = "" if exact else "Send ids: this tokenizer splits the text of a prompt another way.\n\n"
    return (
        "\n## Serve\n\nThis folder is a plain checkpoint: transformers and vLLM load it as it is."
        f"\n\n    vllm serve FOLDER --served-model-name {meta.name}\n\n"
        "The prompt of `/v1/completions`, as text; frames of speech follow each other, "
        "a frame's codes in the order of the codebooks (`<speech_CODEBOOK_CODE>`):\n\n"
        f"    {shown}\n\n{safe}"
        "It begins with the token that begins texts, so send `add_special_tokens: false`. A "
        f"caption ends with a token that contains one of {meta.limits.stop_characters}, or after "
        f"{meta.limits.max_tokens} tokens; generation_config.json says which.\n\n"
        "    aligncap caption speech.wav --model FOLDER --endpoint http://localhost:8000/v1"
        f"{'' if meta.tokenizer.name == 'builtin' else ' --tokenizer-weights PATH'}\n"
    )
