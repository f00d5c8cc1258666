"""What a signal shows of a voice: pitch, loudness, pace, voice quality, gender."""

from aligncap.prosody.measurement import measure
from aligncap.prosody.pitch import PitchTrack, pitch_track

__all__ = ["PitchTrack", "measure", "pitch_track"]
