"""`aligncap mcp`: captions and measurements as tools of the Model Context Protocol, over stdio.

A recording is given as a path on this machine or as its bytes in base64; nothing is fetched. The
model is loaded when the first caption is asked for.
"""

import base64
import binascii
from collections.abc import Callable
from functools import cache
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from aligncap import __version__
from aligncap.audio import load, load_bytes
from aligncap.captioner.captioner import Captioner
from aligncap.errors import AlignCapError, AudioError
from aligncap.prosody import measure
from aligncap.values import Waveform

INSTRUCTIONS = "Says how a recording was spoken: emotion, pitch, loudness, pace and voice."


def mcp_server(load_captioner: Callable[[], Captioner]) -> MCPServer:
    """A server with the tools `caption_audio` and `measure_audio`."""
    server = MCPServer("aligncap", version=__version__, instructions=INSTRUCTIONS)
    captioner = cache(load_captioner)

    @server.tool(structured_output=False)
    def caption_audio(
        path: str | None = None, audio_base64: str | None = None, language: str = "en"
    ) -> dict[str, Any]:
        """Caption how somebody speaks in a recording, with the evidence for each claim.

        Give the `path` of a sound file on this machine, or the file itself in base64. `language`
        of the caption: "en" or "zh".
        """
        waveform = _waveform(path, audio_base64)
        try:
            return captioner().caption(waveform, language=language).to_dict()
        except AlignCapError as error:
            raise ToolError(str(error)) from error

    @server.tool(structured_output=False)
    def measure_audio(path: str | None = None, audio_base64: str | None = None) -> dict[str, Any]:
        """Measure pitch, loudness, pace, pauses and voice quality of a recording.

        Give the `path` of a sound file on this machine, or the file itself in base64. A fact is
        null where the signal cannot tell.
        """
        facts = measure(_waveform(path, audio_base64))
        return {
            "speech_s": round(facts.speech_s, 3),
            **{one.name: {"value": one.value, "unit": one.unit} for one in facts},
        }

    return server


def _waveform(path: str | None, audio_base64: str | None) -> Waveform:
    """The recording that a tool was given; ToolError where there is none or it cannot be read."""
    if (path is None) == (audio_base64 is None):
        raise ToolError("give either path or audio_base64")
    try:
        if path is not None:
            return load(path)
        return load_bytes(base64.b64decode(audio_base64 or "", validate=True), "audio_base64")
    except binascii.Error as error:
        raise ToolError("audio_base64: is not base64") from error
    except AudioError as error:
        raise ToolError(str(error)) from error
