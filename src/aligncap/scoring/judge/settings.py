"""How a judge is set up; read from the command line at the edge, and handed in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from aligncap.endpoints import check_server
from aligncap.errors import RecipeError

CACHE = Path("judge-replies.sqlite")
CHAT_PATH = "/chat/completions"

OUR_FIELDS = ("model", "messages", "stream")
"""Fields of a request that are not the user's to set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSettings:
    """Which model judges, and how it is asked."""

    model: str
    """A name the server knows; without `url`, a folder or Hugging Face name on this machine."""
    url: str | None = None
    """Base URL of an OpenAI-compatible server, up to and with "/v1"; None runs `model` here."""
    key: str | None = field(default=None, repr=False)
    """Sent as a bearer token; servers on one's own machine need none."""
    proxy: str | None = None
    """URL of a proxy for requests."""
    temperature: float = 0.0
    max_tokens: int = 1024
    """Of one reply; a reply that is cut there cannot be read."""
    request: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    """Further fields of each request, such as {"seed": 1}; a field that is None is left out, such
    as {"max_tokens": None, "max_completion_tokens": 4000}."""
    concurrency: int = 4
    """Prompts that are under way at once; a model on this machine takes one after the other."""
    attempts: int = 8
    """How often one prompt is sent before it is given up."""
    timeout_s: float = 120.0
    """For one attempt, from the first byte sent to the last received."""
    longest_wait_s: float = 60.0
    """Between two attempts. A server that asks for a longer pause (Retry-After) ends the run."""
    cache: Path = CACHE
    """Every reply is kept here."""
    prompts: Path | None = None
    """A folder of prompt templates to use in place of those built in, file by file."""

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise RecipeError("the judge has no model; name one as its server knows it")
        check_server(self, whose="the judge's", path=CHAT_PATH)
        if self.url is None and (self.temperature or self.request):
            raise RecipeError("a judge on this machine is greedy: leave temperature and request")
        if ours := [name for name in OUR_FIELDS if name in self.request]:
            raise RecipeError(f"the judge's request sets {ours[0]!r}, which is set for it")
        if self.key is not None and not (self.key.isascii() and self.key.isprintable()):
            raise RecipeError("the judge's key holds characters that no key has; copy it again")
        if not self.temperature >= 0.0:
            raise RecipeError(f"the judge's temperature is {self.temperature}, must be 0 or more")
        if self.max_tokens < 1:
            raise RecipeError(f"the judge's max_tokens is {self.max_tokens}, must be 1 or more")
