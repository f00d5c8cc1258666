"""The benchmark of channels: G.711's steps, powers and bands by hand, and the calibration error."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.scripts import ROOT, load_script
from support.signals import tone

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def channels() -> Any:
    return load_script("benchmarks/channels.py")


def power_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64))))


def test_mu_law_has_256_steps_that_grow_with_the_level(channels: Any) -> None:
    ramp = np.linspace(-1, 1, 100_001, dtype=np.float32)
    coded = channels.mu_law(ramp)
    assert len(np.unique(coded)) == 256
    # The highest step is 256 ln 256 / 255 · 2 / 255 wide, of which half is missed at most.
    assert np.abs(coded - ramp).max() < 0.022
    near = np.abs(ramp) < 0.01
    assert np.abs(coded - ramp)[near].max() < 0.0004


def test_a_telephone_passes_300_to_3400_hz(channels: Any) -> None:
    for hertz, passes in ((100.0, False), (1000.0, True), (3000.0, True), (5000.0, False)):
        sound = 0.5 * tone(hertz, length_s=1.0).astype(np.float32)
        loss = power_db(sound) - power_db(channels.telephone(sound) + 1e-9)
        assert (loss < 1.0) is passes


def test_noise_has_the_power_that_is_asked_for(channels: Any) -> None:
    chance = np.random.default_rng(0)
    sound = 0.1 * tone(440.0, length_s=1.0).astype(np.float32)
    for noise in (chance.normal(size=RATE_HZ), channels.pink(RATE_HZ, chance)):
        added = channels.with_noise(sound, noise.astype(np.float32), 5.0) - sound
        assert power_db(sound) - power_db(added) == pytest.approx(5.0, abs=0.05)


def test_the_calibration_error_by_hand(channels: Any) -> None:
    # Nine tenths said twice and right once; .55 said twice and never right.
    chances, right = [0.9, 0.9, 0.55, 0.55], [True, False, False, False]
    assert channels.calibration_error(chances, right) == pytest.approx(0.4 / 2 + 0.55 / 2)
    assert channels.calibration_error([1.0, 1.0], [True, True]) == 0.0


def test_a_share_has_wilsons_interval(channels: Any) -> None:
    # Wilson (1927): none of ten lies within 0 and z² / (10 + z²).
    assert channels.wilson(0, 10) == pytest.approx((0.0, 3.8415 / 13.8415), abs=1e-4)
    assert channels.wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_only_clips_that_are_heard_as_they_are_count(channels: Any) -> None:
    sad, happy = {"sad": 0.9, "happy": 0.1}, {"sad": 0.2, "happy": 0.8}
    found = channels.table([sad, sad, happy, None], {"wire": [sad, happy, None, sad]})
    assert found[-1].startswith("| wire | 33.3% | ")
    assert found[-1].endswith(" | 33.3% |")


def test_a_run_goes_on_from_what_it_has_heard(channels: Any, tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    rows = [
        {"signature": "a", "channel": "wire", "heard": [{"sad": 1.0}, None]},
        {"signature": "b", "channel": "string", "heard": [None, None]},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert channels.remembered(file, "a") == {"wire": [{"sad": 1.0}, None]}
    assert channels.remembered(None, "a") == {}


def test_what_is_heard_unasked_is_what_the_committed_page_says(channels: Any) -> None:
    page = (ROOT / "docs/results/channels.md").read_text("utf-8")
    given = inspect.signature(channels.main).parameters
    assert f"({given['corpora'].default})" in page
    found = re.search(r"(\d+) clips of speakers kept back", page)
    assert found is not None
    assert 0.95 * given["clips"].default <= int(found[1]) <= given["clips"].default
