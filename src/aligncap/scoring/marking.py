"""What is right and wrong with each caption: its claims found, invented, contradicted, missed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aligncap.scoring.clue_scores import count_claims, f1, nearest
from aligncap.scoring.findings import Findings
from aligncap.scoring.hallucination import Standing, heard, standing
from aligncap.scoring.values import ScoredClip
from aligncap.values import Clue, Evidence, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedClip:
    """A clip and what its caption gets right and wrong."""

    clip: ScoredClip
    found: tuple[Clue, ...]
    """Claims that a reference makes too."""
    invented: tuple[Clue, ...]
    """Claims of which no reference speaks."""
    contradicted: tuple[Clue, ...]
    """Claims against a reference."""
    missed: tuple[Clue, ...]
    """Claims of the nearest reference that the caption does not make."""
    unheard: tuple[Evidence, ...]
    """Claims that the recording contradicts; empty as well where there is no recording."""
    f1: float
    """Of the clues, 0 to 1; NaN where neither side claims anything."""

    @property
    def badness(self) -> tuple[float, int, str]:
        """A key that sorts the worst first; nothing to say is no mistake."""
        wrong = len(self.unheard) + len(self.contradicted)
        return (1.0 if np.isnan(self.f1) else self.f1, -wrong, self.clip.id)


def mark(clip: ScoredClip, language: str, findings: Findings, *, listen: bool) -> MarkedClip:
    """The caption of a clip beside its references, and beside its recording to `listen` to."""
    made = findings.claims(clip.hypothesis, language)
    references = [findings.claims(text, language) for text in clip.references]
    said = findings.said(clip.references, language)
    stands = {claim: standing(claim, said.keys()) for claim in made}
    evidence = heard(clip, language, findings) if listen else ()

    def those(wanted: Standing) -> tuple[Clue, ...]:
        return tuple(clue for claim, clue in made.items() if stands[claim] is wanted)

    return MarkedClip(
        clip=clip,
        found=those(Standing.FOUND),
        invented=those(Standing.INVENTED),
        contradicted=those(Standing.CONTRADICTED),
        missed=tuple(said[claim] for claim in nearest(made, references) if claim not in made),
        unheard=tuple(one for one in evidence if one.verdict is Verdict.CONTRADICTED),
        f1=float(f1(np.array(count_claims(made, references), dtype=np.float64))),
    )


def worst_first(marked: Sequence[MarkedClip]) -> list[MarkedClip]:
    """By F1 of the clues, then by how many claims are contradicted, then by name."""
    return sorted(marked, key=lambda one: one.badness)
