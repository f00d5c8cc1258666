"""The former name of `aligncap.prosody`."""

from aligncap.prosody import measure

__all__ = ["measure"]
