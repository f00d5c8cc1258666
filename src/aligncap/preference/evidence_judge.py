"""The evidence judge: what a caption claims, against what is known of the clip.

Known is what the corpus labels (emotion, gender), what the signal clearly shows and, where people
have captioned the clip, what they say. With the weights of `EvidenceWeights`,

    score = (said - contradicted C - invented I - untold U - wrong_emotion W - repeated R) / known

    known    what there is to say: 1 for each claim, `emotion` for one of an emotion, `middle` for
             one in the middle of its scale ("normal"); at least 1. A labelled gender is among it
             where the signal shows it too: what cannot be heard need not be said
    said     the same over those of them that the caption says
    C I U W  how many claims are contradicted, are in no reference though there is one, can be held
             against nothing, are of another emotion
    R        how often a claim of how the voice sounds is made that the caption has made before

A caption that says all and nothing wrong has 1, one that claims nothing has 0: saying less is no
way to a better score, and saying it twice neither. A rightly denied claim ("not loud") costs
nothing and says nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import cache
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import Field

from aligncap import __version__, clues
from aligncap.clues import find_clues
from aligncap.preference.known import Claim, Held, Known, Standing, plain_clues
from aligncap.preference.values import Asked, Candidate, Clip, Judgement
from aligncap.recipes import recipe_section
from aligncap.storage import hash_of_parts
from aligncap.values import Clue

Weight = Annotated[float, Field(ge=0, lt=inf)]

MIDDLE = "normal"
"""The meaning of a fact in the middle of its scale: true of most clips, so it says little."""


@recipe_section
class EvidenceWeights:
    """What claims are worth and what they cost, in units of one clear fact that is said."""

    contradicted: Weight = 1.5
    """More than a fact is worth, so that a guess does not pay."""
    invented: Weight = 0.5
    """A claim that no reference makes, where people have captioned the clip."""
    untold: Weight = 0.1
    """A claim that can be held against nothing."""
    emotion: Weight = 2.0
    """The right emotion; it names the state itself."""
    wrong_emotion: Weight = 2.0
    middle: Weight = 0.25
    repeated: Weight = 0.25
    """"A low voice with a low pitch" says one thing."""

    def worth(self, claim: Claim) -> float:
        """What it is worth to say this, where it is so."""
        if claim[0] == "emotion":
            return self.emotion
        return self.middle if claim[1] == MIDDLE else 1.0

    def cost(self, held: Held) -> tuple[str, float]:
        """What a claim that is not supported costs, and the name of the weight."""
        name = held.standing.value
        if held.standing is Standing.CONTRADICTED and held.clue.trait == "emotion":
            name = "wrong_emotion"
        return name, float(getattr(self, name))


@dataclass(frozen=True, slots=True)
class EvidenceJudge:
    """Judges by evidence: offline, and the same today and tomorrow."""

    weights: EvidenceWeights = field(default_factory=EvidenceWeights)
    name: str = "evidence"
    at_once: int = 1

    @property
    def signature(self) -> str:
        """Weights, and a hash of the vocabulary, grammar and thresholds of clues."""
        weights = ",".join(f"{one:g}" for one in astuple(self.weights))
        return f"evidence|weights:{weights}|clues:{clues_fingerprint()}|v{__version__}"

    def judge(self, asked: Sequence[Asked]) -> list[list[Judgement]]:
        """As `Judge`."""
        return [self._judge_clip(clip, candidates) for clip, candidates in asked]

    def close(self) -> None:
        """As `Judge`: it holds nothing open."""

    def _judge_clip(self, clip: Clip, candidates: Sequence[Candidate]) -> list[Judgement]:
        known = Known.of(clip)
        claims = known.claims()
        return [self._judge(one, known, claims) for one in candidates]

    def _judge(self, candidate: Candidate, known: Known, claims: Sequence[Claim]) -> Judgement:
        every = find_clues(candidate.text, candidate.language, repeats=True)
        found = plain_clues(every)
        held = [known.hold(clue) for clue in found]
        supported = {_claim(one) for one in held if _says(one)}
        said = [claim for claim in claims if claim in supported]
        repeated = _repeated(every)
        parts = dict.fromkeys(("contradicted", "invented", "untold", "wrong_emotion"), 0.0)
        costs = self.weights.repeated * repeated
        for one in held:
            if _costs(one):
                name, cost = self.weights.cost(one)
                parts[name] += 1
                costs += cost
        total = max(1.0, sum(map(self.weights.worth, claims)))
        worth = sum(map(self.weights.worth, said))
        left = [claim for claim in claims if claim not in said and self.weights.worth(claim) >= 1]
        return Judgement(
            candidate=candidate.key,
            judge=self.signature,
            score=(worth - costs) / total,
            parts=MappingProxyType(
                {"said": worth, "known": total, **parts, "repeated": float(repeated)}
            ),
            reason=_reason(held, left, repeated),
        )


_WHO = ("emotion", "gender")
"""Traits that a sentence comes back to without saying them again: "calm and collected", "his"."""


def _repeated(clues: Iterable[Clue]) -> int:
    said = [(one.trait, one.meaning, one.negated) for one in clues if one.trait not in _WHO]
    return len(said) - len(set(said))


def _claim(held: Held) -> Claim:
    return held.clue.trait, held.clue.meaning


def _says(held: Held) -> bool:
    return held.standing is Standing.SUPPORTED and not held.clue.negated


def _costs(held: Held) -> bool:
    # What a caption denies it does not make up.
    made_up = held.standing in (Standing.INVENTED, Standing.UNTOLD) and not held.clue.negated
    return held.standing is Standing.CONTRADICTED or made_up


_ORDER: Mapping[Standing, int] = MappingProxyType(
    {Standing.CONTRADICTED: 0, Standing.INVENTED: 1, Standing.UNTOLD: 2}
)


def _reason(held: Iterable[Held], left: Sequence[Claim], repeated: int) -> str:
    """In words, the worst first: "says 'slow' but pace 6.1 syllables/s (…); rightly says 'sad'"."""
    held = list(held)
    wrong = sorted((one for one in held if _costs(one)), key=lambda one: _ORDER[one.standing])
    notes = [
        f"{'denies' if one.clue.negated else 'says'} '{one.clue.word}'"
        f"{' but' if one.standing is Standing.CONTRADICTED else ', unsupported:'} {one.reason}"
        for one in wrong
    ]
    right = [f"'{one.clue.word}'" for one in held if _says(one)]
    notes += [f"rightly says {', '.join(right)}"] if right else []
    notes += [f"says {repeated} of it again"] if repeated else []
    unsaid = ", ".join(f"{meaning} ({trait})" for trait, meaning in left)
    notes += [f"leaves out {unsaid}"] if left else []
    return "; ".join(notes) or "claims nothing, and there is nothing to claim"


@cache
def clues_fingerprint() -> str:
    """A hash of everything that verdicts on clues depend on: the package of clues."""
    files = sorted(Path(clues.__file__).parent.rglob("*"))
    return hash_of_parts(one.read_bytes() for one in files if one.suffix in (".py", ".toml"))[:12]
