"""Speech tokens in, caption out: vocabulary, prompts, shared-prompt batches, models, search.

`load` gives a `Captioner`, which needs no torch where the model is exported. Of the rest,
`model`, `adapters`, the torch runtime and `export` bring torch; names come when asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aligncap.captioner.adapters import AdapterSettings, add_adapter, merge, teacher_mode
    from aligncap.captioner.batches import SharedPromptBatch, SharedPromptRow, collate, to_torch
    from aligncap.captioner.captioner import Captioner
    from aligncap.captioner.checkpoint import load_torch, load_vocabulary, save
    from aligncap.captioner.meta import ModelMeta, read_meta
    from aligncap.captioner.model import CaptionModel, add_speech_tokens, small_llama
    from aligncap.captioner.opening import load
    from aligncap.captioner.prompts import Prompt, PromptBuilder, PromptTemplate, TeacherReading
    from aligncap.captioner.text_training import train_text_tokenizer
    from aligncap.captioner.vocabulary import Vocabulary

__all__ = [
    "AdapterSettings",
    "CaptionModel",
    "Captioner",
    "ModelMeta",
    "Prompt",
    "PromptBuilder",
    "PromptTemplate",
    "SharedPromptBatch",
    "SharedPromptRow",
    "TeacherReading",
    "Vocabulary",
    "add_adapter",
    "add_speech_tokens",
    "collate",
    "load",
    "load_torch",
    "load_vocabulary",
    "merge",
    "read_meta",
    "save",
    "small_llama",
    "teacher_mode",
    "to_torch",
    "train_text_tokenizer",
]

_HOMES = {
    "adapters": ("AdapterSettings", "add_adapter", "merge", "teacher_mode"),
    "batches": ("SharedPromptBatch", "SharedPromptRow", "collate", "to_torch"),
    "captioner": ("Captioner",),
    "checkpoint": ("load_torch", "load_vocabulary", "save"),
    "meta": ("ModelMeta", "read_meta"),
    "model": ("CaptionModel", "add_speech_tokens", "small_llama"),
    "opening": ("load",),
    "prompts": ("Prompt", "PromptBuilder", "PromptTemplate", "TeacherReading"),
    "text_training": ("train_text_tokenizer",),
    "vocabulary": ("Vocabulary",),
}


def __getattr__(name: str) -> object:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
