"""Train, validation and test: who goes where, and what lies on both sides."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from aligncap.corpora.findings import Fault, Kind
from aligncap.corpora.manifest import Utterance, read_manifest, write_manifests
from aligncap.corpora.seen import Seen
from aligncap.corpora.splits import secap_source, split_by_hash
from aligncap.errors import DataError, UnknownNameError

SHARES = {"train": 8.0, "validation": 1.0, "test": 1.0}
"""The paper's 8:1:1 (§4.1)."""

PARTS = tuple(SHARES)
FILES = tuple(f"{part}.jsonl" for part in PARTS)

_SALTS = 1000
_MOST_SPEAKERS = 2000
"""So many speakers leave no part empty."""


def _by_clip(clip: Utterance) -> str:
    return clip.id


def _by_speaker(clip: Utterance) -> str:
    if clip.speaker is not None:
        return clip.speaker
    if clip.corpus == "secap":  # it names no speakers, but its ids tell voices and books apart
        return secap_source(clip.id)
    raise DataError(
        f"{clip.id}: has no speaker, so it cannot be split by speaker; split at random, or give "
        "each clip its speaker"
    )


SPLITS: Mapping[str, Callable[[Utterance], str]] = {"random": _by_clip, "speaker": _by_speaker}
"""What of a clip decides on its part: its id (as the paper splits), or who speaks."""


@dataclass(frozen=True, slots=True)
class Split:
    """How a corpus is split; another salt gives another split."""

    by: str
    salt: str = ""

    def __post_init__(self) -> None:
        if self.by not in SPLITS:
            raise UnknownNameError("split", self.by, SPLITS)

    def part_of(self, clip: Utterance) -> str:
        """The part of a clip, whatever else is in the corpus."""
        return split_by_hash(SPLITS[self.by](clip), SHARES, salt=self.salt)


@dataclass(frozen=True, slots=True)
class Leaks:
    """How many lie in more than one part."""

    speakers: int
    sentences: int
    sounds: int


def meet_in_part(clip: Utterance, part: str, seen: Seen) -> None:
    """Remember in which part a clip's speaker, sentence and sound lie."""
    number = PARTS.index(part)
    if (speaker := clip.speaker) is not None:
        seen.note("speaker in part", speaker, name=speaker, part=number)
    if sentence := sentence_of(clip):
        seen.note("sentence in part", sentence, name=clip.text or sentence, part=number)
    seen.note("sound in part", clip.sha256 or str(clip.path), name=clip.id, part=number)


def sentence_of(clip: Utterance) -> str:
    """What of a clip is equal where the same sentence is spoken; empty where it is not known."""
    if clip.sentence:
        return f"{clip.corpus}/{clip.sentence}"
    return "".join(letter for letter in (clip.text or "").casefold() if letter.isalnum())


def count_leaks(seen: Seen) -> Leaks:
    """How many speakers, sentences and sounds lie in more than one part."""
    speakers, sentences, sounds = (
        sum(1 for _ in seen.shared(f"{kind} in part")) for kind in ("speaker", "sentence", "sound")
    )
    return Leaks(speakers, sentences, sounds)


def leak_faults(seen: Seen, split: Split | None) -> Iterator[Fault]:
    """A sound in two parts is a fault always, a speaker where the split is by speaker.

    A sentence is none: where each speaker says the same ones, no split of clips can part them.
    """
    kinds = ("sound", "speaker") if split and split.by == "speaker" else ("sound",)
    for kind in kinds:
        for one in seen.shared(f"{kind} in part"):
            files = " and ".join(FILES[number] for number in one.parts)
            yield Fault(Kind.LEAK, f"{kind} {one.name}: is in {files}; split the corpus anew")


def empty_parts(seen: Seen, counts: Mapping[str, int], split: Split) -> Iterator[Fault]:
    """A fault for each part without a clip, with a salt that leaves none empty."""
    empty = [part for part in PARTS if not counts[f"{part}.jsonl"]]
    if not empty or not any(counts.values()):
        return
    if split.by != "speaker":
        cure = "the corpus is too small to split; leave out --split, or give another --salt"
    else:
        cure = _better_salt(seen)
    for part in empty:
        yield Fault(Kind.COUNT, f"{part}.jsonl: has no clip; {cure}")


def _better_salt(seen: Seen) -> str:
    speakers = seen.number("speaker in part")
    if not len(PARTS) <= speakers <= _MOST_SPEAKERS:
        return f"{speakers} speakers cannot be split by speaker; split at random"
    clips = dict(seen.times("speaker in part"))
    total = sum(clips.values())
    wanted = {part: share / sum(SHARES.values()) for part, share in SHARES.items()}

    def shares(salt: str) -> dict[str, float]:
        found = dict.fromkeys(PARTS, 0.0)
        for speaker, count in clips.items():
            found[split_by_hash(speaker, SHARES, salt=salt)] += count / total
        return found

    def distance(salt: str) -> float:
        found = shares(salt)
        missing = sum(not share for share in found.values())
        return missing + sum(abs(found[part] - wanted[part]) for part in PARTS)

    best = min((str(salt) for salt in range(_SALTS)), key=distance)
    percents = "/".join(f"{share:.0%}" for share in shares(best).values())
    return f"give --salt {best}, which gives {percents}"


def split_manifest(manifest: Path, out: Path, split: Split, seen: Seen) -> dict[str, int]:
    """Write train.jsonl, validation.jsonl and test.jsonl of a manifest to a folder; their lengths.

    One utterance at a time is held. What lies in more than one part is in `seen` afterwards.
    """

    def files_of(clip: Utterance) -> tuple[str, ...]:
        part = split.part_of(clip)
        meet_in_part(clip, part, seen)
        return (f"{part}.jsonl",)

    return write_manifests(out, read_manifest(manifest), files=FILES, files_of=files_of)
