"""What a command sees of the outside: its streams, its environment, the models it can open.

A progress bar on standard error, where somebody is there to see it.

What a run says beside its results, as the command line says everything: one line each.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO, TypeVar
from urllib.parse import urlsplit

from aligncap.errors import AlignCapError, InterruptedRunError, RecipeError

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from aligncap.metrics.judge import JudgeSettings
    from aligncap.values import Caption, Waveform


LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Captions(Protocol):
    """What the command line asks of a model."""

    def caption_many(
        self,
        sources: "Iterable[Path | Waveform]",
        *,
        language: str,
        candidates: int,
        evidence: bool,
    ) -> "Iterator[Caption | AlignCapError]":
        """A caption, or what is wrong, for each source, in order, as they are ready."""


class OpenModel(Protocol):
    """Opens a model by its name."""

    def __call__(self, name: str, *, tokenizer_path: Path | None = None) -> Captions:
        """The built-in model of that name, or the model of that folder; `tokenizer_path` is where
        the weights of its speech tokenizer are, if they are not in the folder."""


def open_model(name: str, *, tokenizer_path: Path | None = None) -> Captions:
    """The built-in model of that name, or the model of that folder."""
    from aligncap import load

    return load(name, tokenizer_path=tokenizer_path)


def open_served(
    name: str,
    *,
    url: str,
    served: str | None,
    environment: Mapping[str, str],
    tokenizer_path: Path | None,
) -> Captions:
    """A model whose language model runs on the server at `url`, under the name `served`.

    Its key is ALIGNCAP_ENDPOINT_KEY of the environment.
    """
    from aligncap import load
    from aligncap.captioner.runtimes import EndpointSettings

    key = environment.get("ALIGNCAP_ENDPOINT_KEY", "").strip() or None
    proxy = proxy_for(url, environment)
    endpoint = EndpointSettings(url=url, model=served, key=key, proxy=proxy)
    return load(name, endpoint=endpoint, tokenizer_path=tokenizer_path)


def proxy_for(url: str | None, environment: Mapping[str, str]) -> str | None:
    """The proxy that the environment names for a URL; none for this machine itself."""
    parts = urlsplit(url or "")
    if not parts.hostname or parts.hostname in LOOPBACK:
        return None
    name = f"{parts.scheme}_proxy"
    proxy = environment.get(name) or environment.get(name.upper()) or None
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmOptions:
    """--judge-model, --judge-url, --judge-cache and --judge-prompts: a language model as judge."""

    model: str | None = None
    url: str | None = None
    cache: Path | None = None
    prompts: Path | None = None

    def settings(self, environment: Mapping[str, str]) -> "JudgeSettings | None":
        """With the key and the proxy that the environment names; None where no model is named.

        The key is ALIGNCAP_JUDGE_KEY. OPENAI_API_KEY is sent to OpenAI only: a key that lies in
        the environment for another purpose must not go to any server somebody names.
        """
        from aligncap.metrics.judge import CACHE, JudgeSettings

        if self.model is None:
            if self.url is not None:
                raise RecipeError(
                    f"--judge-url {self.url}: give --judge-model too, as the server names it"
                )
            return None
        key = environment.get("ALIGNCAP_JUDGE_KEY", "").strip()
        if not key and urlsplit(self.url or "").hostname == "api.openai.com":
            key = environment.get("OPENAI_API_KEY", "").strip()
        return JudgeSettings(
            model=self.model,
            url=self.url,
            key=key or None,
            proxy=proxy_for(self.url, environment),
            cache=self.cache or CACHE,
            prompts=self.prompts,
        )


@dataclass(frozen=True)
class Console:
    """Streams, environment and models; a test hands in its own."""

    stdin: TextIO = field(default_factory=lambda: sys.stdin)
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    open_model: OpenModel = open_model

    def say(self, message: str) -> None:
        """One line on standard error."""
        print("aligncap:", " ".join(message.split("\n")), file=self.stderr, flush=True)


T = TypeVar("T")


class Progress:
    """Shown only if standard error is a terminal and the results do not go to a terminal too."""

    def __init__(self, world: Console, doing: str, *, results_on_stdout: bool) -> None:
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        if world.stderr.isatty() and not (results_on_stdout and world.stdout.isatty()):
            self._bar, self._task = _rich_bar(world, doing)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def expect(self, items: Iterable[T]) -> Iterable[T]:
        """The items; counted first where there is a bar to show how many are left."""
        if self._bar is None or self._task is None:
            return items
        counted: Sequence[T] = list(items)
        self._bar.update(self._task, total=len(counted))
        return counted

    def expect_as_many(self, count: Callable[[], int]) -> None:
        """How many there will be, counted only where there is a bar to show how many are left."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=count())

    def advance(self) -> None:
        """One more is done."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


class JudgeProgress:
    """Shows on a bar how many questions are answered, of all metrics together."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._total = bar, 0

    def __call__(self, done: int, of: int) -> None:
        """One more of a metric's questions is answered."""
        if done == 1:
            self._total += of
            self._bar.expect(range(self._total))
        self._bar.advance()


def _rich_bar(world: Console, doing: str) -> "tuple[RichProgress, TaskID]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(file=world.stderr),
        transient=True,
    )
    return bar, bar.add_task(doing, total=None)


class _Said(logging.Handler):
    """Hands each warning to the world."""

    def __init__(self, world: Console) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.say(record.getMessage())


@contextmanager
def warnings_said(world: Console) -> Iterator[None]:
    """Within, each warning of the package is a line on the world's standard error."""
    handler = _Said(world)
    logger = logging.getLogger("aligncap")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def stoppable(kept: Callable[[], str]) -> Iterator[None]:
    """Within, Ctrl-C ends with one line that says what is kept."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise InterruptedRunError(f"stopped; {kept()}; the same command goes on") from stop
