"""Which rows a batch holds: a pure function of its number, by weight, of about one length."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aligncap.alignment.examples import (
    BatchSettings,
    BucketBatchSampler,
    DataSettings,
    Sample,
    TrainingRow,
    sampling_probabilities,
    stated_emotion,
    systematic_resampling,
    validation_samples,
)
from aligncap.errors import DataError
from support.rows import tiny_rows


def length_of(rows: list[TrainingRow], draw: Sample) -> int:
    speech = rows[draw.row].speech
    assert speech is not None
    return int(speech.shape[1])


def plan(
    rows: list[TrainingRow], *, seed: int = 0, batch: BatchSettings | None = None, **data: object
) -> BucketBatchSampler:
    settings = DataSettings(rows=(Path("x"),), **data)  # type: ignore[arg-type]
    batch = batch or BatchSettings(rows=4, captions=2)
    return BucketBatchSampler(
        rows, data=settings, batch=batch, seed=seed, length_of=lambda d: length_of(rows, d)
    )


def test_a_batch_depends_on_its_number_and_seed_alone() -> None:
    rows = tiny_rows(50)
    forward = [plan(rows).samples_at(number) for number in range(40)]
    one = plan(rows)
    backward = [one.samples_at(number) for number in reversed(range(40))]
    assert forward == backward[::-1]
    assert forward != [plan(rows, seed=1).samples_at(number) for number in range(40)]


def test_every_training_row_is_drawn_once_an_epoch_and_no_validation_row() -> None:
    rows = tiny_rows(80)
    training = {place for place, row in enumerate(rows) if row.split == "train"}
    one = plan(rows)
    for epoch in range(2):
        batches = [one.samples_at(epoch * 14 + number) for number in range(14)]
        assert {len(batch) for batch in batches} == {4}
        assert Counter(d.row for batch in batches for d in batch) == Counter(training)


def test_systematic_draws_keep_to_their_shares_within_one() -> None:
    chance = np.random.default_rng(0)
    shares = chance.dirichlet(np.full(30, 0.5))
    for count in (7, 100, 1000):
        found = np.bincount(systematic_resampling(shares, count, chance), minlength=30)
        assert found.sum() == count
        assert np.abs(found - count * shares).max() < 1 + 1e-9


def test_weights_say_how_often() -> None:
    rows = [replace(row, weight=3.0 if place < 10 else 1.0, split="train")
            for place, row in enumerate(tiny_rows(40))]  # fmt: skip
    one = plan(rows)
    drawn = Counter(d.row < 10 for number in range(100) for d in one.samples_at(number))
    assert drawn[True] / drawn.total() == pytest.approx(30 / 60, abs=0.01)


def felt(number: int, emotion: str) -> TrainingRow:
    captions = {"en": (f"She sounds {emotion}.",)}
    act = {"en": f"Feeling {emotion} and loud"}
    return TrainingRow(id=f"c{number}", corpus="one", captions=captions, act=act)


@pytest.mark.parametrize(("rarity", "expected"), [(0.0, 0.1), (0.5, 0.25), (1.0, 0.5)])
def test_rarity_evens_emotions_out(rarity: float, expected: float) -> None:
    """Nine angry rows and a bored one: by the root of their numbers three to one."""
    rows = [felt(n, "angry") for n in range(9)] + [felt(9, "bored")]
    shares = sampling_probabilities(rows, DataSettings(rows=(Path("x"),), rarity=rarity))
    assert shares[9] == pytest.approx(expected)
    assert shares[:9] == pytest.approx([(1 - expected) / 9] * 9)


def test_the_emotion_of_a_row_is_that_of_its_clues_before_that_of_its_captions() -> None:
    row = felt(0, "angry")
    assert stated_emotion(row) == "angry"
    assert stated_emotion(replace(row, act={})) == "angry"
    assert stated_emotion(replace(row, act={"en": "Feeling loud"})) == "angry"
    assert stated_emotion(replace(row, act={"en": "Feeling sad"})) == "sad"
    assert stated_emotion(replace(row, act={}, captions={"en": ("She speaks.",)})) is None


@pytest.mark.parametrize(("balance", "expected"), [(0.0, 0.8), (1.0, 0.5), (0.5, 2 / 3)])
def test_balance_evens_corpora_out(balance: float, expected: float) -> None:
    # 4 : 1, its square root 2 : 1, and 1 : 1.
    rows = [replace(row, corpus="small" if place % 5 == 0 else "big", split="train")
            for place, row in enumerate(tiny_rows(50))]  # fmt: skip
    one = plan(rows, balance=balance)
    corpora = Counter(rows[d.row].corpus for number in range(120) for d in one.samples_at(number))
    assert corpora["big"] / corpora.total() == pytest.approx(expected, abs=0.02)


def test_languages_are_mixed_as_asked_and_captions_are_different() -> None:
    one = plan(tiny_rows(60), languages={"en": 3.0, "zh": 1.0})
    draws = [d for number in range(200) for d in one.samples_at(number)]
    english = [d for d in draws if d.language == "en"]
    assert len(english) / len(draws) == pytest.approx(0.75, abs=0.05)
    # Two captions where there are two, in both orders; one where there is one.
    assert {d.captions for d in english} == {(0, 1), (1, 0)}
    assert {d.captions for d in draws if d.language == "zh"} == {(0,)}


def test_buckets_pad_less_than_chance() -> None:
    rows = [replace(row, split="train") for row in tiny_rows(400)]
    waste = []
    for bucket in (1, 50):
        one = plan(rows, batch=BatchSettings(rows=8, captions=1, bucket=bucket))
        fed = padded = 0
        for number in range(50):
            lengths = [length_of(rows, d) for d in one.samples_at(number)]
            fed += sum(lengths)
            padded += 8 * max(lengths)
        waste.append(1 - fed / padded)
    assert waste[0] > 0.2
    assert waste[1] < 0.03


def test_validation_draws_are_fixed_spread_and_leave_nothing_to_chance() -> None:
    rows = tiny_rows(100)
    draws = validation_samples(rows, limit=10, data=DataSettings(rows=(Path("x"),)), captions=1)
    assert len(draws) == 20  # ten rows in two languages
    assert {rows[d.row].split for d in draws} == {"validation"}
    assert max(d.row for d in draws) - min(d.row for d in draws) > 80
    assert all(d.seed is None and d.captions == (0,) for d in draws)


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(DataError, match="no training row"):
        plan([replace(row, weight=0.0) for row in tiny_rows(10)])
