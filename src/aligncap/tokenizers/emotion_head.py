"""An emotion head fitted to somebody's own clips, on top of the built-in encoder as it is.

The logarithms of the encoder's probabilities are corrected linearly by what else it gives of a
clip, and divided by a temperature:

    p'(e | clip) = softmax((log p(e | clip) + x · W[:, e] + b[e]) / temperature)

x is the clip's vector, or, of an encoder that gives none, the logarithms of its probabilities,
normalised by the clips that W and b were fitted to. W is drawn to 0, so that few clips change
little. Kept beside the encoder as JSON; no torch is needed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aligncap.errors import DataError
from aligncap.foreign import AGAIN, LARGEST_WEIGHT, read_table, reading
from aligncap.values import EMOTIONS

HEAD_FILE = "encoder.emotion.json"
"""Beside encoder.onnx."""

RIDGES = (0.1, 0.5, 2.0, 10.0)
"""Strengths of the pull to 0 that are compared, by clips that were left out."""

BIAS_RIDGE = 1e-3
FLOOR = 1e-6
"""Of a probability, whose logarithm is taken."""

_STEPS, _TOLERANCE = 200, 1e-3
_MOST_FEATURES = 2**16

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class EmotionHead:
    """A correction of the encoder's emotion probabilities."""

    centre: Array
    """Subtracted from a clip's features, shape [features]."""
    spread: Array
    """What they are divided by then, shape [features], above 0."""
    weights: Array
    """W, shape [features, 8], the emotions in the order of EMOTIONS."""
    bias: Array
    """b, shape [8]."""
    temperature: float = 1.0

    def __post_init__(self) -> None:
        features = len(self.centre)
        shapes = [part.shape for part in (self.centre, self.spread, self.weights, self.bias)]
        if shapes != [(features,), (features,), (features, len(EMOTIONS)), (len(EMOTIONS),)]:
            raise DataError(f"emotion head: its parts have the shapes {shapes}; fit it again")
        if not (self.spread > 0).all() or not self.temperature > 0:
            raise DataError("emotion head: spread and temperature are above 0; fit it again")

    def probabilities(self, emotion: NDArray[Any], features: NDArray[Any]) -> Array:
        """The corrected probabilities, of one clip ([8] and [features]) or of several ([clips, 8]
        and [clips, features])."""
        if np.shape(features)[-1:] != self.centre.shape:
            raise DataError(
                f"emotion head: is for {len(self.centre)} features a clip, not "
                f"{np.shape(features)[-1]}; use it with the encoder it was fitted on"
            )
        x = (np.asarray(features, np.float64) - self.centre) / self.spread
        return softmax((log_probability(emotion) + x @ self.weights + self.bias) / self.temperature)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        parts = {
            name: np.round(getattr(self, name), 6).tolist()
            for name in ("centre", "spread", "weights", "bias")
        }
        table = {"emotions": EMOTIONS, **parts, "temperature": self.temperature}
        path.write_text(json.dumps(table) + "\n", encoding="utf-8")


def read_head(path: Path) -> EmotionHead:
    """The head that `save` wrote; DataError where the file is damaged."""
    table = read_table(path, hint=AGAIN)
    with reading(path, hint=AGAIN):
        if table.pop("emotions") != list(EMOTIONS):
            raise ValueError("is for other emotions")
        temperature = float(table.pop("temperature"))
        parts = {name: np.array(value, np.float64) for name, value in table.items()}
        largest = max(np.abs([*part.ravel(), 0.0]).max() for part in parts.values())
        if not largest <= LARGEST_WEIGHT or len(parts["centre"]) > _MOST_FEATURES:
            raise ValueError("holds a number that is too large")
        return EmotionHead(**parts, temperature=temperature)


def head_features(emotion: NDArray[Any], vector: NDArray[Any] | None) -> Array:
    """What a head looks at besides the probabilities [..., 8]: the vector [..., width], or where
    there is none their centred logarithms."""
    if vector is not None:
        return np.asarray(vector, np.float64)
    logs = log_probability(emotion)
    centred: Array = logs - logs.mean(axis=-1, keepdims=True)
    return centred


def softmax(logits: Array) -> Array:
    """Over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def log_probability(emotion: NDArray[Any]) -> Array:
    """Logarithms, of `FLOOR` at least."""
    logs: Array = np.log(np.maximum(np.asarray(emotion, np.float64), FLOOR))
    return logs


def class_weights(labels: NDArray[np.int64]) -> Array:
    """A weight of each clip, so that each emotion weighs as much and all weigh 1 together."""
    counts = np.bincount(labels, minlength=len(EMOTIONS))
    weights = 1.0 / counts[labels]
    shares: Array = weights / weights.sum()
    return shares


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """What a head is fitted to."""

    emotion: Array
    """The encoder's probabilities, shape [clips, 8]."""
    features: Array
    """Shape [clips, features]."""
    labels: NDArray[np.int64]
    """Places in EMOTIONS, shape [clips]."""
    groups: NDArray[np.int64]
    """The number of each clip's speaker, shape [clips]: what is left out together."""

    def only(self, chosen: NDArray[np.bool_]) -> "Clips":
        """The chosen clips."""
        return Clips(
            self.emotion[chosen], self.features[chosen], self.labels[chosen], self.groups[chosen]
        )


