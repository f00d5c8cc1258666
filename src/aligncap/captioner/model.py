"""The captioner's language model: a pretrained backbone or a small LLaMA of our own, run on
shared-prompt batches, and its LoRA adapter.

Any causal LM of transformers that takes `position_ids` and a 4-D attention mask is a backbone.
OPT counts positions from a 2-D mask unless it is given `position_ids`, which we always give;
its offset of two is internal to it. Attention is sdpa or eager: flash attention has no 4-D mask.

The columns of a batch that are prompt in every row run first, by themselves (`prefill`). The
vocabulary projection, which dominates a small model's cost, runs at predicting positions only.
Where speech is vectors, a connector makes them of features, and the model is given embeddings.

With LoRA (peft) the student is base + adapter, and the teacher is the base alone (decision 2). The
rows of new ids train along with the LoRA matrices (decision 3): without them speech would stay
noise. Disabling the adapter disables those rows too, which is right for a teacher that reads text;
a reference for preference optimisation is the merged model instead.
"""

import inspect
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from aligncap.captioner.connectors import Connector, embed, embedding_width
from aligncap.captioner.prefill import ResponseInputs, TorchBatch, prefill_prompts
from aligncap.captioner.vocabulary import Vocabulary
from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.foreign import AGAIN, check_tensors, read_table, reading
from aligncap.recipes import Count, recipe_section
from aligncap.training.pretrained import check_finite, load_causal_lm, load_tokenizer

LARGEST_RANK = 1024
"""Of an adapter that is opened."""

MASKED_ATTENTION = ("sdpa", "eager")
"""Attention implementations that accept a mask of shape [B, 1, T, T]."""


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between kinds of language models."""

    lora_targets: tuple[str, ...]
    """Names of the linear layers that get LoRA."""
    learned_positions: bool = False
    """Positions are rows of a table: longer sequences cannot be read at all."""


QUERY_VALUE = ("q_proj", "v_proj")

FAMILIES = {
    "gpt2": Family(("c_attn",), learned_positions=True),
    "llama": Family(QUERY_VALUE),
    "mistral": Family(QUERY_VALUE),
    "opt": Family(QUERY_VALUE, learned_positions=True),
    "qwen2": Family(QUERY_VALUE),
    "qwen3": Family(QUERY_VALUE),
}


def family_of(causal_lm: Any) -> Family:
    """The table's entry for a model; RecipeError names the kinds that are known."""
    kind = causal_lm.config.model_type
    if kind not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise RecipeError(f"no LoRA targets known for {kind!r}; name them, or use one of: {known}")
    return FAMILIES[kind]


def check_backbone(causal_lm: Any) -> None:
    """Make sure that a model can read shared-prompt batches.

    Switches flash attention to sdpa; RecipeError where positions cannot be given. The decoder of an
    encoder–decoder model reads each response by itself.
    """
    if causal_lm.config.is_encoder_decoder:
        return
    takes = inspect.signature(causal_lm.base_model.forward).parameters
    if "position_ids" not in takes:
        raise RecipeError(
            f"{type(causal_lm).__name__} takes no position_ids, so responses cannot share a "
            "prompt; use a LLaMA, GPT-2, OPT or Qwen model"
        )
    if causal_lm.config._attn_implementation not in MASKED_ATTENTION:
        causal_lm.set_attn_implementation("sdpa")


def max_positions(causal_lm: Any) -> int | None:
    """The number of positions that a model has; None where there is no such limit."""
    family = FAMILIES.get(causal_lm.config.model_type)
    limited = family is not None and family.learned_positions
    return int(causal_lm.config.max_position_embeddings) if limited else None


def open_backbone(
    name: str,
    *,
    codebook_size: int,
    codebooks: int = 1,
    dtype: str = "auto",
    quantization: str | None = None,
    grown: bool = True,
) -> tuple[Any, Vocabulary]:
    """A pretrained causal LM and a vocabulary of its text plus speech.

    `name` is a folder or a Hugging Face name; nothing is downloaded: MissingModelError says what
    to fetch. The embedding still has the backbone's rows, see `add_speech_tokens`; where it is not
    to be `grown`, the vocabulary has no text beyond them.
    """
    causal_lm = load_causal_lm(name, dtype=dtype, quantization=quantization)
    return causal_lm, pretrained_vocabulary(
        name, codebook_size=codebook_size, codebooks=codebooks, grown=grown
    )


