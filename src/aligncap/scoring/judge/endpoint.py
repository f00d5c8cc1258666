"""A judging model behind an OpenAI-compatible chat-completions server."""

from dataclasses import replace
from random import Random
from typing import Any

from aligncap.endpoints import NoAnswerError, Wait, open_client
from aligncap.errors import JudgeError
from aligncap.scoring.judge.chat import NoReplyError, Reply
from aligncap.scoring.judge.settings import CHAT_PATH, JudgeSettings


class EndpointModel:
    """The model that `settings` names, on the server at its URL."""

    def __init__(self, settings: JudgeSettings, *, wait: Wait, random: Random) -> None:
        self.name = settings.model
        self.settings = _request_fields(settings)
        self._client = open_client(
            settings,
            CHAT_PATH,
            refused=JudgeError,
            key_from="ALIGNCAP_JUDGE_KEY",
            model="a model that the server lists",
            otherwise="correct the model or the judge's settings by what it says",
            wait=wait,
            random=random,
        )

    def ask(self, prompt: str) -> Reply:
        """The model's reply, after as many attempts as are allowed."""
        fields = {"messages": [{"role": "user", "content": prompt}], **self.settings}
        try:
            reply, retries = self._client.ask(
                {"model": self.name, **fields}, _reply_in, what="chat completion"
            )
        except NoAnswerError as error:
            raise NoReplyError(str(error), retries=error.retries) from error
        return replace(reply, retries=retries)


def _request_fields(settings: JudgeSettings) -> dict[str, object]:
    own = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
    fields = {**own, **settings.request}
    return {key: value for key, value in fields.items() if value is not None}


def _reply_in(table: Any) -> Reply:
    choice = table["choices"][0]
    text = choice["message"]["content"]
    usage = table.get("usage") or {}
    if not isinstance(text, str | None):
        raise TypeError
    return Reply(
        text=text or "",
        finish=str(choice.get("finish_reason") or ""),
        served=str(table.get("model") or ""),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
    )
