"""What holds of every n-gram metric, whatever the captions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.metrics.scores import ScoredClip
from aligncap.metrics.table import METRICS, MetricOptions, open_metric
from metrics.pairs import metric

NAMES = ["bleu1", "bleu2", "bleu3", "bleu4", "rouge-l", "cider", "cider-d", "meteor"]

WORDS = ["the", "a", "man", "woman", "speaks", "slowly", "calm", "low", "voice", "is", "他", "慢"]
CAPTION = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)
LONG_CAPTION = st.lists(st.sampled_from(WORDS), min_size=4, max_size=9).map(" ".join)
"""Long enough to have n-grams of every order: COCO's constants punish what has none."""
REFERENCES = st.lists(CAPTION, min_size=1, max_size=4).map(tuple)
CLIPS = st.lists(st.tuples(CAPTION, REFERENCES), min_size=2, max_size=6).map(
    lambda rows: [ScoredClip(str(n), said, meant) for n, (said, meant) in enumerate(rows)]
)
FEW = settings(max_examples=20, deadline=None)
ANYTHING = st.text(st.characters(), max_size=30)


@pytest.mark.parametrize("name", NAMES)
@FEW
@given(clips=CLIPS, seed=st.randoms(use_true_random=False))
def test_the_order_of_clips_and_references_does_not_matter(name, clips, seed) -> None:
    turned = [
        ScoredClip(
            clip.id, clip.hypothesis, tuple(seed.sample(clip.references, len(clip.references)))
        )
        for clip in seed.sample(clips, len(clips))
    ]
    one, other = metric(name).measure(clips), metric(name).measure(turned)
    assert other.value == pytest.approx(one.value, abs=1e-12)
    by_id = {clip.id: value for clip, value in zip(turned, other.clip_values, strict=True)}
    assert [by_id[clip.id] for clip in clips] == pytest.approx(one.clip_values.tolist(), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
@FEW
@given(rows=st.lists(st.tuples(LONG_CAPTION, LONG_CAPTION), min_size=2, max_size=6))
def test_no_text_scores_higher_than_the_reference_itself(name, rows) -> None:
    clips = [ScoredClip(str(n), said, (meant,)) for n, (said, meant) in enumerate(rows)]
    same = [ScoredClip(clip.id, clip.references[0], clip.references) for clip in clips]
    best, value = (metric(name).measure(rows).clip_values for rows in (same, clips))
    assert (best >= value - 1e-9).all()
    assert (best <= (10.0 if "cider" in name else 1.0) + 1e-9).all()


@pytest.mark.parametrize(
    ("name", "most"),
    [("bleu4", 1.0), ("rouge-l", 1.0), ("cider", 10.0), ("cider-d", 10.0), ("meteor", 0.996)],
)
def test_the_highest_score_is_the_highest_there_is(name: str, most: float) -> None:
    texts = ["a man speaks slowly and sadly", "she sounds angry about something loud"]
    clips = [ScoredClip(text, text, (text,)) for text in texts]
    assert metric(name).measure(clips).value == pytest.approx(most, abs=4e-3)


@pytest.mark.parametrize("name", NAMES)
@FEW
@given(references=REFERENCES)
def test_an_empty_caption_scores_nothing(name, references) -> None:
    clips = [ScoredClip("a", "", references), ScoredClip("b", " .,! ", ("calm", "..."))]
    assert metric(name).measure(clips).clip_values.tolist() == pytest.approx([0.0, 0.0], abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("language", ["en", "zh"])
@FEW
@given(rows=st.lists(st.tuples(ANYTHING, st.lists(ANYTHING, min_size=1, max_size=3)), min_size=1))
def test_any_unicode_survives(name, language, rows) -> None:
    clips = [ScoredClip(str(n), said, tuple(meant)) for n, (said, meant) in enumerate(rows)]
    statistics = metric(name, language).measure(clips)
    assert 0 <= statistics.value <= 10 + 1e-9
    assert len(statistics.clip_values) == len(clips)


def test_bleu_worked_by_hand() -> None:
    # "the the the calm": "the" counts twice at most, so 3 of 4 words; bigrams "the the", "the
    # calm" of 3; the nearest reference is as long, so nothing is taken off.
    clips = [ScoredClip("x", "the the the calm", ("the calm the end", "the calm"))]
    assert metric("bleu1").measure(clips).value == pytest.approx(3 / 4)
    assert metric("bleu2").measure(clips).value == pytest.approx((3 / 4 * 1 / 3) ** 0.5)


def test_rouge_l_worked_by_hand() -> None:
    # "slow voice" is common: precision 2/3, recall 2/2 of the second reference; beta^2 = 1.44.
    clips = [ScoredClip("x", "slow sad voice", ("one calm person", "slow voice"))]
    assert metric("rouge-l").measure(clips).value == pytest.approx(
        2.44 * 2 / 3 / (1 + 1.44 * 2 / 3)
    )


def test_cider_worked_by_hand() -> None:
    # Words in one of two clips weigh log 2, "voice" in both nothing: for "calm calm voice" against
    # "calm sad voice" the cosine of words is 1/sqrt 2, clipped 1/(2 sqrt 2); "calm calm" and its
    # kin share no bigram; trigrams neither.
    clips = [
        ScoredClip("x", "calm calm voice", ("calm sad voice",)),
        ScoredClip("y", "voice", ("loud voice",)),
    ]
    assert metric("cider").measure(clips).clip_values[0] == pytest.approx(10 / 4 / 2**0.5)
    assert metric("cider-d").measure(clips).clip_values[0] == pytest.approx(10 / 4 / 8**0.5)


def test_every_name_opens_a_metric_of_that_name() -> None:
    assert set(NAMES) <= METRICS.keys()
    options = MetricOptions()
    for name in NAMES:
        opened = open_metric(name, options)
        assert opened.name == name
        assert opened.variant.startswith(f"{name}:")
        assert "|tok:coco-en" in opened.variant


def test_metrics_of_one_run_tokenise_once() -> None:
    clips = [ScoredClip("x", "a calm man", ("a man",)), ScoredClip("y", "she", ("a woman",))]
    options = MetricOptions()
    metrics = [open_metric(name, options) for name in NAMES]
    for opened in metrics:
        opened.measure(clips)
    from aligncap.metrics.tokenise import open_tokeniser

    tokeniser = open_tokeniser(None, "en")
    assert options.tokenised(clips, tokeniser) is options.tokenised(list(clips), tokeniser)
    assert options.tokenised(clips[:1], tokeniser).clips == 1
