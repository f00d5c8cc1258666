"""Checking a corpus clip by clip: `prepare` writes its manifests, `examine` changes nothing."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aligncap.data import splits
from aligncap.data.captioned import open_corpus
from aligncap.data.layouts import Corpus, Fault, Kind
from aligncap.data.manifest import Utterance, read_each_utterance, write_manifests
from aligncap.errors import AudioError, DataError, UnknownNameError
from aligncap.storage import atomic_file, write_atomic
from aligncap.values import RATE_HZ

SHORTEST_S = 0.1
LONGEST_S = 60.0
"""What is longer is not one utterance."""

OnFault = Callable[[Fault], None]
"""Told of each fault as it is found."""


@dataclass(slots=True)
class Tally:
    """What was counted so far; it grows with the kinds of things, not with the corpus."""

    clips: int = 0
    seconds: float = 0.0
    captions: int = 0
    parts: Counter[str] = field(default_factory=Counter)
    emotions: Counter[str] = field(default_factory=Counter)
    rates_hz: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)


class Inspection:
    """Looks at the clips of one corpus; `tally` has what it counted.

    `sound_of` reads a sound file or raises AudioError.
    """

    def __init__(
        self,
        corpus: Corpus,
        seen: splits.Seen,
        *,
        sound_of: Callable[[Path], splits.Sound],
        on_fault: OnFault,
    ) -> None:
        self._corpus = corpus
        self._seen = seen
        self._sound_of = sound_of
        self._on_fault = on_fault
        self.tally = Tally()

    def fault(self, kind: Kind, message: str) -> None:
        """Tell of a fault, and count it."""
        self.tally.faults[kind.value] += 1
        self._on_fault(Fault(kind, message))

    def usable(self, found: Iterable[Utterance | Fault]) -> Iterator[Utterance]:
        """The clips that can be used, each with its length and hash; the rest are faults.

        Of several with one id or one sound, the first is given out.
        """
        for one in found:
            if isinstance(one, Fault):
                self.fault(one.kind, one.message)
                continue
            sound = self._heard(one)
            if sound is not None and self._is_new(one, sound):
                yield self._counted(one, sound)

    def check_counts(self, counts: Mapping[str, int]) -> None:
        """Compare the clips of each part with how many there should be."""
        name, fetch = self._corpus.name, self._corpus.fetch
        for part, expected in counts.items():
            found = self.tally.parts[part]
            what = name if len(counts) == 1 else f"{name} {part}"
            if found < expected:
                self.fault(
                    Kind.COUNT,
                    f"{what}: {found:,} of {expected:,} clips can be used; fetch {fetch}",
                )
            elif found > expected:
                self.fault(
                    Kind.COUNT,
                    f"{what}: {found:,} clips, {found - expected:,} more than it has; take away "
                    "what is not of it",
                )
        for part in sorted(self.tally.parts.keys() - counts.keys() if counts else ()):
            self.fault(
                Kind.COUNT,
                f"{name} {part}: {self.tally.parts[part]:,} clips of a part that {name} does not "
                "have; take them away",
            )

    def _heard(self, clip: Utterance) -> splits.Sound | None:
        """The sound of a clip; None, after telling why, where it cannot be used."""
        if not clip.path.exists():
            self.fault(Kind.MISSING, f"{clip.path}: does not exist; fetch {self._corpus.fetch}")
            return None
        try:
            sound = self._sound_of(clip.path)
        except AudioError as error:
            self.fault(Kind.BROKEN, str(error))
            return None
        if clip.sha256 and sound.sha256 and clip.sha256 != sound.sha256:
            self.fault(
                Kind.CHANGED,
                f"{clip.path}: is not the file that the manifest was made of; fetch it anew or "
                "prepare the corpus again",
            )
            return None
        if not SHORTEST_S <= sound.duration_s <= LONGEST_S:
            self.fault(
                Kind.DURATION,
                f"{clip.path}: lasts {sound.duration_s:.2f} s, must be {SHORTEST_S} to "
                f"{LONGEST_S:.0f} s; fetch it anew, or cut it into utterances",
            )
            return None
        self._check_rate(clip, sound)
        return sound

    def _check_rate(self, clip: Utterance, sound: splits.Sound) -> None:
        """Tell of a rate that the corpus does not have, or that is too low for any model."""
        shipped = self._corpus.rates_hz
        if sound.rate_hz < RATE_HZ or (shipped and sound.rate_hz not in shipped | {RATE_HZ}):
            known = " or ".join(f"{rate:,} Hz" for rate in sorted(shipped | {RATE_HZ}))
            self.fault(
                Kind.RATE,
                f"{clip.path}: is at {sound.rate_hz:,} Hz, must be {known}; fetch it anew",
            )

    def _is_new(self, clip: Utterance, sound: splits.Sound) -> bool:
        """Whether neither the id nor the sound was met before; tells where one was."""
        there = self._seen.meet("id", clip.id, name=str(clip.path))
        if there is not None:
            self.fault(
                Kind.DUPLICATE,
                f"{clip.path}: its id {clip.id!r} is also that of {there}; take one away",
            )
            return False
        content = sound.sha256 or clip.sha256 or str(clip.path)
        there = self._seen.meet("sound", content, name=str(clip.path))
        if there is not None:
            self.fault(Kind.DUPLICATE, f"{clip.path}: is the same sound as {there}; take one away")
        return there is None

    def _counted(self, clip: Utterance, sound: splits.Sound) -> Utterance:
        tally = self.tally
        tally.clips += 1
        tally.seconds += sound.duration_s
        tally.captions += len(clip.captions)
        tally.parts[self._corpus.part_of(clip)] += 1
        tally.emotions[clip.emotion or "none"] += 1
        tally.rates_hz[sound.rate_hz] += 1
        return replace(clip, duration_s=sound.duration_s, sha256=sound.sha256 or clip.sha256)


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
    split: splits.Split | None = None
    parts: Mapping[str, int] | None = None
    """Clips of train.jsonl, validation.jsonl and test.jsonl."""
    leaks: splits.Leaks | None = None

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
    split: splits.Split | None = None,
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
        splits.Seen(out) as seen,
        splits.SoundBook(out / splits.BOOK) as book,
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
    seen: splits.Seen,
    corpus: Corpus,
    *,
    counts: Mapping[str, int] | None,
    split: splits.Split | None,
    parts: Mapping[str, int] | None,
) -> Report:
    """Tell what can be told when every clip was seen: counts, leaks, empty parts; the report."""
    look.check_counts(corpus.counts if counts is None else counts)
    for fault in splits.leak_faults(seen, split) if parts else ():
        look.fault(fault.kind, fault.message)
    for fault in splits.empty_parts(seen, parts, split) if parts and split else ():
        look.fault(fault.kind, fault.message)
    return Report(
        corpus=corpus.name,
        tally=look.tally,
        speakers=seen.number("speaker"),
        split=split,
        parts=parts,
        leaks=splits.count_leaks(seen) if parts else None,
    )


def met_speakers(
    clips: Iterable[Utterance], seen: splits.Seen, progress: Progress
) -> Iterator[Utterance]:
    """The clips as they are, each speaker of them remembered."""
    for clip in clips:
        if clip.speaker:
            seen.note("speaker", clip.speaker, name=clip.speaker)
        progress()
        yield clip


def _write(
    out: Path, clips: Iterable[Utterance], split: splits.Split | None, seen: splits.Seen
) -> dict[str, int] | None:
    """The manifest, and the manifests of the parts; the parts' lengths."""
    if split is None:
        write_manifests(out, clips, files=[MANIFEST], files_of=lambda _: (MANIFEST,))
        for name in splits.FILES:  # of an earlier run: they would be of another manifest
            (out / name).unlink(missing_ok=True)
        return None

    def files_of(clip: Utterance) -> tuple[str, ...]:
        part = split.part_of(clip)
        splits.meet_in_part(clip, part, seen)
        return (MANIFEST, f"{part}.jsonl")

    lengths = write_manifests(out, clips, files=[MANIFEST, *splits.FILES], files_of=files_of)
    del lengths[MANIFEST]
    return lengths


