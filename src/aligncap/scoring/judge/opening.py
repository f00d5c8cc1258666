"""From settings to a judge that can be asked."""

from random import Random
from threading import Event

from aligncap.endpoints import Wait
from aligncap.scoring.judge.asking import Judge, Progress
from aligncap.scoring.judge.chat import ChatModel
from aligncap.scoring.judge.endpoint import EndpointModel
from aligncap.scoring.judge.replies import ReplyCache
from aligncap.scoring.judge.settings import JudgeSettings


def open_judge(
    settings: JudgeSettings, *, progress: Progress | None = None, wait: Wait | None = None
) -> Judge:
    """The judge that the settings describe; nothing is sent before it is asked.

    `wait` stands in for the clock between attempts. Raises DataError where the cache cannot be
    used, MissingModelError where a model of this machine, or what runs it, is not here.
    """
    stop = Event()
    model: ChatModel
    if settings.url is None:
        from aligncap.scoring.judge.local import open_local

        model = open_local(settings.model, max_tokens=settings.max_tokens)
    else:
        model = EndpointModel(settings, wait=wait or stop.wait, random=Random())
    return Judge(
        model,
        ReplyCache(settings.cache, model=model.name, settings=model.settings),
        concurrency=1 if settings.url is None else settings.concurrency,
        prompts=settings.prompts,
        progress=progress,
        stop=stop,
    )
