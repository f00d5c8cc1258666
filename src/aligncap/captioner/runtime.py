"""What a captioner needs of a language model: continue prompts, and score responses.

Two classes do it: `torch_runtime.TorchRuntime` and `ct2_runtime.CT2Runtime`. They agree token for
token in float, so a model is trained with the first and used with the second.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from aligncap.errors import RecipeError

CT2_FOLDER = "ct2"
"""Where an exported model folder keeps its language model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn: the `top_k` most probable (0 = all), of them the fewest whose
    probability exceeds `top_p`, from the softmax of log-probability over `temperature`."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature > 0.0:
            raise RecipeError(f"temperature is {self.temperature}, must be above 0")
        if self.top_k < 0:
            raise RecipeError(f"top_k is {self.top_k}, must be 0 (all) or more")
        if not 0.0 < self.top_p <= 1.0:
            raise RecipeError(f"top_p is {self.top_p}, must be in (0, 1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """How responses are searched for. One beam without `sampling` is greedy search."""

    beam_size: int = 4
    captions: int = 1
    """Responses wanted for each prompt."""
    min_length: int = 3
    """Tokens before a response may end; at least one."""
    max_length: int = 64
    """Tokens at most, the last one included."""
    length_penalty: float = 1.0
    """Hypotheses are ranked by log-probability / length ** length_penalty."""
    patience: float = 1.0
    """A beam search ends when round(beam_size * patience) hypotheses have ended."""
    groups: int = 1
    """Groups of beams kept apart (diverse beam search); 1 = plain beam search."""
    diversity: float = 0.5
    """What a token costs for each earlier group that has just chosen it."""
    sampling: Sampling | None = None

    def __post_init__(self) -> None:
        for name in ("beam_size", "captions", "min_length", "groups"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.max_length < self.min_length:
            raise RecipeError(
                f"max_length is {self.max_length}, must not be under min_length {self.min_length}"
            )
        if self.patience <= 0.0:
            raise RecipeError(f"patience is {self.patience}, must be above 0")
        if self.beam_size % self.groups:
            raise RecipeError(f"beam_size {self.beam_size} does not divide by {self.groups} groups")
        if self.sampling is None and self.captions > self.hypotheses_wanted:
            raise RecipeError(
                f"{self.captions} captions need beam_size * patience of at least as many, "
                f"not {self.hypotheses_wanted}"
            )

    @property
    def hypotheses_wanted(self) -> int:
        """Ended hypotheses after which a beam search stops."""
        return round_half_up(self.beam_size * self.patience)


def round_half_up(number: float) -> int:
    """The nearest integer, halves upward: as C's round, unlike Python's."""
    return int(number + 0.5)


@dataclass(frozen=True, slots=True)
class ResponseRules:
    """Which tokens a response may hold, and which end it (decision 8)."""

    text_size: int
    """Ids [0, text_size) are text, the end of text among them; no other is ever in a response."""
    stop_ids: tuple[int, ...]
    """The end of text, and every token with a character that ends a sentence."""

    def __post_init__(self) -> None:
        if not self.stop_ids:
            raise RecipeError("a response needs at least one token that ends it")
        if not 0 <= min(self.stop_ids) <= max(self.stop_ids) < self.text_size:
            raise RecipeError(f"tokens that end a response must lie in [0, {self.text_size})")


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One response: its ids with the token that ended it, and what the model thinks of it."""

    ids: tuple[int, ...]
    log_probability: float
    """Sum of the log-probabilities of `ids`, natural logarithm."""
    score: float
    """What hypotheses are ranked by: log_probability / len(ids) ** length_penalty."""

    @classmethod
    def of(cls, ids: tuple[int, ...], log_probability: float, length_penalty: float) -> Self:
        """A response with its score."""
        return cls(ids, log_probability, log_probability / len(ids) ** length_penalty)

    @property
    def mean_log_probability(self) -> float:
        """Log-probability per token."""
        return self.log_probability / len(self.ids)


def best_first(hypotheses: Iterable[Hypothesis]) -> list[Hypothesis]:
    """Ranked by score."""
    return sorted(hypotheses, key=lambda one: one.score, reverse=True)


def that_end_once(hypotheses: Sequence[Hypothesis], stop_ids: Collection[int]) -> list[Hypothesis]:
    """Those that hold no end before their last token; all of them where none is so.

    A beam goes on after its end where most candidates of a step are ends, which is rare.
    """
    kept = [one for one in hypotheses if not any(i in stop_ids for i in one.ids[:-1])]
    return kept or list(hypotheses)


class LanguageRuntime(Protocol):
    """A language model that captions: prompts in, responses out."""

    def generate(
        self, prompts: Sequence[Sequence[int]], options: DecodeOptions
    ) -> list[list[Hypothesis]]:
        """For each prompt up to `options.captions` responses, at least one, best first."""

    def score(self, prompt: Sequence[int], responses: Sequence[Sequence[int]]) -> list[float]:
        """The log-probability of each response after the prompt, summed over its tokens."""
