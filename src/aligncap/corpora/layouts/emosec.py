"""EMOSEC: a JSON file of captions over the sound of ESD and IEMOCAP.

One folder holds all three, or links to them: any `*.json` at its top, ESD and IEMOCAP anywhere
below. Clips are matched by their stems.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from aligncap.corpora.findings import Fault, Kind
from aligncap.corpora.layouts import Corpus, esd, iemocap
from aligncap.corpora.layouts.caption_files import read_captions
from aligncap.corpora.manifest import Utterance
from aligncap.errors import DataError

_AUDIO = (esd.CORPUS, iemocap.CORPUS)


FETCH = (
    f"the captions from https://zenodo.org/records/10948423, and {_AUDIO[0].fetch}, "
    f"and {_AUDIO[1].fetch}"
)


def find(source: Path) -> Iterator[Utterance | Fault]:
    """The clips of ESD and IEMOCAP below a folder that have captions."""
    files = sorted(source.glob("*.json"))
    if not files:
        raise DataError(f"{source}: has no .json file of captions; fetch {FETCH}")
    captions: dict[str, tuple[str, ...]] = {}
    for file in files:
        try:
            captions |= read_captions(file)
        except DataError as error:
            yield Fault(Kind.LABEL, str(error))
    if not captions:  # or every clip would be said to have none
        return
    left = set(captions)
    for corpus in _AUDIO:
        for found in corpus.find(source):
            if isinstance(found, Fault):
                if found.kind is not Kind.MISSING:  # the captions name it as well
                    yield found
            elif texts := captions.get(found.id):
                left.discard(found.id)
                yield replace(found, corpus="emosec", captions=texts)
            else:
                yield Fault(
                    Kind.CAPTION,
                    f"{found.path}: has no caption in {_names(files)}; fetch the captions anew",
                )
    for stem in sorted(left):
        yield _captioned_only(stem, source)


def part_of(utterance: Utterance) -> str:
    """The corpus that its sound is from."""
    return "iemocap" if iemocap.STEM.fullmatch(utterance.id) else "esd"


def _captioned_only(stem: str, source: Path) -> Fault:
    owner = next((one for one in (esd, iemocap) if one.STEM.fullmatch(stem)), None)
    if owner is None:
        cure = "its name is neither of ESD nor of IEMOCAP; mend the captions"
    else:
        cure = f"fetch {owner.CORPUS.fetch}"
    return Fault(Kind.MISSING, f"{stem}: has a caption but no sound file below {source}; {cure}")


def _names(files: list[Path]) -> str:
    return ", ".join(file.name for file in files)


CORPUS = Corpus(
    name="emosec",
    counts=MappingProxyType({"esd": 35_000, "iemocap": 10_039}),
    rates_hz=frozenset({16_000}),
    fetch=FETCH,
    find=find,
    part_of=part_of,
)
