"""`aligncap measure`: what the signal of each recording shows."""

import json
from collections.abc import Sequence

from aligncap.acoustics import measure
from aligncap.audio import load
from aligncap.cli.inputs import Source, find_sources
from aligncap.cli.records import Record, error_record
from aligncap.cli.world import World
from aligncap.errors import AlignCapError
from aligncap.values import Facts, Waveform

SOME_FAILED = 1


def measure_paths(paths: Sequence[str], *, format: str, world: World) -> int:  # noqa: A002
    """Measure everything meant by `paths`; returns 0, or 1 if some could not be measured."""
    failed = 0
    for source in find_sources(paths, world=world):
        record = _measured(source)
        failed += "error" in record
        if format == "jsonl":
            print(json.dumps(record, ensure_ascii=False), file=world.stdout, flush=True)
        elif "error" in record:
            world.say(record["error"])
        else:
            print(*_lines(record), sep="\n", file=world.stdout, flush=True)
    return SOME_FAILED if failed else 0


def _measured(source: Source) -> Record:
    if isinstance(source.audio, AlignCapError):
        return error_record(source.file, source.audio)
    try:
        waveform = source.audio if isinstance(source.audio, Waveform) else load(source.audio)
        return facts_record(source.file, measure(waveform))
    except AlignCapError as error:
        return error_record(source.file, error)


def facts_record(file: str, facts: Facts) -> Record:
    """The facts of one recording as plain values; each has a value or a reason."""
    return {
        "file": file,
        "duration_s": round(facts.duration_s, 3),
        "speech_s": round(facts.speech_s, 3),
        "facts": {
            fact.name: {"value": round(float(fact.value), 4), "unit": fact.unit}
            | {"confidence": round(float(fact.confidence), 3)}
            if fact.value is not None
            else {"value": None, "unit": fact.unit, "confidence": 0.0, "reason": fact.reason}
            for fact in facts
        },
    }


def _lines(record: Record) -> list[str]:
    facts = record["facts"]
    width = max(map(len, facts), default=0)
    heading = (
        f"{record['file']}  ({record['duration_s']:.1f} s, {record['speech_s']:.1f} s of speech)"
    )
    lines = [heading]
    for name, fact in facts.items():
        if fact["value"] is None:
            lines.append(f"  {name:<{width}}  cannot tell: {fact['reason']}")
        else:
            amount = f"{fact['value']:.4g} {fact['unit']}".rstrip()
            lines.append(f"  {name:<{width}}  {amount:<16}  confidence {fact['confidence']:.2f}")
    return lines