UNKNOWN = "folder"
"""The corpus of a manifest that does not say: any number of clips, any rate."""


def examine(
    target: Path,
    *,
    corpus: Corpus | None = None,
    counts: Mapping[str, int] | None = None,
    split: splits.Split | None = None,
    headers_only: bool = False,
    on_fault: OnFault = lambda _: None,
    progress: Progress = lambda: None,
) -> Report:
    """Look at a manifest, a folder that was prepared, or the folder of a corpus as it was shipped.

    Corpus and split are those that the prepared folder's report names, if not given. Each fault is
    told to `on_fault`. With `headers_only` the sounds are not read to their ends, which is quick
    and misses what is damaged inside.
    """
    manifest = target / MANIFEST if target.is_dir() else target
    prepared = manifest.is_file()
    if not prepared and corpus is None:
        raise DataError(
            f"{target}: is neither a manifest nor a prepared folder; to look at a corpus as it "
            "was shipped, say which: --corpus NAME"
        )
    told = _told(manifest.parent) if prepared else {}
    known = corpus or _corpus_of(told)
    split = split or _split_of(told)
    with TemporaryDirectory(prefix="aligncap-") as folder, splits.Seen(Path(folder)) as seen:
        look = Inspection(
            known,
            seen,
            sound_of=splits.read_sound_header if headers_only else splits.read_sound,
            on_fault=on_fault,
        )
        found = _clips_of(manifest) if prepared else known.find(target)
        for _ in met_speakers(look.usable(found), seen, progress):
            pass
        parts = _look_at_parts(manifest, look, seen) if target.is_dir() and prepared else None
        return conclude(look, seen, known, counts=counts, split=split, parts=parts)


