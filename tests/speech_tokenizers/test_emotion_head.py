"""The head fitted to somebody's own clips: its optimum, what is left out, and its file."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from aligncap.errors import DataError
from aligncap.tokenizers import emotion_head
from aligncap.tokenizers.builtin import open_builtin
from aligncap.tokenizers.emotion_head import (
    HEAD_FILE,
    Clips,
    EmotionHead,
    cross_entropy,
    fit_calibrated,
    fit_head,
    fit_temperature,
    folds_of,
    head_features,
    held_out,
    read_head,
    softmax,
)
from support.captioner import write_whisper_encoder
from support.signals import noise, waveform

EIGHT = 8


def clips(
    *, count: int = 60, width: int = 5, groups: int = 6, signal: float = 2.0, seed: int = 0
) -> Clips:
    """Clips of three emotions whose vectors tell them apart by `signal`; the base knows nothing."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    means = random.normal(size=(3, width)) * signal
    return Clips(
        emotion=softmax(0.3 * random.normal(size=(count, EIGHT))),
        features=means[labels] + random.normal(size=(count, width)),
        labels=labels,
        groups=np.arange(count) // 3 % groups,
    )


@pytest.mark.parametrize(("width", "count"), [(4, 45), (70, 45)])
def test_the_head_is_the_minimum_that_scipy_finds(width, count):
    data, ridge = clips(count=count, width=width, signal=0.5), 0.5
    head = fit_head(data, ridge)
    x = (data.features - head.centre) / head.spread
    weights = emotion_head.class_weights(data.labels)

    def loss(flat: np.ndarray) -> float:
        theta = flat.reshape(width + 1, EIGHT)
        logits = np.log(data.emotion) + x @ theta[:-1] + theta[-1]
        right = softmax(logits)[np.arange(count), data.labels]
        pulls = ridge * (theta[:-1] ** 2).sum() + emotion_head.BIAS_RIDGE * (theta[-1] ** 2).sum()
        return -(weights @ np.log(right)) + pulls / 2

    mine = np.vstack([head.weights, head.bias])
    found = minimize(loss, mine.ravel(), method="L-BFGS-B", options={"maxfun": 10**6})
    assert loss(mine.ravel()) == pytest.approx(found.fun, abs=2e-3)
    assert loss(mine.ravel()) < loss(np.zeros(mine.size)) - 0.1


def test_a_strong_pull_leaves_the_encoder_but_for_how_often_emotions_come():
    data = clips()
    head = fit_head(data, 1e6)
    assert np.abs(head.weights).max() < 1e-4
    shifted = softmax(np.log(data.emotion) + head.bias)
    np.testing.assert_allclose(head.probabilities(data.emotion, data.features), shifted, atol=1e-3)
    assert head.bias[:3].min() > head.bias[3:].max()  # three emotions occur, five do not


def test_vectors_that_tell_emotions_apart_are_used_and_noise_is_not():
    told, _ = fit_calibrated(clips(signal=2.0))
    other = clips(signal=2.0, seed=0)
    better = told.probabilities(other.emotion, other.features).argmax(axis=1)
    assert (better == other.labels).mean() > 0.9
    noise = clips(signal=0.0, count=90, width=40)
    _, unmet = fit_calibrated(noise)
    assert (unmet.argmax(axis=1) == noise.labels).mean() < 0.55
    assert cross_entropy(unmet, noise.labels) < np.log(EIGHT)


def test_what_is_told_of_a_clip_does_not_depend_on_its_own_label():
    data = clips()
    before = held_out(data, emotion_head.RIDGES, 3)
    fold = folds_of(data.groups, 3)
    labels = data.labels.copy()
    labels[fold == 1] = 0
    changed = Clips(data.emotion, data.features, labels, data.groups)
    after = held_out(changed, emotion_head.RIDGES, 3)
    np.testing.assert_array_equal(after[fold == 1], before[fold == 1])
    assert np.abs(after[fold != 1] - before[fold != 1]).max() > 0.01


def test_folds_keep_groups_whole_and_are_of_like_size():
    groups = np.repeat([7, 3, 9, 1, 4], [40, 10, 9, 11, 30])
    fold = folds_of(groups, 3)
    assert all(len(set(fold[groups == one])) == 1 for one in set(groups))
    assert sorted(np.bincount(fold).tolist()) == [30, 30, 40]
    assert set(folds_of(np.array([5, 5, 6]), 5)) == {0, 1}


def test_the_temperature_undoes_confidence_that_is_not_earned():
    random = np.random.default_rng(1)
    truth = softmax(1.5 * random.normal(size=(3000, EIGHT)))
    labels = np.array([random.choice(EIGHT, p=row) for row in truth])
    weights = emotion_head.class_weights(labels)
    assert weights.sum() == pytest.approx(1.0)
    sharpened = softmax(2.0 * np.log(truth))
    assert fit_temperature(sharpened, labels) == pytest.approx(2.0, rel=0.15)


def test_without_a_vector_a_head_looks_at_the_logarithms():
    emotion = np.array([0.5, 0.25, *[0.25 / 6] * 6])
    features = head_features(emotion, None)
    assert features.sum() == pytest.approx(0.0)
    assert features[0] - features[1] == pytest.approx(np.log(2))
    assert head_features(emotion, np.ones(3, np.float32)).tolist() == [1.0, 1.0, 1.0]


def test_a_file_gives_the_same_head_and_a_damaged_one_is_refused(tmp_path):
    data, path = clips(), tmp_path / HEAD_FILE
    head = replace(fit_head(data, 1.0), temperature=1.25)
    head.save(path)
    again = read_head(path)
    np.testing.assert_allclose(
        again.probabilities(data.emotion, data.features),
        head.probabilities(data.emotion, data.features),
        atol=1e-4,
    )
    with pytest.raises(DataError, match="for 5 features a clip, not 4"):
        again.probabilities(data.emotion, data.features[:, :4])
    table = json.loads(path.read_text("utf-8"))
    for change in (
        {"temperature": 0},
        {"spread": [0.0] * 5},
        {"bias": [1.0]},
        {"centre": [1e9] * 5},
        {"weights": "none"},
        {"emotions": ["sad"]},
        {"more": 1},
    ):
        path.write_text(json.dumps({**table, **change}), "utf-8")
        with pytest.raises(DataError):
            read_head(path)


def test_a_head_beside_an_encoder_of_whispers_form_looks_at_the_vector(tmp_path):
    encoder = open_builtin(write_whisper_encoder(tmp_path / "encoder.onnx"))
    sound = waveform(0.1 * noise(1.0))
    heard = encoder.hear(sound)
    assert encoder.encode(sound).readout == heard.readout  # no head yet
    bare = encoder.fingerprint
    weights = np.random.default_rng(0).normal(size=(4, EIGHT))
    head = EmotionHead(np.zeros(4), np.ones(4), weights, np.zeros(EIGHT), 1.5)
    head.save(tmp_path / HEAD_FILE)
    headed = open_builtin(tmp_path)
    logits = np.log(list(heard.readout["emotion"].values())) + heard.vector @ weights
    found = headed.encode(sound)
    expected = softmax(logits / 1.5)
    assert list(found.readout["emotion"].values()) == pytest.approx(expected, abs=1e-4)
    np.testing.assert_array_equal(found.codes, heard.codes)
    np.testing.assert_array_equal(found.vector, heard.vector)
    assert {**found.readout, "emotion": 0} == {**heard.readout, "emotion": 0}
    based = headed.encode(sound, np.ones(4, np.float32)).readout["emotion"]
    assert based != found.readout["emotion"]
    assert headed.fingerprint != bare == headed.encoder_fingerprint
