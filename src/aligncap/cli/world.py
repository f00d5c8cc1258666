"""What a command sees of the outside: its streams, its environment, the models it can open."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from aligncap.errors import AlignCapError

if TYPE_CHECKING:  # values needs numpy, which `--help` does not
    from aligncap.values import Caption, Waveform


class CaptionModel(Protocol):
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

    def __call__(self, name: str, *, tokenizer_path: Path | None = None) -> CaptionModel:
        """The built-in model of that name, or the model of that folder; `tokenizer_path` is where
        the weights of its speech tokenizer are, if they are not in the folder."""


def open_model(name: str, *, tokenizer_path: Path | None = None) -> CaptionModel:
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
) -> CaptionModel:
    """A model whose language model runs on the server at `url`, under the name `served`.

    Its key is ALIGNCAP_ENDPOINT_KEY of the environment.
    """
    from aligncap import load
    from aligncap.captioner.endpoint_runtime import EndpointSettings
    from aligncap.cli.judging import proxy_for

    key = environment.get("ALIGNCAP_ENDPOINT_KEY", "").strip() or None
    proxy = proxy_for(url, environment)
    endpoint = EndpointSettings(url=url, model=served, key=key, proxy=proxy)
    return load(name, endpoint=endpoint, tokenizer_path=tokenizer_path)


@dataclass(frozen=True)
class World:
    """Streams, environment and models; a test hands in its own."""

    stdin: TextIO = field(default_factory=lambda: sys.stdin)
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    open_model: OpenModel = open_model

    def say(self, message: str) -> None:
        """One line on standard error."""
        print("aligncap:", " ".join(message.split("\n")), file=self.stderr, flush=True)
