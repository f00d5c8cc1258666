"""The captions along a recording with its curves, as the page draws them, and as subtitles."""

import math
from collections.abc import Sequence
from typing import Any

from aligncap.prosody import curves_of
from aligncap.values import Caption, Waveform

Json = dict[str, Any]
Segment = dict[str, Any]
"""`start_s`, `end_s`, `kind` ("speech", "silence", "music", "noise") and, of speech, the record of
its caption."""


def segments_of(caption: Caption) -> list[Segment]:
    """A caption as the one segment of its recording."""
    start, end = caption.part_s or (0.0, caption.duration_s)
    return [{"start_s": start, "end_s": end, "kind": "speech", **caption.to_dict()}]


def timeline(waveform: Waveform, segments: Sequence[Segment]) -> Json:
    """What the page draws: the segments, the curves of the recording, and its subtitles."""
    found = curves_of(waveform)
    return {
        "duration_s": round(waveform.duration_s, 3),
        "segments": list(segments),
        "curves": {
            "step_s": found.step_s,
            "peak": [round(one, 3) for one in found.peak.tolist()],
            "pitch_hz": [
                None if math.isnan(one) else round(one, 1) for one in found.pitch_hz.tolist()
            ],
            "loudness_lufs": [round(one, 1) for one in found.loudness_lufs.tolist()],
        },
        "srt": srt(segments),
    }


def stamp(seconds: float, mark: str) -> str:
    """ "00:01:02,345", the mark standing before the milliseconds."""
    whole, ms = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{ms:03}"


def _cues(segments: Sequence[Segment], mark: str) -> list[str]:
    return [
        f"{stamp(one['start_s'], mark)} --> {stamp(one['end_s'], mark)}\n{one['caption']}\n"
        for one in segments
        if "caption" in one
    ]


def srt(segments: Sequence[Segment]) -> str:
    """The captions as SubRip."""
    return "\n".join(f"{number}\n{cue}" for number, cue in enumerate(_cues(segments, ","), 1))


def vtt(segments: Sequence[Segment]) -> str:
    """The captions as WebVTT."""
    return "\n".join(["WEBVTT\n", *_cues(segments, ".")])
