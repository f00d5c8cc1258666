"""From the settings of a server to a client that asks it."""

from collections.abc import Callable
from random import Random
from typing import Protocol

from aligncap.endpoints.client import Connection, JsonClient, Wait
from aligncap.endpoints.urls import check_base_url
from aligncap.errors import AlignCapError, RecipeError


class ServerSettings(Protocol):
    """What is said of every server; those of a part say more."""

    @property
    def url(self) -> str | None:
        """Base URL, up to and with "/v1"; None where no server is asked."""

    @property
    def key(self) -> str | None:
        """Sent as a bearer token."""

    @property
    def proxy(self) -> str | None:
        """URL of a proxy for requests."""

    @property
    def concurrency(self) -> int:
        """Requests under way at once."""

    @property
    def attempts(self) -> int:
        """How often one request is sent before it is given up."""

    @property
    def timeout_s(self) -> float:
        """For one attempt."""

    @property
    def longest_wait_s(self) -> float:
        """Between two attempts."""


def check_server(settings: ServerSettings, *, whose: str, path: str) -> None:
    """RecipeError where a setting is out of range; `path` is what is added to the URL."""
    if settings.url is not None:
        check_base_url(settings.url, whose=whose, path=path)
    for name in ("concurrency", "attempts"):
        if getattr(settings, name) < 1:
            raise RecipeError(f"{whose} {name} is {getattr(settings, name)}, must be 1 or more")
    for name in ("timeout_s", "longest_wait_s"):
        if not 0.0 < getattr(settings, name) < float("inf"):
            raise RecipeError(f"{whose} {name} is {getattr(settings, name)}, must be above 0")


def open_client(
    settings: ServerSettings,
    path: str,
    *,
    refused: Callable[[str], AlignCapError],
    key_from: str,
    model: str,
    otherwise: str,
    wait: Wait,
    random: Random,
) -> JsonClient:
    """A client of the settings' URL with `path` behind it.

    For the cures of what the server refuses: `key_from` is where its key is read from, `model`
    what to give beside the URL where it finds nothing, `otherwise` what helps in other cases.
    """
    assert settings.url is not None, "a model on this machine is asked otherwise"
    return JsonClient(
        Connection(
            url=settings.url.rstrip("/") + path,
            key=settings.key,
            proxy=settings.proxy,
            attempts=settings.attempts,
            timeout_s=settings.timeout_s,
            longest_wait_s=settings.longest_wait_s,
        ),
        refused=refused,
        cures={
            401: f"set {key_from} to a key that the server accepts",
            403: f"set {key_from} to a key that may use this model",
            404: f"give the base URL up to and with /v1, and {model}",
        },
        otherwise=otherwise,
        wait=wait,
        random=random,
    )
