"""One definition of a claim and its verdicts: the hallucination metric's and the judge's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligncap.clues import find_clues
from aligncap.clues.evidence import (
    Claim,
    ClaimStatus,
    ClipKnowledge,
    check_by_references,
    claim_of,
    claims_fingerprint,
    claims_of,
    without_composure,
)
from aligncap.clues.vocabulary import meanings
from aligncap.metrics.scores import MetricOptions, ScoredClip, open_metric

REFERENCES = {("pitch", "low", False), ("volume", "loud", True), ("emotion", "sad", False)}


@pytest.mark.parametrize(
    ("claim", "status"),
    [
        (("pitch", "low", False), "supported"),
        (("pitch", "high", False), "contradicted"),
        (("pitch", "normal", False), "contradicted"),
        (("pitch", "high", True), "supported"),  # not high: it is low
        (("pitch", "low", True), "contradicted"),
        (("volume", "loud", False), "contradicted"),  # a reference denies it
        (("volume", "loud", True), "supported"),
        (("pace", "slow", False), "unsupported"),
        (("pace", "slow", True), "unsupported"),
        # One emotion is no other, though few are opposites.
        (("emotion", "happy", False), "contradicted"),
        (("emotion", "angry", False), "contradicted"),
        (("emotion", "angry", True), "supported"),
    ],
)
def test_verdicts_by_references(claim: Claim, status: str) -> None:
    assert check_by_references(claim, REFERENCES)[0] == status


def test_what_one_reference_claims_is_supported_whatever_another_says() -> None:
    both = {("pitch", "low", False), ("pitch", "high", False), ("emotion", "sad", False)}
    both |= {("emotion", "sad", True)}
    for claim in both:
        assert check_by_references(claim, both)[0] is ClaimStatus.SUPPORTED


def test_references_that_affirm_nothing_verify_nothing() -> None:
    assert check_by_references(("pace", "slow", False), set())[0] is ClaimStatus.UNVERIFIABLE
    denial = {("volume", "loud", True)}
    assert check_by_references(("pace", "slow", False), denial)[0] is ClaimStatus.UNVERIFIABLE


claims = st.tuples(st.sampled_from(sorted(meanings())), st.booleans()).map(lambda c: (*c[0], c[1]))


@given(claims, st.frozensets(claims, max_size=6))
def test_the_metric_and_the_judge_give_one_verdict(
    claim: Claim, references: frozenset[Claim]
) -> None:
    """A clip without labels and facts is judged by its references alone, as the metric is."""
    trait, meaning, denied = claim
    clue = find_clues("a sad voice")[0]
    clue = type(clue)(meaning, trait, meaning, negated=denied)
    judged = ClipKnowledge(None, {}, references).check(clue).status
    assert judged is check_by_references(claim_of(clue), references)[0]


@pytest.mark.parametrize(
    ("caption", "reference", "status"),
    [
        ("A loud voice.", "A sad voice, not loud.", "contradicted"),
        ("A sad voice.", "An angry voice.", "contradicted"),
        ("The voice is not sad.", "An angry voice.", "supported"),
        ("A loud voice.", "A sad voice.", "unsupported"),
    ],
)
def test_cases_in_which_metric_and_judge_used_to_disagree(
    caption: str, reference: str, status: str
) -> None:
    known = ClipKnowledge.of(None, captions={"en": [reference]})
    (clue,) = find_clues(caption, "en")
    assert known.check(clue).status == status
    metric = open_metric("hallucination", MetricOptions())
    value = metric.measure([ScoredClip("c", caption, (reference,))]).value
    assert value == (status != "supported")


def test_calm_beside_an_emotion_is_a_claim_of_the_words_and_none_of_the_emotion() -> None:
    """The one case left: clue scores count every word; what is known of a clip has one emotion."""
    found = claims_of(find_clues("A sad but calm voice.", "en"))
    assert list(found) == [("emotion", "sad", False), ("emotion", "neutral", False)]
    assert list(without_composure(found)) == [("emotion", "sad", False)]
    calm = claims_of(find_clues("A calm voice, not sad.", "en"))
    assert without_composure(calm) == calm


def test_the_fingerprint_is_that_of_earlier_judgements() -> None:
    """Stores that were judged before the vocabulary's next change stay judged."""
    assert claims_fingerprint() == "21cf1f2f9119"
