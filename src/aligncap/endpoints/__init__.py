"""Servers that speak the OpenAI protocol: one request, repeated while another attempt may help."""

from aligncap.endpoints.client import Connection, JsonClient, NoAnswerError, StoppedError, Wait
from aligncap.endpoints.opening import check_server, open_client

__all__ = [
    "Connection",
    "JsonClient",
    "NoAnswerError",
    "StoppedError",
    "Wait",
    "check_server",
    "open_client",
]
