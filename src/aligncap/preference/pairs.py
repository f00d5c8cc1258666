"""Pairs from judged candidates (decision 11): the best against each of the rest.

Ties and margins under a threshold are dropped. The second reading of y_g in Eq. 6, a caption of the
corpus against the best candidate (decision 11), is there for whoever asks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from types import MappingProxyType
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat

from aligncap import __version__
from aligncap.preference.judges import combined
from aligncap.preference.store import PreferenceStore
from aligncap.preference.values import Candidate, Judgement, PreferencePair, Provenance
from aligncap.recipes import recipe_section

Scores = Mapping[str, Judgement]
"""Judgements by the candidates' keys."""


@recipe_section
class PairOptions:
    """How pairs are made."""

    least_margin: NonNegativeFloat = 0.1
    """A pair whose scores are nearer than this is dropped; a tie always is."""
    gold: bool = False
    """Also the corpus' caption against the best candidate."""
    judges: Annotated[Mapping[str, PositiveFloat], Field(min_length=1)] = field(
        default_factory=lambda: MappingProxyType({"evidence": 1.0})
    )
    """Names of judges and the weight of each."""


def best_against_rest(
    candidates: Sequence[Candidate], scores: Scores, *, least_margin: NonNegativeFloat
) -> Iterator[PreferencePair]:
    """The best of a clip's candidates against each of the rest, the clearest first.

    Of equally good ones the most probable is the best. Candidates without a score take no part.
    """
    ranked = _ranked(candidates, scores)
    for other in reversed(ranked[1:]):
        yield from _pair(ranked[0], other, scores, least_margin)


def gold_against_best(
    candidates: Sequence[Candidate], scores: Scores, *, least_margin: NonNegativeFloat
) -> Iterator[PreferencePair]:
    """The corpus' caption against the model's best.

    Only where the judge likes it better: else the pair would teach against the judge.
    """
    gold = [one for one in candidates if one.method == "gold" and one.key in scores]
    for best in _ranked(candidates, scores)[:1]:
        for one in gold[:1]:
            yield from _pair(one, best, scores, least_margin)


def pair_all(
    store: PreferenceStore, options: PairOptions, *, source: Provenance | None = None
) -> Iterator[int]:
    """Make the pairs of every clip of a store, in place of earlier ones made the same way.

    With a `source`, only of the candidates that it found. Gives the number of pairs of each clip
    once they are in the store. DataError where a judge has judged nothing.
    """
    signatures = {name: store.latest_judge(name) for name in options.judges}
    builder = builder_of(options, signatures, source)
    store.pairs.begin(builder)
    for clip, language, _ in store.groups(source):
        candidates = store.candidates(clip.utterance, language, source)
        by_judge = {
            name: store.judgements(clip.utterance, language, signature)
            for name, signature in signatures.items()
        }
        scores = combined(by_judge, options.judges)
        pairs = list(best_against_rest(candidates, scores, least_margin=options.least_margin))
        if options.gold:
            everyone = store.candidates(clip.utterance, language)
            gold = [one for one in everyone if one.method == "gold"]
            pairs += gold_against_best(
                [*candidates, *gold], scores, least_margin=options.least_margin
            )
        store.pairs.put(clip.utterance, language, builder, pairs)
        yield len(pairs)


def builder_of(
    options: PairOptions, signatures: Mapping[str, str], source: Provenance | None
) -> str:
    """Everything that the pairs depend on: "pairs|margin:0.1|gold:no|source:all|judges:…"."""
    judges = "+".join(f"{options.judges[name]:g}*({one})" for name, one in signatures.items())
    return (
        f"pairs|margin:{options.least_margin:g}|gold:{'yes' if options.gold else 'no'}"
        f"|source:{source.key if source else 'all'}|judges:{judges}|v{__version__}"
    )


def _ranked(candidates: Sequence[Candidate], scores: Scores) -> list[Candidate]:
    """Those a model gave and a judge has judged, the best first."""
    judged = [one for one in candidates if one.method != "gold" and one.key in scores]
    return sorted(
        judged,
        key=lambda one: (
            -scores[one.key].score,
            -(one.log_probability if one.log_probability is not None else float("-inf")),
            one.key,
        ),
    )


def _pair(
    chosen: Candidate, rejected: Candidate, scores: Scores, least_margin: NonNegativeFloat
) -> Iterator[PreferencePair]:
    margin = scores[chosen.key].score - scores[rejected.key].score
    if margin > 0 and margin >= least_margin and chosen.key != rejected.key:
        yield PreferencePair(chosen, rejected, margin)
