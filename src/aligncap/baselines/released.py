"""Checkpoints that the authors of the baselines published, as model folders: kind "released".

A checkpoint is read by torch's safe loading only: tensors, numbers and texts, nothing of it is run.
Each weight of ours has its name in the checkpoint (`SECAP_NAMES`, `HTSAT_NAMES`); the first that is
missing, has another shape, or is left over is named. Nothing is trained.

    <output>/encoder    SECap's HuBERT, with the configuration of the folder that the recipe names
             model      the model folder, to be used as any other
"""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from aligncap.alignment import clap
from aligncap.baselines.htsat_bart import HtsatConnector
from aligncap.baselines.noaudiocap import PrefixMapper
from aligncap.baselines.secap import QFormerConnector
from aligncap.captioner import checkpoint
from aligncap.captioner.checkpoint import CaptionLimits, ModelNotes
from aligncap.captioner.connectors import Connector
from aligncap.captioner.encoder_decoder import caption_model
from aligncap.captioner.model import pretrained_vocabulary
from aligncap.captioner.prompts import INSTRUCTIONS, ConnectorMeta, PromptTemplate
from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.foreign import check_regular, reading
from aligncap.recipes import Count, Trainer, one_of, recipe_section
from aligncap.tokenizers import open_tokenizer
from aligncap.training.dry_run import Needed, needed_path, plan_table
from aligncap.training.pretrained import check_finite, load_config

State = Mapping[str, Tensor]
Names = Sequence[tuple[str, str]]
"""Patterns of our names, and what stands in their places in the checkpoint."""

QFORMER_NAMES: Names = (
    (r"^audio_Qformer\.layernorm\.", "audio_Qformer.bert.embeddings.LayerNorm."),
    (r"^audio_Qformer\.encoder\.", "audio_Qformer.bert.encoder."),
    (r"\.attention\.attention\.", ".attention.self."),
    (r"\.crossattention\.attention\.", ".crossattention.self."),
)
HUBERT_NAMES: Names = (
    (r"parametrizations\.weight\.original0$", "weight_g"),
    (r"parametrizations\.weight\.original1$", "weight_v"),
    (r"^", "hubert_model."),
)
LLAMA_NAMES: Names = ((r"^", "llama_model."),)
SECAP_UNUSED = re.compile(
    r"text2vec_model\.|.*\.rotary_emb\.inv_freq$|audio_Qformer\.bert\.embeddings\.position_ids$"
)
"""Of SECap's checkpoint: the sentence encoder that its loss does not use, and constants."""

HTSAT_NAMES: Names = (
    (r"^htsat\.audio_encoder\.", "encoder.audio_enc."),
    *((re.escape(own), official) for official, own in clap.HTSAT_NAMES),
)
BART_NAMES: Names = ((r"^", "decoder."),)
HTSAT_UNUSED = re.compile(
    r"encoder\.audio_enc\.(tscam_conv|head|audio_feats_extractor|spectrogram_extractor"
    r"|logmel_extractor)\.|.*\.(attn_mask|relative_position_index|num_batches_tracked)$"
)
"""Of HTSAT-BART's checkpoint: HTSAT's classifier, its spectrogram, and constants."""

HINTS = {
    "secap": "fetch model.ckpt of thuhcsi/SECap (`hf download yaoxunxu/SECaps model.ckpt "
    "--local-dir models/secap`) and name it as `checkpoint`",
    "htsat-bart": "fetch the captioning checkpoint of XinhaoMei/WavCaps "
    "(HTSAT-BART, in its README) into models/htsat-bart and name it as `checkpoint`",
    "noaudiocap": "fetch it with `hf download microsoft/msclap clapcap_weights_2023.pth "
    "--local-dir models/clapcap` and name it as `checkpoint`",
}
"""What to fetch, and where it goes."""


@recipe_section
class ReleasedSettings:
    """A recipe of kind "released"."""

    system: Annotated[str, one_of(tuple(HINTS))]
    """Whose checkpoint it is."""
    checkpoint: Path
    """The file as it was published."""
    language_model: str
    """Folder or name of the language model, for its configuration and tokenizer; its weights are
    in the checkpoint."""
    encoder: Path | None = None
    """SECap: folder with HuBERT's config.json and preprocessor_config.json; NoAudioCap: folder of
    Microsoft's CLAP (`alignment.clap`)."""
    heads: Count = 12
    """Of each layer of the Q-Former or the mapper, or of HTSAT's first."""
    name: str = "released"
    languages: Annotated[tuple[str, ...], Field(min_length=1)] = ("zh",)
    instructions: Mapping[str, str] = field(default_factory=lambda: INSTRUCTIONS)
    """P_instruct by language, as it was in training."""
    limits: CaptionLimits = field(default_factory=CaptionLimits)
    notes: ModelNotes = field(default_factory=ModelNotes)


