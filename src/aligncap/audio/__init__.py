"""Sound files in, mono 16 kHz speech out; its level, where somebody speaks, and the
utterance without the silence around it."""

from aligncap.audio.activity import level_db, sound_kind, speech_activity, utterance
from aligncap.audio.detector import SpeechDetector
from aligncap.audio.files import from_array, load, load_bytes
from aligncap.audio.sources import Recording, recording

__all__ = [
    "Recording",
    "SpeechDetector",
    "from_array",
    "level_db",
    "load",
    "load_bytes",
    "recording",
    "sound_kind",
    "speech_activity",
    "utterance",
]
