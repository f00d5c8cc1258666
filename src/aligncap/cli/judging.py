"""The judge of the command line: its options, and what the environment holds for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aligncap.errors import RecipeError

if TYPE_CHECKING:  # imported on use: `--help` does without
    from aligncap.scoring.judge.settings import JudgeSettings

KEY = "ALIGNCAP_JUDGE_KEY"
OPENAI_KEY, OPENAI_HOST = "OPENAI_API_KEY", "api.openai.com"
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def judge_settings(
    model: str | None,
    *,
    url: str | None,
    cache: Path | None,
    environment: Mapping[str, str],
    prompts: Path | None = None,
) -> "JudgeSettings | None":
    """The judge of --judge-model, --judge-url, --judge-cache and --judge-prompts, if one is named.

    Its key is ALIGNCAP_JUDGE_KEY of the environment. OPENAI_API_KEY is sent to OpenAI only: a key
    that lies in the environment for another purpose must not go to any server somebody names.
    """
    from aligncap.scoring.judge.settings import CACHE, JudgeSettings

    if model is None:
        if url is not None:
            raise RecipeError(f"--judge-url {url}: give --judge-model too, as the server names it")
        return None
    return JudgeSettings(
        model=model,
        url=url,
        key=_key(url, environment),
        proxy=proxy_for(url, environment),
        prompts=prompts,
        cache=cache or CACHE,
    )


def _key(url: str | None, environment: Mapping[str, str]) -> str | None:
    key = environment.get(KEY, "").strip()
    if not key and url and urlsplit(url).hostname == OPENAI_HOST:
        key = environment.get(OPENAI_KEY, "").strip()
    return key or None


def proxy_for(url: str | None, environment: Mapping[str, str]) -> str | None:
    """The proxy that the environment names for a URL; none for this machine itself."""
    parts = urlsplit(url or "")
    if not parts.hostname or parts.hostname in LOOPBACK:
        return None
    name = f"{parts.scheme}_proxy"
    return environment.get(name) or environment.get(name.upper()) or None
