"""Model folders: weights in safetensors, the rest readable text; nothing is ever unpickled.

aligncap.json     what the model is (`ModelMeta`), read without torch
tokenizer.json    the text tokenizer
README.md         the model card
config.json, model.safetensors     all weights, or
adapter/                           a LoRA adapter of the base that aligncap.json names, or
connector.safetensors              beside either, or beside the name of a frozen base: the connector
encoder/          the speech tokenizer, where it is part of the model: the built-in one always
"""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import numpy as np

from aligncap.captioner.card import model_card
from aligncap.captioner.prompts import (
    ACOUSTIC_PROMPT_SOURCES,
    STUDENT_PARTS,
    ConnectorMeta,
    PromptTemplate,
)
from aligncap.captioner.vocabulary import STOP_CHARACTERS, Vocabulary, VocabularyShape
from aligncap.errors import (
    AlignCapError,
    DataError,
    MissingModelError,
    RecipeError,
    UnknownNameError,
)
from aligncap.foreign import AGAIN, read_table, reading, refuse_code
from aligncap.storage import (
    atomic_folder,
    canonical_json,
    check_outputs,
    hash_of,
    hash_of_file,
)
from aligncap.tokenizers.builtin import BUILTIN_FOLDER, ENCODER_FILE, fingerprint_of

if TYPE_CHECKING:
    from aligncap.captioner.model import CaptionModel


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

WEIGHTS = ("full", "adapter", "connector")

