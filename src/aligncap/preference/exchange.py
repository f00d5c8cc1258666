"""Pairs as JSON lines that other trainers read, and back again, exactly.

`trl`            {"prompt": instruction, "chosen": caption, "rejected": caption}
`llama-factory`  sharegpt with ranking: {"conversations": [{"from": "human", "value":
                 "<audio>instruction"}], "chosen": {"from": "gpt", "value": caption},
                 "rejected": …, "audios": [file]}

Each row has one key more, "aligncap", with what the formats have no place for; others ignore it.
Rows without it, made elsewhere, are read as well.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aligncap.captioner.prompts import INSTRUCTIONS
from aligncap.clues import detect_language
from aligncap.errors import AlignCapError, DataError, UnknownNameError
from aligncap.preference.store import PreferenceStore
from aligncap.preference.values import Candidate, Clip, Finding, PreferencePair, Provenance
from aligncap.storage import atomic_file, hash_of_file

Row = dict[str, Any]

OWN = "aligncap"
"""The key of what is ours."""


def _trl(pair: PreferencePair, _file: str) -> Row:
    return {
        "prompt": INSTRUCTIONS[pair.language].strip(),
        "chosen": pair.chosen.text,
        "rejected": pair.rejected.text,
    }


def _llama_factory(pair: PreferencePair, file: str) -> Row:
    asked = {"from": "human", "value": f"<audio>{INSTRUCTIONS[pair.language].strip()}"}
    return {
        "conversations": [asked],
        "chosen": {"from": "gpt", "value": pair.chosen.text},
        "rejected": {"from": "gpt", "value": pair.rejected.text},
        "audios": [file],
    }


FORMATS: Mapping[str, Callable[[PreferencePair, str], Row]] = MappingProxyType(
    {"trl": _trl, "llama-factory": _llama_factory}
)
"""Name → a row of a pair and the file of its recording."""


def write_pairs(
    path: Path,
    pairs: Iterable[tuple[PreferencePair, str]],
    *,
    format: str,  # noqa: A002
) -> int:
    """Write pairs, each with the file of its recording; returns how many.

    The file appears only when it is whole.
    """
    if format not in FORMATS:
        raise UnknownNameError("format of pairs", format, FORMATS)
    count = 0
    with atomic_file(path) as lines:
        for pair, file in pairs:
            row = {**FORMATS[format](pair, file), OWN: _own(pair, file)}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_pairs(path: Path) -> Iterator[tuple[PreferencePair, str]]:
    """The pairs of a file in either format, each with the file of its recording ("" if not told).

    Raises DataError, which names the line, at the first that is no pair.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _read(line, path, number)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give a file of JSON lines") from error


def import_pairs(store: PreferenceStore, path: Path) -> int:
    """Put the pairs of a file into a store, as the latest way of pairing; returns how many."""
    fingerprint = hash_of_file(path) if path.is_file() else ""
    builder = f"imported|{path.name}|sha256:{fingerprint[:16]}"
    groups: dict[tuple[str, str], dict[PreferencePair, str]] = {}
    for pair, file in read_pairs(path):
        groups.setdefault((pair.utterance, pair.language), {})[pair] = file
    store.pairs.begin(builder)
    for (utterance, language), pairs in groups.items():
        once = {one.key: one for pair in pairs for one in (pair.rejected, pair.chosen)}
        clip = Clip(utterance, next(iter(pairs.values())))
        found = []
        for method in sorted({one.method for one in once.values()}):
            source = Provenance(model=path.name, fingerprint=fingerprint, method=method)
            candidates = tuple(one for one in once.values() if one.method == method)
            found.append((Finding(clip, language, candidates), source))
        store.add_findings(found)
        store.pairs.put(utterance, language, builder, list(pairs))
    return sum(map(len, groups.values()))


def _own(pair: PreferencePair, file: str) -> Row:
    return {
        "utterance": pair.utterance,
        "language": pair.language,
        "file": file,
        "margin": pair.margin,
        "chosen": _details(pair.chosen),
        "rejected": _details(pair.rejected),
    }


def _details(candidate: Candidate) -> Row:
    return {
        "token_ids": list(candidate.token_ids),
        "log_probability": candidate.log_probability,
        "method": candidate.method,
    }


def _read(line: str, path: Path, number: int) -> tuple[PreferencePair, str]:
    place = f"{path}:{number}"
    try:
        row = json.loads(line)
        own = row.get(OWN) or {}
        chosen, rejected = _text(row["chosen"]), _text(row["rejected"])
        audios = row.get("audios") or [""]
        name = str(row.get("id") or audios[0] or f"{path.stem}:{number}")
        utterance = own.get("utterance", name)
        language = own.get("language") or detect_language(chosen)
        pair = PreferencePair(
            _candidate(utterance, language, chosen, own.get("chosen")),
            _candidate(utterance, language, rejected, own.get("rejected")),
            # Who made the row elsewhere did not say by how much.
            own.get("margin", 1.0),
        )
        return pair, str(own.get("file", audios[0]))
    except AlignCapError as error:
        raise DataError(f"{place}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(
            f"{place}: is no pair ({error!r}); each line holds prompt, chosen and rejected, or "
            "conversations, chosen and rejected"
        ) from error


def _candidate(utterance: str, language: str, text: str, details: Row | None) -> Candidate:
    if details is None:
        return Candidate(utterance, language, text)
    ids = tuple(details["token_ids"])
    return Candidate(utterance, language, text, ids, details["log_probability"], details["method"])


def _text(answer: object) -> str:
    """A caption: plain, as a message, or as the last of several messages."""
    if isinstance(answer, list):
        answer = answer[-1]
    if isinstance(answer, dict):
        answer = answer["value"] if "value" in answer else answer["content"]
    if not isinstance(answer, str):
        raise TypeError(f"a caption is text, not {answer!r}")
    return answer
