"""Where somebody speaks: louder than the noise floor, periodic, and never the same for long.

Noise is not periodic, clicks are too short, hums and tones do not change. A whisper, which is not
periodic either, is told from noise by its vowels: its colour changes.
"""

import numpy as np
from numpy.typing import NDArray

from aligncap.audio.level import SILENCE_DB, Floats, band_levels_db
from aligncap.audio.periodicity import CEILING_HZ, HOP_S, LAG_RATE_HZ, SHORTEST_LAG, correlations
from aligncap.values import RATE_HZ, Samples, Waveform

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


def speech_activity(waveform: Waveform) -> list[tuple[float, float]]:
    """Stretches in which somebody speaks, as (start, end) in seconds; empty if nobody does.

    Pauses of at least 0.15 s are left out. Silence, noise, clicks, steady hums and tones are no
    speech.
    """
    levels = band_levels_db(waveform.samples)
    if levels.max(initial=SILENCE_DB) < _FAINTEST_DB:
        return []
    peak = float(levels.max())
    lags, periodic = _voicing(waveform.samples)
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
    syllables = [s for s in audible if _longest_run(periodic[slice(*s)]) >= _VOICED_FRAMES]
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
    lags, strengths = [], []
    for correlation, _ in correlations(samples):
        inner = correlation[:, SHORTEST_LAG:-1]
        before, after = correlation[:, SHORTEST_LAG - 1 : -2], correlation[:, SHORTEST_LAG + 1 :]
        lag = np.arange(SHORTEST_LAG, SHORTEST_LAG + inner.shape[1])
        cost = _OCTAVE_COST * np.log2(lag / (LAG_RATE_HZ / CEILING_HZ))
        # A peak, or every low rumble would repeat itself at the shortest period.
        is_peak = (inner > before) & (inner >= after)
        height = np.where(is_peak, inner - cost.astype(np.float32), np.float32(-1.0))
        best = height.argmax(axis=1)
        at = (np.arange(len(best)), best)
        bend = np.maximum(2 * inner[at] - before[at] - after[at], 1e-9)
        shift = np.clip(0.5 * (after[at] - before[at]) / bend, -0.5, 0.5)
        lags.append((lag[best] + shift).astype(np.float32))
        strengths.append(height[at])
    lag_track = np.concatenate(lags)
    steady = np.abs(np.diff(np.log2(lag_track), prepend=0.0)) < _LAG_MOVE_OCTAVES
    return lag_track, (np.concatenate(strengths) > _PERIODIC) & steady


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
    return np.asarray(np.convolve(excess, np.full(3, 1 / 3), "same"), np.float32)


def _audible(excess: Floats) -> list[Span]:
    """Stretches of frames that are loud enough."""
    loud = excess > _LOUDER_DB
    return [
        _around(loud, span)
        for span in _runs(excess > _AUDIBLE_DB)
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


def _runs(mask: Mask) -> list[Span]:
    """Where a mask holds, as (start, end) in frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _longest_run(mask: Mask) -> int:
    return max((end - start for start, end in _runs(mask)), default=0)
