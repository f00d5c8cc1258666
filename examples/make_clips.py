"""Make the example clips: synthetic voices with pitch, range, speed and loudness varied.

    make clips

needs espeak-ng (Debian: apt-get install espeak-ng). The clips are kept in the repository, so that
captioning them needs nothing but the package. No recording of a person is in them; the sentences
are ours. A file's name says what was asked of the synthesiser, not how it sounds to a listener.
"""

import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

CLIPS = Path(__file__).resolve().parent / "clips"


@dataclass(frozen=True)
class Clip:
    """What one clip says, and how; the numbers are espeak-ng's."""

    name: str
    voice: str
    text: str
    pitch: int = 50
    """0 (deep) to 99 (high)."""
    range: int = 50
    """0 (monotone) to 99 (lively); a narrow range is also lower, which `pitch` makes up for."""
    words_a_minute: int = 165
    peak: float = 0.3
    """Of full scale."""
    pause_s: float = 0.0
    """Silence put between the two halves of the text, which `|` parts."""


EXAMPLES = (
    Clip("man-plain", "en-us", "The train to the coast leaves at a quarter past nine."),
    Clip(
        "man-low-flat-slow-quiet",
        "en-gb+m7",
        "I left the letter on the table and went back to bed.",
        pitch=45,
        range=4,
        words_a_minute=105,
        peak=0.04,
    ),
    Clip(
        "man-loud-fast",
        "en-us+m3",
        "Take your hands off that door right now, I told you twice!",
        pitch=62,
        range=85,
        words_a_minute=235,
        peak=0.97,
    ),
    Clip(
        "man-halting",
        "en-gb+m1",
        "I am not sure that I can | say this out loud today.",
        pitch=40,
        range=30,
        words_a_minute=120,
        peak=0.12,
        pause_s=0.9,
    ),
    Clip("woman-plain", "en-us+f2", "Your parcel is waiting at the front desk."),
    Clip(
        "woman-high-lively-fast",
        "en-us+f4",
        "They said yes! We got the house, can you believe it?",
        pitch=80,
        range=99,
        words_a_minute=225,
        peak=0.7,
    ),
    Clip(
        "woman-slow-soft",
        "en-us+f4",
        "Close your eyes, there is nothing left to do tonight.",
        pitch=60,
        range=35,
        words_a_minute=115,
        peak=0.06,
    ),
    Clip(
        "woman-whisper",
        "en-us+whisperf",
        "Somebody is standing behind the curtain.",
        words_a_minute=150,
        peak=0.15,
    ),
    Clip(
        "old-woman-german",
        "de+grandma",
        "Der Apfelbaum im Garten blüht in diesem Jahr sehr spät.",
        words_a_minute=130,
    ),
    Clip(
        "man-polish-fast",
        "pl+m2",
        "Pociąg do Krakowa odjeżdża za pięć minut, musimy biec!",
        pitch=58,
        range=75,
        words_a_minute=215,
        peak=0.6,
    ),
    Clip(
        "woman-mandarin",
        "cmn+f5",
        "今天下午我们去公园散步,好不好?",
        pitch=80,
        range=70,
        words_a_minute=190,
    ),
    Clip("man-amharic", "am+m4", "ዛሬ ጠዋት ወደ ገበያ ሄድኩ።", pitch=45, words_a_minute=140),
)


def synthesise(clip: Clip, text: str) -> tuple[np.ndarray, int]:
    """What espeak-ng says, shape [time], and its sampling rate."""
    ssml = f'<speak><prosody range="{clip.range * 2}%">{text}</prosody></speak>'
    command = ["espeak-ng", "-m", "-v", clip.voice, "-p", str(clip.pitch), "--stdout"]
    command += ["-s", str(clip.words_a_minute), ssml]
    said = subprocess.run(command, capture_output=True, check=True)
    samples, rate_hz = soundfile.read(io.BytesIO(said.stdout), dtype="float32")
    return samples, rate_hz


def render(clip: Clip) -> tuple[np.ndarray, int]:
    """A clip at its loudness, with its pause and a tenth of a second of room on both sides."""
    parts = [synthesise(clip, text.strip()) for text in clip.text.split("|")]
    rate_hz = parts[0][1]
    gap = np.zeros(int(clip.pause_s * rate_hz), np.float32)
    spoken = [samples for part, _ in parts for samples in (gap, trimmed(part))][1:]
    edge = np.zeros(rate_hz // 10, np.float32)
    samples = np.concatenate([edge, *spoken, edge])
    samples *= clip.peak / np.abs(samples).max()
    # The noise of a quiet room: nothing that people record is digitally silent.
    noise = np.random.default_rng(0).normal(0, 2e-4, len(samples)).astype(np.float32)
    return np.clip(samples + noise, -1, 1), rate_hz


def trimmed(samples: np.ndarray) -> np.ndarray:
    """The part between the first and the last sample that can be heard."""
    heard = np.flatnonzero(np.abs(samples) > 0.005 * np.abs(samples).max())
    return samples[heard[0] : heard[-1] + 1]


def main() -> int:
    """Write every clip as Ogg Vorbis; returns 1 where espeak-ng is missing."""
    CLIPS.mkdir(exist_ok=True)
    for clip in EXAMPLES:
        try:
            samples, rate_hz = render(clip)
        except FileNotFoundError:
            print("espeak-ng is not installed: apt-get install espeak-ng", file=sys.stderr)
            return 1
        file = CLIPS / f"{clip.name}.ogg"
        soundfile.write(file, samples, rate_hz, format="OGG", subtype="VORBIS")
        print(f"{file.name}  {len(samples) / rate_hz:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
