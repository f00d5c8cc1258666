"""From a trained model folder to a plain checkpoint that transformers and vLLM load as it is.

config.json, model.safetensors     all weights, an adapter folded in, rows for every speech token
generation_config.json             where a caption ends, and that it is text
tokenizer.json, tokenizer_config.json    speech tokens as ordinary tokens: <speech>, <speech_0_17> …
aligncap.json, text_tokenizer.json, encoder/     what AlignCap needs beside, so that it captions too
README.md                          the model card, with the prompt to send
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, pre_tokenizers

from aligncap.captioner.checkpoint import (
    check_output,
    copy_encoder,
    load_torch,
    merged_meta,
)
from aligncap.captioner.meta import (
    CARD_FILE,
    TEXT_TOKENIZER_FILE,
    ModelMeta,
    read_meta,
    write_meta,
)
from aligncap.captioner.prompts import PromptBuilder
from aligncap.captioner.text_tokenizer import read_tokenizer
from aligncap.captioner.vocabulary import SPEECH_CLOSE, Vocabulary
from aligncap.errors import DataError
from aligncap.storage import atomic_folder
from aligncap.values import SpeechTokens


def merge_folder(model_folder: Path, out: Path) -> ModelMeta:
    """Write the merged folder and return its meta.

    The folder appears whole or not at all; DataError where `out` holds something else than a model,
    or where the text tokenizer leaves no room to name the speech tokens.
    """
    from aligncap.captioner.adapters import has_adapter, merge

    check_output(model_folder, out, marker=TEXT_TOKENIZER_FILE, kind="a merged model")
    meta = read_meta(model_folder)
    model = load_torch(model_folder)
    if has_adapter(model):
        model = merge(model)
    causal_lm, vocabulary = model.causal_lm, model.vocabulary
    merged = merged_meta(meta)
    with atomic_folder(out) as partial:
        vocabulary.save(partial / TEXT_TOKENIZER_FILE)
        named = _with_speech(read_tokenizer(partial / TEXT_TOKENIZER_FILE), vocabulary)
        _save_tokenizer(named, vocabulary, partial)
        _tell_generation(causal_lm, vocabulary, meta)
        causal_lm.save_pretrained(partial)
        for licence in model_folder.glob("LICENSE*"):
            shutil.copy(licence, partial)
        copy_encoder(model_folder, partial)
        write_meta(partial, merged)
        card = partial / CARD_FILE
        card.write_text(card.read_text("utf-8") + _serving(merged, vocabulary, named), "utf-8")
    return merged


def prompt_text(vocabulary: Vocabulary, ids: tuple[int, ...]) -> str:
    """A student's prompt as the text that a merged model's tokenizer turns into `ids`."""
    names = vocabulary.token_names()
    first = vocabulary.text_rows
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
    names = vocabulary.token_names()[vocabulary.text_rows :]
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in names])
    for number, name in enumerate(names, start=vocabulary.text_rows):
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


def _tell_generation(causal_lm: Any, vocabulary: Vocabulary, meta: ModelMeta) -> None:
    """Decision 8 in the words of generation_config.json."""
    rows = causal_lm.get_input_embeddings().weight.shape[0]
    config = causal_lm.generation_config
    config.bos_token_id, config.pad_token_id = vocabulary.bos_id, vocabulary.pad_id
    config.eos_token_id = list(vocabulary.stop_ids(meta.limits.stop_characters))
    config.suppress_tokens = list(range(vocabulary.text_rows, rows))
    config.min_new_tokens = meta.limits.min_tokens
    config.max_new_tokens = meta.limits.max_tokens
    config.do_sample = False


def _serving(meta: ModelMeta, vocabulary: Vocabulary, named: Tokenizer) -> str:
    """The section of the card that says how to use the checkpoint without AlignCap."""
    shape = vocabulary.shape
    frame = SpeechTokens(np.zeros((shape.codebooks, 1), dtype=np.int64))
    act = "P_act" if meta.act_mode != "none" else ""
    builder = PromptBuilder(vocabulary, meta.prompts)
    ids = builder.student(frame, language=meta.languages[0], act=act).ids
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