def fit_head(clips: Clips, ridge: float) -> EmotionHead:
    """The head of least cross-entropy, every emotion weighing as much, plus ridge / 2 · |W|².

    By steps that never make it worse: the curvature of a softmax over K classes is nowhere above
    half the identity (Böhning 1992).
    """
    x = clips.features
    centre, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-3) * np.sqrt(x.shape[1])
    x, axes = _within_span((x - centre) / spread)
    x = np.hstack([x, np.ones((len(x), 1))])
    pull = np.full((x.shape[1], 1), ridge)
    pull[-1] = BIAS_RIDGE
    weight = class_weights(clips.labels)[:, None]
    step = np.linalg.inv(0.5 * (x.T * weight.T) @ x + np.diag(pull[:, 0]))
    target, base = np.eye(len(EMOTIONS))[clips.labels], log_probability(clips.emotion)
    theta = np.zeros((x.shape[1], len(EMOTIONS)))
    for _ in range(_STEPS):
        wrong = weight * (softmax(base + x @ theta) - target)
        change = step @ (x.T @ wrong + pull * theta)
        theta -= change
        if np.abs(change).max() < _TOLERANCE:
            break
    return EmotionHead(centre, spread, axes @ theta[:-1], theta[-1])


def _within_span(x: Array) -> tuple[Array, Array]:
    """Features [clips, features] along the axes that the clips span, and these axes [features,
    axes]: the fit is the same, of fewer numbers where there are more features than clips."""
    if len(x) >= x.shape[1]:
        return x, np.eye(x.shape[1])
    left, lengths, right = np.linalg.svd(x, full_matrices=False)
    return left * lengths, right.T


def folds_of(groups: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """A fold for each clip, at most `most` of them and of like size: each group in one of them."""
    names, sizes = np.unique(groups, return_counts=True)
    loads = np.zeros(min(most, len(names)), dtype=np.int64)
    fold = {}
    for place in np.argsort(-sizes, kind="stable"):
        fold[names[place]] = int(loads.argmin())
        loads[loads.argmin()] += sizes[place]
    return np.array([fold[group] for group in groups], dtype=np.int64)


def held_out(clips: Clips, ridges: Sequence[float], folds: int) -> Array:
    """Probabilities of each clip by a head that was fitted without its fold, [clips, 8].

    With several ridges, each fold's is chosen by folds of the clips that are left (nested), so
    that what is told of a clip never comes from a choice that it took part in.
    """
    found = np.empty_like(clips.emotion)
    fold = folds_of(clips.groups, folds)
    for number in np.unique(fold):
        rest = clips.only(fold != number)
        head = fit_head(rest, choose_ridge(rest, ridges, min(3, folds - 1)))
        out = fold == number
        found[out] = head.probabilities(clips.emotion[out], clips.features[out])
    return found


def choose_ridge(clips: Clips, ridges: Sequence[float], folds: int) -> float:
    """The ridge whose heads give the clips that were left out the least cross-entropy; the
    strongest where there is nothing to leave out."""
    if len(ridges) == 1 or len(np.unique(clips.groups)) < 2 or folds < 2:
        return max(ridges)
    return min(ridges, key=lambda one: cross_entropy(held_out(clips, [one], folds), clips.labels))


def cross_entropy(emotion: Array, labels: NDArray[np.int64]) -> float:
    """Mean of -log p of the right emotion, every emotion weighing as much, in nats."""
    right = log_probability(emotion)[np.arange(len(labels)), labels]
    return float(-(class_weights(labels) @ right))


def fit_temperature(emotion: Array, labels: NDArray[np.int64]) -> float:
    """The temperature, .5 to 3, at which held-out probabilities [clips, 8] have the least
    cross-entropy."""
    logs = log_probability(emotion)
    ladder = np.geomspace(0.5, 3.0, 37)
    losses = [cross_entropy(softmax(logs / one), labels) for one in ladder]
    return float(ladder[int(np.argmin(losses))])


def fit_calibrated(
    clips: Clips, ridges: Sequence[float] = RIDGES, *, folds: int = 5
) -> tuple[EmotionHead, Array]:
    """A head on all clips, its ridge and temperature chosen by clips that were left out; and the
    probabilities that heads which never met a clip's group give it, [clips, 8]."""
    unmet = held_out(clips, ridges, folds)
    temperature = fit_temperature(unmet, clips.labels)
    head = fit_head(clips, choose_ridge(clips, ridges, folds))
    return replace(head, temperature=temperature), softmax(log_probability(unmet) / temperature)
