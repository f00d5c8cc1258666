"""BLEU, ROUGE-L and CIDEr-D against pycocoevalcap on the same tokens."""

from pathlib import Path

import numpy as np
import pytest

from aligncap.metrics.scores import ScoredClip
from metrics.pairs import chinese_captions, english_prompts, metric, spaced, synthetic_pairs

pytest.importorskip("pycocoevalcap", reason="needs pycocoevalcap, the oracle")

TOLERANCE = 1e-9
"""Far inside the 1e-4 that is promised."""


def theirs(clips: list[ScoredClip], tokenisation: str) -> dict[str, tuple[float, np.ndarray]]:
    """Corpus value and values of the clips, by the oracle."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    gold, said = spaced(clips, tokenisation)
    values, rows = Bleu(4).compute_score(gold, said, verbose=0)
    found = {f"bleu{n + 1}": (values[n], np.array(rows[n])) for n in range(4)}
    found["rouge-l"] = Rouge().compute_score(gold, said)
    found["cider-d"] = Cider().compute_score(gold, said)
    return found


def assert_same(clips: list[ScoredClip], language: str, tokenisation: str) -> None:
    for name, (value, rows) in theirs(clips, tokenisation).items():
        statistics = metric(name, language, tokenisation=tokenisation).measure(clips)
        assert statistics.value == pytest.approx(value, abs=TOLERANCE), name
        np.testing.assert_allclose(statistics.clip_values, rows, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize(
    ("language", "tokenisation"), [("en", "coco-en"), ("zh", "zh-char"), ("zh", "zh-word")]
)
def test_synthetic_captions_score_the_same(language: str, tokenisation: str) -> None:
    if tokenisation == "zh-word":
        pytest.importorskip("jieba")
    assert_same(synthetic_pairs(language, 150), language, tokenisation)


@pytest.mark.parametrize("tokenisation", ["zh-char", "zh-word"])
def test_real_chinese_captions_score_the_same(speech_data: Path, tokenisation: str) -> None:
    if tokenisation == "zh-word":
        pytest.importorskip("jieba")
    assert_same(chinese_captions(speech_data)[:300], "zh", tokenisation)


def test_real_english_captions_score_the_same(speech_data: Path) -> None:
    assert_same(english_prompts(speech_data), "en", "coco-en")


def test_long_and_repetitive_captions_score_the_same() -> None:
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(["a", "b", "c"], size)) for size in rng.integers(0, 150, 60)]
    clips = [
        ScoredClip(str(n), texts[n], tuple(text or "a" for text in texts[n + 1 : n + 3]))
        for n in range(50)
    ]
    assert_same(clips, "en", "coco-en")
