"""Frame-wise signal analysis, and speech activity: where somebody speaks.

`correlations` gives each frame's normalised autocorrelation (Boersma 1993: divided by that of the
window, so a periodic frame reaches 1 at its period); the pitch tracker reads it too. `level_db` and
`band_levels_db` give levels. `speech_activity` finds stretches that are louder than the noise
floor, periodic, and changing: noise is not periodic, clicks are too short, hums and tones do not
change. A whisper is told from noise by its vowels, whose spectrum changes. `channel_mixes` and
`spoken_in` find the channels of a recording in which it is.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from aligncap.values import RATE_HZ, Samples, Waveform, once_per_waveform

Floats = NDArray[np.float32]

HOP_S = 0.01
"""From one frame to the next; frame i is centred on (i + 1/2) · HOP_S."""

FLOOR_HZ = 60.0
CEILING_HZ = 600.0

LAG_RATE_HZ = 16_000
"""Lags are read between the samples too, or short periods would be coarse."""

SHORTEST_LAG = int(LAG_RATE_HZ / CEILING_HZ)

_FRAME_RATE_HZ = 8_000  # frames are cut at half the rate: voices have their harmonics below 4 kHz
_WINDOW = round(3.0 / FLOOR_HZ * _FRAME_RATE_HZ)  # three periods of the lowest pitch
_FFT = 576  # at least window + longest lag, and a product of 2s and 3s
_BLOCK = 64  # frames at a time: fits the cache, and bounds memory for long files


def frame_count(samples: Samples) -> int:
    """How many frames a waveform has: one for each full hop."""
    return len(samples) // round(HOP_S * RATE_HZ)


def correlations(samples: Samples) -> Iterator[tuple[Floats, Floats]]:
    """Autocorrelations of a waveform at 16 kHz in blocks of frames.

    Yields the autocorrelations, [frames, lags] from lag 0 to one past the longest period in steps
    of 1 / LAG_RATE_HZ, 1 where a frame repeats itself; and each frame's largest amplitude.
    """
    frames = _frames(samples)
    window, window_correlation = _window()
    for start in range(0, len(frames), _BLOCK):
        block = frames[start : start + _BLOCK]
        centred = block - block.mean(axis=1, keepdims=True)
        raw = _autocorrelation(centred * window)
        yield raw / ((raw[:, :1] + 1e-12) * window_correlation), np.abs(centred).max(axis=1)


_LONGEST_KEPT_S = 30.0  # 3 MB; a longer recording is gone through again


def correlations_of(waveform: Waveform) -> Iterable[tuple[Floats, Floats]]:
    """`correlations` of a waveform, computed once where it is short: speech activity and pitch both
    need them."""
    if waveform.duration_s > _LONGEST_KEPT_S:
        return correlations(waveform.samples)
    return _kept_correlations(waveform)


@once_per_waveform
def _kept_correlations(waveform: Waveform) -> list[tuple[Floats, Floats]]:
    return list(correlations(waveform.samples))


@cache
def _half_band() -> Floats:
    """The odd taps of a low-pass filter at a quarter of the sampling rate; the even ones are 0."""
    position = np.arange(-15, 16, 2)
    taps = 0.5 * np.sinc(position / 2) * np.hamming(33)[1:-1:2]
    return np.asarray(0.5 * taps / taps.sum(), np.float32)


def _halved(samples: Samples) -> Floats:
    """The waveform at half its rate; shape [⌈time / 2⌉]."""
    even, odd = samples[::2], samples[1::2]
    # Sample n lies between odd samples n - 1 and n: the filter's middle tap falls on the even one.
    smoothed = np.convolve(odd, _half_band())[7 : 7 + len(even)] if len(odd) else odd
    halved: Floats = np.float32(0.5) * even
    halved[: len(smoothed)] += smoothed
    return halved


def windows_of(samples: Samples, length: int, hop: int, count: int) -> Samples:
    """Windows of a waveform, one a hop and no shorter, the first of which is centred on the middle
    of the first hop; a view, [count, length]. What is not there is silence."""
    before, span = (length - hop) // 2, (count - 1) * hop + length if count else 0
    padded = np.zeros(span, np.float32)
    kept = samples[: max(0, span - before)]
    padded[before : before + len(kept)] = kept
    # As numpy's sliding_window_view, without what that takes to begin.
    return np.lib.stride_tricks.as_strided(
        padded, (count, length), (hop * padded.itemsize, padded.itemsize), writeable=False
    )


def _frames(samples: Samples) -> Floats:
    """Overlapping windows at half the rate, one a hop; shape [frames, window]."""
    hop = round(HOP_S * _FRAME_RATE_HZ)
    return windows_of(_halved(samples), _WINDOW, hop, frame_count(samples))


@cache
def _window() -> tuple[Floats, Floats]:
    """The Hann window and its autocorrelation, 1 at lag 0."""
    window = np.hanning(_WINDOW + 2)[1:-1].astype(np.float32)
    correlation = _autocorrelation(window[None])[0]
    return window, correlation / correlation[0]


@cache
def _cosines() -> Floats:
    """From a power spectrum to its autocorrelation; shape [bins, lags].

    A matrix, since a product with it is faster than an inverse FFT padded to the finer lags.
    """
    bins = np.arange(_FFT // 2 + 1)
    lags = np.arange(int(LAG_RATE_HZ / FLOOR_HZ) + 2) * (_FRAME_RATE_HZ / LAG_RATE_HZ)
    cosines = np.cos(2 * np.pi * np.outer(bins, lags) / _FFT)
    cosines[1:-1] *= 2  # the negative frequencies
    return (cosines / _FFT).astype(np.float32)


def _autocorrelation(frames: Floats) -> Floats:
    """Autocorrelation up to one past the longest period; shape [frames, lags]."""
    spectrum = np.fft.rfft(frames, _FFT)
    power = np.asarray(spectrum.real**2 + spectrum.imag**2, np.float32)
    return power @ _cosines()


SILENCE_DB = -120.0
"""What digital silence is given in place of minus infinity."""

BAND_EDGES_HZ = (100, 200, 300, 400, 510, 630, 770, 920, 1080, 1270, 1480, 1720, 2000, 2320, 2700,
                 3150, 3700, 4400, 5300, 6400, 7700)  # fmt: skip
"""Critical bands (Zwicker 1961) from the pitch of a low voice upwards."""

_LEVEL_WINDOW = 512
_LEVEL_BLOCK = 64


def level_db(waveform: Waveform) -> float:
    """Root-mean-square level over the whole waveform in dBFS, without its constant part.

    A full-scale sine has -3.01 dB; digital silence and an empty waveform have -120 dB.
    """
    if len(waveform.samples) == 0:
        return SILENCE_DB
    power = float(np.var(waveform.samples, dtype=np.float64))
    return 10 * math.log10(power + 10 ** (SILENCE_DB / 10))


def band_levels_db(samples: Samples) -> Floats:
    """Level of each critical band in windows of 32 ms every 10 ms, in dBFS; [frames, bands]."""
    hop = round(HOP_S * RATE_HZ)
    count = frame_count(samples)
    windows = windows_of(samples, _LEVEL_WINDOW, hop, count)
    power = np.zeros((count, len(BAND_EDGES_HZ) - 1), np.float32)
    taper, bands = _analysis()
    for start in range(0, count, _LEVEL_BLOCK):
        spectrum = np.fft.rfft(windows[start : start + _LEVEL_BLOCK] * taper)
        squared = np.asarray(spectrum.real**2 + spectrum.imag**2, np.float32)
        power[start : start + _LEVEL_BLOCK] = squared @ bands
    levels: Floats = np.log10(power + np.float32(10 ** (SILENCE_DB / 10))) * np.float32(10)
    return levels


@cache
def _analysis() -> tuple[Floats, Floats]:
    """The taper of a window, and what sums a power spectrum into bands; [time], [bins, bands]."""
    taper = np.hanning(_LEVEL_WINDOW).astype(np.float32)
    hertz = np.arange(_LEVEL_WINDOW // 2 + 1) * RATE_HZ / _LEVEL_WINDOW
    edges = np.array(BAND_EDGES_HZ)
    inside = (hertz[:, None] >= edges[:-1]) & (hertz[:, None] < edges[1:])
    # Both halves of the spectrum, and the power that the taper takes away.
    scale = 2 / (_LEVEL_WINDOW * float(np.sum(taper.astype(np.float64) ** 2)))
    return taper, (inside * scale).astype(np.float32)


Mask = NDArray[np.bool_]

_CLEAREST_BANDS = 6  # noise hides most bands of a voice, not these
_LOUDER_DB = 10.0  # above the floor in the clearest bands: speech (white noise stays below 8)
_AUDIBLE_DB = 8.0  # above the floor: the beginning or end of speech, if it touches some
_DYNAMICS_DB = 50.0  # what lies further below the loudest band is not heard beside it
_MOST_EXCESS_DB = 40.0
_FLOOR_PERCENTILE = 10
_FLOOR_REACH_S = 2  # the floor is looked for this far to both sides
_TIGHT_DB = 25.0  # floor below the peak for utterances cut so tightly that no pause shows one
_FAINTEST_DB = -100.0  # less in every band is the noise of 16 bits, not a recording
_QUIET_DB = -55.0

_PERIODIC = 0.5
_OCTAVE_COST = 0.05
_LAG_MOVE_OCTAVES = 0.2  # from frame to frame; noise jumps further

_GAP_FRAMES = 15  # a closure within a word, no pause
_SHORTEST_FRAMES = 5
_VOICED_FRAMES = 5  # a stretch with fewer is no syllable
_NEIGHBOUR_FRAMES = 30  # unvoiced sounds this near to a syllable belong to it
_GROUP_FRAMES = 200  # stretches this near are judged together
_GROUP_VOICED_FRAMES = 8
_WHISPER_FRAMES = 50
_WHISPER_LOUDER_DB = 15.0
_WHISPER_COLOUR_DB = 3.7  # bursts of noise stay below 2.6, real whispers above 4.3
_LIVELINESS = 3.5  # spread of colour in dB + 2 · spread of melody in semitones
_MONOTONE_ST = 0.15
_MONOTONE_LIVELINESS = 6.5  # a robot's voice changes its vowels; a bell or a knock does not
_TONAL_DB = 40.0

Span = tuple[int, int]


@once_per_waveform
def speech_activity(waveform: Waveform) -> list[tuple[float, float]]:
    """Stretches in which somebody speaks, as (start, end) in seconds; empty if nobody does.

    Pauses of at least 0.15 s are left out. Silence, noise, clicks, steady hums and tones are no
    speech.
    """
    levels = band_levels_db(waveform.samples)
    if levels.max(initial=SILENCE_DB) < _FAINTEST_DB:
        return []
    peak = float(levels.max())
    if peak < _QUIET_DB:  # or the least level that is told would hide pauses
        raised = waveform.samples * np.float32(10 ** ((_QUIET_DB - peak) / 20))
        levels, peak = band_levels_db(raised), _QUIET_DB
    lags, periodic = _voicing_of(correlations_of(waveform))
    excess = _excess_db(levels, _floor_db(levels, peak))
    spans = _voices(levels, excess, lags=lags, periodic=periodic)
    if not spans:
        tight = _excess_db(levels, np.full_like(levels, peak - _TIGHT_DB))
        spans = _voices(levels, tight, lags=lags, periodic=periodic)
    if not spans:
        spans = _whispers(levels, excess)
    end_s = len(waveform.samples) / RATE_HZ
    return [(start * HOP_S, min(end * HOP_S, end_s)) for start, end in spans]


def _voices(levels: Floats, excess: Floats, *, lags: Floats, periodic: Mask) -> list[Span]:
    """Stretches with syllables whose pitch and colour change as a voice's do."""
    audible = _audible(excess)
    syllables = [s for s in audible if longest_run(periodic[slice(*s)]) >= _VOICED_FRAMES]
    near = [
        span
        for span in audible
        if any(
            span[0] - end < _NEIGHBOUR_FRAMES and start - span[1] < _NEIGHBOUR_FRAMES
            for start, end in syllables
        )
    ]
    voiced = periodic & (excess > _LOUDER_DB)
    groups = _groups(_merged(near, _GAP_FRAMES))
    return [s for group in groups if _is_voice(group, levels, lags, voiced) for s in group]


