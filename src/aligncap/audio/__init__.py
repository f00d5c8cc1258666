"""Sound files in, mono 16 kHz speech out; its level, and where somebody speaks."""

from aligncap.audio.activity import speech_activity
from aligncap.audio.arrays import from_array
from aligncap.audio.files import load
from aligncap.audio.level import level_db

__all__ = ["from_array", "level_db", "load", "speech_activity"]
