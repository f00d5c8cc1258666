"""Servers that speak the OpenAI protocol: one request, repeated while another attempt may help."""

from aligncap.endpoints.client import Connection, JsonClient, NoAnswerError, StoppedError, Wait

__all__ = ["Connection", "JsonClient", "NoAnswerError", "StoppedError", "Wait"]