def _whispers(levels: Floats, excess: Floats) -> list[Span]:
    """Stretches far above the floor whose colour changes as that of whispered vowels does."""
    groups = _groups(_merged(_audible(excess), _GAP_FRAMES))
    return [s for group in groups if _is_whisper(group, levels, excess) for s in group]


def _voicing(samples: Samples) -> tuple[Floats, Mask]:
    """The best period of each frame as a lag, and whether the frame repeats with it; [frames]."""
    return _voicing_of(correlations(samples))


def _voicing_of(blocks: Iterable[tuple[Floats, Floats]]) -> tuple[Floats, Mask]:
    """`_voicing` of frames by their autocorrelations."""
    lags, strengths = [], []
    for correlation, _ in blocks:
        inner = correlation[:, SHORTEST_LAG:-1]
        before, after = correlation[:, SHORTEST_LAG - 1 : -2], correlation[:, SHORTEST_LAG + 1 :]
        lag, cost = _lag_cost(inner.shape[1])
        # A peak, or every low rumble would repeat itself at the shortest period.
        is_peak = (inner > before) & (inner >= after)
        height = np.where(is_peak, inner - cost, np.float32(-1.0))
        best = height.argmax(axis=1)
        at = (np.arange(len(best)), best)
        bend = np.maximum(2 * inner[at] - before[at] - after[at], 1e-9)
        shift = np.clip(0.5 * (after[at] - before[at]) / bend, -0.5, 0.5)
        lags.append((lag[best] + shift).astype(np.float32))
        strengths.append(height[at])
    lag_track = np.concatenate(lags)
    steady = np.abs(np.diff(np.log2(lag_track), prepend=0.0)) < _LAG_MOVE_OCTAVES
    return lag_track, (np.concatenate(strengths) > _PERIODIC) & steady


