"""The package's 16 kHz at the rate a tokenizer was trained at."""

import numpy as np

from aligncap.values import RATE_HZ, Samples, Waveform


def samples_at(waveform: Waveform, rate_hz: int) -> Samples:
    """The samples of a waveform at another rate: float32, shape [round(time · rate / 16 kHz)]."""
    if rate_hz == RATE_HZ or not len(waveform.samples):
        return waveform.samples
    import soxr

    resampled = soxr.resample(waveform.samples, RATE_HZ, rate_hz)
    if not len(resampled):  # one sample brought down: its only frame is that sample
        return waveform.samples
    return np.ascontiguousarray(resampled, dtype=np.float32)
