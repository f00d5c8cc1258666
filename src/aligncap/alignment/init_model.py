"""The language model that a stage trains: an earlier stage's, a pretrained one, or a new one.

`init_model` makes it; `plan_model` builds it on torch's meta device for a dry run, which counts it
without reading a weight: what is missing is named, and what is here and does not fit is raised as
training would before its first step.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, NonNegativeInt, model_validator
from torch import Tensor

from aligncap.alignment.examples import SpeechSource, TrainingRow
from aligncap.captioner import checkpoint
from aligncap.captioner.connectors import (
    Connector,
    embedding_width,
    load_connector,
    open_connector,
)
from aligncap.captioner.encoder_decoder import caption_model, small_bart, small_bart_config
from aligncap.captioner.model import (
    NEW_FAMILIES,
    AdapterSettings,
    CaptionModel,
    add_adapter,
    add_speech_tokens,
    has_adapter,
    open_backbone,
    pretrained_vocabulary,
    read_adapter_config,
    seeded,
    set_speech_rows,
    small_config,
    small_llama,
)
from aligncap.captioner.prompts import STUDENT_PARTS, ConnectorMeta, PromptTemplate
from aligncap.captioner.vocabulary import Vocabulary, read_tokenizer, train_text_tokenizer
from aligncap.data.grammar import split_plan
from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.recipes import Count, one_of, recipe_section
from aligncap.storage import write_atomic
from aligncap.tokenizers.builtin import open_builtin
from aligncap.tokenizers.encoder import load_encoder
from aligncap.tokenizers.frozen import open_frozen_codes
from aligncap.training.devices import first_process_first
from aligncap.training.dry_run import Needed, needed_path
from aligncap.training.pretrained import QUANTIZATIONS, load_config

TEXT_ONLY = "warmup"
"""The stage that trains no speech token: its model fits any tokenizer of the same size."""


@recipe_section
class SizeSettings:
    """A language model that is made new, with a text vocabulary of its own."""

    family: Annotated[str, one_of(NEW_FAMILIES)] = "llama"
    """"llama", "gpt2" or "opt" (Table 4)."""
    encoder_layers: NonNegativeInt = 0
    """0: a decoder of `family`; else a BART, with so many layers in its encoder."""
    hidden: Count = 256
    layers: Count = 4
    heads: Count = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of attention weights."""
    max_positions: Count = 2048
    text_vocabulary: Count = 4096
    """Byte-level BPE tokens, trained on the rows' texts."""

    @property
    def config(self) -> Callable[..., Any]:
        """What makes a configuration of `shape` for a vocabulary."""
        if self.encoder_layers:
            return small_bart_config
        return lambda vocabulary, **sizes: small_config(vocabulary.size, **sizes)

    @property
    def shape(self) -> dict[str, Any]:
        """The sizes that the kind of model has."""
        sizes = asdict(self)
        del sizes["text_vocabulary"]
        del sizes["family" if self.encoder_layers else "encoder_layers"]
        return sizes


@recipe_section
class ConnectorSettings:
    """What makes vectors of speech features, for rows that hold features."""

    name: str
    """One of `captioner.connectors.CONNECTORS`, or of an installed package."""
    options: Mapping[str, int] = field(default_factory=dict)
    """Its own, such as how many vectors a clip becomes."""
    weights: Path | None = None
    """A connector.safetensors to begin with; random ones where not given."""
    prompt: Annotated[tuple[Annotated[str, one_of(STUDENT_PARTS)], ...], Field(min_length=1)] = (
        STUDENT_PARTS
    )
    """The parts of the prompt, in order."""


