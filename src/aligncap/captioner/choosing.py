"""Which of the captions that a model gives is taken: reranking, and agreement with the record.

A beam search ranks by the language model alone. Two other sources cost nothing: the emotion readout
of the speech tokenizer, and the measured facts; `rerank` takes all three into account. `chosen`
holds the captions of a model with plans to what was heard and measured.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

from aligncap.captioner.preparing import PreparedSpeech
from aligncap.captioner.record import CaptionHypothesis
from aligncap.clues import emotion_of, find_clues, is_hedged, judge
from aligncap.data.grammar import Meaning, Plan
from aligncap.data.plans import meaning_of_prompt, sentence_of
from aligncap.errors import AlignCapError
from aligncap.values import Facts, Verdict

LOG = logging.getLogger(__name__)

READOUT_WEIGHT = 0.1
"""Weight of the readout's log-probability of the named emotion, against the mean log-probability
of a caption's tokens."""
CONTRADICTION_PENALTY = 0.1
"""Of each claim that the signal contradicts, in nats a token."""
PROBABILITY_FLOOR = 0.01
"""Probability of an emotion that the readout all but excludes, and of naming none."""


def rerank(
    hypotheses: Sequence[CaptionHypothesis], speech: PreparedSpeech, *, language: str
) -> list[CaptionHypothesis]:
    """Sorted by mean log-probability, the readout's probability of the emotion they name, and the
    claims that the signal contradicts; ties stay in their order."""
    emotions = speech.tokens.readout.get("emotion", {})

    def score(one: CaptionHypothesis) -> float:
        clues = find_clues(one.text, language)
        verdicts = [evidence.verdict for evidence in judge(clues, speech.judged_facts)]
        return (
            one.hypothesis.mean_log_probability
            + READOUT_WEIGHT * readout_log_probability(emotions, emotion_of(clues))
            - CONTRADICTION_PENALTY * verdicts.count(Verdict.CONTRADICTED)
        )

    return sorted(hypotheses, key=score, reverse=True)


def readout_log_probability(emotions: Mapping[str, float], named: str | None) -> float:
    """The readout's log-probability of an emotion, floored; 0 where there is no readout."""
    return math.log(max(emotions.get(named or "", 0.0), PROBABILITY_FLOOR)) if emotions else 0.0


@dataclass(frozen=True, slots=True)
class CaptionCandidates:
    """A recording after preprocessing, and all captions that the model gives, best first; none
    where nobody says words."""

    speech: PreparedSpeech
    hypotheses: tuple[CaptionHypothesis, ...]
    told: str = ""
    """What is heard and measured, as a P_act that says how certain the emotion is; "" for a model
    without plans."""
    plan: str = ""
    """The plan of the captions; "" for a model without plans."""

    @property
    def checked(self) -> bool:
        """Whether a caption has to say what the record says: of a model with plans and emotions."""
        return bool(self.plan and self.speech.tokens.readout.get("emotion"))


Candidates = CaptionCandidates | AlignCapError
"""What becomes of a recording."""

MOST_PLANS = 4
"""By so many plans a model tries to say what the record says."""


def settled(
    batch: Sequence[PreparedSpeech | AlignCapError],
    *,
    generate: Callable[..., Iterable[Candidates]],
    language: str,
) -> list[Candidates]:
    """What `generate` makes of a batch, with captions by further plans (its `attempt` 1, 2 …)
    where none by the first says what the record says."""
    found = list(generate(batch))
    # By their places in the batch.
    failed = {n: one for n, one in enumerate(found) if _fails(one, language)}
    for attempt in range(1, MOST_PLANS):
        if not failed:
            break
        again = generate([one.speech for one in failed.values()], attempt=attempt)
        for (place, one), other in zip(failed.items(), again, strict=True):
            if isinstance(other, CaptionCandidates):
                found[place] = replace(one, hypotheses=one.hypotheses + other.hypotheses)
        failed = {n: now for n in failed if _fails(now := found[n], language)}
    return found


def _fails(found: Candidates, language: str) -> TypeGuard[CaptionCandidates]:
    if isinstance(found, AlignCapError) or not found.checked:
        return False
    meaning, facts = meaning_of_prompt(found.told, language), found.speech.judged_facts
    return not any(agrees(one.text, meaning, facts, language=language) for one in found.hypotheses)


def chosen(found: CaptionCandidates, *, language: str) -> list[CaptionHypothesis]:
    """The hypotheses, the caption first: the best that says what the record says.

    Of a model with plans that is one that names the record's emotion (first), with reserve where it
    is not sure, and claims nothing twice and nothing that the facts contradict. Where there is
    none, the caption is the paraphrase grammar's own by the same plan.
    """
    ranked = rerank(found.hypotheses, found.speech, language=language)
    if not found.checked:
        return ranked
    meaning = meaning_of_prompt(found.told, language)
    for one in ranked:
        if agrees(one.text, meaning, found.speech.judged_facts, language=language):
            return [one, *(other for other in ranked if other is not one)]
    LOG.debug("none of %d captions agrees with the record: %s", len(ranked), ranked[0].text)
    own = sentence_of(meaning, Plan.parse(found.plan), language).text
    return [CaptionHypothesis(own, ranked[0].hypothesis), *ranked]


ONCE = frozenset({"pitch", "pace", "volume", "intonation", "voice quality"})
"""Traits that a caption speaks of once."""


def agrees(text: str, meaning: Meaning, facts: Facts, *, language: str) -> bool:
    """Whether a caption says what was heard and measured, nothing of it twice, and in whole
    characters: byte tokens can end within one."""
    if "\ufffd" in text:
        return False
    clues = find_clues(text, language, repeats=True)
    emotions = {clue.meaning for clue in clues if clue.trait == "emotion" and not clue.negated}
    said = Counter(clue.trait for clue in clues if clue.trait in ONCE)
    return (
        emotion_of(clues) == meaning.emotion
        and emotions == {meaning.emotion, meaning.second or meaning.emotion}
        and (meaning.hedge == "sure" or is_hedged(text, language))
        and {clue.meaning for clue in clues if clue.trait == "gender"} <= {meaning.gender}
        and max(said.values(), default=0) <= 1
        and all(one.verdict is not Verdict.CONTRADICTED for one in judge(clues, facts))
    )