@cache
def _lag_cost(count: int) -> tuple[NDArray[np.int_], Floats]:
    """The first lags, and what each costs for being an octave or more below the highest pitch."""
    lag = np.arange(SHORTEST_LAG, SHORTEST_LAG + count)
    cost = _OCTAVE_COST * np.log2(lag / (LAG_RATE_HZ / CEILING_HZ))
    return lag, cost.astype(np.float32)


def _floor_db(levels: Floats, peak: float) -> Floats:
    """The noise floor near each frame; [frames, bands]."""
    second = round(1 / HOP_S)
    starts = range(0, len(levels), second)
    seconds = [
        np.percentile(
            levels[max(0, start - second) : start + 2 * second], _FLOOR_PERCENTILE, axis=0
        )
        for start in starts
    ]
    lowest = [
        np.min(seconds[max(0, number - _FLOOR_REACH_S) : number + _FLOOR_REACH_S + 1], axis=0)
        for number in range(len(seconds))
    ]
    floor = np.repeat(np.array(lowest), second, axis=0)[: len(levels)]
    return np.asarray(np.maximum(floor, peak - _DYNAMICS_DB), np.float32)


def _excess_db(levels: Floats, floor: Floats) -> Floats:
    """How far each frame is above the floor in its clearest bands, smoothed; [frames]."""
    above = np.clip(levels - floor, 0.0, _MOST_EXCESS_DB)
    excess = np.partition(above, -_CLEAREST_BANDS, axis=1)[:, -_CLEAREST_BANDS:].mean(axis=1)
    smooth = np.convolve(excess, np.full(3, 1 / 3))[1:-1]
    return np.asarray(smooth, np.float32)