@recipe_section
class ModelSettings:
    """The language model that is trained: an earlier stage's, a pretrained one, or a new one."""

    start: Path | None = None
    """Model folder of an earlier stage."""
    base: str | None = None
    """Folder or name of a pretrained causal LM, or of a BART."""
    connector: ConnectorSettings | None = None
    """For rows that hold features; one that `start` has goes on."""
    freeze: bool = False
    """Train the connector only."""
    lora: AdapterSettings | None = None
    """Train a LoRA adapter and the new ids only; an adapter that `start` has goes on. Without it
    every weight is trained."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights; "bfloat16" suits a large frozen base under LoRA."""
    quantization: Annotated[str, one_of(QUANTIZATIONS)] | None = None
    """"nf4" stores the matrices of a frozen base in 4 bits and computes in `dtype` (QLoRA); it
    needs a CUDA GPU and bitsandbytes."""
    gradient_checkpointing: bool = False
    """Keep the inputs of layers only and compute each layer again in the backward pass: the same
    gradients for about a third more time and far less memory."""
    attention: str | None = None
    """transformers' name of an implementation, or None for the model's own choice; on a CPU in
    bfloat16 "eager" is quicker than torch's fused attention for short sequences."""
    codebook: Path | None = None
    """Folder of the built-in encoder whose codebook the speech embeddings are initialised from:
    tokens that sound alike begin alike. For a start that was trained on no speech yet."""
    new: SizeSettings = field(default_factory=SizeSettings)
    """Used where neither `start` nor `base` is given."""

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        rules = {
            "give start or base, not both": self.start is None or self.base is None,
            f"weights of {self.dtype} are too coarse to be trained whole; add a LoRA adapter, or "
            "set training.precision instead": (
                self.dtype == "float32" or self.lora is not None or self.freeze
            ),
            f"weights in {self.quantization} cannot be trained; add a LoRA adapter": (
                self.quantization is None or self.lora is not None or self.freeze
            ),
            "a LoRA adapter needs a model to stand on: give start or base": (
                self.lora is None or bool(self.start or self.base)
            ),
            "a frozen model needs a start, or a base and a connector": (
                not self.freeze or bool(self.start or (self.base and self.connector))
            ),
            "a LoRA adapter is for prompts of ids; leave out lora, or connector and freeze": (
                self.lora is None or (self.connector is None and not self.freeze)
            ),
        }
        for message, holds in rules.items():
            if not holds:
                raise ValueError(message)
        return self


def init_model(
    settings: ModelSettings,
    *,
    rows: Sequence[TrainingRow],
    source: SpeechSource,
    output: Path,
    seed: int,
) -> tuple[CaptionModel, PromptTemplate]:
    """The model to train, and the template of its prompts.

    A new model's text tokenizer is trained on the rows' texts and kept in `output`, so that a
    resumed run has the same one. DataError where an earlier stage's model is for other speech
    tokens.
    """
    template = PromptTemplate()
    if settings.start is not None:
        template = check_start(settings.start, source)
        model = checkpoint.load_torch(
            settings.start,
            dtype=settings.dtype,
            quantization=settings.quantization,
            trainable=True,
        )
        model = for_codes(model, source, seed=seed)
    elif settings.base is not None:
        model = _on_backbone(settings, settings.base, source, seed)
    else:
        model = _new_model(
            settings.new, rows, source, template, output / checkpoint.TOKENIZER_FILE, seed
        )
    if settings.connector is not None and not has_connector(settings.start):
        template = replace(template, student=settings.connector.prompt)
        if model.connector is None:
            model.connector = new_connector(
                settings.connector, source.feature_width, model.hidden, seed=seed
            )
    if settings.freeze:
        model.causal_lm.requires_grad_(requires_grad=False)
    if settings.attention is not None:
        model.bare.set_attn_implementation(settings.attention)
    if settings.codebook is not None:
        set_speech_rows(model, codebook_of(settings.codebook, source), seed=seed)
    if settings.lora is not None and has_adapter(model):
        _check_adapter(model, settings.lora)
    elif settings.lora is not None:
        if model.connector is not None:
            raise RecipeError(f"{settings.start}: has a connector; a LoRA adapter is for ids only")
        model = add_adapter(model, settings.lora)
    if settings.gradient_checkpointing:
        checkpoint_layers(model)
    return model.train(), template


def _check_adapter(model: CaptionModel, asked: AdapterSettings) -> None:
    """RecipeError where the adapter that goes on is not as the recipe has it; without `targets` it
    may be of any layers."""
    for found in model.causal_lm.peft_config.values():
        layers = sorted(found.target_modules)
        pairs = {
            "rank": (found.r, asked.rank),
            "alpha": (found.lora_alpha, asked.alpha),
            "dropout": (found.lora_dropout, asked.dropout),
            "targets": (layers, sorted(asked.targets) or layers),
        }
        for name, (has, wanted) in pairs.items():
            if has != wanted:
                raise RecipeError(
                    f"the adapter that model.start has is of {name} {has}, not {wanted}; set "
                    f"model.lora.{name} to go on with it"
                )


