"""Rows of text that a torch language model goes on with, and what each may say next."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from aligncap.captioner.runtime import ResponseRules


class Continuation:
    """Rows of text in the making: the cache of each and the logits of its next token."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        """Run the prompts once, padded on the left to one length."""
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        self._model = model
        self._mask = mask.to(model.device)
        self.cache = DynamicCache(config=model.config)
        self._positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)
        self.logits = self._run(ids.to(model.device), self._positions)

    def advance(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Go on with `rows` (any of them, in any order, also repeatedly), each by one token."""
        index = torch.tensor(rows, device=self._model.device)
        if rows != list(range(len(self._mask))):
            self.cache.batch_select_indices(index)
            self._mask = self._mask[index]
            self._positions = self._positions[index]
        self._mask = torch.cat((self._mask, self._mask.new_ones(len(rows), 1)), dim=1)
        self._positions = self._positions[:, -1:] + 1
        ids = torch.tensor(tokens, device=self._model.device)[:, None]
        self.logits = self._run(ids, self._positions)

    def _run(self, ids: Tensor, positions: Tensor) -> Tensor:
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits


class TextDistribution:
    """What may be said next: text only, and no end before the minimum length."""

    def __init__(self, rules: ResponseRules, *, min_length: int, device: torch.device) -> None:
        self._size = rules.text_size
        self._stops = torch.tensor(rules.stop_ids, device=device)
        self._min_length = min_length

    def log_probabilities(self, logits: Tensor, *, length: int) -> Tensor:
        """Log-softmax [rows, text_size] for responses that have `length` tokens already."""
        logits = logits[..., : self._size].float()
        if length < self._min_length:
            logits = logits.index_fill(-1, self._stops, -torch.inf)
        return logits.log_softmax(dim=-1)