def _audible(excess: Floats) -> list[Span]:
    """Stretches of frames that are loud enough."""
    loud = excess > _LOUDER_DB
    return [
        _around(loud, span)
        for span in runs(excess > _AUDIBLE_DB)
        if loud[slice(*span)].sum() >= _SHORTEST_FRAMES
    ]


def _around(loud: Mask, span: Span) -> Span:
    """The loud part of a stretch with up to three frames of its softer edges."""
    where = np.flatnonzero(loud[slice(*span)]) + span[0]
    return max(span[0], int(where[0]) - 3), min(span[1], int(where[-1]) + 4)


def _within(spans: list[Span], count: int) -> Mask:
    """Which of `count` frames lie in one of the stretches."""
    inside = np.zeros(count, np.bool_)
    for span in spans:
        inside[slice(*span)] = True
    return inside


def _is_voice(group: list[Span], levels: Floats, lags: Floats, voiced: Mask) -> bool:
    """Whether the periodic frames of some stretches change as a voice does, not as a machine."""
    chosen = _within(group, len(voiced)) & voiced
    if chosen.sum() < _GROUP_VOICED_FRAMES:
        return False
    shape = np.maximum(levels[chosen], levels.max() - _DYNAMICS_DB)
    ranked = np.sort(shape, axis=1)
    # A tone fills one or two bands; a voice, with its harmonics and formants, five and more.
    if np.median(ranked[:, -1] - ranked[:, -5]) > _TONAL_DB:
        return False
    colour_db = float(_spread(shape - shape.mean(axis=1, keepdims=True)).mean())
    melody_st = float(_spread(12 * np.log2(lags[chosen])[:, None])[0])
    least = _MONOTONE_LIVELINESS if melody_st < _MONOTONE_ST else _LIVELINESS
    return colour_db + 2 * min(melody_st, 2.0) > least