def read_state(path: Path, *, hint: str) -> Any:
    """What a file of torch holds, by safe loading only; MissingModelError where it is not there."""
    if not path.is_file():
        raise MissingModelError(f"{path}: no such checkpoint; {hint}")
    check_regular(path, hint=hint)
    with reading(path, hint=hint):
        return torch.load(path, map_location="cpu", weights_only=True)


class Release:
    """The weights of a checkpoint, taken out part by part."""

    def __init__(self, path: Path, state: Any) -> None:
        if not isinstance(state, dict) or not all(
            isinstance(name, str) and isinstance(one, Tensor) for name, one in state.items()
        ):
            raise DataError(f"{path}: holds no weights by name; give the checkpoint as published")
        self.path = path
        self.state: dict[str, Tensor] = dict(state)
        self._left = dict.fromkeys(self.state)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a weight; DataError where it is not there."""
        if name not in self.state:
            raise DataError(f"{self.path}: lacks {name}; {FITS}")
        return tuple(self.state[name].shape)

    def fill(self, module: nn.Module, names: Names, *, split: Sequence[str] = ()) -> None:
        """Give a module, which may be on the meta device, its weights; DataError names the first
        that is missing or has another shape. `split` are parts that lie on one another there, in
        order, under their first letters; constants that are not published stay."""
        found: dict[str, Tensor] = {}
        for name, wanted in module.state_dict().items():
            theirs = renamed(name, names)
            rows: int | None = None
            part = next((one for one in split if f".{one}." in theirs), None)
            if part is not None:
                theirs = theirs.replace(f".{part}.", f".{''.join(one[0] for one in split)}.")
                rows = split.index(part)
            if not wanted.is_floating_point() and theirs not in self.state:
                continue
            shape = self.shape(theirs)
            whole = tuple(wanted.shape)
            if rows is not None:
                whole = (len(split) * whole[0], *whole[1:])
            if shape != whole:
                raise DataError(f"{self.path}: {theirs} has the shape {shape}, not {whole}; {FITS}")
            self._left.pop(theirs, None)
            weight = self.state[theirs]
            if rows is not None:
                weight = weight[rows * wanted.shape[0] : (rows + 1) * wanted.shape[0]]
            found[name] = (
                weight.clone() if weight.dtype == wanted.dtype else weight.to(wanted.dtype)
            )
        module.load_state_dict(found, strict=False, assign=True)
        with reading(self.path, hint=FITS):
            check_finite(module)

    def finish(self, unused: "re.Pattern[str]") -> None:
        """DataError names the first weight that no part has taken and that is of use."""
        for name in self._left:
            if not unused.match(name):
                raise DataError(f"{self.path}: holds {name}, which the model has not; {FITS}")


FITS = "give the published checkpoint, and the configuration of its own language model"


def renamed(name: str, names: Names) -> str:
    """Our name of a weight as it is in the checkpoint."""
    for pattern, there in names:
        name = re.sub(pattern, there, name)
    return name


@dataclass(frozen=True, slots=True)
class Parts:
    """A released system, put together."""

    connector: Connector
    meta: ConnectorMeta
    language_model: Any
    tokenizer: str
    """The speech encoder's name among the tokenizers."""
    prompt: tuple[str, ...]
    options: Mapping[str, int] = field(default_factory=dict)
    """The speech encoder's."""