def has_connector(start: Path | None) -> bool:
    """Whether an earlier stage's model has a connector, which goes on."""
    return start is not None and bool(checkpoint.read_meta(start).connector.name)


def _on_backbone(
    settings: ModelSettings, base: str, source: SpeechSource, seed: int
) -> CaptionModel:
    """A pretrained model; for speech as ids it gets rows for them, for vectors a connector."""
    chosen, connector = settings.connector, None
    grown = chosen is None
    causal_lm, vocabulary = open_backbone(
        base,
        codebook_size=source.codebook_size,
        codebooks=source.codebooks,
        dtype=settings.dtype,
        quantization=settings.quantization,
        grown=grown,
    )
    if chosen is None:
        add_speech_tokens(causal_lm, vocabulary)
    else:
        width = embedding_width(causal_lm)
        connector = new_connector(chosen, source.feature_width, width, seed=seed)
    return caption_model(causal_lm, vocabulary, connector)


def connector_meta(settings: ConnectorSettings, width: int, *, vectors: int = 0) -> ConnectorMeta:
    """What a model folder says of a connector of features of that width.

    RecipeError where the rows hold no features.
    """
    if not width:
        raise RecipeError(
            f"the connector {settings.name!r} needs rows that hold features; make them with a "
            "tokenizer that gives vectors, such as builtin-features"
        )
    return ConnectorMeta(
        name=settings.name, width=width, vectors=vectors, options=dict(settings.options)
    )


def new_connector(settings: ConnectorSettings, width: int, hidden: int, *, seed: int) -> Connector:
    """A connector of features of that width to a language model's, with the recipe's weights, where
    it names any."""
    with seeded(seed):
        connector = open_connector(connector_meta(settings, width), hidden)
    if settings.weights is not None:
        load_connector(connector, settings.weights)
    return connector


def check_start(folder: Path, source: SpeechSource) -> PromptTemplate:
    """The prompt template of an earlier stage's model; DataError where its speech tokens are not
    those of the rows."""
    meta = checkpoint.read_meta(folder)
    sizes = meta.vocabulary.codebooks, meta.vocabulary.codebook_size
    same = meta.tokenizer.fingerprint == source.fingerprint
    same = same and sizes == (source.codebooks, source.codebook_size)
    if not same and meta.provenance.get("kind") != TEXT_ONLY:
        raise DataError(
            f"{folder}: is for speech tokens of {meta.tokenizer.name} "
            f"({meta.tokenizer.fingerprint[:12]}, {sizes[0]} x {sizes[1]}), the rows hold those of "
            f"{source.name} ({source.fingerprint[:12]}, {source.codebooks} x "
            f"{source.codebook_size}); make the rows again or start from another model"
        )
    return meta.prompts


def for_codes(model: CaptionModel, source: SpeechSource, *, seed: int) -> CaptionModel:
    """A model of text alone, whose speech tokens nothing was learnt of, for as many as the rows'
    tokenizer has; another model comes back as it is."""
    vocabulary = _with_codes(model.vocabulary, source)
    if vocabulary is model.vocabulary or model.connector is not None:
        return model
    add_speech_tokens(model.causal_lm, vocabulary, seed=seed)
    return caption_model(model.causal_lm, vocabulary)


def _with_codes(vocabulary: Vocabulary, source: SpeechSource) -> Vocabulary:
    """The vocabulary with as many speech tokens as the rows' tokenizer has."""
    sizes = source.codebooks, source.codebook_size
    same = (vocabulary.shape.codebooks, vocabulary.shape.codebook_size) == sizes
    return vocabulary if same else vocabulary.with_codes(*sizes)


