"""The rival: functionals measured once, and a machine that learns what can be learnt."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from aligncap.data.manifest import Utterance
from aligncap.experiments.validation import KERNELS, functionals, svm_answers
from aligncap.values import RATE_HZ


@pytest.mark.parametrize("kernel", KERNELS)
def test_it_names_what_can_be_told_apart_on_speakers_it_never_heard(kernel):
    chance = np.random.default_rng(0)
    emotions = ["sad", "happy", "angry"] * 20
    people = [
        Utterance(f"{n}", Path("x"), speaker=f"s{n // 12}", emotion=emotion)
        for n, emotion in enumerate(emotions)
    ]
    centres = {"sad": (0, 0), "happy": (9, 0), "angry": (0, 9)}
    values = np.array([chance.normal(centres[one], 1.0) * (1, 100) for one in emotions])
    answers = svm_answers(people[:48], values[:48], values[48:], kernel=kernel)
    assert np.mean([a == b for a, b in zip(answers, emotions[48:], strict=True)]) > 0.9


def test_functionals_are_measured_once(tmp_path):
    pytest.importorskip("opensmile")
    time_s = np.arange(RATE_HZ) / RATE_HZ
    people = []
    for hz in (110, 220):
        path = tmp_path / f"{hz}.wav"
        sound = sum(np.sin(2 * np.pi * hz * n * time_s) / n for n in range(1, 9))
        soundfile.write(path, 0.2 * sound, RATE_HZ)
        people.append(Utterance(path.stem, path))
    cache = tmp_path / "cache" / "egemaps.npz"
    values = functionals(people, cache)
    assert values.shape == (2, 88)
    # The first functional is the mean pitch in semitones above 27.5 Hz.
    np.testing.assert_allclose(values[:, 0], [24, 36], atol=0.5)
    for one in people:
        one.path.unlink()  # what is cached is not read again
    np.testing.assert_array_equal(functionals(people[::-1], cache), values[::-1])
