"""BLEU, ROUGE-L and CIDEr against pycocoevalcap, by hand, and what holds whatever the captions; the
diversity of a set by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.errors import UnknownNameError
from aligncap.metrics.scores import MetricOptions, ScoredClip, open_metric, open_set_metric
from aligncap.metrics.tokenise import open_tokeniser
from metrics.small import metric, spaced, synthetic_pairs

NAMES = ["bleu1", "bleu2", "bleu3", "bleu4", "rouge-l", "cider", "cider-d", "meteor"]
EACH = pytest.mark.parametrize("name", NAMES)
FEW = settings(max_examples=20)

WORDS = ["the", "a", "man", "woman", "speaks", "slowly", "calm", "low", "voice", "is", "他", "慢"]
CAPTION = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)
LONG_CAPTION = st.lists(st.sampled_from(WORDS), min_size=4, max_size=9).map(" ".join)
"""Long enough to have n-grams of every order: COCO's constants punish what has none."""
REFERENCES = st.lists(CAPTION, min_size=1, max_size=4)
ANYTHING = st.text(st.characters(), max_size=30)


def clips_of(*rows: tuple[str, list[str]]) -> list[ScoredClip]:
    return [ScoredClip(str(n), said, tuple(meant)) for n, (said, meant) in enumerate(rows)]


def repetitive() -> list[ScoredClip]:
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(["a", "b", "c"], size)) for size in rng.integers(0, 150, 60)]
    return clips_of(*((texts[n], [t or "a" for t in texts[n + 1 : n + 3]]) for n in range(50)))


@pytest.mark.parametrize("tokenisation", ["coco-en", "zh-char", "zh-word", "repetitive"])
def test_corpus_and_clips_score_as_pycocoevalcap_scores_them(tokenisation: str) -> None:
    pytest.importorskip("pycocoevalcap", reason="needs pycocoevalcap, the oracle")
    if tokenisation == "zh-word":
        pytest.importorskip("jieba")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    language = "zh" if tokenisation.startswith("zh") else "en"
    clips = synthetic_pairs(language, 150)
    if tokenisation == "repetitive":
        clips, tokenisation = repetitive(), "coco-en"
    gold, hypotheses = spaced(clips, tokenisation)
    values, rows = Bleu(4).compute_score(gold, hypotheses, verbose=0)
    expected = {f"bleu{n + 1}": (values[n], np.array(rows[n])) for n in range(4)}
    expected["rouge-l"] = Rouge().compute_score(gold, hypotheses)
    expected["cider-d"] = Cider().compute_score(gold, hypotheses)
    for name, (value, clip_values) in expected.items():
        statistics = metric(name, language, tokenisation=tokenisation).measure(clips)
        assert statistics.value == pytest.approx(value, abs=1e-9), name
        np.testing.assert_allclose(statistics.clip_values, clip_values, atol=1e-9, err_msg=name)


@EACH
@FEW
@given(
    rows=st.lists(st.tuples(CAPTION, REFERENCES), min_size=2, max_size=6),
    seed=st.randoms(use_true_random=False),
)
def test_the_order_of_clips_and_references_does_not_matter(name, rows, seed) -> None:
    order = seed.sample(range(len(rows)), len(rows))
    mixed = [(rows[n][0], seed.sample(rows[n][1], len(rows[n][1]))) for n in order]
    one, other = metric(name).measure(clips_of(*rows)), metric(name).measure(clips_of(*mixed))
    assert other.value == pytest.approx(one.value, abs=1e-12)
    assert other.clip_values.tolist() == pytest.approx(one.clip_values[order].tolist(), abs=1e-12)


@EACH
@FEW
@given(rows=st.lists(st.tuples(LONG_CAPTION, LONG_CAPTION), min_size=2, max_size=6))
def test_no_text_scores_higher_than_the_reference_itself(name, rows) -> None:
    value = metric(name).measure(clips_of(*((said, [meant]) for said, meant in rows))).clip_values
    best = metric(name).measure(clips_of(*((meant, [meant]) for _, meant in rows))).clip_values
    assert (best >= value - 1e-9).all()
    assert (best <= (10.0 if "cider" in name else 1.0) + 1e-9).all()


@EACH
@FEW
@given(references=REFERENCES)
def test_an_empty_caption_scores_nothing(name, references) -> None:
    found = metric(name).measure(clips_of(("", references), (" .,! ", ["calm", "..."])))
    assert found.clip_values.tolist() == pytest.approx([0.0, 0.0], abs=1e-9)


