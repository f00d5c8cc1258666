"""The doctor: looks at a prepared corpus, or at one as it was shipped, and changes nothing."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from aligncap.corpora.findings import Fault, Kind
from aligncap.corpora.inspection import Inspection, OnFault
from aligncap.corpora.layouts import Corpus, open_corpus
from aligncap.corpora.manifest import Utterance, read_each_utterance
from aligncap.corpora.parting import FILES, PARTS, Split, meet_in_part
from aligncap.corpora.preparing import MANIFEST, REPORT, Progress, Report, conclude, met_speakers
from aligncap.corpora.seen import Seen
from aligncap.corpora.sounds import read_header, read_sound
from aligncap.errors import DataError, UnknownNameError

UNKNOWN = "folder"
"""The corpus of a manifest that does not say: any number of clips, any rate."""


def examine(
    target: Path,
    *,
    corpus: Corpus | None = None,
    counts: Mapping[str, int] | None = None,
    split: Split | None = None,
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
    with TemporaryDirectory(prefix="aligncap-") as folder, Seen(Path(folder)) as seen:
        look = Inspection(
            known,
            seen,
            sound_of=read_header if headers_only else read_sound,
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


def _look_at_parts(manifest: Path, look: Inspection, seen: Seen) -> dict[str, int] | None:
    """Remember what lies in which part; tells of clips in no part or two. None without parts."""
    files = [manifest.with_name(name) for name in FILES]
    if not any(file.is_file() for file in files):
        return None
    lengths = {}
    for part, file in zip(PARTS, files, strict=True):
        lengths[file.name] = 0
        if not file.is_file():
            look.fault(Kind.MISSING, f"{file}: does not exist; split the corpus anew")
            continue
        for place, clip in read_each_utterance(file):
            if isinstance(clip, DataError):
                look.fault(Kind.LABEL, str(clip))
                continue
            lengths[file.name] += 1
            meet_in_part(clip, part, seen)
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


def _split_of(told: Mapping[str, object]) -> Split | None:
    split = told.get("split")
    return Split(**split) if isinstance(split, dict) else None
