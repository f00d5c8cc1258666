"""Numbers as the texts of a prompt: the bins of dataspeech and ParaSpeechCaps.

A set of bins is a JSON file with the keys of dataspeech's two files together: edges under
"speaking_rate", "noise", "reverberation", "speech_monotony", "pitch_bins_male" and
"pitch_bins_female", texts under "speaker_rate_bins", "snr_bins", "reverberation_bins",
"utterance_level_std" and "speaker_level_pitch_bins". What a set leaves out becomes no column.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from aligncap.errors import DataError, UnknownNameError
from aligncap.foreign import read_table

BINS_FOLDER = Path(__file__).with_name("bins")
NAMES = ("v01", "v02", "paraspeechcaps")
"""The sets that come with the package: dataspeech's first and second, and ParaSpeechCaps'."""

NO_BINS = "none"
"""In place of a set: no texts, and `speaking_rate` stays a number."""

TEXTS_OF = {
    "speaking_rate": "speaker_rate_bins",
    "noise": "snr_bins",
    "reverberation": "reverberation_bins",
    "speech_monotony": "utterance_level_std",
    "pitch_bins_male": "speaker_level_pitch_bins",
    "pitch_bins_female": "speaker_level_pitch_bins",
}
"""Edges → the texts between them."""

NUMBER_OF = {
    "speaking_rate": "phonemes_per_s",
    "noise": "snr",
    "reverberation": "c50",
    "speech_monotony": "utterance_pitch_std",
}
"""Column of texts → the column of numbers that it is read from; pitch is the speaker's."""

TEXT_COLUMNS = ("pitch", *NUMBER_OF)
"""Columns of texts of a whole set."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Texts for a number: `edges` has one more than `texts`, and rises."""

    edges: tuple[float, ...]
    texts: tuple[str, ...]

    def text(self, value: float | None) -> str | None:
        """The text of a number as dataspeech gives it: what is on an edge belongs below it, what
        is beyond the outer edges to the outer texts; None for None."""
        if value is None:
            return None
        return self.texts[min(max(bisect_left(self.edges, value) - 1, 0), len(self.texts) - 1)]


Bins = Mapping[str, Scale]
"""Scales by the names of their edges; see `TEXTS_OF`."""


@lru_cache(maxsize=8)
def read_bins(name: str) -> Bins:
    """The bins of a name of `NAMES` or of a JSON file; empty for "none".

    Raises UnknownNameError for a name that is neither, DataError for a file that holds no bins.
    """
    if name == NO_BINS:
        return {}
    if not name.endswith(".json") and name not in NAMES:
        raise UnknownNameError("set of bins", name, (*NAMES, NO_BINS, "FILE.json"))
    path = Path(name) if name.endswith(".json") else BINS_FOLDER / f"{name}.json"
    table = read_table(path, hint="write dataspeech's edges and texts into one JSON file")
    found = {
        edges: _scale(path, edges, table) for edges in TEXTS_OF if table.get(edges) is not None
    }
    if not found:
        raise DataError(f"{path}: has none of {', '.join(TEXTS_OF)}; copy a set and change it")
    return found


def text_columns(bins: Bins) -> tuple[str, ...]:
    """The columns that a set gives; without bins, `speaking_rate`, which is a number then."""
    if not bins:
        return ("speaking_rate",)
    pitch = ("pitch",) if {"pitch_bins_male", "pitch_bins_female"} & bins.keys() else ()
    return (*pitch, *(name for name in NUMBER_OF if name in bins))


def _scale(path: Path, name: str, table: Mapping[str, Any]) -> Scale:
    edges, texts = table[name], table.get(TEXTS_OF[name], ())
    if not _are(edges, (int, float)) or not _are(texts, (str,)):
        raise DataError(f"{path}: {name} needs numbers, and {TEXTS_OF[name]} as many texts less 1")
    if len(edges) != len(texts) + 1 or sorted(edges) != edges:
        raise DataError(
            f"{path}: {name} has {len(edges)} edges for the {len(texts)} texts of "
            f"{TEXTS_OF[name]}; write one more edge than texts, rising"
        )
    return Scale(tuple(map(float, edges)), tuple(texts))


def _are(values: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(values, Sequence) and bool(values) and all(type(v) in kinds for v in values)


NOUNS = ("pitch", "speed", "sound", "reverberation", "intonation", "environment")
"""What a text may end with that a recording has rather than is."""


def describe(texts: Mapping[str, str | None]) -> str:
    """Texts of bins as one English sentence about voice, pace and recording; "" where there is
    nothing to say. What is moderate is left out, as dataspeech's prompt lets one do."""
    said = {name: text for name, text in texts.items() if text and not text.startswith("moderate")}
    voice = _has(said.get("pitch"), said.get("speech_monotony"))
    room = _has(said.get("noise"), said.get("reverberation"))
    clauses = [f"the voice {voice}"] if voice else []
    if pace := said.get("speaking_rate"):
        clauses.append(f"the words are spoken {'at ' if pace.endswith('speed') else ''}{pace}")
    clauses += [f"the recording {room}"] if room else []
    sentence = "; ".join(clauses)
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""


def _has(*texts: str | None) -> str:
    """ "is clean and has moderate reverberation"."""
    parts: list[str] = []
    for text in filter(None, texts):
        words = text.split()
        verb = "has" if words[-1] in NOUNS or words[0] in NOUNS else "is"
        article = "an " if words[0] == "environment" else "a " if "environment" in words else ""
        same = parts and parts[-1].startswith(verb)
        parts.append(f"{'' if same else verb + ' '}{article}{text}")
    return " and ".join(parts)