@torch.no_grad()
def codebook_of(folder: Path, source: SpeechSource) -> Tensor:
    """The entries of the rows' tokenizer, [codes, width]: of a frozen encoder's codebooks, or of
    the built-in encoder's first, projected to its width.

    DataError where the rows were made with another tokenizer.
    """
    frozen = open_frozen_codes(folder) if source.name == "frozen-codes" else None
    opened = frozen or open_builtin(folder)
    if opened.fingerprint != source.fingerprint:
        raise DataError(
            f"{folder}: is not the {source.name} ({source.fingerprint[:12]}) of the rows; name the "
            "encoder they were made with"
        )
    if frozen is not None:
        return torch.from_numpy(frozen.learnt.entries).flatten(0, 1)
    encoder: Any = load_encoder(folder)
    vectors: Tensor = encoder.leave[0](encoder.codebooks[0].entries)
    return vectors


def checkpoint_layers(model: CaptionModel) -> None:
    """Have each layer keep its input only in training, and compute it again in the backward pass.

    Not reentrant: under a frozen embedding that would find no input to give a gradient to.
    """
    # Older releases of transformers know the second name only; newer ones warn of it.
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    enable = next(found for name in names if (found := getattr(model.bare, name, None)))
    enable({"use_reentrant": False})


def _new_model(
    sizes: SizeSettings,
    rows: Iterable[TrainingRow],
    source: SpeechSource,
    template: PromptTemplate,
    tokenizer_file: Path,
    seed: int,
) -> CaptionModel:
    """A model with random weights, and a text tokenizer that is trained where the file is not."""
    with first_process_first():
        if not tokenizer_file.exists():
            texts = [*template.instructions.values(), *dict.fromkeys(_training_texts(rows))]
            tokenizer = train_text_tokenizer(texts, sizes.text_vocabulary)
            write_atomic(tokenizer_file, tokenizer.to_str(pretty=True))
    vocabulary = Vocabulary.of(
        read_tokenizer(tokenizer_file),
        codebook_size=source.codebook_size,
        codebooks=source.codebooks,
    )
    make = small_bart if sizes.encoder_layers else small_llama
    return caption_model(make(vocabulary, seed=seed, **sizes.shape), vocabulary)


def _training_texts(rows: Iterable[TrainingRow]) -> Iterator[str]:
    for row in rows:
        if row.split == "train":
            for captions in row.captions.values():
                for caption in captions:
                    # Encoded one by one: no token has a part of each.
                    yield from filter(None, split_plan(caption))
            for prompts in (row.act, row.measured, row.heard, row.retrieved):
                yield from prompts.values()
            if row.transcript:
                yield row.transcript


CODEBOOKS = MappingProxyType({"codebooks": 1, "codebook_size": 1024})
"""Of the speech tokenizer where no rows are here: SpeechTokenizer's first layer (the paper's)."""


_OPT_1B = {"hidden_size": 2048, "word_embed_proj_dim": 2048, "ffn_dim": 8192}
_OPT_1B |= {"num_hidden_layers": 24, "num_attention_heads": 32}
_QWEN2 = {"vocab_size": 151936, "num_key_value_heads": 2, "tie_word_embeddings": True}
_QWEN2_05B = {"hidden_size": 896, "intermediate_size": 4864}
_QWEN2_05B |= {"num_hidden_layers": 24, "num_attention_heads": 14}
_QWEN2_15B = {"hidden_size": 1536, "intermediate_size": 8960}
_QWEN2_15B |= {"num_hidden_layers": 28, "num_attention_heads": 12}

