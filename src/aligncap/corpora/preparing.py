"""From a corpus as it was shipped to manifests that can be trained on."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aligncap.corpora.findings import Fault
from aligncap.corpora.inspection import Inspection, OnFault, Tally
from aligncap.corpora.layouts import Corpus
from aligncap.corpora.manifest import Utterance, write_manifests
from aligncap.corpora.parting import (
    FILES,
    Leaks,
    Split,
    count_leaks,
    empty_parts,
    leak_faults,
    meet_in_part,
)
from aligncap.corpora.seen import Seen
from aligncap.corpora.sounds import BOOK, SoundBook
from aligncap.storage import atomic_file, write_atomic

MANIFEST = "manifest.jsonl"
REPORT = "report.json"
FAULTS = "faults.txt"

Progress = Callable[[], None]
"""Told of each clip that can be used."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found of a corpus."""

    corpus: str
    tally: Tally
    speakers: int
    split: Split | None = None
    parts: Mapping[str, int] | None = None
    """Clips of train.jsonl, validation.jsonl and test.jsonl."""
    leaks: Leaks | None = None

    @property
    def faults(self) -> int:
        """How many faults there are."""
        return sum(self.tally.faults.values())

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        tally = self.tally
        return {
            "corpus": self.corpus,
            "clips": tally.clips,
            "seconds": round(tally.seconds, 1),
            "captions": tally.captions,
            "parts": dict(tally.parts),
            "emotions": dict(tally.emotions),
            "rates_hz": dict(tally.rates_hz),
            "faults": dict(tally.faults),
            "speakers": self.speakers,
            "split": asdict(self.split) if self.split else None,
            "split_clips": dict(self.parts) if self.parts else None,
            "leaks": asdict(self.leaks) if self.leaks else None,
        }


def prepare(
    corpus: Corpus,
    source: Path,
    out: Path,
    *,
    counts: Mapping[str, int] | None = None,
    split: Split | None = None,
    on_fault: OnFault = lambda _: None,
    progress: Progress = lambda: None,
) -> Report:
    """Write the manifest of a corpus, and of its parts where it is split, to the folder `out`.

    Every sound is read to its end. What cannot be used is left out and is a fault: each is told
    to `on_fault` and written to `faults.txt`; `report.json` has the figures. `counts` are clips
    by part, those of the corpus if not given; an empty mapping checks none.

    The manifests appear when all are whole. A run that is stopped keeps what it measured of each
    file, and the same call goes on from there. One clip at a time is held.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (
        Seen(out) as seen,
        SoundBook(out / BOOK) as book,
        atomic_file(out / FAULTS) as faults,
    ):

        def tell(fault: Fault) -> None:
            faults.write(f"{fault}\n")
            on_fault(fault)

        look = Inspection(corpus, seen, sound_of=book.sound, on_fault=tell)
        clips = met_speakers(look.usable(corpus.find(source)), seen, progress)
        parts = _write(out, clips, split, seen)
        report = conclude(look, seen, corpus, counts=counts, split=split, parts=parts)
    text = json.dumps(report.as_json(), indent=2, ensure_ascii=False)
    write_atomic(out / REPORT, f"{text}\n")
    return report


def conclude(
    look: Inspection,
    seen: Seen,
    corpus: Corpus,
    *,
    counts: Mapping[str, int] | None,
    split: Split | None,
    parts: Mapping[str, int] | None,
) -> Report:
    """Tell what can be told when every clip was seen: counts, leaks, empty parts; the report."""
    look.check_counts(corpus.counts if counts is None else counts)
    for fault in leak_faults(seen, split) if parts else ():
        look.fault(fault.kind, fault.message)
    for fault in empty_parts(seen, parts, split) if parts and split else ():
        look.fault(fault.kind, fault.message)
    return Report(
        corpus=corpus.name,
        tally=look.tally,
        speakers=seen.number("speaker"),
        split=split,
        parts=parts,
        leaks=count_leaks(seen) if parts else None,
    )


def met_speakers(clips: Iterable[Utterance], seen: Seen, progress: Progress) -> Iterator[Utterance]:
    """The clips as they are, each speaker of them remembered."""
    for clip in clips:
        if clip.speaker:
            seen.note("speaker", clip.speaker, name=clip.speaker)
        progress()
        yield clip


def _write(
    out: Path, clips: Iterable[Utterance], split: Split | None, seen: Seen
) -> dict[str, int] | None:
    """The manifest, and the manifests of the parts; the parts' lengths."""
    if split is None:
        write_manifests(out, clips, files=[MANIFEST], files_of=lambda _: (MANIFEST,))
        for name in FILES:  # of an earlier run: they would be of another manifest
            (out / name).unlink(missing_ok=True)
        return None

    def files_of(clip: Utterance) -> tuple[str, ...]:
        part = split.part_of(clip)
        meet_in_part(clip, part, seen)
        return (MANIFEST, f"{part}.jsonl")

    lengths = write_manifests(out, clips, files=[MANIFEST, *FILES], files_of=files_of)
    del lengths[MANIFEST]
    return lengths
