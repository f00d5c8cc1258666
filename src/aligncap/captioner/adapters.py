"""LoRA through peft: the student is base + adapter, the teacher is the base alone (decision 2).

The rows of new ids train along with the LoRA matrices (decision 3): without them speech would stay
noise. Turning the adapter off takes those rows away too, which is right for a teacher that reads
text; a reference for preference optimisation is the merged model instead.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from aligncap.captioner.backbones import family_of
from aligncap.captioner.model import CaptionModel, seeded, trainable_summary
from aligncap.captioner.vocabulary import Vocabulary
from aligncap.errors import MissingModelError, RecipeError
from aligncap.recipes import Count, recipe_section

WEIGHTS = "adapter_model.safetensors"


@recipe_section
class AdapterSettings:
    """A LoRA adapter."""

    rank: Count = 8
    """§3.1."""
    alpha: Count = 16
    """The adapter's output is scaled by alpha / rank; not in the paper."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: tuple[str, ...] = ()
    """Layers it is put beside; empty = those of the model's family."""
    seed: int = 0


def add_adapter(model: CaptionModel, settings: AdapterSettings | None = None) -> CaptionModel:
    """The model with a fresh adapter, its base frozen; go on with the model returned.

    At the start the adapter changes nothing. RecipeError where the model has one already.
    """
    from peft import LoraConfig, get_peft_model

    if has_adapter(model):
        raise RecipeError("the model has an adapter already; merge it before adding another")
    settings = settings or AdapterSettings()
    causal_lm = model.causal_lm
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets or family_of(causal_lm).lora_targets),
        fan_in_fan_out=causal_lm.config.model_type == "gpt2",
        trainable_token_indices=_new_rows(causal_lm, model.vocabulary),
    )
    with seeded(settings.seed), _quiet_peft():
        adapted = CaptionModel(get_peft_model(causal_lm, config), model.vocabulary)
    trainable_summary(adapted)
    return adapted


def has_adapter(model: CaptionModel) -> bool:
    """Whether the model is base + adapter."""
    return hasattr(model.causal_lm, "peft_config")


@contextmanager
def teacher_mode(model: CaptionModel) -> Iterator[None]:
    """Within it the model is the teacher: adapter and learnt rows off, no dropout, no gradient.

    RecipeError where there is no adapter to turn off.
    """
    _require_adapter(model)
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), model.causal_lm.disable_adapter():
            yield
    finally:
        model.train(training)


def merge(model: CaptionModel) -> CaptionModel:
    """The model with its adapter folded into the base weights; the one given is used up."""
    _require_adapter(model)
    return CaptionModel(model.causal_lm.merge_and_unload(), model.vocabulary)


def save_adapter(model: CaptionModel, folder: Path, *, base: str) -> None:
    """Write adapter_model.safetensors and adapter_config.json; `base` is the base's name."""
    _require_adapter(model)
    for config in model.causal_lm.peft_config.values():
        config.base_model_name_or_path = base
    # The new rows are saved with the adapter; "auto" would ask the network about the base.
    model.causal_lm.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's card; ours stands one folder up


def load_adapter(
    causal_lm: Any, vocabulary: Vocabulary, folder: Path, *, trainable: bool = False
) -> CaptionModel:
    """Base and saved adapter; `causal_lm` already has the vocabulary's rows.

    MissingModelError where the folder holds no adapter in safetensors; nothing is unpickled.
    """
    from peft import PeftModel

    if not (folder / WEIGHTS).is_file():
        raise MissingModelError(f"{folder}: no {WEIGHTS} in it; save the model again")
    with _quiet_peft():
        adapted = PeftModel.from_pretrained(causal_lm, folder, is_trainable=trainable)
    return CaptionModel(adapted, vocabulary)


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """peft 0.21 asks transformers 5.23 for a property by its old name: no news for a user."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        yield


def _new_rows(causal_lm: Any, vocabulary: Vocabulary) -> dict[str, list[int]]:
    """Rows to train by layer name.

    A projection of its own needs only the new *text* rows: no response holds a speech token.
    """
    new = vocabulary.new_ids
    embedding, head = causal_lm.get_input_embeddings(), causal_lm.get_output_embeddings()
    names = {id(module): name.rsplit(".", 1)[-1] for name, module in causal_lm.named_modules()}
    rows = {names[id(embedding)]: list(new)}
    new_text = list(range(new.start, vocabulary.text_rows))
    if head.weight is not embedding.weight and new_text:
        rows[names[id(head)]] = new_text
    return rows


def _require_adapter(model: CaptionModel) -> None:
    if not has_adapter(model):
        raise RecipeError("the model has no adapter; call add_adapter first")
