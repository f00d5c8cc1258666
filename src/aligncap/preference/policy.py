"""The policy of PPO: the captioner with a value head on its hidden states."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aligncap.captioner.model import CaptionModel, target_log_probs
from aligncap.captioner.reading import TorchBatch


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What the policy says of the N tokens of a batch's responses."""

    log_probs: Tensor
    """[N]"""
    values: Tensor
    """[N]; the reward still to come, as seen before the token."""
    entropy: Tensor
    """[N], in nats."""


class PolicyWithValue(nn.Module):
    """One body, two heads: which token next, and what the response will be worth.

    The KL coefficient is a buffer, so that checkpoints keep it.
    """

    coefficient: Tensor

    def __init__(self, captioner: CaptionModel, *, coefficient: float) -> None:
        super().__init__()
        self.captioner = captioner
        self.value = nn.Linear(captioner.width, 1)
        # Nothing is known of values at first: 0 is as good a guess as any, and biases nothing.
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)
        self.register_buffer("coefficient", torch.tensor(coefficient, dtype=torch.float64))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.captioner.device

    def forward(self, batch: TorchBatch) -> TokenScores:
        """Log-probability, value and entropy of each token, from one pass."""
        logits, states = self.captioner.text_logits_and_states(batch)
        logits = logits.float()
        log_probs = target_log_probs(logits, batch.target_ids)
        values = self.value(states.float()).squeeze(-1)
        with torch.no_grad():
            spread = logits.detach().log_softmax(-1)
            entropy = -(spread.exp() * spread).sum(-1)
        return TokenScores(log_probs, values, entropy)
