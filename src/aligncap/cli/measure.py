"""`aligncap measure`: what the signal of each recording shows; `aligncap clues`: what a text says
of the voice."""

from typing import Annotated

import typer

from aligncap.cli.console import (
    SOME_FAILED,
    Console,
    Language,
    Listing,
    Record,
    Recording,
    aligned,
    error_record,
    find_recordings,
)
from aligncap.errors import AlignCapError


def measure(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="WAV", help="As for caption: files, folders, globs, -."),
    ],
    format: Annotated[Listing, typer.Option(help="How measurements are written.")] = "text",  # noqa: A002
) -> int:
    """Measure pitch, loudness, pace and voice quality; needs no model."""
    console: Console = context.obj
    failed = 0
    for recording in find_recordings(paths, console):
        record = measured_record(recording)
        failed += "error" in record
        if format == "jsonl":
            console.print_record(record)
        elif "error" in record:
            console.log(record["error"])
        else:
            console.print(*_measurement_lines(record))
    return SOME_FAILED if failed else 0


def measured_record(recording: Recording) -> Record:
    """The facts of one recording as plain values, each with a value or a reason; or an error."""
    from aligncap import audio, prosody
    from aligncap.values import Waveform

    try:
        sound = recording.audio
        if isinstance(sound, AlignCapError):
            raise sound
        facts = prosody.measure(sound if isinstance(sound, Waveform) else audio.load(sound))
    except AlignCapError as error:
        return error_record(recording.file, error)
    return {
        "file": recording.file,
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


def _measurement_lines(record: Record) -> list[str]:
    facts = record["facts"]
    width = max(map(len, facts), default=0)
    length = f"{record['duration_s']:.1f} s, {record['speech_s']:.1f} s of speech"
    lines = [f"{record['file']}  ({length})"]
    for name, fact in facts.items():
        if fact["value"] is None:
            lines.append(f"  {name:<{width}}  cannot tell: {fact['reason']}")
        else:
            amount = f"{fact['value']:.4g} {fact['unit']}".rstrip()
            lines.append(f"  {name:<{width}}  {amount:<16}  confidence {fact['confidence']:.2f}")
    return lines


def clues(
    context: typer.Context,
    texts: Annotated[
        list[str],
        typer.Argument(metavar="TEXT", help="Captions; - reads them from standard input."),
    ],
    language: Annotated[
        Language | None, typer.Option(help="Language of the texts; found out if not given.")
    ] = None,
    format: Annotated[Listing, typer.Option(help="How clues are written.")] = "text",  # noqa: A002
) -> int:
    """Find the emotional clues of a caption: what it says of the voice."""
    from aligncap.clues import detect_language

    console: Console = context.obj
    lines = (
        line
        for text in texts
        for line in (filter(None, map(str.strip, console.stdin)) if text == "-" else (text,))
    )
    for line in lines:
        record = clues_record(line, language or detect_language(line))
        if format == "jsonl":
            console.print_record(record)
        else:
            console.print(*_clue_lines(record))
    return 0


def clues_record(text: str, language: str) -> Record:
    """The clues of a text, and what they add up to, as plain values."""
    from aligncap.clues import acoustic_prompt, arousal_valence, emotion_of, find_clues

    found = find_clues(text, language)
    arousal, valence = arousal_valence(found)
    keys = ("word", "trait", "meaning", "degree", "negated")
    return {
        "text": text,
        "language": language,
        "clues": [{key: getattr(clue, key) for key in keys} for clue in found],
        "emotion": emotion_of(found),
        "arousal": arousal,
        "valence": valence,
        "acoustic_prompt": acoustic_prompt(found, language),
    }


def _clue_lines(record: Record) -> list[str]:
    """The text, a line for each clue (word, trait, meaning), and the acoustic prompt."""
    if not record["clues"]:
        return [record["text"], "  no clue of how it is spoken"]
    rows = []
    for clue in record["clues"]:
        denial = "not " if clue["negated"] else ""
        degree = {0.5: " (slightly)", 1.5: " (very)"}.get(clue["degree"], "")
        rows.append((clue["word"], clue["trait"], f"{denial}{clue['meaning']}{degree}"))
    prompt = record["acoustic_prompt"] or "none"
    return [record["text"], *(f"  {row}" for row in aligned(rows)), f"  prompt: {prompt}"]
