"""Model folders: weights in safetensors, the rest readable; nothing in them is ever unpickled.

aligncap.json     what the model is (`meta`)
tokenizer.json    the text tokenizer
README.md         the model card
config.json, model.safetensors     all weights, or
adapter/                           a LoRA adapter of the base that aligncap.json names
encoder/          the speech tokenizer, where it is part of the model: the built-in one always
"""

import shutil
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from aligncap.captioner.meta import (
    ADAPTER_FOLDER,
    ENCODER_FOLDER,
    META_FILE,
    TEXT_TOKENIZER_FILE,
    TOKENIZER_FILE,
    ModelMeta,
    read_meta,
    write_meta,
)
from aligncap.captioner.vocabulary import Vocabulary
from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.storage import atomic_folder

if TYPE_CHECKING:
    from aligncap.captioner.model import CaptionModel

__all__ = ["load_torch", "load_vocabulary", "read_meta", "save", "write_meta"]


def save(
    folder: Path, model: "CaptionModel", meta: ModelMeta, *, encoder: Path | None = None
) -> ModelMeta:
    """Write a model folder and return its meta, with vocabulary, weights and base filled in.

    Base + adapter writes the adapter only. `encoder` is a folder of the built-in tokenizer to
    put beside it. The folder appears whole or not at all; one that holds something else than a
    model of ours is not touched (DataError).
    """
    from aligncap.captioner.adapters import has_adapter, save_adapter

    _check_target(folder)
    adapted = has_adapter(model)
    base = _base_name(model, meta) if adapted else ""
    meta = replace(
        meta,
        vocabulary=model.vocabulary.shape,
        weights="adapter" if adapted else "full",
        base=base,
    )
    with atomic_folder(folder) as partial:
        write_meta(partial, meta)
        model.vocabulary.save(partial / TOKENIZER_FILE)
        if base:
            save_adapter(model, partial / ADAPTER_FOLDER, base=base)
        else:
            model.causal_lm.save_pretrained(partial)
        if encoder is not None:
            shutil.copytree(encoder, partial / ENCODER_FOLDER)
    return meta


def check_output(model_folder: Path, out: Path, *, marker: str, kind: str) -> None:
    """DataError where `out` is the model itself or holds something else than was made before.

    `marker` is a file or folder that only such a folder has, `kind` what it is called.
    """
    if out.resolve() == model_folder.resolve():
        raise DataError(f"{out}: is the model itself; give another folder")
    made = (out / META_FILE).is_file() and (out / marker).exists()
    empty = out.is_dir() and not any(out.iterdir())
    if out.exists() and not (made or empty):
        raise DataError(f"{out}: holds something else than {kind}; give another folder")


def merged_meta(meta: ModelMeta, **made: str) -> ModelMeta:
    """The meta of a model whose adapter is folded into its base: full weights, the base in its
    provenance beside what else was `made`.

    A base of ours is named with what it stands on itself: its folder says nothing elsewhere.
    """
    provenance = {**meta.provenance, **made}
    if meta.base:
        provenance["base"] = meta.base
        if (Path(meta.base) / META_FILE).is_file():
            below = read_meta(Path(meta.base))
            deeper = below.base or below.provenance.get("base", "")
            provenance["base"] = f"{below.name} ({deeper})" if deeper else below.name
    return replace(meta, weights="full", base="", provenance=MappingProxyType(provenance))


def copy_encoder(model_folder: Path, out: Path) -> None:
    """Copy the speech tokenizer of a model folder into another, where it is part of it."""
    if (model_folder / ENCODER_FOLDER).is_dir():
        shutil.copytree(model_folder / ENCODER_FOLDER, out / ENCODER_FOLDER)


def load_vocabulary(folder: Path, meta: ModelMeta | None = None) -> Vocabulary:
    """The vocabulary of a model folder, trained, merged or exported; needs no torch."""
    meta = meta or read_meta(folder)
    merged = folder / TEXT_TOKENIZER_FILE
    path = merged if merged.is_file() else folder / TOKENIZER_FILE
    return Vocabulary.load(path, meta.vocabulary)


def load_torch(
    folder: Path,
    *,
    device: str = "cpu",
    dtype: str = "auto",
    quantization: str | None = None,
    trainable: bool = False,
) -> "CaptionModel":
    """The torch model of a folder, in evaluation mode unless `trainable`.

    With `quantization` (`load_causal_lm`) it stays on the GPU that its weights were packed on.

    MissingModelError where the folder is exported (it has no torch weights), or where an adapter's
    base is not on this machine: the message says what to fetch.
    """
    from aligncap.captioner.adapters import load_adapter
    from aligncap.captioner.model import CaptionModel, add_speech_tokens
    from aligncap.training.pretrained import load_causal_lm

    meta = read_meta(folder)
    vocabulary = load_vocabulary(folder, meta)
    if meta.base:
        causal_lm = load_causal_lm(meta.base, dtype=dtype, quantization=quantization)
        # A base of our own (an earlier stage) has learnt its speech rows already.
        if not (Path(meta.base) / META_FILE).is_file():
            add_speech_tokens(causal_lm, vocabulary)
        model = load_adapter(causal_lm, vocabulary, folder / ADAPTER_FOLDER, trainable=trainable)
    else:
        if not any(folder.glob("*.safetensors")):
            raise MissingModelError(
                f"{folder}: has no model.safetensors; it is exported for captioning only, "
                "train from the folder it was exported from"
            )
        causal_lm = load_causal_lm(str(folder), dtype=dtype, quantization=quantization)
        model = CaptionModel(causal_lm, vocabulary)
    return (model if quantization else model.to(device)).train(trainable)


def _check_target(folder: Path) -> None:
    if folder.is_file() or (
        folder.is_dir() and any(folder.iterdir()) and not (folder / META_FILE).is_file()
    ):
        raise DataError(f"{folder}: holds something else than a model; give another folder")


def _base_name(model: "CaptionModel", meta: ModelMeta) -> str:
    name: str = meta.base or model.bare.config._name_or_path
    if not name:
        raise RecipeError(f"{meta.name}: an adapter's base needs a name; set `base` in its meta")
    return name
