"""What a model folder says of itself: aligncap.json, typed, readable, and read without torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from aligncap.captioner.acting import ACT_MODES
from aligncap.captioner.prompts import PromptTemplate
from aligncap.captioner.vocabulary import STOP_CHARACTERS, VocabularyShape
from aligncap.errors import (
    AlignCapError,
    DataError,
    MissingModelError,
    RecipeError,
    UnknownNameError,
)

FORMAT = 1
"""The layout that this version writes; it reads this and older ones."""

META_FILE = "aligncap.json"
TOKENIZER_FILE = "tokenizer.json"
TEXT_TOKENIZER_FILE = "text_tokenizer.json"
"""Of a merged model, whose tokenizer.json names the speech tokens too."""
CARD_FILE = "README.md"
ENCODER_FOLDER = "encoder"
ADAPTER_FOLDER = "adapter"
RUN_MODEL_FOLDER = "model"
"""Of a run of `aligncap train`: the model folder it ends with."""

WEIGHTS = ("full", "adapter")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechTokenizerMeta:
    """The speech tokenizer a model was trained with."""

    name: str
    """As `speech.open_tokenizer` takes it."""
    fingerprint: str
    """Of its weights, depth and version: another one gives codes that mean something else."""
    frame_rate_hz: float
    options: Mapping[str, int] = field(default_factory=dict)
    """Its options by name, such as the depth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionLimits:
    """Where a caption ends (decision 8), and how much speech is read."""

    stop_characters: str = STOP_CHARACTERS
    min_tokens: int = 3
    max_tokens: int = 64
    max_speech_s: float = 30.0
    """Longer speech is captioned by its pieces."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_tokens <= self.max_tokens or self.max_speech_s <= 0.0:
            raise RecipeError(
                f"caption limits: {self.min_tokens} to {self.max_tokens} tokens over "
                f"{self.max_speech_s} s; needs 1 <= minimum <= maximum and some speech"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelNotes:
    """What people should know of a model; the model card is written from it."""

    summary: str = ""
    license: str = ""
    trained_on: tuple[str, ...] = ()
    good_for: tuple[str, ...] = ()
    not_for: tuple[str, ...] = ()
    scores: Mapping[str, str] = field(default_factory=dict)
    """Each with its signature: "0.63 [ravdess|validation speakers|…]"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMeta:
    """Everything beside the weights that captioning with a model depends on."""

    name: str
    languages: tuple[str, ...]
    tokenizer: SpeechTokenizerMeta
    vocabulary: VocabularyShape
    prompts: PromptTemplate = field(default_factory=PromptTemplate)
    limits: CaptionLimits = field(default_factory=CaptionLimits)
    act_mode: str = "none"
    """Where P_act comes from when captioning (decision 5)."""
    weights: str = "full"
    """"full", or "adapter": then `base` names the language model it belongs to."""
    base: str = ""
    notes: ModelNotes = field(default_factory=ModelNotes)
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Recipe, seed, versions: how the model was made."""

    def __post_init__(self) -> None:
        if self.act_mode not in ACT_MODES:
            raise UnknownNameError("act mode", self.act_mode, ACT_MODES)
        if self.weights not in WEIGHTS:
            raise UnknownNameError("kind of weights", self.weights, WEIGHTS)
        if (self.weights == "adapter") != bool(self.base):
            raise RecipeError(f"{self.name}: an adapter names its base, full weights have none")
        if not self.languages:
            raise RecipeError(f"{self.name}: a model captions in at least one language")
        for language in self.languages:
            if language not in self.prompts.instructions:
                raise UnknownNameError("caption language", language, self.prompts.instructions)


def write_meta(folder: Path, meta: ModelMeta) -> None:
    """Write aligncap.json and the model card."""
    from aligncap.captioner.card import model_card
    from aligncap.recipes import as_table  # it brings pydantic, which captioning does without

    text = json.dumps({"format": FORMAT, **as_table(meta)}, ensure_ascii=False, indent=2)
    (folder / META_FILE).write_text(text + "\n", encoding="utf-8")
    (folder / CARD_FILE).write_text(model_card(meta), encoding="utf-8")


def read_meta(folder: Path) -> ModelMeta:
    """The meta of a model folder, trained or exported.

    MissingModelError where there is no folder, where it holds no model of ours, or where a newer
    version wrote it; DataError where aligncap.json is damaged.
    """
    path = folder / META_FILE
    if not folder.is_dir():
        raise MissingModelError(f"{folder}: no such model folder; check the path")
    if not path.is_file():
        raise MissingModelError(
            f"{folder}: holds no {META_FILE}, so it is no AlignCap model; {_instead(folder)}"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        written = values.pop("format")
        newer = written > FORMAT
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is damaged ({error!r}); save the model again") from error
    if newer:
        raise MissingModelError(
            f"{folder}: written by a newer AlignCap (format {written}, this reads up to {FORMAT}); "
            "update with `pip install -U aligncap`"
        )
    try:
        meta: ModelMeta = _read(ModelMeta, values, str(path))
    except AlignCapError as error:
        raise DataError(str(error)) from error
    return meta


def _read(kind: Any, table: Any, place: str) -> Any:
    """A JSON object as a value of the dataclass `kind`; DataError names what does not fit."""
    if not isinstance(table, dict):
        raise DataError(f"{place}: is {table!r}, must be an object; save the model again")
    hints, values = get_type_hints(kind), dict[str, Any]()
    for name, value in table.items():
        if name not in hints:
            raise UnknownNameError(f"entry in {place}", name, hints)
        hint, origin = hints[name], get_origin(hints[name])
        if is_dataclass(hint):
            values[name] = _read(hint, value, f"{place} [{name}]")
            continue
        wanted = {tuple: list, Mapping: dict}.get(origin, (int, float) if hint is float else hint)
        if not isinstance(value, wanted):
            raise DataError(
                f"{place}: {name} is {value!r}, which does not fit; save the model again"
            )
        values[name] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**values)
    except TypeError as error:
        raise DataError(f"{place}: is damaged ({error}); save the model again") from error
    except AlignCapError as error:
        raise DataError(f"{place}: {error}") from error


def _instead(folder: Path) -> str:
    """What to give in place of a folder that is none of a model."""
    inside = folder / RUN_MODEL_FOLDER
    if (inside / META_FILE).is_file():
        return f"it is a run's folder: give {inside}"
    return "give a folder that `aligncap train` or `aligncap export` wrote"
