"""What is written of one recording, and what an earlier run has written already."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligncap.errors import DataError
from aligncap.values import Caption, Evidence

Record = dict[str, Any]
"""One line of jsonl: a caption and what is known beside it, or `file` and `error`."""

COLUMNS = (
    "file",
    "duration_s",
    "language",
    "caption",
    "clues",
    "emotion",
    "arousal",
    "valence",
    "gender",
    "pitch",
    "loudness",
    "pace",
    "confidence",
    "model",
    "part_s",
    "candidates",
    "error",
)
"""The columns of csv; a jsonl record has those of them that it has a value for."""


def caption_record(file: str, caption: Caption) -> Record:
    """A caption as plain values; `part_s` only where the recording is longer than the model reads,
    `candidates` only where others were asked for."""
    record: Record = {
        "file": file,
        "duration_s": round(caption.duration_s, 3),
        "language": caption.language,
        "caption": caption.text,
        "clues": [_clue(evidence) for evidence in caption.evidence],
        "emotion": {label: round(float(share), 4) for label, share in caption.emotion.items()},
        "arousal": _rounded(caption.arousal),
        "valence": _rounded(caption.valence),
        "gender": caption.gender,
        "pitch": caption.pitch,
        "loudness": caption.loudness,
        "pace": caption.pace,
        "confidence": round(float(caption.confidence), 4),
        "model": caption.model,
    }
    if caption.part_s is not None:
        record["part_s"] = [round(float(edge), 2) for edge in caption.part_s]
    if caption.candidates:
        record["candidates"] = list(caption.candidates)
    return record


def error_record(file: str, error: Exception) -> Record:
    """A recording that has no caption, and why."""
    message = " ".join(str(error).split("\n"))
    return {"file": file, "error": message if file in message else f"{file}: {message}"}


def _clue(evidence: Evidence) -> dict[str, str]:
    return {
        "word": evidence.clue.word,
        "trait": evidence.clue.trait,
        "verdict": evidence.verdict.value,
        "evidence": evidence.measurement,
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(float(number), 3)


def csv_row(record: Record) -> list[str]:
    """A record as cells; clues as "word=verdict; …", emotions as "label=probability; …"."""
    cells = dict(record)
    if "clues" in record:
        cells["clues"] = "; ".join(f"{clue['word']}={clue['verdict']}" for clue in record["clues"])
    if "emotion" in record:
        cells["emotion"] = _shares(record["emotion"])
    if "part_s" in record:
        cells["part_s"] = "{}-{}".format(*record["part_s"])
    if "candidates" in record:
        cells["candidates"] = " | ".join(record["candidates"])
    return ["" if cells.get(name) is None else str(cells[name]) for name in COLUMNS]


def _shares(shares: Mapping[str, float]) -> str:
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    return "; ".join(f"{label}={share:.2f}" for label, share in ranked)


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an output file held before this run."""

    done: frozenset[str] = frozenset()
    """The files that it has, failed ones included."""
    failed: int = 0


def read_earlier(output: Path, *, format: str) -> Earlier:  # noqa: A002
    """The files that an output has; a last line torn by a kill is cut off the file.

    Raises DataError where the file is not such an output, before anything is written to it.
    """
    if not output.exists():
        return Earlier()
    _cut_torn_line(output)
    with output.open(encoding="utf-8", newline="", errors="surrogateescape") as lines:
        try:
            records = (
                list(csv.DictReader(lines)) if format == "csv" else list(map(json.loads, lines))
            )
            done = [record["file"] for record in records]
        except (json.JSONDecodeError, KeyError, TypeError, csv.Error) as error:
            raise DataError(
                f"{output}: holds no {format} of aligncap caption; choose another --output"
            ) from error
    return Earlier(frozenset(done), sum(bool(record.get("error")) for record in records))


def _cut_torn_line(output: Path) -> None:
    """Cut a file after its last line end."""
    block = 1 << 16
    with output.open("r+b") as file:
        end = file.seek(0, 2)
        while end > 0:
            start = max(0, end - block)
            file.seek(start)
            last = file.read(end - start).rfind(b"\n")
            if last >= 0:
                file.truncate(start + last + 1)
                return
            end = start
        file.truncate(0)