def _is_whisper(group: list[Span], levels: Floats, excess: Floats) -> bool:
    """Whether some stretches change their colour as a whisper does, not as bursts of noise."""
    chosen = _within(group, len(excess)) & (excess > _WHISPER_LOUDER_DB)
    if chosen.sum() < _WHISPER_FRAMES:
        return False
    shape = np.maximum(levels, levels.max() - _DYNAMICS_DB)
    shape = shape - shape.mean(axis=1, keepdims=True)
    # Over 50 ms, since the bands of any noise flicker from frame to frame.
    padded = np.pad(shape, ((2, 2), (0, 0)), mode="edge")
    smooth = np.lib.stride_tricks.sliding_window_view(padded, 5, axis=0).mean(axis=-1)
    return float(_spread(smooth[chosen]).mean()) > _WHISPER_COLOUR_DB


def _spread(values: Floats) -> NDArray[np.float64]:
    """Standard deviation of each column, from its quartiles: onsets and octave errors are few."""
    low, high = np.percentile(values, (25, 75), axis=0)
    return np.asarray((high - low) / 1.349, np.float64)


def _groups(spans: list[Span]) -> list[list[Span]]:
    """Stretches near each other, to be judged together."""
    groups: list[list[Span]] = []
    for span in spans:
        if groups and span[0] - groups[-1][-1][1] < _GROUP_FRAMES:
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups


