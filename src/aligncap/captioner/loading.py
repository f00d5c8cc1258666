"""Opening a model by name or folder; only what its runtime needs is imported."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from aligncap.captioner.captioner import Captioner, CaptionGenerator, Preprocessor
from aligncap.captioner.checkpoint import ENCODER_FOLDER, ModelMeta, load_vocabulary, read_meta
from aligncap.captioner.prompts import PromptBuilder
from aligncap.captioner.runtimes import CT2_FOLDER, DecodeOptions, LanguageRuntime, ResponseRules
from aligncap.errors import DataError, MissingModelError, UnknownNameError
from aligncap.storage import fingerprint_of_files
from aligncap.tokenizers import open_tokenizer
from aligncap.values import SpeechTokenizer

if TYPE_CHECKING:
    from aligncap.captioner.runtimes import EndpointSettings

MODELS: Mapping[str, Path] = MappingProxyType(
    {"mini": Path(__file__).resolve().parent.parent / "models" / "mini"}
)
"""Models that come with the package."""

RUNTIMES = ("auto", "ct2", "torch")
"""What the language model runs on; "auto" takes CTranslate2 where the folder is exported."""

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
"""How a model is called on the hub: "org/name"."""

BEAM_SIZE = 8
BIG_BYTES = 500_000_000
"""Above this, all cores share one response: a single one would take long."""


def load(
    name: str | Path,
    *,
    runtime: str = "auto",
    beam_size: int = BEAM_SIZE,
    threads: int | None = None,
    tokenizer_path: str | Path | None = None,
    seed: int = 0,
    endpoint: "EndpointSettings | None" = None,
) -> Captioner:
    """A captioner: `name` is a built-in model ("mini"), a model folder, or one's name on the hub.

    A name on the hub ("org/name") is looked for in this machine's Hugging Face cache; nothing is
    downloaded. With an `endpoint` the language model runs there, everything else here.

    `threads` is how many cores may be used (all, by default); `tokenizer_path` is where the
    weights of a speech tokenizer are that is not part of the folder; `seed` is that of sampling
    on CTranslate2 (torch takes it from the decode options). Raises UnknownNameError for
    an unknown name, MissingModelError where something of the model is not on this machine,
    DataError where the speech tokenizer is another than the model was trained with.
    """
    if runtime not in RUNTIMES:
        raise UnknownNameError("runtime", runtime, RUNTIMES)
    folder = find_model(name)
    writer = open_generator(folder, runtime=runtime, threads=threads, seed=seed, endpoint=endpoint)
    meta = writer.meta
    return Captioner(
        meta,
        writer.prompts,
        Preprocessor(_speech_tokenizer(folder, meta, tokenizer_path), meta.limits.max_speech_s),
        writer.runtime,
        options=DecodeOptions(
            beam_size=beam_size,
            min_length=meta.limits.min_tokens,
            max_length=meta.limits.max_tokens,
        ),
        workers=threads or len(os.sched_getaffinity(0)),
    )


def open_generator(
    folder: Path,
    *,
    runtime: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    endpoint: "EndpointSettings | None" = None,
) -> CaptionGenerator:
    """The language model of a model folder, with its prompts; as `load`, but it hears nothing."""
    meta = read_meta(folder)
    vocabulary = load_vocabulary(folder, meta)
    rules = ResponseRules(vocabulary.text_rows, vocabulary.stop_ids(meta.limits.stop_characters))
    exported = (folder / CT2_FOLDER).is_dir()
    language_model: LanguageRuntime
    if endpoint is not None:
        from aligncap.captioner.runtimes import EndpointRuntime

        language_model = EndpointRuntime(endpoint, vocabulary, rules, name=meta.name)
    elif runtime == "torch" or (runtime == "auto" and not exported):
        language_model = _torch_runtime(folder, rules)
    else:
        cores = threads or len(os.sched_getaffinity(0))
        language_model = _ct2_runtime(folder / CT2_FOLDER, rules, cores, seed)
    return CaptionGenerator(meta, PromptBuilder(vocabulary, meta.prompts), language_model)


def model_fingerprint(folder: Path) -> str:
    """A hash of a model folder: another model, or the same one trained on, has another."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not _is_prose(file))
    return fingerprint_of_files({}, files)


def _is_prose(file: Path) -> bool:
    return file.suffix == ".md" or file.name.startswith("LICENSE")


def find_model(name: str | Path) -> Path:
    """The folder of a model; a built-in name comes before a folder called the same."""
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
        return _from_hub(name)
    if isinstance(name, Path) or len(folder.parts) > 1:
        raise MissingModelError(f"{folder}: no such model folder; check the path")
    raise UnknownNameError("model", name, MODELS)


def _from_hub(name: str) -> Path:
    """The folder of a model that was downloaded from the hub."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError) as error:
        raise MissingModelError(
            f"{name}: no such model folder, nor a model in this machine's Hugging Face cache; "
            f"check the path, or fetch the model once with `hf download {name}` (where there is no "
            "network: elsewhere, with --local-dir, and give the folder)"
        ) from error


def _torch_runtime(folder: Path, rules: ResponseRules) -> LanguageRuntime:
    try:
        from aligncap.captioner.checkpoint import load_torch
        from aligncap.captioner.decoding import TorchRuntime

        return TorchRuntime(load_torch(folder).causal_lm, rules)
    except ModuleNotFoundError as error:
        raise MissingModelError(
            f"{folder}: this model needs {error.name}, which is not installed; "
            "run: pip install 'aligncap[train]', or use an exported model"
        ) from error


def _ct2_runtime(folder: Path, rules: ResponseRules, cores: int, seed: int) -> LanguageRuntime:
    from aligncap.captioner.runtimes import CT2Runtime

    if not folder.is_dir():
        raise MissingModelError(
            f"{folder.parent}: is not exported; run: aligncap export {folder.parent} OUT"
        )
    weights = folder / "model.bin"
    if weights.is_file() and weights.stat().st_size > BIG_BYTES:
        return CT2Runtime(folder, rules, threads=cores, seed=seed)
    return CT2Runtime(folder, rules, replicas=cores, seed=seed)


def _speech_tokenizer(folder: Path, meta: ModelMeta, path: str | Path | None) -> SpeechTokenizer:
    """The tokenizer the model was trained with, beside it unless `path` says where; DataError where
    it is another one."""
    beside = folder / ENCODER_FOLDER
    if path is None and beside.is_dir():
        path = beside
    elif path is None and meta.tokenizer.name == "builtin":
        path = folder
    tokenizer = _open_given(folder, meta, path)
    if tokenizer.fingerprint != meta.tokenizer.fingerprint:
        raise DataError(
            f"{folder}: was trained with {meta.tokenizer.name} {meta.tokenizer.fingerprint}, "
            f"this one is {tokenizer.fingerprint}; its tokens mean something else"
        )
    return tokenizer


def _open_given(folder: Path, meta: ModelMeta, path: str | Path | None) -> SpeechTokenizer:
    try:
        return open_tokenizer(meta.tokenizer.name, path, **meta.tokenizer.options)
    except MissingModelError as error:
        if path is not None:
            raise
        raise MissingModelError(
            f"{folder}: hears with {meta.tokenizer.name}, which is not part of it; {error} "
            f"(--tokenizer-weights FOLDER, tokenizer_path in Python), or link it to "
            f"{folder / ENCODER_FOLDER}"
        ) from error
