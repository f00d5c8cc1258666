"""Dry runs of training stages: the model is built on torch's meta device and counted.

Missing files are listed with a hint; files that do not fit are errors, as they are in training.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch
from torch import nn

from aligncap.alignment.examples import SpeechSource, one_source, read_source
from aligncap.alignment.settings import ModelSettings, StageSettings, TeacherSettings, check_layout
from aligncap.alignment.stage import check_start
from aligncap.captioner.backbones import pretrained_vocabulary, small_config
from aligncap.captioner.checkpoint import ADAPTER_FOLDER, META_FILE, load_vocabulary, read_meta
from aligncap.captioner.model import AdapterSettings, CaptionModel, add_adapter, trained_groups
from aligncap.errors import MissingModelError
from aligncap.training.dry_run import (
    Needed,
    checkpoints_bytes,
    count_parameters,
    needed_path,
    plan_table,
    trained_bytes,
    training_memory,
    weight_bytes,
)
from aligncap.training.pretrained import load_config

ROWS_HINT = (
    "make it with a recipe of kind 'token-rows' or 'rows', or as alignment/examples.py describes"
)
ENCODER_HINT = "train it with a recipe of kind 'encoder'"

CODEBOOKS = MappingProxyType({"codebooks": 1, "codebook_size": 1024})
"""Of the speech tokenizer where no rows are here: SpeechTokenizer's first layer (the paper's)."""


_OPT_1B = {"hidden_size": 2048, "word_embed_proj_dim": 2048, "ffn_dim": 8192}
_OPT_1B |= {"num_hidden_layers": 24, "num_attention_heads": 32}
_QWEN2 = {"vocab_size": 151936, "num_key_value_heads": 2, "tie_word_embeddings": True}
_QWEN2_05B = {"hidden_size": 896, "intermediate_size": 4864}
_QWEN2_05B |= {"num_hidden_layers": 24, "num_attention_heads": 14}
_QWEN2_15B = {"hidden_size": 1536, "intermediate_size": 8960}
_QWEN2_15B |= {"num_hidden_layers": 28, "num_attention_heads": 12}

KNOWN_BACKBONES: Mapping[str, tuple[str, int, Mapping[str, Any]]] = MappingProxyType(
    {
        "huggyllama/llama-7b": ("llama", 32000, {}),
        "openai-community/gpt2": ("gpt2", 50257, {}),
        "openai-community/gpt2-large": (
            "gpt2", 50257, {"n_embd": 1280, "n_layer": 36, "n_head": 20}
        ),
        "facebook/opt-1.3b": ("opt", 50265, _OPT_1B),
        "Qwen/Qwen2.5-0.5B": ("qwen2", 151665, _QWEN2 | _QWEN2_05B),
        "Qwen/Qwen2.5-1.5B": ("qwen2", 151665, _QWEN2 | _QWEN2_15B),
    }
)  # fmt: skip
"""Published models that can be counted without being here, by name on the hub: transformers'
`model_type`, ids of the tokenizer, and what config.json says beyond that type's defaults."""


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """The model of a recipe on the meta device; None where it is not known."""

    model: CaptionModel | None
    needed: Sequence[Needed] = ()
    assumed: Mapping[str, object] = field(default_factory=dict)
    notes: Sequence[str] = ()


def plan_stage(
    settings: StageSettings, *, teacher: TeacherSettings | None = None
) -> Mapping[str, object]:
    """The plan of a warm-up, KD or CE stage; a teacher of its own is counted as large as the
    student."""
    needed = [needed_path("training rows", path, hint=ROWS_HINT) for path in settings.data.rows]
    here = [path for path in settings.data.rows if path.exists()]
    source = one_source({path: read_source(path) for path in here}) if here else None
    folders, frozen = [], None
    if teacher is not None and teacher.model is not None:
        hint = "train it with a recipe of kind 'warmup'"
        folders.append(needed_path("teacher", teacher.model, hint=hint))
    if teacher is not None and not (settings.model.lora and teacher.model is None):
        frozen = weight_bytes
    return plan_training(settings, source, rows=needed, more=folders, frozen=frozen)


def plan_training(
    settings: StageSettings,
    source: SpeechSource | None,
    *,
    rows: Iterable[Needed],
    more: Iterable[Needed] = (),
    wrap: Callable[[CaptionModel], nn.Module] | None = None,
    frozen: Callable[[CaptionModel], int] | None = None,
    notes: Iterable[str] = (),
) -> dict[str, object]:
    """The plan of any stage on rows with the codes of `source`, None where no rows are here.

    `wrap` puts a head on the trained model; `frozen` gives the bytes of further models.
    """
    check_layout(settings)
    planned = plan_model(settings.model, source)
    named = {
        "built-in encoder": settings.model.codebook,
        "encoder to keep": settings.output.encoder,
    }
    folders = [needed_path(what, path, hint=ENCODER_HINT) for what, path in named.items() if path]
    needed, notes = [*rows, *planned.needed, *folders, *more], [*planned.notes, *notes]
    captioner = planned.model
    if captioner is None:
        return plan_table(needed, assumed=planned.assumed, notes=notes)
    with torch.device("meta"):
        model = wrap(captioner) if wrap else captioner
    average = settings.training.ema_decay is not None
    groups = trained_groups(captioner)
    if wrap:
        groups["head"] = sum(p.numel() for p in set(model.parameters()) - {*captioner.parameters()})
    disk: dict[str, int | None] = {
        "checkpoints": checkpoints_bytes(model, average=average),
        "model": trained_bytes(model) if "LoRA" in groups else weight_bytes(model),
    }
    if settings.validation.best is not None:
        disk["best"] = 2 * trained_bytes(model)  # the old one is removed after the new is written
    return plan_table(
        needed,
        parameters=count_parameters(groups, model),
        memory=training_memory(
            model,
            average=average,
            frozen=frozen(captioner) if frozen else 0,
            quantized=settings.model.quantization is not None,
        ),
        disk=disk,
        assumed=planned.assumed,
        notes=notes,
    )