MOST_TOKENS = 10_000
LONGEST_SPEECH_S = 3600.0


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

    def __post_init__(self) -> None:
        if {"name", "path"} & self.options.keys():
            raise DataError("a speech tokenizer's name and path are no options of it")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionLimits:
    """Where a caption ends (decision 8), and how much speech is read."""

    stop_characters: str = STOP_CHARACTERS
    min_tokens: int = 3
    max_tokens: int = 64
    max_speech_s: float = 30.0
    """Longer speech is captioned by its pieces."""

    def __post_init__(self) -> None:
        if not (
            1 <= self.min_tokens <= self.max_tokens <= MOST_TOKENS
            and 0.0 < self.max_speech_s <= LONGEST_SPEECH_S
        ):
            raise RecipeError(
                f"caption limits: {self.min_tokens} to {self.max_tokens} tokens over "
                f"{self.max_speech_s} s; needs 1 <= minimum <= maximum <= {MOST_TOKENS:,} and "
                f"some speech, at most {LONGEST_SPEECH_S:,.0f} s"
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
    plans: bool = False
    """Whether a caption is written after a plan, and P_act says how certain an emotion is."""
    connector: ConnectorMeta = field(default_factory=ConnectorMeta)
    """What makes vectors of speech features, in models whose prompts hold vectors."""
    weights: str = "full"
    """"full", or "adapter" or "connector": then `base` names the language model it belongs to."""
    base: str = ""
    notes: ModelNotes = field(default_factory=ModelNotes)
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Recipe, seed, versions: how the model was made."""

    def __post_init__(self) -> None:
        if self.act_mode not in ACOUSTIC_PROMPT_SOURCES:
            raise UnknownNameError("act mode", self.act_mode, ACOUSTIC_PROMPT_SOURCES)
        if self.weights not in WEIGHTS:
            raise UnknownNameError("kind of weights", self.weights, WEIGHTS)
        if (self.weights != "full") != bool(self.base):
            raise RecipeError(f"{self.name}: an adapter names its base, full weights have none")
        if not self.languages:
            raise RecipeError(f"{self.name}: a model captions in at least one language")
        for language in self.languages:
            if language not in self.prompts.instructions:
                raise UnknownNameError("caption language", language, self.prompts.instructions)

    @property
    def usual_beams(self) -> int:
        """Beams of the first search for a caption, where nothing else is asked for. By a plan,
        beams differ in little; where the tokenizer hears no emotion they give its probability."""
        if not self.plans:
            return 8
        return 1 if self.tokenizer.name.startswith("builtin") else 3


def write_meta(folder: Path, meta: ModelMeta) -> None:
    """Write aligncap.json and the model card."""
    from aligncap.recipes import as_table  # it brings pydantic, which captioning does without

    table = as_table(meta)
    if not meta.connector.name:  # what only models with vectors have
        del table["connector"]
    if meta.prompts.student == STUDENT_PARTS:
        del table["prompts"]["student"]
    text = json.dumps({"format": FORMAT, **table}, ensure_ascii=False, indent=2)
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
    refuse_code(folder)
    values = read_table(path, hint=AGAIN)
    with reading(path, hint=AGAIN):
        written = values.pop("format")
        newer = written > FORMAT
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
        inner = get_args(hint)[-1:] if origin is Mapping else get_args(hint)[:1]
        parts = value.values() if isinstance(value, dict) else value if origin is tuple else ()
        if not isinstance(value, wanted) or not all(isinstance(one, inner) for one in parts):
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


MODELS: Mapping[str, Path] = MappingProxyType(
    {name: BUILTIN_FOLDER.with_name(name) for name in (BUILTIN_FOLDER.name, "mini-1")}
)
"""Models that come with the package; `mini-1` is the first generation of `mini`."""

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
"""How a model is called on the hub: "org/name"."""


def find_model(name: str | Path) -> Path:
    """The folder of a model; a built-in name comes before a folder called the same.

    UnknownNameError for an unknown name, MissingModelError where the model is not here.
    """
    if name in MODELS:
        folder = MODELS[str(name)]
        if not folder.is_dir():
            raise MissingModelError(
                f"model {name!r} is not in this installation ({folder}); "
                "install a released aligncap, or give the folder of a model"
            )
        return folder
    folder = Path(name)
    if folder.is_dir():
        return folder
    if isinstance(name, str) and HUB_NAME.fullmatch(name):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(name, local_files_only=True))
        except (OSError, ValueError) as error:
            raise MissingModelError(
                f"{name}: no such model folder, nor a model in this machine's Hugging Face cache; "
                f"check the path, or fetch the model once with `hf download {name}` (where there "
                "is no network: elsewhere, with --local-dir, and give the folder)"
            ) from error
    if isinstance(name, Path) or len(folder.parts) > 1:
        raise MissingModelError(f"{folder}: no such model folder; check the path")
    raise UnknownNameError("model", name, MODELS)


def model_fingerprint(folder: Path) -> str:
    """A hash of a model folder's files; its card, its licence and the scores in its notes are left
    out, so that a model whose scores are written down stays the one that they are of."""
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.suffix != ".md" and not file.name.startswith("LICENSE")
    ]
    hashes = [
        _hash_without_scores(file) if file == folder / META_FILE else hash_of_file(file)
        for file in files
    ]
    return hash_of(canonical_json([{}, hashes]))


def _hash_without_scores(meta: Path) -> str:
    """The hash that aligncap.json has before scores are written into it."""
    table = read_table(meta, hint=AGAIN)
    if not table.get("notes", {}).get("scores"):
        return hash_of_file(meta)
    table["notes"]["scores"] = {}
    return hash_of(json.dumps(table, ensure_ascii=False, indent=2) + "\n")


def save(
    folder: Path, model: "CaptionModel", meta: ModelMeta, *, encoder: Path | None = None
) -> ModelMeta:
    """Write a model folder and return its meta, with vocabulary, weights and base filled in.

    Base + adapter writes the adapter only; nothing of the language model is written where the
    `meta` says that only the connector is trained. `encoder` is a folder of the built-in tokenizer
    to put beside it. The folder appears whole or not at all; one that holds something else than a
    model of ours is not touched (DataError).
    """
    from aligncap.captioner.connectors import save_connector
    from aligncap.captioner.model import has_adapter, save_adapter

    _check_target(folder)
    weights = "adapter" if has_adapter(model) else "full"
    if meta.weights == "connector":
        weights = meta.weights
    base = "" if weights == "full" else _base_name(model, meta)
    meta = replace(meta, vocabulary=model.vocabulary.shape, weights=weights, base=base)
    with atomic_folder(folder) as partial:
        write_meta(partial, meta)
        model.vocabulary.save(partial / TOKENIZER_FILE)
        if weights == "adapter":
            save_adapter(model, partial / ADAPTER_FOLDER, base=base)
        elif weights == "full":
            model.causal_lm.save_pretrained(partial)
        if model.connector is not None:
            save_connector(model.connector, partial)
        if encoder is not None:
            copy_encoder_files(encoder, partial / ENCODER_FOLDER)
    return meta


FROZEN_FILE = "encoder.safetensors"
"""Of a frozen encoder's folder."""

ENCODER_FILES = "encoder.*"
"""Of the built-in speech tokenizer, where it lies beside something else."""


def copy_encoder_files(folder: Path, out: Path) -> None:
    """Copy the built-in speech tokenizer of a folder of its own, whole, or of an exported model's
    folder, or that an encoder.onnx is in."""
    if folder.is_dir() and not (folder / META_FILE).is_file():
        shutil.copytree(folder, out)
        return
    out.mkdir()
    for file in sorted((folder if folder.is_dir() else folder.parent).glob(ENCODER_FILES)):
        shutil.copy(file, out)


def find_encoder(fingerprint: str, folders: Iterable[Path]) -> Path | None:
    """The first folder with the speech tokenizer of a fingerprint, the built-in one or a frozen
    one, among the folders given, their `encoder`, and the models that come with the package."""
    for folder in (*folders, *MODELS.values()):
        for place in (folder / ENCODER_FOLDER, folder):
            file = place / ENCODER_FILE
            if file.is_file():
                found = [fingerprint_of(file)]
            elif (place / FROZEN_FILE).is_file():
                from aligncap.tokenizers.frozen import fingerprints_of  # needs torch

                found = fingerprints_of(place)
            else:
                continue
            if fingerprint in found:
                return place
    return None


def check_output(model_folder: Path, out: Path, *, marker: str, kind: str) -> None:
    """DataError where `out` is or holds the model or its base, or something else than was made
    before; RecipeError for a model whose prompts hold vectors, which no other program takes.

    `marker` is a file or folder that only such a folder has, `kind` what it is called.
    """
    if out.resolve() == model_folder.resolve():
        raise DataError(f"{out}: is the model itself; give another folder")
    meta = read_meta(model_folder)
    if meta.connector.name:
        raise RecipeError(
            f"{model_folder}: its prompts hold vectors, which {kind} cannot take; use the folder "
            "as it is"
        )
    base = meta.base
    check_outputs([out], [model_folder, *([Path(base)] if base else [])], overwrite=True)
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
    with reading(path, hint=AGAIN):
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

    The language model of an exported folder is put together again from its weights, which are int8
    in most. MissingModelError where there are none, or where an adapter's base is not on this
    machine: the message says what to fetch.
    """
    from aligncap.captioner.connectors import read_connector
    from aligncap.captioner.encoder_decoder import caption_model
    from aligncap.captioner.model import add_speech_tokens, load_adapter
    from aligncap.training.pretrained import load_causal_lm

    meta = read_meta(folder)
    vocabulary = load_vocabulary(folder, meta)
    if meta.weights == "adapter":
        causal_lm = load_causal_lm(meta.base, dtype=dtype, quantization=quantization)
        # A base of our own (an earlier stage) has learnt its speech rows already.
        if not (Path(meta.base) / META_FILE).is_file():
            add_speech_tokens(causal_lm, vocabulary)
        model = load_adapter(causal_lm, vocabulary, folder / ADAPTER_FOLDER, trainable=trainable)
    else:
        if meta.base:
            causal_lm = load_causal_lm(meta.base, dtype=dtype, quantization=quantization)
        elif any(folder.glob("model*.safetensors")):
            causal_lm = load_causal_lm(str(folder), dtype=dtype, quantization=quantization)
        else:
            causal_lm = _load_exported(folder, vocabulary)
        connector = read_connector(folder, meta.connector, causal_lm)
        model = caption_model(causal_lm, vocabulary, connector)
    return (model if quantization else model.to(device)).train(trainable)


LLAMA_PARTS = {
    "self_attn.o_proj": "self_attention/linear_1/weight",
    "mlp.gate_proj": "ffn/linear_0/weight",
    "mlp.up_proj": "ffn/linear_0_noact/weight",
    "mlp.down_proj": "ffn/linear_1/weight",
    "input_layernorm": "self_attention/layer_norm/gamma",
    "post_attention_layernorm": "ffn/layer_norm/gamma",
}
"""Of a layer: transformers' names and CTranslate2's. Query, key and value lie on one another."""


def _load_exported(folder: Path, vocabulary: Vocabulary) -> Any:
    """The LLaMA of an exported folder as transformers has it, so that it can be trained further;
    of int8 weights each is off by up to half a step of its row.

    MissingModelError where the folder is not exported, or its language model is no plain LLaMA.
    """
    import torch

    from aligncap.captioner.model import small_config
    from aligncap.captioner.runtimes import CT2_FOLDER, check_ct2, ct2_weights

    if not (folder / CT2_FOLDER).is_dir():
        raise MissingModelError(f"{folder}: has neither model.safetensors nor an exported model")
    rows = len(check_ct2(folder / CT2_FOLDER, vocabulary.text_vocab_size))
    arrays = ct2_weights(folder / CT2_FOLDER)
    layers = sum(name.endswith("/self_attention/linear_0/weight") for name in arrays)
    with reading(folder / CT2_FOLDER, hint=AGAIN, refused=MissingModelError):
        from transformers import LlamaForCausalLM

        embeddings = arrays["decoder/embeddings/weight"]
        text = arrays["decoder/projection/weight"]
        config = small_config(
            rows,
            hidden=embeddings.shape[1],
            layers=layers,
            heads=int(arrays["decoder/num_heads"]),
            intermediate=arrays["decoder/layer_0/ffn/linear_0_noact/weight"].shape[0],
            tied=bool((embeddings[: len(text)] == text).all()),
        )
        config.rms_norm_eps = read_table(folder / CT2_FOLDER / "config.json", hint=AGAIN).get(
            "layer_norm_epsilon", config.rms_norm_eps
        )
        head = embeddings.copy()
        head[: len(text)] = text
        weights = {
            "model.embed_tokens.weight": embeddings,
            "model.norm.weight": arrays["decoder/layer_norm/gamma"],
            "lm_head.weight": head,
        }
        for number in range(layers):
            layer, place = f"model.layers.{number}", f"decoder/layer_{number}"
            each = np.split(arrays[f"{place}/self_attention/linear_0/weight"], 3)
            for name, part in zip("qkv", each, strict=True):
                weights[f"{layer}.self_attn.{name}_proj.weight"] = part
            for name, own in LLAMA_PARTS.items():
                weights[f"{layer}.{name}.weight"] = arrays[f"{place}/{own}"]
        model = LlamaForCausalLM(config)
        model.load_state_dict(
            {name: torch.from_numpy(np.array(array, np.float32)) for name, array in weights.items()}
        )
    return model


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