def _merged(spans: list[Span], gap: int) -> list[Span]:
    """Stretches with gaps shorter than `gap` frames closed."""
    merged: list[Span] = []
    for start, end in spans:
        if merged and start - merged[-1][1] < gap:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def runs(mask: Mask) -> list[Span]:
    """Where a mask holds, as (start, end) in frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def longest_run(mask: Mask) -> int:
    """The length of the longest stretch in which a mask holds."""
    return max((end - start for start, end in runs(mask)), default=0)


_LOUD_RUN_DB = 25.0  # below the loudest frame: what is as loud for long enough belongs to it
_LOUD_RUN_FRAMES = 8
_EDGE_DB = 38.0  # below the loudest frame: a soft sound, if it touches what is louder …
_SOFT_RUN_FRAMES = 30  # … or is as long
_EDGE_GAP_FRAMES = 18  # a closure before a soft first or after a soft last sound
_STEADY_DB = 6.0  # noise: the softest fifth of all frames is alike up to this …
_NOISY_DB = 30.0  # … and not further below the loudest
_ABOVE_NOISE_DB = 6.0  # or above the softest moment of the utterance, where there is no noise
_LEAST_DB = 10.0  # below the loudest frame: what is heard in any noise
AROUND_S = 0.1
"""Sound that is kept before and after an utterance."""


def utterance(waveform: Waveform) -> Waveform:
    """An utterance with `AROUND_S` of the sound before and after it, of silence where the waveform
    has no more; the waveform itself where it is just that."""
    return _cut_out(waveform) or waveform


@once_per_waveform
def _cut_out(waveform: Waveform) -> Waveform | None:
    """`utterance` where it is not the waveform."""
    around, length = round(AROUND_S * RATE_HZ), len(waveform.samples)
    first, last = utterance_span(waveform.samples)
    start, end = first - around, last + around
    if (start, end) == (0, length):
        return None
    samples = waveform.samples[max(0, start) : end]
    return Waveform(np.pad(samples, (max(0, -start), max(0, end - length))), waveform.source)


def utterance_span(samples: Samples, start: int = 0, end: int | None = None) -> Span:
    """The first and last sound of the utterance between two samples, as (first, past the last)
    sample; sound before and after them counts where no closure lies between.

    Unless there is noise all the time, what is found depends on levels within the utterance alone
    and not on what is around it, so that a clip and the same utterance in a long recording begin
    and end with the same sample (of frames of `HOP_S`). Silence is all of it.
    """
    hop = round(HOP_S * RATE_HZ)
    end = len(samples) if end is None else end
    levels = _levels_db(samples, hop)
    found = start // hop, min(len(levels), -(-end // hop))
    if found[0] >= found[1] or levels[slice(*found)].max() < _FAINTEST_DB:
        return start, end
    softest, quiet, peak = np.percentile(levels, (0, 20, 100))
    noisy = quiet > max(peak - _NOISY_DB, _FAINTEST_DB) and quiet - softest < _STEADY_DB
    noise = float(quiet) if noisy else None
    while True:
        first, last = _grown(levels, found, noise)
        if found[0] <= first and last <= found[1]:
            return first * hop, last * hop
        found = min(first, found[0]), max(last, found[1])


def _grown(levels: NDArray[np.float64], inside: Span, noise: float | None) -> Span:
    """From the first to the last sound of an utterance of which frames `inside` are known; `noise`
    is the level of what is there all the time, if anything is."""
    within = levels[slice(*inside)]
    peak = float(within.max())
    least = peak - _LOUD_RUN_DB
    if noise is not None:
        least = max(least, min(noise + _ABOVE_NOISE_DB, peak - _LEAST_DB))
    loud = [
        one
        for one in runs(within > least)
        if one[1] - one[0] >= _LOUD_RUN_FRAMES or within[slice(*one)].max() == peak
    ]
    first, last = inside[0] + loud[0][0], inside[0] + loud[-1][1]
    floor = float(levels[first:last].min()) if noise is None else noise
    heard = levels > min(max(peak - _EDGE_DB, floor + _ABOVE_NOISE_DB), least)
    soft = [one for one in runs(heard[slice(*inside)]) if one[1] - one[0] >= _SOFT_RUN_FRAMES]
    if soft:
        first, last = min(first, inside[0] + soft[0][0]), max(last, inside[0] + soft[-1][1])
    audible = _merged(runs(heard), _EDGE_GAP_FRAMES)
    first = max(start for start, _ in audible if start <= first)
    return first, min(end for _, end in audible if end >= last)


def _levels_db(samples: Samples, hop: int) -> NDArray[np.float64]:
    """The level of each frame of `hop` samples, smoothed over three; [frames]."""
    frames = np.pad(samples, (0, -len(samples) % hop)).reshape(-1, hop)
    power = np.einsum("ij,ij->i", frames, frames) / hop - np.square(frames.mean(axis=1))
    smooth = np.convolve(np.pad(np.maximum(power, 0.0), 1), np.full(3, 1 / 3), "valid")
    return np.asarray(10 * np.log10(smooth + 10 ** (SILENCE_DB / 10)), np.float64)


_LOUD_DB = 20.0  # below the loudest frame: what is heard as the sound itself
_SHORT_FRAMES = 20
_SHORT_SHARE = 0.35
_TONAL_SHARE = 0.3
_NARROW_DB = 20.0
SILENT_DB = -60.0


def sound_kind(samples: Samples) -> str:
    """What a sound without speech is, roughly.

    One of "silence", "short sounds", "tones or music", "noise". Tones repeat themselves or fill few
    bands; motors do, too, and count as tones.
    """
    if level_db(Waveform(samples)) < SILENT_DB or not frame_count(samples):
        return "silence"
    levels = band_levels_db(samples)
    total = 10 * np.log10((10 ** (levels / 10)).sum(axis=1))
    loud = total > total.max() - _LOUD_DB
    lengths = [end - start for start, end in runs(loud)]
    if loud.mean() < _SHORT_SHARE and np.median(lengths) < _SHORT_FRAMES:
        return "short sounds"
    peaked_db = float((levels.max(axis=1) - np.median(levels, axis=1))[loud].mean())
    is_tonal = peaked_db > _NARROW_DB or _voicing(samples)[1][loud].mean() > _TONAL_SHARE
    return "tones or music" if is_tonal else "noise"


_INAUDIBLE = 1e-4  # of the loudest channel's power
_SAME = 0.8  # correlation of channels that hold the same sound
_MOST_MIXES = 8


def channel_mixes(blocks: Iterable[Floats]) -> list[Floats]:
    """Weights, [channels], of each sound that the channels of a recording hold, loudest first.

    Channels that correlate hold one sound: it is estimated from them by least squares, at its level
    in the loudest, so that equal channels are averaged, inverted ones turned over and silent ones
    left out. `blocks` are stretches, [time, channels].
    """
    covariance = np.zeros((0, 0), np.float64)
    for block in blocks:
        centred = block - block.mean(axis=0)
        product = (centred.T @ centred).astype(np.float64)
        covariance = covariance + product if covariance.size else product
    power = np.diag(covariance)
    if not power.any():
        return [np.full(len(power), 1 / max(1, len(power)), np.float32)]
    scale = np.sqrt(np.maximum(power, np.finfo(np.float32).tiny))
    # Of channels as loud as each other the first: rounding shall not decide.
    left = np.argsort(-np.round(20 * np.log10(scale), 1), kind="stable")
    left = left[power[left] > _INAUDIBLE * power.max()]
    mixes: list[Floats] = []
    while len(left) and len(mixes) < _MOST_MIXES:
        first = left[0]
        alike = np.abs(covariance[first, left]) >= _SAME * scale[first] * scale[left]
        share = np.round(covariance[first, left[alike]] / power[first], 1)
        mix = np.zeros(len(power), np.float32)
        mix[left[alike]] = share / np.square(share).sum()
        mixes.append(mix)
        left = left[~alike]
    return mixes


def spoken_in(sounds: Sequence[Samples]) -> Samples:
    """Of sounds that were recorded together, the one with most speech, the loudest first.

    Those are added in which somebody speaks while nobody does in it: two speakers, a channel each.
    """
    if len(sounds) == 1:
        return sounds[0]
    spans = [speech_activity(Waveform(sound)) for sound in sounds]
    count = max(map(frame_count, sounds)) + 1
    spoken = [
        _within([(round(a / HOP_S), round(b / HOP_S)) for a, b in one], count) for one in spans
    ]
    seconds = [int(mask.sum()) for mask in spoken]
    best = next(n for n, length in enumerate(seconds) if length >= 0.9 * max(seconds))
    chosen = sounds[best]
    for sound, mask in zip(sounds, spoken, strict=True):
        if (mask & ~spoken[best]).sum() > 0.5 * mask.sum():
            chosen = chosen + sound
    return chosen
