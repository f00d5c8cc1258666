"""The evidence judge: what a caption claims, checked against what is known of the clip.

Known is what the corpus labels (emotion, gender), what the signal clearly shows and, where people
have captioned the clip, what they say (`clues.claims`). With the weights of `EvidenceWeights`,

    score = (said - contradicted C - invented I - untold U - wrong_emotion W - repeated R) / known

    known    what there is to say: 1 for each claim, `emotion` for one of an emotion, `middle` for
             one in the middle of its scale ("normal"); at least 1. A labelled gender is among it
             where the signal shows it too: what cannot be heard need not be said
    said     the same over those of them that the caption says
    C I U W  claims that are contradicted, unsupported by the references, unverifiable, and of
             another emotion
    R        how often a claim of how the voice sounds is made that the caption has made before

A caption that says all and nothing wrong has 1, one that claims nothing has 0: saying less is no
way to a better score, and saying it twice neither. A rightly denied claim ("not loud") costs
nothing and says nothing.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from math import inf
from types import MappingProxyType
from typing import Annotated, Protocol

from pydantic import Field

from aligncap import __version__
from aligncap.clues import find_clues
from aligncap.clues.claims import (
    CheckedClaim,
    ClaimStatus,
    ClipKnowledge,
    claims_fingerprint,
    claims_of,
    without_composure,
)
from aligncap.preference.store import Candidate, Clip, Judgement
from aligncap.recipes import recipe_section

Asked = tuple[Clip, Sequence[Candidate]]
"""A clip and candidates of it in one language that are to be judged together."""


class Judge(Protocol):
    """Scores captions of a clip."""

    @property
    def name(self) -> str:
        """ "evidence", "llm" or "human"."""

    @property
    def signature(self) -> str:
        """Everything its scores depend on besides the clip: weights, vocabulary, model, version."""

    @property
    def batch_size(self) -> int:
        """Clips of one call of `judge`, whose judgements are stored together."""

    def judge(self, asked: Sequence[Asked]) -> list[list[Judgement]]:
        """Judgements of the candidates of each clip, all of one language; some may be left out."""

    def close(self) -> None:
        """Close what it has open."""


Weight = Annotated[float, Field(ge=0, lt=inf)]


@recipe_section
class EvidenceWeights:
    """What claims are worth and what they cost, in units of one clear fact that is said."""

    contradicted: Weight = 1.5
    """More than a fact is worth, so that a guess does not pay."""
    invented: Weight = 0.5
    """A claim that no reference makes, where people have captioned the clip."""
    untold: Weight = 0.1
    """A claim that can be checked against nothing."""
    emotion: Weight = 2.0
    """The right emotion; it names the state itself."""
    wrong_emotion: Weight = 2.0
    middle: Weight = 0.25
    """A fact in the middle of its scale ("normal"): true of most clips, so it says little."""
    repeated: Weight = 0.25
    """"A low voice with a low pitch" says one thing."""

    def worth(self, trait: str, meaning: str) -> float:
        """What it is worth to say this, where it is so."""
        if trait == "emotion":
            return self.emotion
        return self.middle if meaning == "normal" else 1.0


WEIGHT_OF = MappingProxyType(
    {
        ClaimStatus.CONTRADICTED: "contradicted",
        ClaimStatus.UNSUPPORTED: "invented",
        ClaimStatus.UNVERIFIABLE: "untold",
    }
)
"""Verdict → weight of what it costs, the worst first; also the name of a judgement's part."""

REPEATABLE = ("emotion", "gender")
"""Traits that a sentence comes back to without repeating itself: "calm and collected", "his"."""


@dataclass(frozen=True, slots=True)
class EvidenceJudge:
    """Judges by evidence: offline and deterministic."""

    weights: EvidenceWeights = field(default_factory=EvidenceWeights)
    name: str = "evidence"
    batch_size: int = 1

    @property
    def signature(self) -> str:
        """Weights, and a hash of the clue vocabulary and the version of its rules."""
        weights = ",".join(f"{one:g}" for one in astuple(self.weights))
        return f"evidence|weights:{weights}|clues:{claims_fingerprint()}|v{__version__}"

    def judge(self, asked: Sequence[Asked]) -> list[list[Judgement]]:
        """As `Judge`."""
        found = []
        for clip, candidates in asked:
            known = clip.knowledge
            to_say = known.claims()
            found.append([self._judge(one, known, to_say) for one in candidates])
        return found

    def close(self) -> None:
        """As `Judge`: it holds nothing open."""

    def _judge(
        self, candidate: Candidate, known: ClipKnowledge, to_say: Sequence[tuple[str, str]]
    ) -> Judgement:
        clues = find_clues(candidate.text, candidate.language, repeats=True)
        claims = claims_of(clues)
        checked = [known.check(clue) for clue in without_composure(claims).values()]
        right = [
            one.clue
            for one in checked
            if one.status is ClaimStatus.SUPPORTED and not one.clue.negated
        ]
        # What a caption denies it does not make up.
        wrong = [
            one
            for one in checked
            if one.status is ClaimStatus.CONTRADICTED
            or (one.status is not ClaimStatus.SUPPORTED and not one.clue.negated)
        ]
        repeated = sum(one.trait not in REPEATABLE for one in clues)
        repeated -= sum(trait not in REPEATABLE for trait, _, _ in claims)
        counts = dict.fromkeys((*WEIGHT_OF.values(), "wrong_emotion"), 0.0)
        cost = self.weights.repeated * repeated
        for one in wrong:
            of_emotion = one.status is ClaimStatus.CONTRADICTED and one.clue.trait == "emotion"
            name = "wrong_emotion" if of_emotion else WEIGHT_OF[one.status]
            counts[name] += 1
            cost += getattr(self.weights, name)
        said = {(clue.trait, clue.meaning) for clue in right}
        worth = sum(self.weights.worth(*one) for one in to_say if one in said)
        total = max(1.0, sum(self.weights.worth(*one) for one in to_say))
        unsaid = [o for o in to_say if o not in said and self.weights.worth(*o) >= 1]
        return Judgement(
            candidate=candidate.key,
            judge=self.signature,
            score=(worth - cost) / total,
            parts=MappingProxyType(
                {"said": worth, "known": total, **counts, "repeated": float(repeated)}
            ),
            reason=_reason(wrong, [clue.word for clue in right], unsaid, repeated),
        )


def _reason(
    wrong: Sequence[CheckedClaim],
    right: Sequence[str],
    unsaid: Sequence[tuple[str, str]],
    repeated: int,
) -> str:
    """In words, the worst first: "says 'slow' but pace 6.1 syllables/s (…); rightly says 'sad'"."""
    order = list(WEIGHT_OF)
    notes = [
        f"{'denies' if one.clue.negated else 'says'} '{one.clue.word}'"
        f"{' but' if one.status is ClaimStatus.CONTRADICTED else ', unsupported:'} {one.reason}"
        for one in sorted(wrong, key=lambda one: order.index(one.status))
    ]
    words = ", ".join(f"'{word}'" for word in right)
    notes += [f"rightly says {words}"] if right else []
    notes += [f"says {repeated} of it again"] if repeated else []
    left = ", ".join(f"{meaning} ({trait})" for trait, meaning in unsaid)
    notes += [f"leaves out {left}"] if unsaid else []
    return "; ".join(notes) or "claims nothing, and there is nothing to claim"
