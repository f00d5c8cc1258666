"""How a causal LM reads a shared-prompt batch: first the prompts, then what is said to them.

The columns that are prompt in every row run by themselves. They need no mask, so attention takes
half the work, and of their last layer only keys and values are needed: the rest of it is never run.

The captioner's language model: any causal LM, read through shared-prompt batches.

The vocabulary projection, which dominates a small model's cost, runs at predicting positions only.

Speech tokens that begin from the tokenizer's own codebook.

LoRA through peft: the student is base + adapter, the teacher is the base alone (decision 2).

The rows of new ids train along with the LoRA matrices (decision 3): without them speech would stay
noise. Turning the adapter off takes those rows away too, which is right for a teacher that reads
text; a reference for preference optimisation is the merged model instead.
"""

import logging
import math
import warnings
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

from aligncap.captioner.backbones import check_backbone, family_of, longest_sequence, small_config
from aligncap.captioner.prompts import SharedPromptBatch, behind, prompt_columns
from aligncap.captioner.vocabulary import Vocabulary
from aligncap.errors import DataError, MissingModelError, RecipeError
from aligncap.recipes import Count, recipe_section

TorchBatch = SharedPromptBatch[Tensor]

_RELEASE = tuple(int(part) for part in version("transformers").split(".")[:2])

CACHE = "cache" if _RELEASE >= (5, 24) else "past_key_values"
"""What models of transformers call the argument that holds earlier keys and values."""


@dataclass(frozen=True, slots=True)
class ResponseInputs:
    """What is left to run of a batch, and the keys and values of what has run."""

    batch: TorchBatch
    cache: Any | None

    def inputs(self, causal_lm: Any) -> dict[str, Any]:
        """What the model takes."""
        return {
            "input_ids": self.batch.input_ids,
            "position_ids": self.batch.position_ids,
            "attention_mask": attention_mask_of(self.batch.attention, causal_lm),
            CACHE: self.cache,
            "use_cache": self.cache is not None,
        }

    def projected(self) -> tuple[Tensor, Tensor]:
        """The positions [B, T] to project, and of each target [N] its place among them.

        Positions are projected once each: responses share the one that predicts their first.
        """
        index = self.batch.predict_index
        keep = torch.zeros(self.batch.input_ids.numel(), dtype=torch.bool, device=index.device)
        keep[index] = True
        return keep.view_as(self.batch.input_ids), (keep.cumsum(0) - 1)[index]

    def predicting(self, states: Tensor) -> Tensor:
        """Of states [B, T, width] those that predict a target, [N, width]."""
        return states.flatten(0, 1)[self.batch.predict_index]


def prefill_prompts(causal_lm: Any, batch: TorchBatch) -> ResponseInputs:
    """Run what is prompt in every row, with gradient where there is one; `causal_lm` is bare.

    Nothing is run yet of prompts of one token, nor by a model that could not see it again (one
    that checkpoints its layers keeps no keys and values, one with a sliding window looks back no
    further) or must not be left early (one whose weights several processes share out).
    """
    columns = prompt_columns(batch)
    length = batch.input_ids.shape[1]
    if columns == 0 or _forgets(causal_lm, length=length) or _is_shared_out(causal_lm):
        return ResponseInputs(batch, None)
    cache = _PromptCache(layers=causal_lm.config.num_hidden_layers)
    with suppress(_AllKept):
        causal_lm.base_model(
            input_ids=batch.input_ids[:, :columns],
            position_ids=batch.position_ids[:, :columns],
            use_cache=True,
            **{CACHE: cache},
        )
    return ResponseInputs(behind(batch, columns), cache)


class _AllKept(Exception):  # noqa: N818 (no error: it leaves the model early)
    """The last layer's keys and values are there."""


class _PromptCache(DynamicCache):
    """Keys and values of all layers; its first filling ends with the last layer's."""

    def __init__(self, *, layers: int) -> None:
        super().__init__()
        self._layers = layers
        self._filling = True

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *rest: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        """Append to a layer; `_AllKept` where that was the last one's prompt."""
        keys, values = super().update(key_states, value_states, layer_idx, *rest, **named)
        if self._filling and layer_idx == self._layers - 1:
            self._filling = False
            raise _AllKept
        return keys, values


