"""Train, validation and test: who goes where, and what lies in more than one part.

Every rule is a pure function of one utterance, so a subset, a shuffle or a corpus that grows
cannot move anybody from validation into training.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from aligncap.data.layouts import Fault, Kind
from aligncap.data.manifest import Utterance, read_manifest, write_manifests
from aligncap.data.seen import Seen
from aligncap.errors import DataError, UnknownNameError
from aligncap.storage import hash_of

VALIDATION_SPEAKERS = frozenset(
    {
        # RAVDESS: two men, two women.
        *("ravdess_05", "ravdess_10", "ravdess_15", "ravdess_20"),
        # EmoDB: a man and a woman, neither of them one of the three who recorded disgust here.
        *("emodb_10", "emodb_14"),
        # nEMO: a woman, so that three men and three women are left.
        "nemo_IC0",
        # ASED: every eighth speaker in the order of their ids.
        *("ased_09", "ased_18", "ased_27", "ased_36", "ased_45", "ased_54", "ased_63"),
    }
)
"""Speakers that no model of ours is trained on."""

SECAP_SHARE = 0.29
"""Share of secap's audiobook sources kept back, which makes a tenth of its clips."""


def validation_split(
    utterances: Iterable[Utterance],
) -> tuple[list[Utterance], list[Utterance]]:
    """(train, validation) by the project's fixed validation speakers, in the order given."""
    train: list[Utterance] = []
    validation: list[Utterance] = []
    for utterance in utterances:
        (validation if is_validation(utterance) else train).append(utterance)
    return train, validation


def is_validation(utterance: Utterance) -> bool:
    """Whether an utterance is kept back for validation: by its speaker, in secap by its source."""
    if utterance.corpus == "secap":
        source = secap_source(utterance.id)
        # Each of the few studio voices has more than a tenth of the clips: they are trained on.
        return source.startswith("tx_emulate") and _place(source, "validation") < SECAP_SHARE
    return utterance.speaker in VALIDATION_SPEAKERS


def secap_source(utterance_id: str) -> str:
    """The source of a secap clip, which all clips of one voice or one audiobook share.

    `tx_emotion_003…` is a studio voice (three of them, told apart by their spectra),
    `tx_xiao…` a fourth, `tx_emulate_02_006…` an audiobook; chapter and clip numbers follow.
    """
    match = re.match(r"tx_emotion_\d{3}|tx_xiao|tx_emulate_\d\d_\d{3}", utterance_id)
    if match is None:
        raise DataError(f"{utterance_id}: not a secap id (tx_emotion…, tx_xiao… or tx_emulate…)")
    return match.group()


def split_by_hash(key: str, shares: Mapping[str, float], *, salt: str = "") -> str:
    """The name of the part that a key falls into, for shares such as 8:1:1.

    The same key always falls into the same part, whatever else is in the corpus. Use an
    utterance id for a random split and a speaker for a speaker-disjoint one; another salt gives
    another split. Raises DataError if the shares are not positive.
    """
    total = sum(shares.values())
    if not shares or min(shares.values()) < 0 or total <= 0:
        raise DataError(f"shares {dict(shares)}: must be 0 or more, and one of them above 0")
    place, edge = _place(key, salt) * total, 0.0
    for name, share in shares.items():
        edge += share
        if place < edge:
            return name
    # Rounding left a sliver above the last edge.
    return max(shares, key=lambda name: shares[name])


def _place(key: str, salt: str) -> float:
    """A number in [0, 1) that depends on nothing but key and salt."""
    return int(hash_of(f"{salt}\0{key}")[:12], 16) / 2**48


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
