"""How likely a voice is a woman's: logistic regression on pitch and spectral envelope.

Fitted by `python benchmarks/fit_gender.py` on the training speakers of the shared corpora; only
the coefficients are kept.
"""

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FEMALE_CENTRE_HZ, MALE_CENTRE_HZ = 235.0, 155.0
"""Expected median pitch of emotional speech, by gender; see `benchmarks/fit_gender.py`."""


def female_probability(cues: NDArray[np.float64]) -> float:
    """The probability of a woman's voice from `gender_cues`, shape [13]."""
    means, scales, weights, bias = _coefficients()
    logit = float(((cues - means) / scales) @ weights) + bias
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, logit))))


def gender_cues(median_hz: float, envelope: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of the median pitch and the twelve envelope cues, shape [13]."""
    return np.concatenate(([math.log(median_hz)], envelope))


def expected_pitch_hz(probability: float) -> float:
    """The expected median pitch for a voice that is a woman's with this probability."""
    female, male = math.log(FEMALE_CENTRE_HZ), math.log(MALE_CENTRE_HZ)
    return math.exp(probability * female + (1 - probability) * male)


@cache
def _coefficients() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
    """Means and scales of the cues, their weights, each of shape [13], and the bias."""
    table = json.loads(Path(__file__).with_name("gender_weights.json").read_text("utf-8"))
    means, scales, weights = (np.array(table[key]) for key in ("means", "scales", "weights"))
    return means, scales, weights, float(table["bias"])