def plan_model(settings: ModelSettings, source: SpeechSource | None) -> PlannedModel:
    """The model that a recipe trains; DataError where it goes on from one for other codes."""
    if settings.start is not None:
        if source is not None and settings.start.exists():
            check_start(settings.start, source)
        return _plan_start(settings, settings.start)
    codes = {name: getattr(source, name) for name in CODEBOOKS} if source else dict(CODEBOOKS)
    assumed = {} if source else codes
    if settings.base is not None:
        return _plan_base(settings, settings.base, codes, assumed)
    sizes = asdict(settings.new)
    text = sizes.pop("text_vocabulary")
    vocabulary = _sizes(text, **codes)
    model = meta_model(small_config(vocabulary.size, **sizes), vocabulary, dtype=settings.dtype)
    return PlannedModel(model, (), assumed, ("made new, with random weights",))


def meta_model(
    config: Any, vocabulary: Any, lora: AdapterSettings | None = None, *, dtype: str = "float32"
) -> CaptionModel:
    """The model that training makes of a backbone's config, on the meta device, without weights.

    RecipeError where the kind of model has no known LoRA targets and `lora` names none.
    """
    from transformers import AutoModelForCausalLM

    config = type(config).from_dict(config.to_dict())
    # Unused rows of the embedding are used before it grows, as in add_speech_tokens.
    config.vocab_size = max(config.vocab_size, vocabulary.size)
    with torch.device("meta"):
        causal_lm = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=getattr(torch, dtype)
        )
        model = CaptionModel(causal_lm, vocabulary)
        return add_adapter(model, lora) if lora else model


def _plan_start(settings: ModelSettings, folder: Path) -> PlannedModel:
    """The model folder of an earlier stage."""
    hint = "train it with its recipe, or give another model folder"
    needed, name, lora = (
        [needed_path("model to start from", folder, hint=hint)],
        None,
        settings.lora,
    )
    config = None
    if folder.exists():
        meta = read_meta(folder)
        name = meta.base or str(folder)
        if meta.base:
            needed.append(_needed_model(meta.base))
            saved = json.loads((folder / ADAPTER_FOLDER / "adapter_config.json").read_text("utf-8"))
            lora = AdapterSettings(rank=saved["r"], targets=tuple(saved["target_modules"]))
        config = _config_of(name)
    if config is None:
        note = f"{name or folder}: not here, so its size is unknown"
        return PlannedModel(None, needed, notes=(note,))
    model = meta_model(config, load_vocabulary(folder, meta), lora, dtype=settings.dtype)
    return PlannedModel(model, needed)


def _plan_base(
    settings: ModelSettings, base: str, codes: Mapping[str, int], assumed: Mapping[str, object]
) -> PlannedModel:
    """A model of the hub, as it is published where it is not here."""
    needed, notes = _needed_model(base), []
    vocabulary: Any = None
    if not needed.hint:
        try:
            vocabulary = pretrained_vocabulary(base, **codes)
        except MissingModelError as error:
            needed = Needed(needed.what, needed.name, _hint_of(error))
    if vocabulary is None and base in KNOWN_BACKBONES:
        vocabulary = _sizes(KNOWN_BACKBONES[base][1], **codes)
        notes.append(f"{base}: not here; counted by its published configuration")
    config = _config_of(base)
    if vocabulary is None or config is None:
        notes.append(f"{base}: not here, so its size is unknown")
        return PlannedModel(None, (needed,), assumed, notes)
    model = meta_model(config, vocabulary, settings.lora, dtype=settings.dtype)
    return PlannedModel(model, (needed,), assumed, notes)


def _needed_model(name: str) -> Needed:
    if (Path(name) / META_FILE).is_file():
        return Needed("language model", name)
    try:
        load_config(name)
    except MissingModelError as error:
        return Needed("language model and tokenizer", name, _hint_of(error))
    return Needed("language model and tokenizer", name)


def _hint_of(error: MissingModelError) -> str:
    # The message begins with the libraries' reasons and ends with what to do.
    return str(error).rpartition("; ")[2]


def _config_of(name: str) -> Any:
    """The configuration of a model that is here or known, else None."""
    from transformers import AutoConfig

    try:
        return load_config(name)
    except MissingModelError:
        if name not in KNOWN_BACKBONES:
            return None
        kind, _, config = KNOWN_BACKBONES[name]
        return AutoConfig.for_model(kind, **config)


def _sizes(text: int, *, codebooks: int, codebook_size: int) -> Any:
    """The sizes of a `Vocabulary` over `text` ids whose tokenizer is not here."""
    size = text + 2 + codebooks * codebook_size
    return SimpleNamespace(text_rows=text, size=size, new_ids=range(text, size))
