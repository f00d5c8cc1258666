"""`aligncap measure`: what the signal of each recording shows.

`aligncap clues`: what a caption says of the voice.

`aligncap train`, `tokens`, `merge` and `export`: the verbs that make a model.

`aligncap corpus`: prepare, split, and the doctor.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from aligncap.audio import load
from aligncap.cli.caption import Record, Source, cells, error_record, find_sources, pad
from aligncap.cli.console import Console, Progress, stoppable
from aligncap.clues import acoustic_prompt, arousal_valence, detect_language, emotion_of, find_clues
from aligncap.data.captioned import open_corpus
from aligncap.data.doctor import FAULTS, MANIFEST, Report, examine, prepare
from aligncap.data.layouts import Fault
from aligncap.data.splits import (
    Leaks,
    Seen,
    Split,
    count_leaks,
    empty_parts,
    leak_faults,
    split_manifest,
)
from aligncap.errors import AlignCapError
from aligncap.prosody import measure
from aligncap.values import Facts, Waveform

SOME_FAILED = 1


def measure_paths(paths: Sequence[str], *, format: str, world: Console) -> int:  # noqa: A002
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
            print(*_measured_lines(record), sep="\n", file=world.stdout, flush=True)
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


def _measured_lines(record: Record) -> list[str]:
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


def list_clues(
    texts: Sequence[str],
    *,
    language: str | None,
    format: str,  # noqa: A002
    world: Console,
) -> int:
    """The clues of each text; returns 0."""
    for text in _all_texts(texts, world=world):
        record = clues_record(text, language or detect_language(text))
        if format == "jsonl":
            print(json.dumps(record, ensure_ascii=False), file=world.stdout, flush=True)
        else:
            print(*_clue_lines(record), sep="\n", file=world.stdout, flush=True)
    return 0


def _all_texts(texts: Iterable[str], *, world: Console) -> Iterator[str]:
    for text in texts:
        if text == "-":
            yield from (line.strip() for line in world.stdin if line.strip())
        else:
            yield text


def clues_record(text: str, language: str) -> Record:
    """The clues of a text, and what they add up to, as plain values."""
    clues = find_clues(text, language)
    arousal, valence = arousal_valence(clues)
    return {
        "text": text,
        "language": language,
        "clues": [
            {
                "word": clue.word,
                "trait": clue.trait,
                "meaning": clue.meaning,
                "degree": clue.degree,
                "negated": clue.negated,
            }
            for clue in clues
        ],
        "emotion": emotion_of(clues),
        "arousal": arousal,
        "valence": valence,
        "acoustic_prompt": acoustic_prompt(clues, language),
    }


def _clue_lines(record: Record) -> list[str]:
    """The text, a line for each clue (word, trait, meaning), and the acoustic prompt."""
    clues = record["clues"]
    if not clues:
        return [record["text"], "  no clue of how it is spoken"]
    word = max(cells(clue["word"]) for clue in clues)
    trait = max(cells(clue["trait"]) for clue in clues)
    return [
        record["text"],
        *(
            f"  {pad(clue['word'], word)}  {pad(clue['trait'], trait)}  {_meaning(clue)}"
            for clue in clues
        ),
        f"  prompt: {record['acoustic_prompt'] or 'none'}",
    ]


def _meaning(clue: Record) -> str:
    denial = "not " if clue["negated"] else ""
    degree = {0.5: " (slightly)", 1.5: " (very)"}.get(clue["degree"], "")
    return f"{denial}{clue['meaning']}{degree}"


def train_recipe(
    recipe: Path,
    *,
    overrides: Sequence[str],
    output: Path | None,
    resume: bool,
    dry_run: bool,
    world: Console,
) -> int:
    """Run a recipe and print its summary, or with `dry_run` what would be done; returns 0."""
    from aligncap.recipes import run_recipe

    summary = run_recipe(recipe, overrides=overrides, output=output, resume=resume, dry_run=dry_run)
    if not dry_run:
        from aligncap.training.devices import is_first_process

        if not is_first_process():
            return 0
    print(json.dumps(summary, indent=2, ensure_ascii=False, default=str), file=world.stdout)
    return 0


def cache_tokens(
    manifest: Path,
    *,
    tokenizer: str,
    weights: Path | None,
    codebooks: int,
    output: Path,
    world: Console,
) -> int:
    """Tokenise the speech of a manifest into a cache; returns 0, or 1 if some clip failed."""
    from aligncap.data.manifest import read_manifest
    from aligncap.tokenizers import open_tokenizer
    from aligncap.tokenizers.cache import tokenize_manifest

    options = {"codebooks": codebooks} if codebooks > 1 else {}
    with Progress(world, "encoding", results_on_stdout=False) as bar:
        if manifest.is_file():  # a pipe can be read once only
            bar.expect_as_many(lambda: sum(1 for _ in read_manifest(manifest)))
        summary = tokenize_manifest(
            read_manifest(manifest),
            open_tokenizer(tokenizer, weights, **options),
            output,
            progress=lambda _: bar.advance(),
        )
    for failure in summary.failures:
        world.say(failure.reason)
    print(
        f"{output}: {summary.added} clips encoded, {summary.present} there already, "
        f"{len(summary.failures)} failed",
        file=world.stdout,
    )
    return SOME_FAILED if summary.failures else 0


def merge_model(model: Path, out: Path, *, world: Console) -> int:
    """Merge a trained model into a plain checkpoint; returns 0."""
    from aligncap.captioner.export import merge_folder

    meta = merge_folder(model, out)
    print(
        f"merged into {out}; serve it with: vllm serve {out} --served-model-name {meta.name}",
        file=world.stdout,
    )
    return 0


def export_model(model: Path, out: Path, *, quantization: str, world: Console) -> int:
    """Export a trained model; returns 0."""
    from aligncap.captioner.export import export

    export(model, out, quantization=quantization)
    print(f"exported to {out}", file=world.stdout)
    return 0


SAID_OF_A_KIND = 5
"""A corpus that lacks a folder has thousands of faults of one kind; all are in a file."""


def prepare_corpus(
    name: str,
    source: Path,
    out: Path,
    *,
    by: str | None,
    salt: str,
    subset: bool,
    world: Console,
) -> int:
    """Prepare a corpus; returns 0, or 1 if it has faults."""
    said: Counter[str] = Counter()

    def say(fault: Fault) -> None:
        said[fault.kind] += 1
        if said[fault.kind] <= SAID_OF_A_KIND:
            world.say(str(fault))

    with stoppable(lambda: "what was read so far is kept"), _bar(world, "reading") as advance:
        report = prepare(
            open_corpus(name),
            source,
            out,
            counts={} if subset else None,
            split=Split(by, salt) if by else None,
            on_fault=say,
            progress=advance,
        )
    for kind, count in said.items():
        if count > SAID_OF_A_KIND:
            world.say(f"{kind}: {count - SAID_OF_A_KIND:,} more are in {out / FAULTS}")
    print(f"{out / MANIFEST}: {_summary(report)}", file=world.stdout)
    _print_split(report.parts, report.leaks, report.split, world)
    return SOME_FAILED if report.faults else 0


def examine_corpus(
    target: Path, *, corpus: str | None, subset: bool, quick: bool, world: Console
) -> int:
    """Print every fault of a corpus; returns 0, or 1 if there is any."""
    with stoppable(lambda: "nothing was changed"), _bar(world, "looking") as advance:
        report = examine(
            target,
            corpus=open_corpus(corpus) if corpus else None,
            counts={} if subset else None,
            headers_only=quick,
            on_fault=lambda fault: print(fault, file=world.stdout),
            progress=advance,
        )
    print(f"{target}: {_summary(report)}", file=world.stdout)
    _print_split(report.parts, report.leaks, report.split, world)
    return SOME_FAILED if report.faults else 0


def split_corpus(manifest: Path, out: Path, *, by: str, salt: str, world: Console) -> int:
    """Split a manifest; returns 0, or 1 if something leaks or a part is empty."""
    split = Split(by, salt)
    out.mkdir(parents=True, exist_ok=True)
    with stoppable(lambda: "nothing was changed"), Seen(out) as seen:
        counts = split_manifest(manifest, out, split, seen)
        leaks = count_leaks(seen)
        failed = 0
        for fault in (*leak_faults(seen, split), *empty_parts(seen, counts, split)):
            failed = SOME_FAILED
            world.say(str(fault))
    _print_split(counts, leaks, split, world)
    return failed


def _summary(report: Report) -> str:
    tally = report.tally
    faults = ", ".join(f"{count:,} {kind}" for kind, count in tally.faults.items()) or "none"
    rates = ", ".join(f"{rate:,} Hz" for rate in sorted(tally.rates_hz))
    return (
        f"{tally.clips:,} clips, {tally.seconds / 3600:.2f} h, {report.speakers:,} speakers, "
        f"{tally.captions:,} captions{f', {rates}' if rates else ''}; faults: {faults}"
    )


def _print_split(
    counts: Mapping[str, int] | None, leaks: Leaks | None, split: Split | None, world: Console
) -> None:
    """Say how a corpus was split and what lies on both sides."""
    if not counts or leaks is None:
        return
    how = f"split by {split.by}, salt {split.salt!r}" if split else "split"
    lengths = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    print(f"{how}: {lengths}", file=world.stdout)
    print(
        f"in more than one part: {leaks.speakers:,} speakers, {leaks.sentences:,} sentences, "
        f"{leaks.sounds:,} sounds",
        file=world.stdout,
    )


@contextmanager
def _bar(world: Console, doing: str) -> Iterator[Callable[[], None]]:
    """Within, a bar that counts; how many are to come is not known."""
    with Progress(world, doing, results_on_stdout=False) as bar:
        yield bar.advance