def pretrained_vocabulary(
    name: str, *, codebook_size: int, codebooks: int = 1, grown: bool = True
) -> Vocabulary:
    """The text of a pretrained model's tokenizer plus speech; MissingModelError as above. Where the
    embedding is not to be `grown`, eos stands for the bos and pad that the tokenizer has not."""
    fast = load_tokenizer(name)
    other = None if grown else fast.eos_token
    return Vocabulary.of(
        fast.backend_tokenizer,
        codebook_size=codebook_size,
        codebooks=codebooks,
        bos=fast.bos_token or other,
        eos=fast.eos_token,
        pad=fast.pad_token or other,
    )


def add_speech_tokens(causal_lm: Any, vocabulary: Vocabulary, *, seed: int = 0) -> None:
    """Give a pretrained model rows for the new ids, in place.

    New rows are sampled from the normal distribution with the mean and covariance of the text rows
    (so they are neither outliers nor all alike), in the embedding and, where it is not tied, in
    the output projection. Rows that the model had for no token are used before it grows. Its config
    gets the ids of bos, eos and pad.
    """
    rows = causal_lm.get_input_embeddings().weight.shape[0]
    if rows < vocabulary.size:
        causal_lm.resize_token_embeddings(vocabulary.size, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    tables = [causal_lm.get_input_embeddings().weight, causal_lm.get_output_embeddings().weight]
    new = vocabulary.new_ids
    for table in tables[:1] if tables[0] is tables[1] else tables:
        text = table.detach()[: new.start]
        text = text[torch.randperm(len(text), generator=generator)[:8192]].float().cpu()
        mean = text.mean(0)
        # Random mixtures of centred rows have the rows' covariance: nothing to factorise.
        weights = torch.randn(len(new), len(text), generator=generator) / len(text) ** 0.5
        with torch.no_grad():
            table[new.start : new.stop] = (mean + weights @ (text - mean)).to(table)
    for config in (causal_lm.config, causal_lm.generation_config):
        config.bos_token_id = vocabulary.bos_id
        config.eos_token_id = vocabulary.eos_id
        config.pad_token_id = vocabulary.pad_id


NEW_FAMILIES: Mapping[str, str] = {
    "llama": "LlamaForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "opt": "OPTForCausalLM",
}
"""Families that a model can be made new of, and transformers' class."""


def small_llama(
    vocabulary: Vocabulary, *, seed: int = 0, family: str = "llama", **sizes: Any
) -> Any:
    """A LLaMA, or a model of another family, of `small_config` sizes with random weights, to be
    trained from scratch."""
    import transformers

    config = small_config(vocabulary.size, family=family, **sizes)
    for role in ("bos", "eos", "pad"):
        setattr(config, f"{role}_token_id", getattr(vocabulary, f"{role}_id"))
    with seeded(seed):
        return getattr(transformers, NEW_FAMILIES[family])(config)


def small_config(
    rows: int,
    *,
    family: str = "llama",
    hidden: int = 256,
    layers: int = 6,
    heads: int = 4,
    intermediate: int | None = None,
    max_positions: int = 2048,
    tied: bool = True,
    dropout: float = 0.0,
) -> Any:
    """The configuration of a LLaMA, or of a model of another family, over an embedding of `rows`
    ids.

    `intermediate` is 8/3 of `hidden` where not given, of the other families 4 times; `dropout` is
    that of the attention weights.
    """
    import transformers

    if hidden % heads or (hidden // heads) % 2:
        raise RecipeError(f"hidden {hidden} over {heads} heads: each head needs an even width")
    shared: dict[str, Any] = {
        "vocab_size": rows,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": max_positions,
        "tie_word_embeddings": tied,
    }
    if family != "llama":  # theirs are ids of their own vocabularies
        shared |= {f"{role}_token_id": None for role in ("bos", "eos", "pad")}
    if family == "gpt2":
        dropouts: dict[str, Any] = {"attn_pdrop": dropout, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
        return transformers.GPT2Config(n_inner=intermediate, **shared, **dropouts)
    if family == "opt":
        return transformers.OPTConfig(
            ffn_dim=intermediate or 4 * hidden,
            word_embed_proj_dim=hidden,
            attention_dropout=dropout,
            dropout=0.0,
            **shared,
        )
    return transformers.LlamaConfig(
        intermediate_size=intermediate or -(-hidden * 8 // 3 // 32) * 32,
        num_key_value_heads=heads,
        attention_dropout=dropout,
        **shared,
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's generator at a seed, and afterwards where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResponseScores:
    """Log-probabilities of responses, each [R], natural logarithm."""

    sum: Tensor
    mean: Tensor
    """Per token, eos included."""


class CaptionModel(nn.Module):
    """A causal LM of transformers (bare, or with peft's adapter) over one vocabulary, and the
    connector of its speech features, where it has one."""

    def __init__(
        self, causal_lm: Any, vocabulary: Vocabulary, connector: Connector | None = None
    ) -> None:
        super().__init__()
        self.causal_lm = causal_lm
        self.vocabulary = vocabulary
        self.connector = connector
        check_backbone(self.bare)
        rows = self.bare.get_input_embeddings().weight.shape[0]
        # Placeholders are never embedded: a frozen model has no rows for them.
        needed = vocabulary.size if connector is None else vocabulary.text_vocab_size
        if rows < needed:
            raise RecipeError(
                f"the model embeds {rows} ids, the vocabulary has {needed}; "
                "call add_speech_tokens first"
            )
        self._longest = max_positions(self.bare)

    @property
    def vectors(self) -> int:
        """Vectors that a clip becomes; 0 where speech is ids, or one vector a frame."""
        return self.connector.vectors if self.connector is not None else 0

    @property
    def bare(self) -> Any:
        """The transformers model itself, without peft's wrapper (adapter layers stay in it)."""
        wrapped = hasattr(self.causal_lm, "peft_config")
        return self.causal_lm.get_base_model() if wrapped else self.causal_lm

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        parameter: Tensor = next(self.parameters())
        return parameter.device

    @property
    def width(self) -> int:
        """The length of a last hidden state."""
        return int(self.bare.get_output_embeddings().weight.shape[1])

    @property
    def hidden(self) -> int:
        """The length of an embedding."""
        return embedding_width(self.bare)

    def forward(self, batch: TorchBatch) -> Tensor:
        """`response_logits`; distributed wrappers call it."""
        return self.response_logits(batch)

    def predicting_states(self, batch: TorchBatch) -> Tensor:
        """Last hidden states [N, width] of the tokens that predict the targets, after the model's
        own final norm and projection."""
        rest = self._read_prompts(batch)
        states: Tensor = self.bare.base_model(**rest.inputs(self.bare)).last_hidden_state
        return rest.predicting(states)

    def response_logits(self, batch: TorchBatch) -> Tensor:
        """Logits [N, vocabulary rows] of every token of every response, speech rows included."""
        rest = self._read_prompts(batch)
        keep, order = rest.projected()
        logits: Tensor = self.causal_lm(**rest.inputs(self.bare), logits_to_keep=keep).logits
        return logits[order]

    def text_logits_and_states(self, batch: TorchBatch) -> tuple[Tensor, Tensor]:
        """`text_logits` [N, text_vocab_size], and the last hidden states [N, width] they are of."""
        rest = self._read_prompts(batch)
        keep, order = rest.projected()
        output = self.causal_lm(
            **rest.inputs(self.bare), logits_to_keep=keep, output_hidden_states=True
        )
        states = rest.predicting(output.hidden_states[-1])
        return output.logits[order][:, : self.vocabulary.text_vocab_size], states

    def text_logits(self, batch: TorchBatch) -> Tensor:
        """Logits [N, text_vocab_size]: the softmax of KD and of captions is over these."""
        return self.response_logits(batch)[:, : self.vocabulary.text_vocab_size]

    def token_log_probs(self, batch: TorchBatch) -> Tensor:
        """Log-probability [N] of each target among text tokens."""
        return target_log_probs(self.text_logits(batch), batch.target_ids)

    def response_log_probs(self, batch: TorchBatch) -> ResponseScores:
        """Log-probability of each response given its prompt, sum and mean over its tokens."""
        tokens = self.token_log_probs(batch)
        total = tokens.new_zeros(len(batch.response_lengths))
        total = total.index_add(0, batch.target_response, tokens)
        return ResponseScores(total, total / batch.response_lengths)

    def _read_prompts(self, batch: TorchBatch) -> ResponseInputs:
        if self._longest is not None and (last := int(batch.position_ids.max())) >= self._longest:
            raise DataError(
                f"a prompt and its response take {last + 1} positions, this model has "
                f"{self._longest}; cut the audio, or use fewer codebooks or a LLaMA"
            )
        return prefill_prompts(self.bare, self.embedded(batch))

    def embedded(self, batch: TorchBatch) -> TorchBatch:
        """The batch with `embeds`, of a model with a connector; gradients reach the connector."""
        if self.connector is None:
            return batch
        return replace(
            batch, embeds=self.embed(batch.input_ids, batch.features, batch.feature_lengths)
        )

    def embed(
        self, ids: Tensor, features: Tensor | None = None, lengths: Tensor | None = None
    ) -> Tensor:
        """Ids [rows, T] as embeddings [rows, T, hidden], with the connector's vectors in the places
        of placeholders; `features` and `lengths` are of the prompts that have any, in order."""
        table, placeholder = self.bare.get_input_embeddings(), self.vocabulary.speech_base
        assert self.connector is not None
        return embed(table, self.connector, ids, placeholder, features, lengths)


def target_log_probs(logits: Tensor, target_ids: Tensor) -> Tensor:
    """Log-probability [N] of each target [N] under softmax(logits), logits [N, rows]."""
    logits = logits.float()
    chosen = logits.gather(1, target_ids[:, None]).squeeze(1)
    return chosen - logits.logsumexp(1)


def trainable_summary(model: nn.Module) -> str:
    """Which parameters train, in one line; also logged (decision 3)."""
    groups = trained_groups(model)
    total = sum(parameter.numel() for parameter in model.parameters())
    parts = ", ".join(f"{group} {count:,}" for group, count in sorted(groups.items()))
    trained = sum(groups.values())
    line = f"{trained:,} of {total:,} parameters train" + (f": {parts}" if parts else "")
    LOG.info(line)
    return line


def trained_groups(model: nn.Module) -> dict[str, int]:
    """Parameters that train, by group."""
    groups: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kinds = {"lora_": "LoRA", "trainable_tokens": "new token rows"}
            kinds["connector."] = "connector"
            group = next((kind for mark, kind in kinds.items() if mark in name), "base weights")
            groups[group] += parameter.numel()
    return dict(groups)


@torch.no_grad()
def set_speech_rows(model: CaptionModel, vectors: Tensor, *, seed: int = 0) -> None:
    """Initialise the embedding's speech rows from the codebook's `vectors` [codes, any width].

    A random projection keeps neighbours near; the result has the mean and the spread of the text
    rows, so that no speech token is an outlier. Raises RecipeError for another number of codes.
    """
    table, vocabulary = model.bare.get_input_embeddings().weight, model.vocabulary
    rows = slice(vocabulary.speech_base, vocabulary.speech_base + len(vectors))
    if rows.stop != vocabulary.size:
        raise RecipeError(
            f"the codebook has {len(vectors)} entries, the vocabulary "
            f"{vocabulary.size - vocabulary.speech_base} speech tokens; use the tokenizer's own"
        )
    generator = torch.Generator().manual_seed(seed)
    centred = (vectors - vectors.mean(0)).float()
    projected = centred @ torch.randn(vectors.shape[1], table.shape[1], generator=generator)
    text = table[: vocabulary.text_vocab_size].float().cpu()
    table[rows] = (text.mean(0) + projected / projected.std() * text.std(0).mean()).to(table)


@recipe_section
class AdapterSettings:
    """A LoRA adapter."""

    rank: Count = 8
    """§3.1."""
    alpha: Count = 16
    """The adapter's output is scaled by alpha / rank; not in the paper."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: tuple[str, ...] = ()
    """Layers that get it; empty = those of the model's family."""
    seed: int = 0


def add_adapter(model: CaptionModel, settings: AdapterSettings | None = None) -> CaptionModel:
    """The model with a fresh adapter, its base frozen; use the model returned.

    A fresh adapter changes no output. RecipeError where the model has one already.
    """
    from peft import LoraConfig, get_peft_model

    if has_adapter(model):
        raise RecipeError("the model has an adapter already; merge it before adding another")
    settings = settings or AdapterSettings()
    causal_lm, new = model.causal_lm, model.vocabulary.new_ids
    embedding, head = causal_lm.get_input_embeddings(), causal_lm.get_output_embeddings()
    names = {id(module): name.rsplit(".", 1)[-1] for name, module in causal_lm.named_modules()}
    rows = {names[id(embedding)]: list(new)}
    # An untied projection needs only the new *text* rows: no response holds a speech token.
    new_text = list(range(new.start, model.vocabulary.text_vocab_size))
    if head.weight is not embedding.weight and new_text:
        rows[names[id(head)]] = new_text
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets or family_of(causal_lm).lora_targets),
        fan_in_fan_out=causal_lm.config.model_type == "gpt2",
        trainable_token_indices=rows,
    )
    with seeded(settings.seed), _quiet_peft():
        adapted = type(model)(get_peft_model(causal_lm, config), model.vocabulary, model.connector)
    trainable_summary(adapted)
    return adapted


def has_adapter(model: CaptionModel) -> bool:
    """Whether the model is base + adapter."""
    return hasattr(model.causal_lm, "peft_config")


@contextmanager
def adapter_disabled(model: CaptionModel) -> Iterator[None]:
    """Within it the model is the teacher: adapter and new rows disabled, no dropout, no gradient.

    RecipeError where there is no adapter.
    """
    _require_adapter(model)
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), model.causal_lm.disable_adapter():
            yield
    finally:
        model.train(training)


def merge_adapter(model: CaptionModel) -> CaptionModel:
    """The model with its adapter folded into the base weights; the one given is used up."""
    _require_adapter(model)
    merged = model.causal_lm.merge_and_unload()
    return type(model)(merged, model.vocabulary, model.connector)


def save_adapter(model: CaptionModel, folder: Path, *, base: str) -> None:
    """Write adapter_model.safetensors and adapter_config.json; `base` is the base's name."""
    _require_adapter(model)
    for config in model.causal_lm.peft_config.values():
        config.base_model_name_or_path = base
    # The new rows are saved with the adapter; "auto" would ask the network about the base.
    model.causal_lm.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's card; ours is one folder up


def load_adapter(
    causal_lm: Any, vocabulary: Vocabulary, folder: Path, *, trainable: bool = False
) -> CaptionModel:
    """Base and saved adapter; `causal_lm` already has the vocabulary's rows.

    MissingModelError where the folder holds no adapter in safetensors; nothing is unpickled.
    """
    from peft import PeftModel, get_peft_model_state_dict

    if not (folder / "adapter_model.safetensors").is_file():
        raise MissingModelError(
            f"{folder}: no adapter_model.safetensors in it; save the model again"
        )
    read_adapter_config(folder)
    shapes = check_tensors(folder / "adapter_model.safetensors", hint=AGAIN)
    with reading(folder, hint=AGAIN):
        with _quiet_peft():
            adapted = PeftModel.from_pretrained(causal_lm, folder, is_trainable=trainable)
        wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        if wanted.keys() != shapes.keys():
            raise ValueError(f"{min(wanted.keys() ^ shapes.keys())} does not fit the base")
        check_finite(adapted)
    return CaptionModel(adapted, vocabulary)


def read_adapter_config(folder: Path) -> AdapterSettings:
    """What adapter_config.json says; DataError where the adapter is none of ours."""
    path = folder / "adapter_config.json"
    table = read_table(path, hint=AGAIN)
    kind, rank, targets = (table.get(key) for key in ("peft_type", "r", "target_modules"))
    if kind != "LORA" or table.get("megatron_config") or table.get("auto_mapping"):
        raise DataError(f"{path}: is of the kind {kind!r}, not plain LORA; {AGAIN}")
    if not isinstance(rank, int) or not 1 <= rank <= LARGEST_RANK:
        raise DataError(f"{path}: r is {rank!r}, must be 1 to {LARGEST_RANK}; {AGAIN}")
    if not isinstance(targets, list) or not all(isinstance(one, str) for one in targets):
        raise DataError(f"{path}: target_modules is no list of names; {AGAIN}")
    return AdapterSettings(rank=rank, targets=tuple(targets))


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """Hides a warning: peft 0.21 reads a property of transformers 5.23 by its old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        yield


def _require_adapter(model: CaptionModel) -> None:
    if not has_adapter(model):
        raise RecipeError("the model has no adapter; call add_adapter first")
