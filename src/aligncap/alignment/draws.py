"""Which rows and captions a batch holds: a pure function of its number and the seed."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aligncap.alignment.data import TrainingRow
from aligncap.alignment.settings import BatchSettings, DataSettings
from aligncap.clues import emotion_of, find_clues
from aligncap.errors import DataError
from aligncap.training import seed_of


@dataclass(frozen=True, slots=True)
class Draw:
    """One clip of a batch, with the captions that are asked of it."""

    row: int
    """Its place in the list of rows."""
    language: str
    captions: tuple[int, ...]
    """Places in the row's captions of that language."""
    seed: int | None
    """Of everything else that is random about it; None leaves nothing to chance (validation)."""


class BatchPlan:
    """Deals rows into batches of about one length, epoch by epoch.

    An epoch has about as many draws as there are training rows; a row is drawn as often as its
    weight says, to the next whole number (systematic sampling). Batches are cut from `bucket`
    batches' worth of draws sorted by length, then shuffled.
    """

    def __init__(
        self,
        rows: Sequence[TrainingRow],
        *,
        data: DataSettings,
        batch: BatchSettings,
        seed: int,
        length_of: Callable[[Draw], int],
    ) -> None:
        self._rows, self._data, self._batch, self._seed = rows, data, batch, seed
        self._length_of = length_of
        self._shares = sampling_shares(rows, data)
        self._per_epoch = max(1, round(np.count_nonzero(self._shares) / batch.rows))
        self._epochs: dict[int, list[tuple[Draw, ...]]] = {}

    def draws_at(self, number: int) -> tuple[Draw, ...]:
        """The draws of batch `number` (from 0)."""
        epoch, place = divmod(number, self._per_epoch)
        if epoch not in self._epochs:
            # One epoch is kept: training goes through them in order.
            self._epochs = {epoch: self._deal(epoch)}
        return self._epochs[epoch][place]

    def _deal(self, epoch: int) -> list[tuple[Draw, ...]]:
        chance = np.random.default_rng(seed_of(self._seed, 1, epoch))
        size = self._batch.rows
        places = systematic(self._shares, self._per_epoch * size, chance)
        seeds = chance.integers(2**62, size=len(places))
        draws = [
            draw_of(
                self._rows[place],
                place,
                languages=self._data.languages,
                captions=self._batch.captions,
                seed=int(seed),
            )
            for place, seed in zip(places.tolist(), seeds, strict=True)
        ]
        batches: list[tuple[Draw, ...]] = []
        for start in range(0, len(draws), size * self._batch.bucket):
            bucket = sorted(draws[start : start + size * self._batch.bucket], key=self._length_of)
            batches += [tuple(bucket[i : i + size]) for i in range(0, len(bucket), size)]
        return [batches[i] for i in chance.permutation(len(batches))]


def draw_of(
    row: TrainingRow, place: int, *, languages: Mapping[str, float], captions: int, seed: int
) -> Draw:
    """A language of a row and some of its captions, by `seed`; fewer where it has fewer."""
    chance = random.Random(seed)
    names = sorted(set(row.captions) & set(languages))
    (language,) = chance.choices(names, [languages[name] for name in names])
    there = len(row.captions[language])
    chosen = chance.sample(range(there), min(captions, there))
    return Draw(place, language, tuple(chosen), chance.getrandbits(62))


def sampling_shares(rows: Sequence[TrainingRow], data: DataSettings) -> NDArray[np.float64]:
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
        weights = evened(weights, [str(emotion_told(row)) for row in rows], data.rarity)
    shares = evened(weights, [row.corpus for row in rows], data.balance)
    normalised: NDArray[np.float64] = shares / shares.sum()
    return normalised


def evened(
    weights: NDArray[np.float64], groups: Sequence[str], power: float
) -> NDArray[np.float64]:
    """Weights [rows] over the power of their group's sum: 0 leaves them, 1 makes groups equal."""
    names, index = np.unique(groups, return_inverse=True)
    totals = np.bincount(index, weights, minlength=len(names))
    factors = np.where(totals > 0, np.maximum(totals, 1e-300) ** -power, 0.0)
    shares: NDArray[np.float64] = weights * factors[index]
    return shares


def emotion_told(row: TrainingRow) -> str | None:
    """The emotion that a row's P_act names, or else its first caption; None where neither does."""
    for texts in (row.act, {language: some[0] for language, some in row.captions.items()}):
        for language, text in texts.items():
            if emotion := emotion_of(find_clues(text, language)):
                return emotion
    return None


def systematic(
    shares: NDArray[np.float64], count: int, chance: np.random.Generator
) -> NDArray[np.int64]:
    """`count` places drawn by `shares`, each as often as its share says ±1, in random order."""
    order = chance.permutation(len(shares))
    edges = np.cumsum(shares[order])
    points = (np.arange(count) + chance.random()) / count * edges[-1]
    found = np.searchsorted(edges, points, side="right").clip(max=len(shares) - 1)
    places: NDArray[np.int64] = chance.permutation(order[found])
    return places


def validation_draws(
    rows: Sequence[TrainingRow], *, limit: int, data: DataSettings, captions: int
) -> list[Draw]:
    """Fixed draws from the validation rows: `limit` of them, evenly spread, in each language."""
    places = [place for place, row in enumerate(rows) if row.split == "validation"]
    step = max(1.0, len(places) / max(1, limit))
    chosen = [places[int(i * step)] for i in range(min(limit, len(places)))]
    return [
        Draw(place, language, tuple(range(min(captions, len(texts)))), None)
        for place in chosen
        for language, texts in sorted(rows[place].captions.items())
        if data.languages.get(language, 0) > 0
    ]
