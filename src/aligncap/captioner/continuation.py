"""Rows of text that a torch language model goes on with, and what each may say next."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from aligncap.captioner.reading import CACHE, as_model_takes
from aligncap.captioner.runtime import ResponseRules


class Continuation:
    """Texts in the making that share prompts: what is cached, and the logits of the next token.

    A prompt's cache is never copied for its texts. Their tokens are appended to it side by side,
    and a mask says which of them each text consists of: going on with some texts, in another
    order or several times, only changes the mask.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        """Run the prompts once, padded on the left to one length; each is one text so far."""
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        mask = mask.to(model.device)
        self._model = model
        self.cache = DynamicCache()
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        output = self._model(
            input_ids=ids.to(model.device),
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{CACHE: self.cache},
        )
        self.logits: Tensor = output.logits[:, -1]
        self._owner = torch.arange(len(prompts), device=model.device)
        """Whose cache each text goes on from, [texts]."""
        self._seen = mask.bool()
        """Which of its prompt's cached tokens a text consists of, [texts, cached]."""
        self._length = mask.sum(dim=1)
        """Tokens of each text, [texts]."""

    def advance(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Go on with the texts `rows` (any, in any order, also repeatedly), each by one token."""
        device = self._model.device
        index = torch.tensor(rows, device=device)
        owner, places = self._keep(self._owner[index])
        count, width, cached = int(owner.max()) + 1, max(places) + 1, self._seen.shape[1]
        place = torch.tensor(places, device=device)
        ids = torch.zeros(count, width, dtype=torch.long, device=device)
        positions = torch.zeros_like(ids)
        ids[owner, place] = torch.tensor(tokens, device=device)
        positions[owner, place] = self._length[index]
        # Every new token sees itself; those that only fill up see nothing else and are not seen.
        own = torch.eye(width, dtype=torch.bool, device=device).expand(count, -1, -1)
        before = torch.zeros(count, width, cached, dtype=torch.bool, device=device)
        before[owner, place] = self._seen[index]
        mask = torch.cat((before, own), dim=2)
        output = self._model(
            input_ids=ids,
            attention_mask=as_model_takes(mask[:, None], self._model),
            position_ids=positions,
            use_cache=True,
            **{CACHE: self.cache},
        )
        self.logits = output.logits[owner, place]
        self._owner, self._seen = owner, mask[owner, place]
        self._length = self._length[index] + 1

    def _keep(self, owner: Tensor) -> tuple[Tensor, list[int]]:
        """Forget prompts that no text goes on from; of each text its prompt, and its number among
        those of the same prompt."""
        needed, owner = torch.unique(owner, return_inverse=True)
        if len(needed) < int(self._owner.max()) + 1:
            self.cache.batch_select_indices(needed)
        taken: Counter[int] = Counter()
        places = []
        for prompt in owner.tolist():
            places.append(taken[prompt])
            taken[prompt] += 1
        return owner, places


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
