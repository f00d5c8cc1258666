"""What a signal shows of a voice: pitch, loudness, pace, voice quality, gender."""

from aligncap.prosody.curves import Curves, Envelope, curves_along, curves_of, streamed_envelope
from aligncap.prosody.heard import measure_detected, with_heard_pace
from aligncap.prosody.measurement import measure, measure_spoken
from aligncap.prosody.pitch import PitchTrack, pitch_track

__all__ = [
    "Curves",
    "Envelope",
    "PitchTrack",
    "curves_along",
    "curves_of",
    "measure",
    "measure_detected",
    "measure_spoken",
    "pitch_track",
    "streamed_envelope",
    "with_heard_pace",
]
