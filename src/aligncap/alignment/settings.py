"""The sections of the alignment stages' recipes; ranges are checked at birth."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aligncap.captioner.acting import ACT_MODES
from aligncap.captioner.adapters import AdapterSettings
from aligncap.captioner.meta import CaptionLimits, ModelNotes
from aligncap.captioner.prompts import TEACHER_PROMPTS
from aligncap.errors import RecipeError, UnknownNameError
from aligncap.training import FitSettings
from aligncap.training.pretrained import QUANTIZATIONS
from aligncap.values import LANGUAGES

DTYPES = ("float32", "bfloat16")

SCORES = {
    **dict.fromkeys(("loss", "ce", "kl", "contradicted"), False),
    **dict.fromkeys(("accuracy", "margin", "reward"), True),
}
"""What a validation can be judged by, and whether more of it is better."""


def _both_languages() -> Mapping[str, float]:
    return dict.fromkeys(LANGUAGES, 1.0)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise RecipeError(message)


def _share(name: str, value: float) -> None:
    _require(0 <= value < 1, f"{name} is {value}, must be in [0, 1)")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Which rows are learnt from, and how they are mixed."""

    rows: tuple[Path, ...]
    """Files of training rows (`data`)."""
    languages: Mapping[str, float] = field(default_factory=_both_languages)
    """How often a caption is asked for in each language, among those a row has."""
    balance: float = 0.0
    """0 draws corpora by their rows, 1 all equally often."""
    rarity: float = 0.0
    """The same of emotions, before corpora are balanced."""

    def __post_init__(self) -> None:
        _require(bool(self.rows), "rows names no file of training rows")
        for name in ("balance", "rarity"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"{name} is {value}, must be in [0, 1]")
        for language, weight in self.languages.items():
            if language not in LANGUAGES:
                raise UnknownNameError("caption language", language, LANGUAGES)
            _require(weight >= 0, f"languages.{language} is {weight}, must be 0 or more")
        _require(sum(self.languages.values()) > 0, "languages asks for no language")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """What one batch holds."""

    rows: int = 16
    """Clips; the paper's effective batch (decision 12)."""
    captions: int = 3
    """Captions of a clip that share its prompt."""
    bucket: int = 50
    """Batches that are sorted by length together: more pads less, and mixes less."""

    def __post_init__(self) -> None:
        for name in ("rows", "captions", "bucket"):
            value = getattr(self, name)
            _require(value >= 1, f"{name} is {value}, must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The language model that is trained: an earlier stage's, a pretrained one, or a new one."""

    start: Path | None = None
    """Model folder of an earlier stage."""
    base: str | None = None
    """Folder or name of a pretrained causal LM."""
    lora: AdapterSettings | None = None
    """Train a LoRA adapter and the new ids only; an adapter that `start` has goes on. Without it
    every weight is trained."""
    dtype: str = "float32"
    """Of the weights; "bfloat16" suits a large frozen base under LoRA."""
    quantization: str | None = None
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

    def __post_init__(self) -> None:
        _require(self.start is None or self.base is None, "give start or base, not both")
        if self.dtype not in DTYPES:
            raise UnknownNameError("dtype", self.dtype, DTYPES)
        _require(
            self.dtype == "float32" or self.lora is not None,
            f"weights of {self.dtype} are too coarse to be trained whole; add a LoRA adapter, "
            "or set training.precision instead",
        )
        if self.quantization is not None and self.quantization not in QUANTIZATIONS:
            raise UnknownNameError("quantization", self.quantization, QUANTIZATIONS)
        _require(
            self.quantization is None or self.lora is not None,
            f"weights in {self.quantization} cannot be trained; add a LoRA adapter",
        )
        _require(
            self.lora is None or bool(self.start or self.base),
            "a LoRA adapter needs a model to stand on: give start or base",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentSettings:
    """What the student reads."""

    act_mode: str = "none"
    """Where its P_act comes from: "none" (Eq. 4), "measured" or "heard" (decision 5)."""
    act_dropout: float = 0.3
    """Share of prompts without P_act, so that it can be left out when captioning."""
    speech_dropout: float = 0.0
    """Share of speech frames that are left out, drawn anew each time."""

    def __post_init__(self) -> None:
        if self.act_mode not in ACT_MODES:
            raise UnknownNameError("act mode", self.act_mode, ACT_MODES)
        _share("act_dropout", self.act_dropout)
        _share("speech_dropout", self.speech_dropout)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherSettings:
    """The text teacher: frozen weights that read the clip as text (decisions 1, 2, 4)."""

    prompt: str = "act"
    """What it reads: "act", "act+sem" (the paper) or "act+transcript"."""
    model: Path | None = None
    """Its model folder; `model.start` where not given, and the base itself under LoRA."""
    temperature: float = 1.0
    top_k: int = 32
    """Tokens of each distribution that are kept; the rest counts as one."""
    cache: Path | None = None
    """Folder of its distributions, to share between runs; inside the run's where not given."""

    def __post_init__(self) -> None:
        if self.prompt not in TEACHER_PROMPTS:
            raise UnknownNameError("teacher prompt", self.prompt, TEACHER_PROMPTS)
        _require(self.temperature > 0, f"temperature is {self.temperature}, must be above 0")
        _require(self.top_k >= 1, f"top_k is {self.top_k}, must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """What is minimised: kl_weight · KL(teacher ‖ student) + ce_weight · caption cross-entropy."""

    kl_weight: float = 1.0
    ce_weight: float = 0.0

    def __post_init__(self) -> None:
        fine = min(self.kl_weight, self.ce_weight) >= 0 and self.kl_weight + self.ce_weight > 0
        _require(fine, "kl_weight and ce_weight must be 0 or more, and not both 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationSettings:
    """Losses on the rows of split "validation"."""

    every: int = 500
    """Steps between; the last step always has one."""
    rows: int = 256
    """Rows used, spread over all there are."""
    best: str | None = None
    """A validation score, such as "loss": the model that did best in it is kept, not the last."""
    patience: int = 0
    """Validations in a row without a better one after which training stops; 0 = never."""

    def __post_init__(self) -> None:
        _require(self.every >= 1 and self.rows >= 0, "every must be 1 or more, rows 0 or more")
        _require(self.patience >= 0, f"patience is {self.patience}, must be 0 or more")
        _require(self.best is not None or not self.patience, "patience needs a score: give best")
        if self.best is not None and self.best not in SCORES:
            raise UnknownNameError("validation score", self.best, SCORES)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSettings:
    """The model folder that a run ends with, `<output>/model`."""

    name: str = "aligncap"
    encoder: Path | None = None
    """Folder of the built-in speech tokenizer, copied into the model folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
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
    _require(
        quantization is None or sharding not in ("fsdp", "zero3"),
        f"model.quantization {quantization} packs weights in a way that training.sharding "
        f"{sharding} cannot share out; use none, zero1 or zero2",
    )