_BART = {"d_model": 768, "encoder_layers": 6, "decoder_layers": 6}
_BART |= {"encoder_attention_heads": 12, "decoder_attention_heads": 12}
_BART |= {"encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072}

KNOWN_BACKBONES: Mapping[str, tuple[str, int, Mapping[str, Any]]] = MappingProxyType(
    {
        "huggyllama/llama-7b": ("llama", 32000, {}),
        "minlik/chinese-llama-7b-merged": ("llama", 49953, {"vocab_size": 49953}),
        "facebook/bart-base": ("bart", 50265, _BART),
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
`model_type`, ids of the tokenizer, and what config.json has beyond that type's defaults."""


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """The model of a recipe on the meta device; None where it is not known."""

    model: CaptionModel | None
    needed: Sequence[Needed] = ()
    assumed: Mapping[str, object] = field(default_factory=dict)
    notes: Sequence[str] = ()


def plan_model(settings: ModelSettings, source: SpeechSource | None) -> PlannedModel:
    """The model that a recipe trains; DataError where it goes on from one for other codes."""
    planned = _plan_language_model(settings, source)
    model, connector = planned.model, settings.connector
    if model is None:
        return planned
    if connector is not None and model.connector is None:
        width = WIDTH if source is None else source.feature_width
        with torch.device("meta"):
            model.connector = open_connector(connector_meta(connector, width), model.hidden)
        if source is None:
            planned = replace(planned, assumed={**planned.assumed, "feature_width": width})
    if settings.freeze:
        model.causal_lm.requires_grad_(requires_grad=False)
    return planned


WIDTH = 1024
"""Of the features where no rows are here: HuBERT-large's."""


def _plan_language_model(settings: ModelSettings, source: SpeechSource | None) -> PlannedModel:
    if settings.start is not None:
        if source is not None and settings.start.exists():
            check_start(settings.start, source)
        return _plan_start(settings, settings.start, source)
    codes = {name: getattr(source, name) for name in CODEBOOKS} if source else dict(CODEBOOKS)
    assumed = {} if source else codes
    if settings.base is not None:
        return _plan_base(settings, settings.base, codes, assumed)
    vocabulary = _sizes(settings.new.text_vocabulary, **codes)
    config = settings.new.config(vocabulary, **settings.new.shape)
    model = meta_model(config, vocabulary, dtype=settings.dtype)
    return PlannedModel(model, (), assumed, ("made new, with random weights",))


def meta_model(
    config: Any, vocabulary: Any, lora: AdapterSettings | None = None, *, dtype: str = "float32"
) -> CaptionModel:
    """The model that training makes of a backbone's config, on the meta device, without weights.

    RecipeError where the kind of model has no known LoRA targets and `lora` names none.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    config = type(config).from_dict(config.to_dict())
    # Unused rows of the embedding are used before it grows, as in add_speech_tokens.
    config.vocab_size = max(config.vocab_size, vocabulary.size)
    with torch.device("meta"):
        causal_lm = kind.from_config(config, dtype=getattr(torch, dtype))
        model = caption_model(causal_lm, vocabulary)
        return add_adapter(model, lora) if lora else model


def _plan_start(settings: ModelSettings, folder: Path, source: SpeechSource | None) -> PlannedModel:
    """The model folder of an earlier stage."""
    hint = "train it with its recipe, or give another model folder"
    needed = [needed_path("model to start from", folder, hint=hint)]
    if not folder.exists():
        return PlannedModel(None, needed, notes=(f"{folder}: not here, so its size is unknown",))
    meta, lora = checkpoint.read_meta(folder), settings.lora
    if meta.base:
        needed.append(_needed_model(meta.base))
    if meta.weights == "adapter":
        lora = read_adapter_config(folder / checkpoint.ADAPTER_FOLDER)
    name = meta.base or str(folder)
    config = _config_of(name)
    if config is None:
        return PlannedModel(None, needed, notes=(f"{name}: not here, so its size is unknown",))
    vocabulary = checkpoint.load_vocabulary(folder, meta)
    if source is not None and not meta.connector.name:
        vocabulary = _with_codes(vocabulary, source)
    model = meta_model(config, vocabulary, lora, dtype=settings.dtype)
    if meta.connector.name:
        with torch.device("meta"):
            model.connector = open_connector(meta.connector, model.hidden)
    return PlannedModel(model, needed)


def _plan_base(
    settings: ModelSettings, base: str, codes: Mapping[str, int], assumed: Mapping[str, object]
) -> PlannedModel:
    """A model of the hub, as it is published where it is not here."""
    needed, notes = _needed_model(base), []
    vocabulary: Any = None
    if not needed.hint:
        try:
            grown = settings.connector is None
            vocabulary = pretrained_vocabulary(base, **codes, grown=grown)
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
    if (Path(name) / checkpoint.META_FILE).is_file():
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
    return SimpleNamespace(text_vocab_size=text, size=size, new_ids=range(text, size))
