"""The tools, by the official client."""

import asyncio
import base64
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from mcp import Client, StdioServerParameters

import aligncap
from aligncap.audio import load
from aligncap.prosody import measure
from aligncap.service.mcp import mcp_server
from aligncap.values import RATE_HZ

CLIP = Path(__file__).resolve().parents[2] / "examples" / "clips" / "woman-slow-soft.ogg"


def call(server, tool, **arguments):
    """The text of a tool's answer, and whether it is an error."""

    async def ask():
        async with Client(server) as client:
            return await client.call_tool(tool, arguments)

    answer = asyncio.run(ask())
    (content,) = answer.content
    return content.text, bool(answer.is_error)


@pytest.fixture(scope="module")
def captioner():
    return aligncap.load("mini")


def test_a_path_and_bytes_have_the_caption_of_the_recording(captioner):
    server = mcp_server(lambda: captioner)
    data = base64.b64encode(CLIP.read_bytes()).decode()
    for language in ("en", "zh"):
        expected = captioner.caption(CLIP, language=language).to_dict()
        for source in ({"path": str(CLIP)}, {"audio_base64": data}):
            text, failed = call(server, "caption_audio", language=language, **source)
            assert (json.loads(text), failed) == (expected, False)


def test_of_a_long_recording_all_is_told(captioner, tmp_path):
    clip = load(CLIP).samples
    long = tmp_path / "long.wav"
    soundfile.write(long, np.concatenate([clip, np.zeros(24_000, np.float32)] * 5), RATE_HZ)
    text, failed = call(mcp_server(lambda: captioner), "caption_audio", path=str(long))
    found, expected = json.loads(text), list(captioner.segments(long))
    assert (found["model"], failed) == ("mini", False)
    spoken = [one for one in expected if one.kind == "speech"]
    assert len(spoken) == 5
    assert len(found["segments"]) == len(expected)
    for one, line in zip(expected, found["segments"], strict=True):
        assert line.endswith(one.text)
    assert "5 utterances" in found["summary"][0]


def test_measuring_needs_no_model():
    text, _ = call(mcp_server(lambda: pytest.fail("loaded")), "measure_audio", path=str(CLIP))
    facts = measure(load(CLIP))
    found = json.loads(text)
    assert found["pitch_median_hz"] == {"value": facts.value("pitch_median_hz"), "unit": "Hz"}
    assert set(found) == {"speech_s", *(one.name for one in facts)}


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("caption_audio", {}, "either path or audio_base64"),
        ("caption_audio", {"path": "a", "audio_base64": "b"}, "either path or audio_base64"),
        ("measure_audio", {"path": "/nowhere.wav"}, "/nowhere.wav: "),
        ("measure_audio", {"audio_base64": "&"}, "is not base64"),
        ("measure_audio", {"audio_base64": "é"}, "is not base64"),
        ("measure_audio", {"audio_base64": "bm8gc291bmQ="}, "audio_base64: "),
        ("caption_audio", {"path": str(CLIP), "language": "xx"}, "xx"),
    ],
)
def test_what_a_tool_cannot_do_it_says(captioner, tool, arguments, words):
    text, failed = call(mcp_server(lambda: captioner), tool, **arguments)
    assert failed
    assert words in text


@pytest.mark.slow
def test_the_command_is_a_server_on_stdio():
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "aligncap", "mcp"], env={**os.environ}
    )
    text, failed = call(command, "caption_audio", path=str(CLIP))
    assert (json.loads(text)["language"], failed) == ("en", False)