def _forgets(causal_lm: Any, *, length: int) -> bool:
    window = getattr(causal_lm.config, "sliding_window", None) or math.inf
    recomputes = causal_lm.training and any(
        getattr(module, "gradient_checkpointing", False) for module in causal_lm.modules()
    )
    return recomputes or length > window


def _is_shared_out(causal_lm: Any) -> bool:
    # A tensor of torch's FSDP knows its mesh, a parameter of DeepSpeed's ZeRO-3 its number.
    return any(
        hasattr(one, "device_mesh") or hasattr(one, "ds_id") for one in causal_lm.parameters()
    )


def attention_mask_of(mask: Tensor, causal_lm: Any) -> Tensor:
    """A mask [B, 1, T, seen] of who sees whom as the model's attention has it."""
    if causal_lm.config._attn_implementation != "eager":
        return mask
    # Eager attention adds its mask; the least number, not -inf, keeps gradients finite.
    dtype = causal_lm.dtype
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


LOG = logging.getLogger(__name__)


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
        self._longest = longest_sequence(self.bare)

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
        """`response_logits`; what a distributed wrapper calls."""
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
        """`text_logits` [N, text_rows], and the last hidden states [N, width] they are of."""
        rest = self._read_prompts(batch)
        keep, order = rest.projected()
        output = self.causal_lm(
            **rest.inputs(self.bare), logits_to_keep=keep, output_hidden_states=True
        )
        states = rest.predicting(output.hidden_states[-1])
        return output.logits[order][:, : self.vocabulary.text_rows], states

    def text_logits(self, batch: TorchBatch) -> Tensor:
        """Logits [N, text_rows]: what KD's softmax and caption log-probabilities run over."""
        return self.response_logits(batch)[:, : self.vocabulary.text_rows]

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


