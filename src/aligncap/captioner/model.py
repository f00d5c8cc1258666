"""The captioner's language model: a pretrained backbone or a small LLaMA of our own, run on
shared-prompt batches, and its LoRA adapter.

Any causal LM of transformers that takes `position_ids` and a 4-D attention mask is a backbone.
OPT counts positions from a 2-D mask unless it is given `position_ids`, which we always give;
its offset of two is internal to it. Attention is sdpa or eager: flash attention has no 4-D mask.

The columns of a batch that are prompt in every row run first, by themselves: they need no mask, so
attention takes half the work, and of their last layer only keys and values are needed, the rest of
it is not run. The vocabulary projection, which dominates a small model's cost, runs at predicting
positions only.

With LoRA (peft) the student is base + adapter, and the teacher is the base alone (decision 2). The
rows of new ids train along with the LoRA matrices (decision 3): without them speech would stay
noise. Disabling the adapter disables those rows too, which is right for a teacher that reads text;
a reference for preference optimisation is the merged model instead.
"""

import inspect
import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import DynamicCache

from aligncap.captioner.prompts import SharedPromptBatch, drop_columns, prompt_columns
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

    Switches flash attention to sdpa; RecipeError where positions cannot be given.
    """
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
) -> tuple[Any, Vocabulary]:
    """A pretrained causal LM and a vocabulary of its text plus speech.

    `name` is a folder or a Hugging Face name; nothing is downloaded: MissingModelError says what
    to fetch. The embedding still has the backbone's rows, see `add_speech_tokens`.
    """
    causal_lm = load_causal_lm(name, dtype=dtype, quantization=quantization)
    return causal_lm, pretrained_vocabulary(name, codebook_size=codebook_size, codebooks=codebooks)


def pretrained_vocabulary(name: str, *, codebook_size: int, codebooks: int = 1) -> Vocabulary:
    """The text of a pretrained model's tokenizer plus speech; MissingModelError as above."""
    fast = load_tokenizer(name)
    return Vocabulary.of(
        fast.backend_tokenizer,
        codebook_size=codebook_size,
        codebooks=codebooks,
        bos=fast.bos_token,
        eos=fast.eos_token,
        pad=fast.pad_token,
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


def small_llama(vocabulary: Vocabulary, *, seed: int = 0, **sizes: Any) -> Any:
    """A LLaMA of `small_config` sizes with random weights, to be trained from scratch."""
    from transformers import LlamaForCausalLM

    config = small_config(vocabulary.size, **sizes)
    for role in ("bos", "eos", "pad"):
        setattr(config, f"{role}_token_id", getattr(vocabulary, f"{role}_id"))
    with seeded(seed):
        return LlamaForCausalLM(config)


def small_config(
    rows: int,
    *,
    hidden: int = 256,
    layers: int = 6,
    heads: int = 4,
    intermediate: int | None = None,
    max_positions: int = 2048,
    tied: bool = True,
    dropout: float = 0.0,
) -> Any:
    """The configuration of a LLaMA over an embedding of `rows` ids.

    `intermediate` is 8/3 of `hidden` where not given; `dropout` is that of the attention weights.
    """
    from transformers import LlamaConfig

    if hidden % heads or (hidden // heads) % 2:
        raise RecipeError(f"hidden {hidden} over {heads} heads: each head needs an even width")
    return LlamaConfig(
        vocab_size=rows,
        hidden_size=hidden,
        intermediate_size=intermediate or -(-hidden * 8 // 3 // 32) * 32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=max_positions,
        tie_word_embeddings=tied,
        attention_dropout=dropout,
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's generator at a seed, and afterwards where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


LOG = logging.getLogger(__name__)

TorchBatch = SharedPromptBatch[Tensor]

_RELEASE = tuple(int(part) for part in version("transformers").split(".")[:2])

CACHE = "cache" if _RELEASE >= (5, 24) else "past_key_values"
"""What models of transformers call the argument that holds earlier keys and values."""


@dataclass(frozen=True, slots=True)
class ResponseInputs:
    """The rest of a batch to run, and the keys and values of the prompts that have run."""

    batch: TorchBatch
    cache: Any | None

    def inputs(self, causal_lm: Any) -> dict[str, Any]:
        """Keyword arguments of the model's forward."""
        return {
            "input_ids": self.batch.input_ids,
            "position_ids": self.batch.position_ids,
            "attention_mask": attention_mask_of(self.batch.attention, causal_lm),
            CACHE: self.cache,
            "use_cache": self.cache is not None,
        }

    def projected(self) -> tuple[Tensor, Tensor]:
        """The positions [B, T] to project, and of each target [N] its index among them.

        Each is projected once: responses share the position that predicts their first tokens.
        """
        index = self.batch.predict_index
        keep = torch.zeros(self.batch.input_ids.numel(), dtype=torch.bool, device=index.device)
        keep[index] = True
        return keep.view_as(self.batch.input_ids), (keep.cumsum(0) - 1)[index]

    def predicting(self, states: Tensor) -> Tensor:
        """The states [N, width] of [B, T, width] that predict a target."""
        return states.flatten(0, 1)[self.batch.predict_index]


def prefill_prompts(causal_lm: Any, batch: TorchBatch) -> ResponseInputs:
    """Run what is prompt in every row, with gradient where there is one; `causal_lm` is bare.

    Nothing is run yet of prompts of one token, nor by a model that could not attend to it again
    (with checkpointed layers no keys and values are kept, a sliding window may be shorter) or that
    must not be left early (its weights are sharded over processes).
    """
    columns = prompt_columns(batch)
    window = getattr(causal_lm.config, "sliding_window", None) or math.inf
    recomputes = causal_lm.training and any(
        getattr(module, "gradient_checkpointing", False) for module in causal_lm.modules()
    )
    # A tensor of torch's FSDP knows its mesh, a parameter of DeepSpeed's ZeRO-3 its number.
    sharded = any(
        hasattr(one, "device_mesh") or hasattr(one, "ds_id") for one in causal_lm.parameters()
    )
    if columns == 0 or recomputes or batch.input_ids.shape[1] > window or sharded:
        return ResponseInputs(batch, None)
    cache = _PromptCache(layers=causal_lm.config.num_hidden_layers)
    with suppress(_PromptCached):
        causal_lm.base_model(
            input_ids=batch.input_ids[:, :columns],
            position_ids=batch.position_ids[:, :columns],
            use_cache=True,
            **{CACHE: cache},
        )
    return ResponseInputs(drop_columns(batch, columns), cache)


class _PromptCached(Exception):  # noqa: N818 (no error: it leaves the model early)
    """The last layer's keys and values are cached."""


class _PromptCache(DynamicCache):
    """Keys and values of all layers; its first filling ends with the last layer's."""

    def __init__(self, *, layers: int) -> None:
        super().__init__()
        self._layers = layers
        self._filling = True

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *rest: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        """Append to a layer; `_PromptCached` where that was the last one's prompt."""
        keys, values = super().update(key_states, value_states, layer_idx, *rest, **named)
        if self._filling and layer_idx == self._layers - 1:
            self._filling = False
            raise _PromptCached
        return keys, values


def attention_mask_of(mask: Tensor, causal_lm: Any) -> Tensor:
    """A boolean mask [B, 1, T, keys] in the form that the model's attention takes."""
    if causal_lm.config._attn_implementation != "eager":
        return mask
    # Eager attention adds its mask; the least number, not -inf, keeps gradients finite.
    dtype = causal_lm.dtype
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


@dataclass(frozen=True, slots=True)
class ResponseScores:
    """Log-probabilities of responses, each [R], natural logarithm."""

    sum: Tensor
    mean: Tensor
    """Per token, eos included."""


class CaptionModel(nn.Module):
    """A causal LM of transformers (bare, or with peft's adapter) over one vocabulary."""

    def __init__(self, causal_lm: Any, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.causal_lm = causal_lm
        self.vocabulary = vocabulary
        check_backbone(self.bare)
        rows = self.bare.get_input_embeddings().weight.shape[0]
        if rows < vocabulary.size:
            raise RecipeError(
                f"the model embeds {rows} ids, the vocabulary has {vocabulary.size}; "
                "call add_speech_tokens first"
            )
        self._longest = max_positions(self.bare)

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
        return prefill_prompts(self.bare, batch)


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
        adapted = CaptionModel(get_peft_model(causal_lm, config), model.vocabulary)
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
    return CaptionModel(model.causal_lm.merge_and_unload(), model.vocabulary)


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