def secap_parts(settings: ReleasedSettings, output: Path) -> Parts:
    """SECap's; its HuBERT is written to `output`/encoder."""
    from transformers import AutoModelForCausalLM, HubertConfig, HubertModel

    if settings.encoder is None:
        raise RecipeError("system 'secap' hears with HuBERT: name the folder of its configuration")
    release = Release(settings.checkpoint, read_state(settings.checkpoint, hint=HINTS["secap"]))
    config = settings.encoder / "config.json"
    if not config.is_file():
        raise MissingModelError(f"{config}: no such file; {_encoder_hint()}")
    with reading(config, hint=FITS), torch.device("meta"):
        hubert = HubertModel(HubertConfig.from_pretrained(settings.encoder, local_files_only=True))
    release.fill(hubert, HUBERT_NAMES)
    inner, width = release.shape("audio_project.weight")
    hidden, _ = release.shape("audio_llama_project.weight")
    named = re.compile(r"audio_Qformer\.bert\.encoder\.layer\.(\d+)\.(crossattention)?")
    layers = [match for name in release.state if (match := named.match(name))]
    crossing = {int(match[1]) for match in layers if match[2]}
    options = {
        "queries": release.shape("audio_query_tokens")[1],
        "layers": 1 + max((int(match[1]) for match in layers), default=0),
        "heads": settings.heads,
        "inner": inner,
        "cross_frequency": min(crossing - {0}, default=2),
    }
    connector = QFormerConnector(width, hidden, **options)
    release.fill(connector, QFORMER_NAMES)
    lm_config = load_config(settings.language_model)
    with torch.device("meta"):
        language_model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            lm_config, dtype=release.state[f"llama_model.{EMBEDDING}"].dtype
        )
    release.fill(language_model, LLAMA_NAMES)
    release.finish(SECAP_UNUSED)
    encoder = output / checkpoint.ENCODER_FOLDER
    encoder.mkdir(parents=True, exist_ok=True)
    hubert.save_pretrained(encoder)
    preprocessor = settings.encoder / "preprocessor_config.json"
    if preprocessor.is_file():
        shutil.copy(preprocessor, encoder)
    meta = ConnectorMeta(name="qformer", width=width, vectors=connector.vectors, options=options)
    return Parts(connector, meta, language_model, "hubert", ("bos", "speech", "bos", "instruction"))


EMBEDDING = "model.embed_tokens.weight"


def _encoder_hint() -> str:
    return (
        "fetch it with `hf download TencentGameMate/chinese-hubert-large config.json "
        "preprocessor_config.json --local-dir models/chinese-hubert-large`"
    )


def htsat_bart_parts(settings: ReleasedSettings, output: Path) -> Parts:
    """HTSAT-BART's."""
    del output
    from transformers import AutoModelForSeq2SeqLM

    state = read_state(settings.checkpoint, hint=HINTS["htsat-bart"])
    state = state.get("model", state) if isinstance(state, dict) else state
    release = Release(settings.checkpoint, state)
    place = "encoder.audio_enc."
    embed = release.shape(f"{place}patch_embed.proj.weight")[0]
    named = re.compile(re.escape(place) + r"layers\.2\.blocks\.(\d+)\.")
    depths = [int(match[1]) for name in release.state if (match := named.match(name))]
    table, heads = release.shape(f"{place}layers.0.blocks.0.attn.relative_position_bias_table")
    options = {
        "embed": embed,
        "third_depth": 1 + max(depths, default=0),
        "first_heads": heads,
        "window": (round(table**0.5) + 1) // 2,
    }
    (width,) = release.shape(f"{place}bn0.weight")
    hidden, _ = release.shape("enc_to_dec_proj.weight")
    connector = HtsatConnector(width, hidden, **options)
    release.fill(connector, HTSAT_NAMES, split=clap.HTSAT_SPLIT)
    config = load_config(settings.language_model)
    language_model: Any = AutoModelForSeq2SeqLM.from_config(config)  # type: ignore[no-untyped-call]
    # BART was trained to write bos first.
    language_model.generation_config.forced_bos_token_id = config.bos_token_id
    release.fill(language_model, BART_NAMES)
    release.finish(HTSAT_UNUSED)
    meta = ConnectorMeta(name="htsat", width=width, vectors=connector.vectors, options=options)
    hears = {"rate_hz": 32_000}
    return Parts(connector, meta, language_model, "log-mel", ("speech",), hears)


MAPPER_NAMES: Names = ((r"^", "clap_project."),)
GPT_NAMES: Names = ((r"^", "gpt.transformer."),)
CLAPCAP_UNUSED = re.compile(r"clap\.|gpt\..*\.attn\.(masked_)?bias$|gpt\.lm_head\.weight$")
"""Of Microsoft's captioner: its CLAP, which is frozen and read from its own file, masks, and the
projection that is GPT-2's embedding again."""


