"""How the names of recordings end."""

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd"}
    | {".caf", ".w64", ".rf64"}
)
"""Files of a folder that are taken for recordings."""

UNREADABLE_SUFFIXES = frozenset({".m4a", ".aac", ".mp4", ".webm", ".wma", ".amr"})
"""Recordings that cannot be read here: taken too, so that the user is told."""

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm"})
"""Films, of which libsndfile cannot read the sound."""
