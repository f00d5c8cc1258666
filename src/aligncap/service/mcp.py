"""`aligncap mcp`: captions and measurements as tools of the Model Context Protocol, over stdio.

A recording is given as a path on this machine or as its bytes in base64; nothing is fetched. The
model is loaded when the first caption is asked for.
"""

import base64
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from aligncap import __version__
from aligncap.audio import load
from aligncap.audio.files import read_header
from aligncap.captioner.captioner import Captioner
from aligncap.captioner.summary import Summarizer
from aligncap.errors import AlignCapError
from aligncap.prosody import measure

INSTRUCTIONS = "Says how a recording was spoken: emotion, pitch, loudness, pace and voice."
BYTES = "audio_base64"
"""What errors call a recording that was given as bytes."""


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
        of the caption: "en" or "zh". Of a recording longer than half a minute, each utterance has a
        caption with its times, and a summary says how emotion, pitch and pace go over time.
        """
        with _file(path, audio_base64) as file:
            duration_s, _ = read_header(file)
            if duration_s > captioner().meta.limits.max_speech_s:
                return _along(captioner(), file, language)
            return captioner().caption(file, language=language).to_dict()

    @server.tool(structured_output=False)
    def measure_audio(path: str | None = None, audio_base64: str | None = None) -> dict[str, Any]:
        """Measure pitch, loudness, pace, pauses and voice quality of a recording.

        Give the `path` of a sound file on this machine, or the file itself in base64. A fact is
        null where the signal cannot tell.
        """
        with _file(path, audio_base64) as file:
            facts = measure(load(file))
        return {
            "speech_s": round(facts.speech_s, 3),
            **{one.name: {"value": one.value, "unit": one.unit} for one in facts},
        }

    return server


def _along(captioner: Captioner, file: Path, language: str) -> dict[str, Any]:
    """What `aligncap caption --segments` prints of a recording."""
    summarizer, lines = Summarizer(), []
    for one in captioner.segments(file, language=language):
        summarizer.add(one)
        lines.append(one.line)
    summary = [line for one in summarizer.summaries() for line in one.lines()]
    return {"model": captioner.meta.name, "segments": lines, "summary": summary}


@contextmanager
def _file(path: str | None, audio_base64: str | None) -> Iterator[Path]:
    """The recording that a tool was given; ToolError where there is none or it is refused."""
    if (path is None) == (audio_base64 is None):
        raise ToolError("give either path or audio_base64")
    with TemporaryDirectory(prefix="aligncap-") as folder:
        file = Path(folder) / BYTES if path is None else Path(path)
        if path is None:
            try:
                file.write_bytes(base64.b64decode(audio_base64 or "", validate=True))
            except ValueError as error:
                raise ToolError(f"{BYTES}: is not base64") from error
        try:
            yield file
        except AlignCapError as error:
            raise ToolError(str(error).replace(f"{folder}{os.sep}", "")) from error
