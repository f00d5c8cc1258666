"""Which samples a batch holds: a pure function of its number and the seed."""

import random
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from aligncap.alignment.examples import BatchSettings, DataSettings, Sample, TrainingRow
from aligncap.clues import emotion_of, find_clues
from aligncap.errors import DataError
from aligncap.training.settings import seed_of


class BucketBatchSampler:
    """Batches of samples of about one length, epoch by epoch.

    An epoch has about as many samples as there are training rows; a row is sampled as often as its
    weight says, to the next whole number (systematic sampling). Batches are cut from `bucket`
    batches' worth of samples sorted by length, then shuffled.
    """

    def __init__(
        self,
        rows: Sequence[TrainingRow],
        *,
        data: DataSettings,
        batch: BatchSettings,
        seed: int,
        length_of: Callable[[Sample], int],
    ) -> None:
        self._rows, self._data, self._batch, self._seed = rows, data, batch, seed
        self._length_of = length_of
        self._probabilities = sampling_probabilities(rows, data)
        self._per_epoch = max(1, round(np.count_nonzero(self._probabilities) / batch.rows))
        self._epochs: dict[int, list[tuple[Sample, ...]]] = {}

    def samples_at(self, number: int) -> tuple[Sample, ...]:
        """The samples of batch `number` (from 0)."""
        epoch, place = divmod(number, self._per_epoch)
        if epoch not in self._epochs:
            # One epoch is kept: training goes through them in order.
            self._epochs = {epoch: self._batches_of(epoch)}
        return self._epochs[epoch][place]

    def _batches_of(self, epoch: int) -> list[tuple[Sample, ...]]:
        rng = np.random.default_rng(seed_of(self._seed, 1, epoch))
        size = self._batch.rows
        places = systematic_resampling(self._probabilities, self._per_epoch * size, rng)
        seeds = rng.integers(2**62, size=len(places))
        samples = [
            self._sample(place, int(seed))
            for place, seed in zip(places.tolist(), seeds, strict=True)
        ]
        batches: list[tuple[Sample, ...]] = []
        for start in range(0, len(samples), size * self._batch.bucket):
            bucket = sorted(samples[start : start + size * self._batch.bucket], key=self._length_of)
            batches += [tuple(bucket[i : i + size]) for i in range(0, len(bucket), size)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def _sample(self, place: int, seed: int) -> Sample:
        """A language of a row and some of its captions, by `seed`; fewer where it has fewer."""
        rng, row, languages = random.Random(seed), self._rows[place], self._data.languages
        names = sorted(set(row.captions) & set(languages))
        (language,) = rng.choices(names, [languages[name] for name in names])
        count = len(row.captions[language])
        chosen = rng.sample(range(count), min(self._batch.captions, count))
        return Sample(place, language, tuple(chosen), rng.getrandbits(62))


def sampling_probabilities(rows: Sequence[TrainingRow], data: DataSettings) -> NDArray[np.float64]:
    """The probability of each row, [rows]: by weight, emotions and corpora balanced as the settings
    say.

    Validation rows, and rows without a caption in a language asked for, have 0.
    """
    usable = [
        row.split == "train" and any(data.languages.get(name, 0) > 0 for name in row.captions)
        for row in rows
    ]
    weights = np.array([row.weight for row in rows]) * np.array(usable, dtype=float)
    if not weights.sum() > 0:
        raise DataError("no training row with a weight and a caption in a language asked for")
    if data.rarity:
        weights = reweight(weights, [str(stated_emotion(row)) for row in rows], data.rarity)
    weights = reweight(weights, [row.corpus for row in rows], data.balance)
    normalised: NDArray[np.float64] = weights / weights.sum()
    return normalised


def reweight(
    weights: NDArray[np.float64], groups: Sequence[str], power: float
) -> NDArray[np.float64]:
    """Weights [rows] over the power of their group's sum: 0 leaves them, 1 makes groups equal."""
    names, index = np.unique(groups, return_inverse=True)
    totals = np.bincount(index, weights, minlength=len(names))
    factors = np.where(totals > 0, np.maximum(totals, 1e-300) ** -power, 0.0)
    reweighted: NDArray[np.float64] = weights * factors[index]
    return reweighted


def stated_emotion(row: TrainingRow) -> str | None:
    """The emotion that a row's P_act names, or else its first caption; None where neither does."""
    for texts in (row.act, {language: some[0] for language, some in row.captions.items()}):
        for language, text in texts.items():
            if emotion := emotion_of(find_clues(text, language)):
                return emotion
    return None


def systematic_resampling(
    probabilities: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """`count` places, each as often as its probability says ±1, in random order."""
    order = rng.permutation(len(probabilities))
    edges = np.cumsum(probabilities[order])
    points = (np.arange(count) + rng.random()) / count * edges[-1]
    found = np.searchsorted(edges, points, side="right").clip(max=len(probabilities) - 1)
    places: NDArray[np.int64] = rng.permutation(order[found])
    return places


def validation_samples(
    rows: Sequence[TrainingRow], *, limit: int, data: DataSettings, captions: int
) -> list[Sample]:
    """Fixed samples of the validation rows: `limit` of them, evenly spread, in each language."""
    places = [place for place, row in enumerate(rows) if row.split == "validation"]
    step = max(1.0, len(places) / max(1, limit))
    chosen = [places[int(i * step)] for i in range(min(limit, len(places)))]
    return [
        Sample(place, language, tuple(range(min(captions, len(texts)))), None)
        for place in chosen
        for language, texts in sorted(rows[place].captions.items())
        if data.languages.get(language, 0) > 0
    ]
