"""BLEU, ROUGE-L and CIDEr against pycocoevalcap, by hand, and what holds whatever the captions; the
diversity of a set by hand."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.errors import UnknownNameError
from aligncap.metrics.scores import MetricOptions, ScoredClip, open_metric, open_set_metric
from aligncap.metrics.tokenise import open_tokeniser
from metrics.small import chinese_captions, english_prompts, metric, spaced, synthetic_pairs

NAMES = ["bleu1", "bleu2", "bleu3", "bleu4", "rouge-l", "cider", "cider-d", "meteor"]
SET_NAMES = ["distinct1", "distinct2", "repeated"]

WORDS = ["the", "a", "man", "woman", "speaks", "slowly", "calm", "low", "voice", "is", "他", "慢"]
CAPTION = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)
LONG_CAPTION = st.lists(st.sampled_from(WORDS), min_size=4, max_size=9).map(" ".join)
"""Long enough to have n-grams of every order: COCO's constants punish what has none."""
REFERENCES = st.lists(CAPTION, min_size=1, max_size=4).map(tuple)
CLIPS = st.lists(st.tuples(CAPTION, REFERENCES), min_size=2, max_size=6).map(
    lambda rows: [ScoredClip(str(n), text, others) for n, (text, others) in enumerate(rows)]
)
FEW = settings(max_examples=20, deadline=None)
ANYTHING = st.text(st.characters(), max_size=30)


def assert_as_coco(clips: list[ScoredClip], language: str, tokenisation: str) -> None:
    """Corpus value and values of the clips are those of pycocoevalcap on the same tokens."""
    pytest.importorskip("pycocoevalcap", reason="needs pycocoevalcap, the oracle")
    if tokenisation == "zh-word":
        pytest.importorskip("jieba")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    gold, hypotheses = spaced(clips, tokenisation)
    values, rows = Bleu(4).compute_score(gold, hypotheses, verbose=0)
    expected = {f"bleu{n + 1}": (values[n], np.array(rows[n])) for n in range(4)}
    expected["rouge-l"] = Rouge().compute_score(gold, hypotheses)
    expected["cider-d"] = Cider().compute_score(gold, hypotheses)
    for name, (value, clip_values) in expected.items():
        statistics = metric(name, language, tokenisation=tokenisation).measure(clips)
        assert statistics.value == pytest.approx(value, abs=1e-9), name
        np.testing.assert_allclose(statistics.clip_values, clip_values, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(
    ("language", "tokenisation"), [("en", "coco-en"), ("zh", "zh-char"), ("zh", "zh-word")]
)
def test_synthetic_captions_score_as_coco(language: str, tokenisation: str) -> None:
    assert_as_coco(synthetic_pairs(language, 150), language, tokenisation)


@pytest.mark.parametrize("tokenisation", ["zh-char", "zh-word", "coco-en"])
def test_real_captions_score_as_coco(speech_data: Path, tokenisation: str) -> None:
    if tokenisation == "coco-en":
        assert_as_coco(english_prompts(speech_data), "en", tokenisation)
    else:
        assert_as_coco(chinese_captions(speech_data)[:300], "zh", tokenisation)


def test_long_and_repetitive_captions_score_as_coco() -> None:
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(["a", "b", "c"], size)) for size in rng.integers(0, 150, 60)]
    clips = [
        ScoredClip(str(n), texts[n], tuple(text or "a" for text in texts[n + 1 : n + 3]))
        for n in range(50)
    ]
    assert_as_coco(clips, "en", "coco-en")


@pytest.mark.parametrize("name", NAMES)
@FEW
@given(clips=CLIPS, seed=st.randoms(use_true_random=False))
def test_the_order_of_clips_and_references_does_not_matter(name, clips, seed) -> None:
    shuffled = [
        ScoredClip(
            clip.id, clip.hypothesis, tuple(seed.sample(clip.references, len(clip.references)))
        )
        for clip in seed.sample(clips, len(clips))
    ]
    one, other = metric(name).measure(clips), metric(name).measure(shuffled)
    assert other.value == pytest.approx(one.value, abs=1e-12)
    by_id = {clip.id: value for clip, value in zip(shuffled, other.clip_values, strict=True)}
    assert [by_id[clip.id] for clip in clips] == pytest.approx(one.clip_values.tolist(), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
@FEW
@given(rows=st.lists(st.tuples(LONG_CAPTION, LONG_CAPTION), min_size=2, max_size=6))
def test_no_text_scores_higher_than_the_reference_itself(name, rows) -> None:
    clips = [ScoredClip(str(n), text, (reference,)) for n, (text, reference) in enumerate(rows)]
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
    clips = [ScoredClip(str(n), text, tuple(others)) for n, (text, others) in enumerate(rows)]
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
    expected = 2.44 * 2 / 3 / (1 + 1.44 * 2 / 3)
    assert metric("rouge-l").measure(clips).value == pytest.approx(expected)


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


def test_metrics_of_one_run_have_their_names_and_tokenise_once() -> None:
    clips = [ScoredClip("x", "a calm man", ("a man",)), ScoredClip("y", "she", ("a woman",))]
    options = MetricOptions()
    for name in NAMES:
        opened = open_metric(name, options)
        opened.measure(clips)
        assert opened.name == name
        assert opened.variant.startswith(f"{name}:")
        assert "|tok:coco-en" in opened.variant
    tokeniser = open_tokeniser(None, "en")
    assert options.tokenised(clips, tokeniser) is options.tokenised(list(clips), tokeniser)
    assert options.tokenised(clips[:1], tokeniser).clips == 1


def diversity(name: str, captions: list[str], language: str = "en") -> float:
    clips = [ScoredClip(str(n), text, ("Speech.",)) for n, text in enumerate(captions)]
    return open_set_metric(name, MetricOptions(language=language)).value(clips)


def test_diversity_counted_by_hand() -> None:
    captions = ["A man speaks.", "A man shouts."]
    # a man speaks shouts of six; "a man" twice, "man speaks", "man shouts".
    assert diversity("distinct1", captions) == 4 / 6
    assert diversity("distinct2", captions) == 3 / 4
    assert diversity("repeated", captions) == 0
    assert diversity("distinct1", ["他很高兴", "她很高兴"], "zh") == 5 / 8
    assert diversity("repeated", ["A man.", "A man. ", "A woman.", "A man."]) == 2 / 4
    assert [diversity(name, [""]) for name in SET_NAMES] == [0, 0, 0]


@given(st.lists(st.text(), min_size=1, max_size=6), st.sampled_from(["en", "zh"]), st.randoms())
def test_diversity_of_any_captions_in_any_order(captions, language, random) -> None:
    shuffled = random.sample(captions, len(captions))
    for name in SET_NAMES:
        found = diversity(name, captions, language)
        assert 0 <= found <= 1
        assert diversity(name, shuffled, language) == found


def test_a_name_that_is_no_metric_of_a_set_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="no metric of a set called 'distinct3'"):
        open_set_metric("distinct3", MetricOptions())
