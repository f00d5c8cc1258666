"""Base URLs of OpenAI-compatible servers, checked before anything is sent."""

from urllib.parse import urlsplit

from aligncap.errors import RecipeError


def check_base_url(url: str, *, whose: str, path: str) -> None:
    """RecipeError where a URL is none, holds a password, or ends with the `path` that is added."""
    refusal = RecipeError(f"{whose} URL {url!r} is none; write http://localhost:8000/v1")
    try:
        parts = urlsplit(url)
        _ = parts.port, (parts.hostname or "").encode("idna")
    except ValueError as error:  # a port that is no number, a name with two dots in a row
        raise refusal from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise refusal
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise refusal
    if parts.username or parts.password:
        raise RecipeError(f"{whose} URL holds a password; hand it in as the key instead")
    if url.rstrip("/").endswith(path):
        base = url.rstrip("/").removesuffix(path)
        raise RecipeError(f"{whose} URL {url!r} is too long; give its base, {base}")
