"""Each clip of a corpus looked at once: its sound, its id, its label; counted as it goes by."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from aligncap.corpora.findings import Fault, Kind
from aligncap.corpora.layouts import Corpus
from aligncap.corpora.manifest import Utterance
from aligncap.corpora.seen import Seen
from aligncap.corpora.sounds import Sound
from aligncap.errors import AudioError
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
        seen: Seen,
        *,
        sound_of: Callable[[Path], Sound],
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

    def _heard(self, clip: Utterance) -> Sound | None:
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

    def _check_rate(self, clip: Utterance, sound: Sound) -> None:
        """Tell of a rate that the corpus does not have, or that is too low for any model."""
        shipped = self._corpus.rates_hz
        if sound.rate_hz < RATE_HZ or (shipped and sound.rate_hz not in shipped | {RATE_HZ}):
            known = " or ".join(f"{rate:,} Hz" for rate in sorted(shipped | {RATE_HZ}))
            self.fault(
                Kind.RATE,
                f"{clip.path}: is at {sound.rate_hz:,} Hz, must be {known}; fetch it anew",
            )

    def _is_new(self, clip: Utterance, sound: Sound) -> bool:
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

    def _counted(self, clip: Utterance, sound: Sound) -> Utterance:
        tally = self.tally
        tally.clips += 1
        tally.seconds += sound.duration_s
        tally.captions += len(clip.captions)
        tally.parts[self._corpus.part_of(clip)] += 1
        tally.emotions[clip.emotion or "none"] += 1
        tally.rates_hz[sound.rate_hz] += 1
        return replace(clip, duration_s=sound.duration_s, sha256=sound.sha256 or clip.sha256)
