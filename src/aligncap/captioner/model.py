"""The captioner's language model: any causal LM, read through shared-prompt batches.

The vocabulary projection, which dominates a small model's cost, runs at predicting positions only.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aligncap.captioner.backbones import check_backbone, longest_sequence, small_config
from aligncap.captioner.reading import Rest, TorchBatch, read_prompts
from aligncap.captioner.vocabulary import Vocabulary
from aligncap.errors import DataError, RecipeError

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

    def _read_prompts(self, batch: TorchBatch) -> Rest:
        if self._longest is not None and (last := int(batch.position_ids.max())) >= self._longest:
            raise DataError(
                f"a prompt and its response take {last + 1} positions, this model has "
                f"{self._longest}; cut the audio, or use fewer codebooks or a LLaMA"
            )
        return read_prompts(self.bare, batch)


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
