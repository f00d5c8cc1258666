"""What a judge asks of a language model: a prompt in, a reply out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a model answered to one prompt, as it came."""

    text: str
    finish: str = ""
    """Why it ended, in the server's word: "stop", "length" …; empty where it does not say."""
    served: str = ""
    """The model that the server says has answered: "some-model-2026-01-31" for "some-model"."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    retries: int = 0
    """Attempts that failed before this one."""


class ChatModel(Protocol):
    """A language model that replies to prompts, from several threads at once."""

    @property
    def name(self) -> str:
        """For signatures; a model on this machine adds a hash of its weights."""

    @property
    def settings(self) -> Mapping[str, object]:
        """Everything beside name and prompt that a reply depends on, as JSON values."""

    def ask(self, prompt: str) -> Reply:
        """The reply to one prompt.

        Raises NoReplyError where this prompt got none, JudgeError where no prompt would.
        """


class NoReplyError(Exception):
    """One prompt got no reply; others may. Never reaches the user."""

    def __init__(self, reason: str, *, retries: int = 0) -> None:
        super().__init__(reason)
        self.retries = retries
