"""What a judge was asked and what it took, to be shown beside its scores."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Failure:
    """A clip that the judge could not rate, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReport:
    """The account of a judge's work since it was opened."""

    model: str
    questions: int = 0
    """Different prompts."""
    asked: int = 0
    """Replies that the model gave now."""
    kept: int = 0
    """Replies that were kept from before."""
    retries: int = 0
    """Attempts that were repeated because no reply came."""
    malformed: int = 0
    """Replies that could not be used; each question is asked twice at most."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    served: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """How many replies each model gave, by the name the server says; empty where it does not."""
    failures: tuple[Failure, ...] = ()

    def __str__(self) -> str:
        parts = [
            f"judge {self.model}: {_counted(self.questions, 'question')}",
            f"{self.asked} replies asked for, {self.kept} kept from before",
            f"{_counted(self.retries, 'retry', 'retries')}",
        ]
        if self.malformed:
            parts.append(f"{self.malformed} malformed")
        if self.failures:
            parts.append(f"{_counted(len(self.failures), 'clip')} not rated")
        if self.prompt_tokens or self.completion_tokens:
            parts.append(f"{self.prompt_tokens} + {self.completion_tokens} tokens")
        if len(self.served) > 1:
            parts.append(f"answered by different models: {', '.join(sorted(self.served))}")
        return ", ".join(parts)


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
