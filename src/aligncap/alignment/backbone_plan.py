"""Which language model a recipe would train, and how large it is, from files that need no torch."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from aligncap.alignment.settings import ModelSettings
from aligncap.captioner.adapters import AdapterSettings
from aligncap.captioner.backbones import pretrained_vocabulary, small_config
from aligncap.captioner.checkpoint import load_vocabulary
from aligncap.captioner.known_backbones import KNOWN_BACKBONES
from aligncap.captioner.meta import ADAPTER_FOLDER, META_FILE, read_meta
from aligncap.captioner.sizes import ModelSize, VocabularySize, model_size
from aligncap.captioner.vocabulary import Vocabulary
from aligncap.errors import MissingModelError
from aligncap.training.needs import Needed, needed_path
from aligncap.training.pretrained import load_config


@dataclass(frozen=True, slots=True)
class BackbonePlan:
    """The model of a recipe: what of it is read, and its size as far as it can be told."""

    needed: tuple[Needed, ...]
    size: ModelSize | None
    notes: tuple[str, ...] = ()


def plan_backbone(settings: ModelSettings, *, codebooks: int, codebook_size: int) -> BackbonePlan:
    """What a recipe's model is."""
    if settings.start is not None:
        return _started(settings.start, settings.lora)
    if settings.base is not None:
        return _pretrained(settings.base, settings.lora, codebooks, codebook_size)
    sizes = {k: v for k, v in asdict(settings.new).items() if k != "text_vocabulary"}
    text = settings.new.text_vocabulary
    vocabulary = VocabularySize(
        base=text, text=text, codebooks=codebooks, codebook_size=codebook_size
    )
    config = small_config(vocabulary.size, **sizes)
    return BackbonePlan((), model_size(config, vocabulary), ("made new, with random weights",))


def _started(folder: Path, adapter: AdapterSettings | None) -> BackbonePlan:
    """The model folder of an earlier stage."""
    cure = "train it with its recipe, or give another model folder"
    start = needed_path("model to start from", folder, cure=cure)
    if not start.present:
        return BackbonePlan((start,), None, (f"{folder}: not here, so its size is not known",))
    meta = read_meta(folder)
    vocabulary = _size_of(load_vocabulary(folder, meta))
    if not meta.base:
        return BackbonePlan((start,), model_size(load_config(str(folder)), vocabulary, adapter))
    base = _needed_model(meta.base)
    saved = _saved_adapter(folder / ADAPTER_FOLDER / "adapter_config.json")
    return BackbonePlan((start, base), _size_or_none(meta.base, vocabulary, saved))


def _saved_adapter(path: Path) -> AdapterSettings:
    config = json.loads(path.read_text(encoding="utf-8"))
    return AdapterSettings(rank=config["r"], targets=tuple(config["target_modules"]))


def _pretrained(
    base: str, adapter: AdapterSettings | None, codebooks: int, codebook_size: int
) -> BackbonePlan:
    needed = _needed_model(base)
    notes: list[str] = []
    vocabulary = None
    if needed.present:
        try:
            made = pretrained_vocabulary(base, codebook_size=codebook_size, codebooks=codebooks)
        except MissingModelError as error:
            needed = Needed(needed.what, needed.name, str(error).rpartition("; ")[2])
        else:
            vocabulary = _size_of(made)
    if vocabulary is None and base in KNOWN_BACKBONES:
        ids = KNOWN_BACKBONES[base].text_ids
        vocabulary = VocabularySize(
            base=ids, text=ids, codebooks=codebooks, codebook_size=codebook_size
        )
        notes.append(f"{base}: not here; its size is that of its published configuration")
    if vocabulary is None:
        notes.append(f"{base}: not here, so its size is not known")
        return BackbonePlan((needed,), None, tuple(notes))
    return BackbonePlan((needed,), _size_or_none(base, vocabulary, adapter), tuple(notes))


def _needed_model(name: str) -> Needed:
    """A pretrained model with its tokenizer."""
    if (Path(name) / META_FILE).is_file():
        return Needed("language model", name)
    try:
        load_config(name)
    except MissingModelError as error:
        # What the libraries say of why it is not here is no help; the end is what to do.
        return Needed("language model and tokenizer", name, str(error).rpartition("; ")[2])
    return Needed("language model and tokenizer", name)


def _size_or_none(
    name: str, vocabulary: VocabularySize, adapter: AdapterSettings | None
) -> ModelSize | None:
    """By the model's own configuration, or by what is published of it."""
    from transformers import AutoConfig

    try:
        config = load_config(name)
    except MissingModelError:
        if name not in KNOWN_BACKBONES:
            return None
        known = KNOWN_BACKBONES[name]
        config = AutoConfig.for_model(known.kind, **known.config)
    return model_size(config, vocabulary, adapter)


def _size_of(vocabulary: Vocabulary) -> VocabularySize:
    shape = vocabulary.shape
    return VocabularySize(
        base=shape.base_size,
        text=vocabulary.text_rows,
        codebooks=shape.codebooks,
        codebook_size=shape.codebook_size,
    )