def add_speech_tokens(causal_lm: Any, vocabulary: Vocabulary, *, seed: int = 0) -> None:
    """Give a pretrained model rows for the new ids, in place.

    New rows are drawn from the normal distribution with the mean and covariance of the text rows
    (so they are neither outliers nor all alike), in the embedding and, where it is not tied, in
    the output projection. Rows that the model had for no token are used before it grows. Its config
    is told which ids are bos, eos and pad.
    """
    rows = causal_lm.get_input_embeddings().weight.shape[0]
    if rows < vocabulary.size:
        causal_lm.resize_token_embeddings(vocabulary.size, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    tables = [causal_lm.get_input_embeddings().weight, causal_lm.get_output_embeddings().weight]
    new = vocabulary.new_ids
    for table in tables[:1] if tables[0] is tables[1] else tables:
        drawn = _alike(table.detach()[: new.start], len(new), generator)
        with torch.no_grad():
            table[new.start : new.stop] = drawn.to(table)
    for config in (causal_lm.config, causal_lm.generation_config):
        config.bos_token_id = vocabulary.bos_id
        config.eos_token_id = vocabulary.eos_id
        config.pad_token_id = vocabulary.pad_id


def _alike(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` draws from the normal with the rows' mean and covariance, [count, width]."""
    sample = rows[torch.randperm(len(rows), generator=generator)[:8192]].float().cpu()
    mean = sample.mean(0)
    # Random mixtures of centred rows have the rows' covariance: nothing to factorise.
    weights = torch.randn(count, len(sample), generator=generator) / len(sample) ** 0.5
    drawn: Tensor = mean + weights @ (sample - mean)
    return drawn


def small_llama(
    vocabulary: Vocabulary,
    *,
    hidden: int = 256,
    layers: int = 6,
    heads: int = 4,
    intermediate: int | None = None,
    max_positions: int = 2048,
    tied: bool = True,
    dropout: float = 0.0,
    seed: int = 0,
) -> Any:
    """A LLaMA with random weights over the whole vocabulary, small enough to be trained whole.

    `intermediate` is 8/3 of `hidden` where not given; `dropout` is that of the attention weights.
    """
    from transformers import LlamaForCausalLM

    config = small_config(
        vocabulary.size,
        hidden=hidden,
        layers=layers,
        heads=heads,
        intermediate=intermediate,
        max_positions=max_positions,
        tied=tied,
        dropout=dropout,
    )
    for role in ("bos", "eos", "pad"):
        setattr(config, f"{role}_token_id", getattr(vocabulary, f"{role}_id"))
    with seeded(seed):
        return LlamaForCausalLM(config)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's generator at a seed, and afterwards where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


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
    groups: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = _group(name)
            groups[group] = groups.get(group, 0) + parameter.numel()
    return groups


def _group(name: str) -> str:
    kinds = {"lora_": "LoRA", "trainable_tokens": "new token rows"}
    return next((group for mark, group in kinds.items() if mark in name), "base weights")


@torch.no_grad()
def set_speech_rows(model: CaptionModel, vectors: Tensor, *, seed: int = 0) -> None:
    """Begin the speech rows of the embedding from the codebook's `vectors` [codes, any width].

    A random projection keeps who is near whom; the result has the mean and the spread of the text
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
    drawn = centred @ torch.randn(vectors.shape[1], table.shape[1], generator=generator)
    text = table[: vocabulary.text_rows].float().cpu()
    table[rows] = (text.mean(0) + drawn / drawn.std() * text.std(0).mean()).to(table)


WEIGHTS = "adapter_model.safetensors"


@recipe_section
class AdapterSettings:
    """A LoRA adapter."""

    rank: Count = 8
    """§3.1."""
    alpha: Count = 16
    """The adapter's output is scaled by alpha / rank; not in the paper."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: tuple[str, ...] = ()
    """Layers it is put beside; empty = those of the model's family."""
    seed: int = 0


def add_adapter(model: CaptionModel, settings: AdapterSettings | None = None) -> CaptionModel:
    """The model with a fresh adapter, its base frozen; go on with the model returned.

    At the start the adapter changes nothing. RecipeError where the model has one already.
    """
    from peft import LoraConfig, get_peft_model

    if has_adapter(model):
        raise RecipeError("the model has an adapter already; merge it before adding another")
    settings = settings or AdapterSettings()
    causal_lm = model.causal_lm
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets or family_of(causal_lm).lora_targets),
        fan_in_fan_out=causal_lm.config.model_type == "gpt2",
        trainable_token_indices=_new_rows(causal_lm, model.vocabulary),
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
    """Within it the model is the teacher: adapter and learnt rows off, no dropout, no gradient.

    RecipeError where there is no adapter to turn off.
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
    (folder / "README.md").unlink(missing_ok=True)  # peft's card; ours stands one folder up


def load_adapter(
    causal_lm: Any, vocabulary: Vocabulary, folder: Path, *, trainable: bool = False
) -> CaptionModel:
    """Base and saved adapter; `causal_lm` already has the vocabulary's rows.

    MissingModelError where the folder holds no adapter in safetensors; nothing is unpickled.
    """
    from peft import PeftModel

    if not (folder / WEIGHTS).is_file():
        raise MissingModelError(f"{folder}: no {WEIGHTS} in it; save the model again")
    with _quiet_peft():
        adapted = PeftModel.from_pretrained(causal_lm, folder, is_trainable=trainable)
    return CaptionModel(adapted, vocabulary)


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """peft 0.21 asks transformers 5.23 for a property by its old name: no news for a user."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        yield


def _new_rows(causal_lm: Any, vocabulary: Vocabulary) -> dict[str, list[int]]:
    """Rows to train by layer name.

    A projection of its own needs only the new *text* rows: no response holds a speech token.
    """
    new = vocabulary.new_ids
    embedding, head = causal_lm.get_input_embeddings(), causal_lm.get_output_embeddings()
    names = {id(module): name.rsplit(".", 1)[-1] for name, module in causal_lm.named_modules()}
    rows = {names[id(embedding)]: list(new)}
    new_text = list(range(new.start, vocabulary.text_rows))
    if head.weight is not embedding.weight and new_text:
        rows[names[id(head)]] = new_text
    return rows


def _require_adapter(model: CaptionModel) -> None:
    if not has_adapter(model):
        raise RecipeError("the model has no adapter; call add_adapter first")