def _clips_of(manifest: Path) -> Iterator[Utterance | Fault]:
    for _, clip in read_each_utterance(manifest):
        yield Fault(Kind.LABEL, str(clip)) if isinstance(clip, DataError) else clip


def _look_at_parts(manifest: Path, look: Inspection, seen: splits.Seen) -> dict[str, int] | None:
    """Remember what lies in which part; tells of clips in no part or two. None without parts."""
    files = [manifest.with_name(name) for name in splits.FILES]
    if not any(file.is_file() for file in files):
        return None
    lengths = {}
    for part, file in zip(splits.PARTS, files, strict=True):
        lengths[file.name] = 0
        if not file.is_file():
            look.fault(Kind.MISSING, f"{file}: does not exist; split the corpus anew")
            continue
        for place, clip in read_each_utterance(file):
            if isinstance(clip, DataError):
                look.fault(Kind.LABEL, str(clip))
                continue
            lengths[file.name] += 1
            splits.meet_in_part(clip, part, seen)
            there = seen.meet("id in part", clip.id, name=place)
            if there is not None:
                look.fault(Kind.LEAK, f"{place}: {clip.id} is in {there} too; split anew")
    total, whole = sum(lengths.values()), look.tally.clips
    if total != whole and not look.tally.faults:
        look.fault(
            Kind.COUNT,
            f"{manifest}: has {whole:,} clips, its parts {total:,}; split the corpus anew",
        )
    return lengths


def _told(folder: Path) -> dict[str, object]:
    """What the report beside a manifest says; nothing where there is none."""
    try:
        told = json.loads((folder / REPORT).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _corpus_of(told: Mapping[str, object]) -> Corpus:
    try:
        return open_corpus(str(told.get("corpus", UNKNOWN)))
    except UnknownNameError:
        return open_corpus(UNKNOWN)


def _split_of(told: Mapping[str, object]) -> splits.Split | None:
    split = told.get("split")
    return splits.Split(**split) if isinstance(split, dict) else None
