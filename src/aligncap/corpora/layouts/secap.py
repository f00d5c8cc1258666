"""SECap's test set: `wav.scp` (clip, file), `text.txt` (clip, transcript), `fid2captions.json`."""

from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

from aligncap.corpora.findings import Fault, Kind
from aligncap.corpora.layouts import ALL, Corpus
from aligncap.corpora.layouts.caption_files import read_captions
from aligncap.corpora.layouts.reading import read_lines
from aligncap.corpora.manifest import Utterance
from aligncap.errors import DataError

FETCH = "the test set (600 clips) that https://github.com/thuhcsi/SECap links to"


def find(source: Path) -> Iterator[Utterance | Fault]:
    """The clips that wav.scp names."""
    listed = source / "wav.scp"
    if not listed.is_file():
        raise DataError(f"{source}: has no wav.scp; fetch {FETCH}")
    captions: dict[str, tuple[str, ...]] = {}
    texts: dict[str, str] = {}
    try:
        captions = read_captions(source / "fid2captions.json")
    except DataError as error:
        yield Fault(Kind.LABEL, str(error))
    yield from _read_pairs(source / "text.txt", texts)
    files: dict[str, str] = {}
    yield from _read_pairs(listed, files)
    for clip, file in files.items():
        if captions and clip not in captions:
            yield Fault(Kind.CAPTION, f"{clip}: has no caption in fid2captions.json; fetch it anew")
        yield Utterance(
            id=clip,
            path=_place(source, file),
            corpus="secap",
            language="zh",
            text=texts.get(clip),
            captions=captions.get(clip, ()),
        )
    for clip in sorted(captions.keys() - files.keys()):
        yield Fault(Kind.MISSING, f"{clip}: has a caption but no line in {listed}; fetch {FETCH}")


def _place(source: Path, file: str) -> Path:
    """Where a listed file is: as listed, or by its name where it was listed on another machine."""
    listed, name = source / file, Path(file).name
    places = (listed, source / "wav" / name, source / "wavs" / name, source / name)
    return next((place for place in places if place.exists()), listed)


def _read_pairs(file: Path, pairs: dict[str, str]) -> Iterator[Fault]:
    """Fill in the second word and what follows, by the first; faults are given out."""
    try:
        for place, line in read_lines(file):
            clip, _, rest = line.replace("\t", " ", 1).partition(" ")
            if not rest.strip():
                yield Fault(
                    Kind.LABEL, f"{place}: {line[:40]!r} is one word, must be two; fetch it anew"
                )
            elif clip in pairs:
                yield Fault(
                    Kind.DUPLICATE, f"{place}: {clip} has a line before; take one of them away"
                )
            else:
                pairs[clip] = rest.strip()
    except DataError as error:
        yield Fault(Kind.LABEL, str(error))


CORPUS = Corpus(
    name="secap",
    counts=MappingProxyType({ALL: 600}),
    rates_hz=frozenset({24_000}),
    fetch=FETCH,
    find=find,
)
