"""The sections of the alignment stages' recipes."""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from aligncap.captioner.checkpoint import CaptionLimits, ModelNotes
from aligncap.captioner.model import AdapterSettings
from aligncap.captioner.prompts import ACOUSTIC_PROMPT_SOURCES, TEACHER_PROMPTS
from aligncap.errors import RecipeError
from aligncap.recipes import Count, Share, one_of, recipe_section
from aligncap.training.pretrained import QUANTIZATIONS
from aligncap.training.settings import FitSettings
from aligncap.values import LANGUAGES

SCORES = {
    **dict.fromkeys(("loss", "ce", "kl", "contradicted"), False),
    **dict.fromkeys(("accuracy", "margin", "reward"), True),
}
"""What a validation can be judged by, and whether more of it is better."""


def _both_languages() -> Mapping[str, float]:
    return dict.fromkeys(LANGUAGES, 1.0)


@recipe_section
class DataSettings:
    """Which rows are learnt from, and how they are mixed."""

    rows: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Files of training rows (`data`)."""
    languages: Mapping[Annotated[str, one_of(LANGUAGES)], NonNegativeFloat] = field(
        default_factory=_both_languages
    )
    """How often a caption is asked for in each language, among those a row has."""
    balance: Share = 0.0
    """0 draws corpora by their rows, 1 all equally often."""
    rarity: Share = 0.0
    """The same of emotions, before corpora are balanced."""

    @model_validator(mode="after")
    def _some_language(self) -> Self:
        if not sum(self.languages.values()) > 0:
            raise ValueError("languages asks for no language")
        return self


@recipe_section
class BatchSettings:
    """What one batch holds."""

    rows: Count = 16
    """Clips; the paper's effective batch (decision 12)."""
    captions: Count = 3
    """Captions of a clip that share its prompt."""
    bucket: Count = 50
    """Batches that are sorted by length together: more pads less, and mixes less."""


@recipe_section
class SizeSettings:
    """A LLaMA that is made new, with a text vocabulary of its own."""

    hidden: int = 256
    layers: int = 4
    heads: int = 4
    dropout: float = 0.0
    """Of attention weights."""
    max_positions: int = 2048
    text_vocabulary: int = 4096
    """Byte-level BPE tokens, learnt from the rows' texts."""


@recipe_section
class ModelSettings:
    """The language model that is trained: an earlier stage's, a pretrained one, or a new one."""

    start: Path | None = None
    """Model folder of an earlier stage."""
    base: str | None = None
    """Folder or name of a pretrained causal LM."""
    lora: AdapterSettings | None = None
    """Train a LoRA adapter and the new ids only; an adapter that `start` has goes on. Without it
    every weight is trained."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights; "bfloat16" suits a large frozen base under LoRA."""
    quantization: Annotated[str, one_of(QUANTIZATIONS)] | None = None
    """"nf4" holds the matrices of a frozen base in 4 bits and computes in `dtype` (QLoRA); it needs
    a CUDA GPU and bitsandbytes."""
    gradient_checkpointing: bool = False
    """Keep the inputs of layers only, and run each layer again on the way back: the same gradients
    for about a third more time and far less memory."""
    attention: str | None = None
    """transformers' name of an implementation, or None for the model's own choice; on a CPU in
    bfloat16 "eager" is quicker than torch's fused attention for short sequences."""
    codebook: Path | None = None
    """Folder of the built-in encoder whose codebook the speech rows begin from: tokens that sound
    alike begin alike. For a start that has heard no speech yet."""
    new: SizeSettings = field(default_factory=SizeSettings)
    """Used where neither `start` nor `base` is given."""

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        _require(self.start is None or self.base is None, "give start or base, not both")
        _require(
            self.dtype == "float32" or self.lora is not None,
            f"weights of {self.dtype} are too coarse to be trained whole; add a LoRA adapter, "
            "or set training.precision instead",
        )
        _require(
            self.quantization is None or self.lora is not None,
            f"weights in {self.quantization} cannot be trained; add a LoRA adapter",
        )
        _require(
            self.lora is None or bool(self.start or self.base),
            "a LoRA adapter needs a model to stand on: give start or base",
        )
        return self


@recipe_section
class StudentSettings:
    """What the student reads."""

    act_mode: Annotated[str, one_of(ACOUSTIC_PROMPT_SOURCES)] = "none"
    """Where its P_act comes from: "none" (Eq. 4), "measured" or "heard" (decision 5)."""
    act_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of prompts without P_act, so that it can be left out when captioning."""
    speech_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of speech frames that are left out, drawn anew each time."""


@recipe_section
class TeacherSettings:
    """The text teacher: frozen weights that read the clip as text (decisions 1, 2, 4)."""

    prompt: Annotated[str, one_of(TEACHER_PROMPTS)] = "act"
    """What it reads: "act", "act+sem" (the paper) or "act+transcript"."""
    model: Path | None = None
    """Its model folder; `model.start` where not given, and the base itself under LoRA."""
    temperature: PositiveFloat = 1.0
    top_k: Count = 32
    """Tokens of each distribution that are kept; the rest counts as one."""
    cache: Path | None = None
    """Folder of its distributions, to share between runs; inside the run's where not given."""


@recipe_section
class LossSettings:
    """What is minimised: kl_weight · KL(teacher ‖ student) + ce_weight · caption cross-entropy."""

    kl_weight: NonNegativeFloat = 1.0
    ce_weight: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        _require(self.kl_weight + self.ce_weight > 0, "kl_weight and ce_weight are both 0")
        return self


@recipe_section
class ValidationSettings:
    """Losses on the rows of split "validation"."""

    every: Count = 500
    """Steps between; the last step always has one."""
    rows: NonNegativeInt = 256
    """Rows used, spread over all there are."""
    best: Annotated[str, one_of(SCORES)] | None = None
    """A validation score, such as "loss": the model that did best in it is kept, not the last."""
    patience: NonNegativeInt = 0
    """Validations in a row without a better one after which training stops; 0 = never."""

    @model_validator(mode="after")
    def _patience_has_a_score(self) -> Self:
        _require(self.best is not None or not self.patience, "patience needs a score: give best")
        return self


@recipe_section
class OutputSettings:
    """The model folder that a run ends with, `<output>/model`."""

    name: str = "aligncap"
    encoder: Path | None = None
    """Folder of the built-in speech tokenizer, copied into the model folder."""


@recipe_section
class StageSettings:
    """The sections that the recipes of all stages have."""

    data: DataSettings
    training: FitSettings
    model: ModelSettings = field(default_factory=ModelSettings)
    batch: BatchSettings = field(default_factory=BatchSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
    limits: CaptionLimits = field(default_factory=CaptionLimits)
    """Kept in the model folder: where its captions end."""
    notes: ModelNotes = field(default_factory=ModelNotes)
    """Kept in the model folder: what its card says."""


def check_layout(settings: StageSettings) -> None:
    """RecipeError where 4-bit weights would have to be shared out among processes."""
    sharding, quantization = settings.training.sharding, settings.model.quantization
    if quantization is not None and sharding in ("fsdp", "zero3"):
        raise RecipeError(
            f"model.quantization {quantization} packs weights in a way that training.sharding "
            f"{sharding} cannot share out; use none, zero1 or zero2",
        )


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
