"""A learnt speech detector: whether and where somebody speaks, as a neural network hears it.

The network is silero-vad (see models/silero-vad); it tells speech from music, animals, machines and
alarms, which `activity` does not. Whether there is speech in a sound is for the network to say;
pauses and seconds of speech are measured by `activity`, whose steps are finer (10 ms against 32).
"""

from copy import copy
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aligncap.audio.activity import HOP_S, longest_run, runs
from aligncap.errors import MissingModelError
from aligncap.values import RATE_HZ, Samples

MODEL = Path(__file__).resolve().parent.parent / "models/silero-vad/silero_vad_16k_sequence.onnx"

FRAME = 512
"""Samples that the network gives one probability for."""
FRAME_S = FRAME / RATE_HZ
_CONTEXT = 64  # samples before a frame that it reads too
_STATE = (1, 1, 128)
_BLOCK = 1024  # frames at a time, which bounds the memory for long recordings
_FIRST, _MORE = 32, 16  # frames at a time: what `ENOUGH_S` takes at least, then as far as needed
_BEFORE, _AFTER = 15, 8  # frames of silence: the network starts slowly, and short words are missed

SPEECH = 0.4
"""Probability from which on a frame is speech."""
LEVELS = (0.5, 0.95, 0.1)
"""Largest amplitudes that a sound is brought to: the network hears differently at each. It is asked
again where it heard no speech at the first."""
SHORTEST_S = (0.2, 0.32, 0.32)
"""Of the longest stretch of speech, at each level; knocks and footsteps stay below."""
ENOUGH_S = 1.0
LEAST_SHARE = 0.3
"""Of what is loud, where there is less than `ENOUGH_S` of speech: of music and barks some moments
are taken for speech, of a word most of it is."""
_LOUD_DB = 12.0  # below the loudest 50 ms

Floats = NDArray[np.float32]
Span = tuple[float, float]


class SpeechDetector:
    """The network, opened when it is first asked; safe to share between threads."""

    def __init__(self, path: Path = MODEL) -> None:
        if not path.is_file():
            raise MissingModelError(
                f"{path}: the speech detector is not in this installation; "
                "install a released aligncap"
            )
        self._path = path

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(
            str(self._path), options, providers=["CPUExecutionProvider"]
        )

    def probabilities(self, samples: Samples) -> Floats:
        """The probability that somebody speaks in each frame of 32 ms; [⌈time / 512⌉].

        A sound is heard at the level it has; a largest amplitude of about 0.5 is heard best.
        """
        listener = self.listener()
        blocks = range(0, len(samples), FRAME * _BLOCK)
        found = [listener.probabilities(samples[at : at + FRAME * _BLOCK]) for at in blocks]
        return np.concatenate([np.zeros(0, np.float32), *found])

    def listener(self) -> "Listener":
        """A listener to a sound that comes in pieces."""
        return Listener(self._session)

    def spans(self, samples: Samples) -> list[Span]:
        """Where somebody speaks, in seconds; empty if nobody does."""
        peak = float(np.abs(samples).max(initial=0.0)) or 1.0
        spoken = self.probabilities(samples * np.float32(LEVELS[0] / peak)) > SPEECH
        return [(start * FRAME_S, end * FRAME_S) for start, end in runs(spoken)]

    def hears_speech(self, samples: Samples) -> bool:
        """Whether somebody speaks in a sound."""
        peak = float(np.abs(samples).max(initial=0.0))
        if peak == 0.0 or len(samples) < FRAME:
            return False
        loud_s = _loud_s(samples)
        return any(
            self._hears(samples * np.float32(level / peak), shortest_s, loud_s)
            for level, shortest_s in zip(LEVELS, SHORTEST_S, strict=True)
        )

    @cached_property
    def _after_silence(self) -> "Listener":
        """A listener that has heard the silence that every sound is heard after."""
        listener = self.listener()
        listener.probabilities(np.zeros(_BEFORE * FRAME, np.float32))
        return listener

    def _hears(self, samples: Samples, shortest_s: float, loud_s: float) -> bool:
        listener, padded = copy(self._after_silence), np.pad(samples, (0, _AFTER * FRAME))
        spoken = np.zeros(0, np.bool_)
        ends = range(_FIRST * FRAME, len(padded) + _MORE * FRAME, _MORE * FRAME)
        for start, end in pairwise((0, *ends)):
            found = listener.probabilities(padded[start:end]) > SPEECH
            spoken = np.concatenate((spoken, found))
            # Mostly a second or two of an utterance tell.
            if _is_enough(spoken, shortest_s, ENOUGH_S):
                return True
        return _is_enough(spoken, shortest_s, min(ENOUGH_S, LEAST_SHARE * loud_s))


def _is_enough(spoken: NDArray[np.bool_], shortest_s: float, least_s: float) -> bool:
    """Whether there is so much speech, and so long a stretch of it."""
    return spoken.sum() * FRAME_S >= least_s and longest_run(spoken) * FRAME_S >= shortest_s


def _loud_s(samples: Samples) -> float:
    """Seconds that are about as loud as the loudest moment."""
    hop = round(HOP_S * RATE_HZ)
    count = len(samples) // hop
    power = np.square(samples[: count * hop].reshape(count, hop)).mean(axis=1)
    power = np.convolve(power, np.full(5, 0.2), "same")[:count]
    return float((power > power.max(initial=0.0) * 10 ** (-_LOUD_DB / 10)).sum()) * HOP_S


class Listener:
    """Hears a sound piece by piece, and remembers what came before."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._context = np.zeros(_CONTEXT, np.float32)
        self._hidden = self._cell = np.zeros(_STATE, np.float32)

    def probabilities(self, samples: Samples) -> Floats:
        """The probability of speech in each frame of the next piece. It has a whole number of
        frames; the last piece may end within one, whose rest is silence."""
        count = -(-len(samples) // FRAME)
        if count == 0:
            return np.zeros(0, np.float32)
        sound = np.concatenate(
            (self._context, samples, np.zeros(count * FRAME - len(samples), np.float32))
        ).astype(np.float32, copy=False)
        frames = np.lib.stride_tricks.sliding_window_view(sound, _CONTEXT + FRAME)[::FRAME]
        found, self._hidden, self._cell = self._session.run(
            None,
            {"input": np.ascontiguousarray(frames), "h": self._hidden, "c": self._cell},
        )
        self._context = sound[-_CONTEXT:]
        return np.asarray(found, np.float32).reshape(count)
