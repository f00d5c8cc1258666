"""Clips to score, from the paraphrase grammar."""

from random import Random

from aligncap.data.captions import draw_captions
from aligncap.data.grammar import Meaning
from aligncap.metrics.scores import Metric, MetricOptions, ScoredClip, open_metric
from aligncap.metrics.tokenise import open_tokeniser
from aligncap.values import EMOTIONS

Captions = dict[str, list[str]]


def synthetic_pairs(language: str, count: int, *, references: int = 3) -> list[ScoredClip]:
    """Clips with one to so many references; every fiftieth hypothesis is empty."""
    rng = Random(7)
    clips = []
    for number in range(count):
        meaning = Meaning(
            emotion=rng.choice(EMOTIONS),
            gender=rng.choice(("female", "male", None)),
            levels={"pitch": rng.choice(("high", "low")), "pace": rng.choice(("fast", "slow"))},
        )
        said, *meant = draw_captions(meaning, language, 1 + references, rng)
        kept = tuple(meant[: 1 + number % references])
        clips.append(ScoredClip(f"clip{number:04}", said if number % 50 else "", kept))
    return clips


def spaced(clips: list[ScoredClip], tokenisation: str) -> tuple[Captions, Captions]:
    """References and hypotheses as pycocoevalcap takes them: tokens between blanks."""
    tokenise = open_tokeniser(tokenisation, "en")
    return (
        {clip.id: [" ".join(tokenise(text)) for text in clip.references] for clip in clips},
        {clip.id: [" ".join(tokenise(clip.hypothesis))] for clip in clips},
    )


def metric(name: str, language: str = "en", **options: str) -> Metric:
    """A metric by itself."""
    return open_metric(name, MetricOptions(language=language, **options))
