"""The language model that a stage trains: an earlier stage's, a pretrained one, or a new one."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from aligncap.alignment.data import SpeechSource, TrainingRow
from aligncap.alignment.settings import ModelSettings, StageSettings
from aligncap.captioner.adapters import AdapterSettings, add_adapter, has_adapter
from aligncap.captioner.backbones import open_backbone
from aligncap.captioner.checkpoint import load_torch
from aligncap.captioner.meta import TOKENIZER_FILE, ModelNotes, read_meta
from aligncap.captioner.model import (
    CaptionModel,
    add_speech_tokens,
    small_llama,
)
from aligncap.captioner.prompts import PromptTemplate
from aligncap.captioner.speech_rows import set_speech_rows
from aligncap.captioner.text_tokenizer import read_tokenizer
from aligncap.captioner.text_training import train_text_tokenizer
from aligncap.captioner.vocabulary import Vocabulary
from aligncap.errors import DataError, RecipeError
from aligncap.speech.builtin import open_tokenizer
from aligncap.speech.encoder_checkpoint import load_encoder
from aligncap.storage import write_atomic
from aligncap.training import first_process_first

TEXT_ONLY = "warmup"
"""The stage that trains no speech token: what it makes fits any tokenizer of the same size."""


def open_student(
    settings: ModelSettings,
    *,
    rows: Sequence[TrainingRow],
    source: SpeechSource,
    output: Path,
    seed: int,
) -> tuple[CaptionModel, PromptTemplate]:
    """The model to train, and the prompts it was or will be made with.

    A new model's text tokenizer is learnt from the rows' texts and kept in `output`, so that a
    resumed run has the same one. DataError where an earlier stage's model is for other speech
    tokens.
    """
    template = PromptTemplate()
    if settings.start is not None:
        template = check_start(settings.start, source)
        model = load_torch(
            settings.start,
            dtype=settings.dtype,
            quantization=settings.quantization,
            trainable=True,
        )
    elif settings.base is not None:
        causal_lm, vocabulary = open_backbone(
            settings.base,
            codebook_size=source.codebook_size,
            codebooks=source.codebooks,
            dtype=settings.dtype,
            quantization=settings.quantization,
        )
        add_speech_tokens(causal_lm, vocabulary)
        model = CaptionModel(causal_lm, vocabulary)
    else:
        vocabulary = _own_vocabulary(settings, rows, source, template, output / TOKENIZER_FILE)
        sizes = {k: v for k, v in asdict(settings.new).items() if k != "text_vocabulary"}
        model = CaptionModel(small_llama(vocabulary, seed=seed, **sizes), vocabulary)
    if settings.attention is not None:
        model.bare.set_attn_implementation(settings.attention)
    if settings.codebook is not None:
        set_speech_rows(model, codebook_of(settings.codebook, source), seed=seed)
    if settings.lora is not None and not _goes_on(model, settings.lora):
        model = add_adapter(model, settings.lora)
    if settings.gradient_checkpointing:
        checkpoint_layers(model)
    return model.train(), template


def checkpoint_layers(model: CaptionModel) -> None:
    """Have each layer keep its input only in training, and run again on the way back.

    Not reentrant: under a frozen embedding that would find no input to give a gradient to.
    """
    # Older releases of transformers know the second name only; newer ones warn of it.
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    enable = next(found for name in names if (found := getattr(model.bare, name, None)))
    enable({"use_reentrant": False})


def _goes_on(model: CaptionModel, lora: AdapterSettings) -> bool:
    """Whether the model has an adapter already; RecipeError where it is of another rank."""
    if not has_adapter(model):
        return False
    ranks = {config.r for config in model.causal_lm.peft_config.values()}
    if ranks != {lora.rank}:
        raise RecipeError(
            f"the adapter that model.start has is of rank {max(ranks)}, not {lora.rank}; "
            "set model.lora.rank to go on with it"
        )
    return True


@torch.no_grad()
def codebook_of(folder: Path, source: SpeechSource) -> Tensor:
    """What the entries of a built-in encoder's codebook become behind it, [codes, width].

    DataError where the rows were made with another tokenizer.
    """
    if open_tokenizer(folder).fingerprint != source.fingerprint:
        raise DataError(
            f"{folder}: is not the {source.name} ({source.fingerprint[:12]}) of the rows; name the "
            "encoder they were made with"
        )
    quantizer = load_encoder(folder).quantizer
    vectors: Tensor = quantizer.leave(quantizer.codebook)
    return vectors


def check_start(folder: Path, source: SpeechSource) -> PromptTemplate:
    """The prompts of an earlier stage's model; DataError where it is for other speech tokens than
    the rows hold."""
    meta = read_meta(folder)
    sizes = meta.vocabulary.codebooks, meta.vocabulary.codebook_size
    same = meta.tokenizer.fingerprint == source.fingerprint
    if sizes != (source.codebooks, source.codebook_size) or not (
        same or meta.provenance.get("kind") == TEXT_ONLY
    ):
        raise DataError(
            f"{folder}: is for speech tokens of {meta.tokenizer.name} "
            f"({meta.tokenizer.fingerprint[:12]}, {sizes[0]} x {sizes[1]}), the rows hold those of "
            f"{source.name} ({source.fingerprint[:12]}, {source.codebooks} x "
            f"{source.codebook_size}); make the rows again or start from another model"
        )
    return meta.prompts


def _own_vocabulary(
    settings: ModelSettings,
    rows: Sequence[TrainingRow],
    source: SpeechSource,
    template: PromptTemplate,
    path: Path,
) -> Vocabulary:
    with first_process_first():
        if not path.exists():
            texts = [*template.instructions.values(), *dict.fromkeys(_texts(rows))]
            tokenizer = train_text_tokenizer(texts, settings.new.text_vocabulary)
            write_atomic(path, tokenizer.to_str(pretty=True))
    return Vocabulary.of(
        read_tokenizer(path), codebook_size=source.codebook_size, codebooks=source.codebooks
    )


def _texts(rows: Iterable[TrainingRow]) -> Iterator[str]:
    for row in rows:
        if row.split == "train":
            for captions in row.captions.values():
                yield from captions
            yield from row.act.values()
            yield from row.measured.values()
            yield from row.heard.values()
            if row.transcript:
                yield row.transcript


def base_of(model: ModelSettings) -> str:
    """What the adapter that is trained stands on; "" where the whole model is."""
    if model.lora is None:
        return ""
    below = read_meta(model.start).base if model.start is not None else ""
    return below or str(model.base or model.start)


def notes_of(settings: StageSettings) -> ModelNotes:
    """The recipe's notes; where it has none, those of the model it goes on from, whose scores are
    not its own."""
    start = settings.model.start
    if start is None or settings.notes != ModelNotes():
        return settings.notes
    return replace(read_meta(start).notes, scores={})