def noaudiocap_parts(settings: ReleasedSettings, output: Path) -> Parts:
    """NoAudioCap's architecture as Microsoft's `clapcap` has it; CLAP goes to `output`/encoder."""
    from transformers import GPT2LMHeadModel

    if settings.encoder is None:
        raise RecipeError("system 'noaudiocap' hears with CLAP: name the folder of Microsoft's")
    state = read_state(settings.checkpoint, hint=HINTS["noaudiocap"])
    state = state.get("model", state) if isinstance(state, dict) else state
    release = Release(settings.checkpoint, state)
    vectors, hidden = release.shape("clap_project.prefix_const")
    _, width = release.shape("clap_project.linear.weight")
    named = re.compile(r"clap_project\.transformer\.layers\.(\d+)\.")
    layers = [int(match[1]) for name in release.state if (match := named.match(name))]
    options = {
        "vectors": vectors,
        "layers": 1 + max(layers, default=0),
        "heads": settings.heads,
    }
    connector = PrefixMapper(width, hidden, **options)
    release.fill(connector, MAPPER_NAMES)
    language_model = GPT2LMHeadModel(load_config(settings.language_model))
    release.fill(language_model.transformer, GPT_NAMES)
    language_model.tie_weights()
    release.finish(CLAPCAP_UNUSED)
    encoder = output / checkpoint.ENCODER_FOLDER
    if not encoder.exists():
        shutil.copytree(settings.encoder, encoder)
    meta = ConnectorMeta(name="mapper", width=width, vectors=vectors, options=options)
    return Parts(connector, meta, language_model, "joint", ("speech",))


SYSTEMS: Mapping[str, Callable[[ReleasedSettings, Path], Parts]] = {
    "secap": secap_parts,
    "htsat-bart": htsat_bart_parts,
    "noaudiocap": noaudiocap_parts,
}


def read_released(
    settings: ReleasedSettings, output: Path, *, resume: bool
) -> Mapping[str, object]:
    """Write `output`/model; returns its path."""
    del resume  # there is nothing to go on with
    output.mkdir(parents=True, exist_ok=True)
    with reading(settings.checkpoint, hint=FITS):
        parts = SYSTEMS[settings.system](settings, output)
    vocabulary = pretrained_vocabulary(settings.language_model, codebook_size=1, grown=False)
    model = caption_model(parts.language_model.eval(), vocabulary, parts.connector)
    encoder = output / checkpoint.ENCODER_FOLDER
    path = encoder if encoder.is_dir() else None
    tokenizer = open_tokenizer(parts.tokenizer, path, **parts.options)
    template = PromptTemplate(settings.instructions)
    meta = checkpoint.ModelMeta(
        name=settings.name,
        languages=settings.languages,
        tokenizer=checkpoint.SpeechTokenizerMeta(
            name=parts.tokenizer,
            fingerprint=tokenizer.fingerprint,
            frame_rate_hz=tokenizer.frame_rate_hz,
            options=parts.options,
        ),
        vocabulary=vocabulary.shape,
        prompts=replace(template, student=parts.prompt),
        limits=settings.limits,
        connector=parts.meta,
        notes=settings.notes,
        provenance={"kind": "released", "system": settings.system},
    )
    folder = output / checkpoint.RUN_MODEL_FOLDER
    checkpoint.save(folder, model, meta, encoder=path)
    return {"model": str(folder), "parameters": sum(one.numel() for one in model.parameters())}


def plan_released(settings: ReleasedSettings, _: Path) -> Mapping[str, object]:
    """The dry run: which files are needed, and which are here."""
    return plan_table(list(_needed(settings)), notes=["nothing is trained"])


CLAP_HINT = "fetch it with `hf download microsoft/msclap CLAP_weights_2023.pth --local-dir FOLDER`"


def _needed(settings: ReleasedSettings) -> Iterator[Needed]:
    yield needed_path("checkpoint", settings.checkpoint, hint=HINTS[settings.system])
    try:
        load_config(settings.language_model)
        hint = ""
    except MissingModelError as error:
        hint = str(error).rpartition("; ")[2]
    yield Needed("language model's configuration and tokenizer", settings.language_model, hint)
    if settings.encoder is not None:
        secap = settings.system == "secap"
        what, hint = ("HuBERT's configuration", _encoder_hint()) if secap else ("CLAP", CLAP_HINT)
        yield needed_path(what, settings.encoder, hint=hint)


RELEASED = Trainer(ReleasedSettings, plan_released, read_released)
