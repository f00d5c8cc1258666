"""A judging model without a server, and clips for it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock

from aligncap.metrics.judge import JudgeClient, Reply, ReplyCache
from aligncap.metrics.scores import ScoredClip


class FakeModel:
    """Replies by a function of the prompt."""

    def __init__(self, reply: Callable[[str], str], *, name: str = "fake") -> None:
        self.name = name
        self.settings: Mapping[str, object] = {"temperature": 0.0}
        self.prompts: list[str] = []
        self._reply, self._lock = reply, Lock()

    def ask(self, prompt: str) -> Reply:
        with self._lock:
            self.prompts.append(prompt)
        return Reply(text=self._reply(prompt))


def judge_of(model: FakeModel, folder: Path, **options: object) -> JudgeClient:
    cache = ReplyCache(folder / "replies.sqlite", model=model.name, settings=model.settings)
    return JudgeClient(model, cache, **options)


def rating(score: object, reason: object = "as heard") -> str:
    return json.dumps({"reason": reason, "score": score})


def clip(number: int, hypothesis: str | None = None) -> ScoredClip:
    text = f"voice {number} is low" if hypothesis is None else hypothesis
    return ScoredClip(f"clip{number}", text, (f"voice {number} is low and slow",))