@EACH
@pytest.mark.parametrize("language", ["en", "zh"])
@FEW
@given(rows=st.lists(st.tuples(ANYTHING, st.lists(ANYTHING, min_size=1, max_size=3)), min_size=1))
def test_any_unicode_survives(name, language, rows) -> None:
    statistics = metric(name, language).measure(clips_of(*rows))
    assert 0 <= statistics.value <= 10 + 1e-9
    assert len(statistics.clip_values) == len(rows)


# "the the the calm": "the" counts twice at most, so 3 of 4 words; bigrams "the the", "the calm" of
# 3; the nearest reference is as long, so nothing is taken off.
THE = ("the the the calm", ["the calm the end", "the calm"])
# "slow voice" is common: precision 2/3, recall 2/2 of the second reference; beta^2 = 1.44.
SLOW = ("slow sad voice", ["one calm person", "slow voice"])
# Words in one of two clips weigh log 2, "voice" in both nothing: for "calm calm voice" against
# "calm sad voice" the cosine of words is 1/sqrt 2, clipped 1/(2 sqrt 2); "calm calm" and its kin
# share no bigram; trigrams neither.
CALM = (("calm calm voice", ["calm sad voice"]), ("voice", ["loud voice"]))
SAME = [(text, [text]) for text in ("a man speaks slowly and sadly", "she sounds angry about it")]


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("bleu1", [THE], 3 / 4),
        ("bleu2", [THE], (3 / 4 * 1 / 3) ** 0.5),
        ("rouge-l", [SLOW], 2.44 * 2 / 3 / (1 + 1.44 * 2 / 3)),
        ("cider", CALM, 10 / 4 / 2**0.5),
        ("cider-d", CALM, 10 / 4 / 8**0.5),
        # Aligned: "a", "voice" in two chunks; precision 2/3, recall 2/4; 10PR/(R + 9P) = 20/39 of
        # which the penalty 0.5 (2/2)^3 leaves half.
        ("meteor", [("a slow voice", ["a calm low voice"])], 10 / 39),
        # The highest there is.
        ("bleu4", SAME, 1.0),
        ("rouge-l", SAME, 1.0),
        ("cider", SAME, 10.0),
        ("cider-d", SAME, 10.0),
        ("meteor", SAME, 1 - 0.5 / 6**3),
    ],
)
def test_worked_by_hand(name, rows, expected) -> None:
    assert metric(name).measure(clips_of(*rows)).clip_values[0] == pytest.approx(expected)


def test_metrics_of_one_run_have_their_names_and_tokenise_once() -> None:
    clips = clips_of(("a calm man", ["a man"]), ("she", ["a woman"]))
    options, tokeniser = MetricOptions(), open_tokeniser(None, "en")
    for name in NAMES:
        opened = open_metric(name, options)
        opened.measure(clips)
        assert opened.name == name
        assert opened.variant.startswith(f"{name}:")
        assert "|tok:coco-en" in opened.variant
    assert options.tokenised(clips, tokeniser) is options.tokenised(list(clips), tokeniser)
    assert options.tokenised(clips[:1], tokeniser).clips == 1


def diversity(name: str, captions: list[str], language: str = "en") -> float:
    clips = clips_of(*((text, ["Speech."]) for text in captions))
    return open_set_metric(name, MetricOptions(language=language)).value(clips)


def test_diversity_counted_by_hand() -> None:
    captions = ["A man speaks.", "A man shouts."]
    # a man speaks shouts of six; "a man" twice, "man speaks", "man shouts".
    expected = {"distinct1": 4 / 6, "distinct2": 3 / 4, "repeated": 0}
    assert {name: diversity(name, captions) for name in expected} == expected
    assert diversity("distinct1", ["他很高兴", "她很高兴"], "zh") == 5 / 8
    assert diversity("repeated", ["A man.", "A man. ", "A woman.", "A man."]) == 2 / 4
    assert [diversity(name, [""]) for name in expected] == [0, 0, 0]
    with pytest.raises(UnknownNameError, match="no metric of a set called 'distinct3'"):
        open_set_metric("distinct3", MetricOptions())


@given(st.lists(st.text(), min_size=1, max_size=6), st.sampled_from(["en", "zh"]), st.randoms())
def test_diversity_of_any_captions_in_any_order(captions, language, random) -> None:
    shuffled = random.sample(captions, len(captions))
    for name in ("distinct1", "distinct2", "repeated"):
        found = diversity(name, captions, language)
        assert 0 <= found <= 1
        assert diversity(name, shuffled, language) == found
