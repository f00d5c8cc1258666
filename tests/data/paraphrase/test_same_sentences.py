"""The sentences drawn for a seed never change: data made with an older version stays the same."""

from pathlib import Path
from random import Random

from aligncap.data.captions import draw_sentence
from data.meanings import random_meaning

KEPT = Path(__file__).with_name("sentences_seed3.txt")


def test_a_seed_draws_the_sentences_that_it_always_drew() -> None:
    rng = Random(3)
    drawn = []
    for seed in range(24):
        meaning = random_meaning(rng)
        drawn += [draw_sentence(meaning, language, Random(seed)).text for language in ("en", "zh")]
    assert drawn == KEPT.read_text("utf-8").splitlines()
