"""Sounds that nobody says: instruments, machines, animals, alarms, noise; made, not recorded.

`SOUNDS` is a table of name → a function of a random generator, which gives a different sound of its
kind each time: float64 of some seconds at 16 kHz. The kinds of `CHOSEN_BY` may be looked at when a
detector or an encoder is set; those of `HELD_OUT` are only reported.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE_HZ = 16_000
Sound = NDArray[np.float64]
Draw = np.random.Generator


def seconds(length_s: float) -> Sound:
    """Times of the samples."""
    return np.arange(round(length_s * RATE_HZ)) / RATE_HZ


def partials(hertz: float | Sound, length_s: float, amplitudes: Iterable[float]) -> Sound:
    """A tone of harmonics of a pitch, which may change; those above 7.5 kHz are left out."""
    pitch = np.broadcast_to(np.asarray(hertz, np.float64), round(length_s * RATE_HZ))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE_HZ
    sound = np.zeros(len(pitch))
    for number, amplitude in enumerate(amplitudes, start=1):
        if number * pitch.max() < 7_500:
            sound += amplitude * np.sin(number * phase)
    return sound


def envelope(length_s: float, attack_s: float, decay_s: float) -> Sound:
    """Rises in a straight line, falls exponentially."""
    times = seconds(length_s)
    return np.minimum(times / attack_s, 1.0) * np.exp(-times / decay_s)


def noise(
    draw: Draw, length_s: float, colour: float = 0.0, band: tuple[float, float] = (0, 8e3)
) -> Sound:
    """Noise whose power falls with frequency to the power of `colour`, between two frequencies."""
    count = round(length_s * RATE_HZ)
    spectrum = np.fft.rfft(draw.normal(size=count))
    hertz = np.fft.rfftfreq(count, 1 / RATE_HZ)
    spectrum *= np.maximum(hertz, 20.0) ** (-colour / 2)
    spectrum[(hertz < band[0]) | (hertz > band[1])] = 0
    sound = np.fft.irfft(spectrum, count)
    return sound / (np.abs(sound).max() + 1e-12)


def placed(length_s: float, events: Iterable[tuple[float, Sound]]) -> Sound:
    """Sounds added up, each from its time on."""
    sound = np.zeros(round(length_s * RATE_HZ))
    for at_s, one in events:
        start = round(at_s * RATE_HZ)
        part = one[: max(0, len(sound) - start)]
        sound[start : start + len(part)] += part
    return sound


def note(number: float) -> float:
    """The frequency of a MIDI note."""
    return 440.0 * 2 ** ((number - 69) / 12)


def piano_note(draw: Draw, number: float, length_s: float = 1.5) -> Sound:
    """A struck string: slightly stretched partials, the high ones fade first."""
    hertz, times, sound = note(number), seconds(length_s), np.zeros(round(length_s * RATE_HZ))
    for k in range(1, 13):
        partial = k * hertz * np.sqrt(1 + 4e-4 * k * k)
        if partial < 7_500:
            fade = np.exp(-times * (1.0 + 0.4 * k))
            sound += fade * np.sin(2 * np.pi * partial * times + draw.uniform(0, 6)) / k**1.2
    return sound * np.minimum(times / 0.004, 1)


def one_piano_note(draw: Draw) -> Sound:
    """A single note, long or short."""
    return piano_note(draw, draw.integers(36, 90), draw.uniform(0.8, 3))


def piano_chord(draw: Draw) -> Sound:
    """Triads, one after another."""
    chords = []
    for beat in range(4):
        root, third = draw.integers(45, 66), draw.integers(3, 5)
        chords += [(0.8 * beat, piano_note(draw, root + step)) for step in (0, third, 7, 12)]
    return placed(3.5, chords)


def piano_melody(draw: Draw) -> Sound:
    """A melody over a bass."""
    scale = np.array([0, 2, 4, 5, 7, 9, 11, 12])
    step_s, root = draw.uniform(0.18, 0.4), draw.integers(52, 66)
    tune = [
        (n * step_s, piano_note(draw, root + draw.choice(scale), 0.8))
        for n in range(int(3 / step_s))
    ]
    bass = [
        (n * 4 * step_s, piano_note(draw, root - 12 + draw.choice((0, 5, 7)))) for n in range(3)
    ]
    return placed(4, tune + bass)


def siren_wail(draw: Draw) -> Sound:
    """Slowly up and down."""
    sway = np.sin(2 * np.pi * draw.uniform(0.15, 0.6) * seconds(4) + draw.uniform(0, 6))
    return partials(draw.uniform(700, 1000) * 2 ** (0.6 * sway), 4, (1, 0.5, 0.4, 0.2, 0.1))


def siren_two_tones(draw: Draw) -> Sound:
    """High, low, high, low."""
    high = (seconds(4) * draw.uniform(0.8, 2) % 1) < 0.5
    return partials(np.where(high, 1, 0.75) * draw.uniform(450, 700), 4, (1, 0.6, 0.5, 0.4, 0.3))


def footsteps(draw: Draw) -> Sound:
    """Heel and sole on a floor."""
    pace_s, sole = draw.uniform(0.4, 0.7), draw.uniform(300, 1500)

    def step():
        return placed(
            0.3,
            [
                (0, noise(draw, 0.1, 1, (40, sole)) * envelope(0.1, 0.002, 0.02)),
                (
                    draw.uniform(0.06, 0.1),
                    0.4 * noise(draw, 0.15, 0.5, (200, 5e3)) * envelope(0.15, 0.01, 0.03),
                ),
            ],
        )

    return placed(4, [(n * pace_s + draw.uniform(0, 0.03), step()) for n in range(int(4 / pace_s))])


def bell(draw: Draw) -> Sound:
    """A church bell's partials."""
    hertz, times = draw.uniform(180, 900), seconds(4)
    ratios = (
        (0.5, 1.0, 2.0),
        (1, 1, 1.4),
        (1.2, 0.8, 1.2),
        (1.5, 0.4, 0.8),
        (2, 0.9, 0.7),
        (2.5, 0.3, 0.4),
        (3, 0.3, 0.3),
        (4.2, 0.2, 0.2),
    )
    stroke = sum(
        a * np.exp(-times / d) * np.sin(2 * np.pi * hertz * r * times) for r, a, d in ratios
    )
    return placed(4, [(n * draw.uniform(1, 1.5), stroke) for n in range(draw.integers(1, 4))])


def small_bell(draw: Draw) -> Sound:
    """A bicycle's or a counter's bell."""
    hertz, times = draw.uniform(1500, 3500), seconds(1.2)
    ring = sum(
        np.exp(-times * 3 * r) * np.sin(2 * np.pi * hertz * r * times) for r in (1, 1.52, 2.1)
    )
    return placed(3, [(at, ring) for at in np.sort(draw.uniform(0, 2, draw.integers(1, 6)))])


def brass(draw: Draw, low: int = 45, high: int = 70) -> Sound:
    """Trumpet or trombone: brighter where louder."""
    events, at_s = [], 0.0
    while at_s < 3.5:
        length_s = draw.uniform(0.25, 1.2)
        level = np.minimum(seconds(length_s) / 0.06, 1) * np.minimum(
            (length_s - seconds(length_s)) / 0.05, 1
        )
        hertz, sound = note(draw.integers(low, high)), np.zeros(len(level))
        for k in range(1, 25):
            if k * hertz < 7_500:
                sound += (
                    level ** (1 + k / 6)
                    / k**0.7
                    * np.sin(2 * np.pi * k * hertz * seconds(length_s))
                )
        events.append((at_s, sound))
        at_s += length_s
    return placed(4, events)


def alarm_beeps(draw: Draw) -> Sound:
    """An alarm clock."""
    on = (seconds(4) * draw.uniform(1.5, 5) % 1) < draw.uniform(0.3, 0.6)
    return partials(draw.uniform(700, 3200), 4, (1, 0, 0.33, 0, 0.2)) * on


def fire_alarm(draw: Draw) -> Sound:
    """A harsh buzz that sweeps again and again."""
    sweep = seconds(4) * draw.uniform(0.8, 3) % 1
    return np.sign(np.sin(2 * np.pi * np.cumsum(draw.uniform(500, 900) * (1 + sweep)) / RATE_HZ))


def telephone(draw: Draw) -> Sound:
    """A telephone that rings."""
    times, pair = seconds(4), draw.uniform(400, 1300)
    tone = np.sin(2 * np.pi * pair * times) + np.sin(2 * np.pi * pair * 1.25 * times)
    return tone * (np.sin(2 * np.pi * 20 * times) > 0) * (times % 2 < 1)


def dog(draw: Draw) -> Sound:
    """Barks: short, falling, rough, with a broad resonance."""
    base = draw.uniform(250, 700)

    def bark() -> Sound:
        length_s = draw.uniform(0.12, 0.25)
        fall = np.linspace(1.3, 0.7, round(length_s * RATE_HZ)) * (
            1 + 0.05 * draw.normal(size=round(length_s * RATE_HZ))
        )
        voice = partials(base * fall, length_s, (0.5, 1, 0.9, 0.6, 0.4, 0.3, 0.2))
        rough = 0.8 * noise(draw, length_s, 1, (300, 4000))
        return (voice + rough) * envelope(length_s, 0.015, 0.06)

    return placed(4, [(at, bark()) for at in np.sort(draw.uniform(0, 3.7, draw.integers(2, 8)))])


def hum(draw: Draw) -> Sound:
    """Mains hum and a transformer."""
    return partials(draw.choice((50.0, 60.0)), 3, draw.uniform(0, 1, 12)) + 0.05 * noise(draw, 3, 1)


def white(draw: Draw) -> Sound:
    """White noise."""
    return noise(draw, 3)


def pink(draw: Draw) -> Sound:
    """Noise that falls by 3 dB an octave."""
    return noise(draw, 3, 1)


def brown(draw: Draw) -> Sound:
    """Noise that falls by 6 dB an octave."""
    return noise(draw, 3, 2)


def drums(draw: Draw, length_s: float = 4.0, beat_s: float | None = None) -> Sound:
    """Kick, snare and hi-hat."""
    beat_s = beat_s or draw.uniform(0.4, 0.65)
    events = []
    for n in range(int(length_s / beat_s * 2)):
        at_s = n * beat_s / 2
        events.append(
            (at_s, 0.25 * noise(draw, 0.08, -1, (4e3, 8e3)) * envelope(0.08, 0.001, 0.02))
        )
        if n % 4 == 0:
            drop = 50 + 90 * np.exp(-seconds(0.3) * 30)
            events.append((at_s, partials(drop, 0.3, (1,)) * envelope(0.3, 0.002, 0.1)))
        if n % 4 == 2:
            events.append((at_s, 0.7 * noise(draw, 0.2, 0.3) * envelope(0.2, 0.001, 0.06)))
    return placed(length_s, events)


def band_loop(draw: Draw) -> Sound:
    """Drums, bass, chords and a lead."""
    beat_s, root = draw.uniform(0.4, 0.6), draw.integers(40, 52)
    events = [(0.0, drums(draw, 5, beat_s))]
    for bar in range(3):
        base = root + draw.choice((0, 5, 7, -3))
        events += [
            (
                bar * 4 * beat_s + n * beat_s,
                0.5
                * partials(note(base - 12), beat_s, (1, 0.6, 0.3, 0.2))
                * envelope(beat_s, 0.01, 0.3),
            )
            for n in range(4)
        ]
        events += [
            (
                bar * 4 * beat_s,
                0.15 * partials(note(base + 12 + step), 4 * beat_s, 1 / np.arange(1, 12)),
            )
            for step in (0, 4, 7)
        ]
        events += [
            (
                bar * 4 * beat_s + n * beat_s / 2,
                0.3 * piano_note(draw, base + 24 + draw.choice((0, 2, 4, 7, 9)), 0.5),
            )
            for n in range(8)
        ]
    return placed(5, events)


def strings(draw: Draw) -> Sound:
    """A violin or cello with vibrato."""
    events, at_s = [], 0.0
    while at_s < 3.5:
        length_s = draw.uniform(0.4, 1.5)
        sway = 1 + 0.012 * np.sin(2 * np.pi * draw.uniform(5, 6.5) * seconds(length_s))
        tone = partials(note(draw.integers(48, 84)) * sway, length_s, 1 / np.arange(1, 20))
        events.append((at_s, tone * np.minimum(seconds(length_s) / 0.1, 1)))
        at_s += length_s
    return placed(4, events)


def guitar(draw: Draw) -> Sound:
    """Plucked strings (Karplus and Strong)."""

    def pluck(hertz: float) -> Sound:
        period = max(2, round(RATE_HZ / hertz))
        line, out = draw.uniform(-1, 1, period), []
        for _ in range(int(1.5 * RATE_HZ / period)):
            out.append(line)
            line = 0.996 * 0.5 * (line + np.roll(line, 1))
        return np.concatenate(out)

    step_s = draw.uniform(0.15, 0.5)
    return placed(
        4, [(n * step_s, pluck(note(draw.integers(40, 72)))) for n in range(int(3.5 / step_s))]
    )


def engine(draw: Draw) -> Sound:
    """A motor whose speed changes."""
    speed = draw.uniform(25, 80) * (
        1 + 0.3 * np.sin(2 * np.pi * draw.uniform(0.1, 0.4) * seconds(4))
    )
    return partials(speed, 4, draw.uniform(0.2, 1, 25) / np.arange(1, 26) ** 0.5) + noise(
        draw, 4, 1.5
    )


def clock(draw: Draw) -> Sound:
    """A clock that ticks."""
    tick = noise(draw, 0.03, 0, (1e3, 7e3)) * envelope(0.03, 0.0005, 0.004)
    return placed(
        4, [(n * 0.5, tick * (1 if n % 2 else 0.7)) for n in range(8)]
    ) + 1e-3 * white_like(draw, 4)


def white_like(draw: Draw, length_s: float) -> Sound:
    """White noise of a length."""
    return noise(draw, length_s)


def birds(draw: Draw) -> Sound:
    """Chirps."""

    def chirp() -> Sound:
        length_s = draw.uniform(0.05, 0.2)
        sweep = draw.uniform(2500, 5000) * 2 ** (
            draw.uniform(-0.6, 0.6) * seconds(length_s) / length_s
        )
        return partials(sweep, length_s, (1, 0.1)) * np.sin(np.pi * seconds(length_s) / length_s)

    return placed(4, [(at, chirp()) for at in np.sort(draw.uniform(0, 3.8, 14))])


def rain(draw: Draw) -> Sound:
    """Steady noise with drops."""
    drops = [
        (
            at,
            draw.uniform(0.1, 0.6)
            * noise(draw, 0.02, 0, (1e3, 7e3))
            * envelope(0.02, 0.001, 0.004),
        )
        for at in draw.uniform(0, 4, 120)
    ]
    return placed(4, drops) + 0.1 * noise(draw, 4, 0.5)


# Kinds that no detector is set by.


def organ(draw: Draw) -> Sound:
    """Held chords of pipes."""
    pipes = (1, 0.7, 0.4, 0.5, 0.1, 0.2, 0, 0.3)

    def chord():
        return sum(partials(note(draw.integers(40, 70)), 1.4, pipes) for _ in range(3))

    return placed(4, [(n * 1.3, chord()) for n in range(3)])


def flute(draw: Draw) -> Sound:
    """A breathy tune."""
    events, at_s = [], 0.0
    while at_s < 3.5:
        length_s = draw.uniform(0.2, 0.9)
        rise = np.minimum(seconds(length_s) / 0.05, 1)
        sound = partials(note(draw.integers(67, 91)), length_s, (1, 0.25, 0.1)) + 0.08 * noise(
            draw, length_s, 0.5
        )
        events.append((at_s, sound * rise))
        at_s += length_s
    return placed(4, events)


def clarinet(draw: Draw) -> Sound:
    """Odd harmonics, a low reed."""
    events, at_s = [], 0.0
    while at_s < 3.5:
        length_s = draw.uniform(0.2, 1.0)
        rise = np.minimum(seconds(length_s) / 0.04, 1) * np.minimum(
            (length_s - seconds(length_s)) / 0.04, 1
        )
        events.append(
            (
                at_s,
                rise
                * partials(
                    note(draw.integers(50, 80)),
                    length_s,
                    (1, 0.05, 0.6, 0.04, 0.4, 0.03, 0.25, 0.02, 0.15),
                ),
            )
        )
        at_s += length_s
    return placed(4, events)


def whistle(draw: Draw) -> Sound:
    """A referee's whistle with its pea."""
    trill = 1 + 0.03 * np.sign(np.sin(2 * np.pi * draw.uniform(20, 40) * seconds(2)))
    return partials(draw.uniform(2200, 3800) * trill, 2, (1, 0.2)) + 0.1 * noise(draw, 2)


def helicopter(draw: Draw) -> Sound:
    """Blades in rumble."""
    beat = (0.5 + 0.5 * np.sin(2 * np.pi * draw.uniform(9, 16) * seconds(4))) ** 4
    return noise(draw, 4, 1.5) * (0.2 + beat) + 0.3 * partials(
        draw.uniform(60, 110), 4, (1, 0.5, 0.3)
    )


def wind(draw: Draw) -> Sound:
    """Gusts."""
    gust = 0.3 + 0.7 * np.abs(np.interp(seconds(5), np.linspace(0, 5, 8), draw.uniform(0, 1, 8)))
    return noise(draw, 5, 2, (60, 2500)) * gust


def waves(draw: Draw) -> Sound:
    """The sea on a beach."""
    return noise(draw, 6, 0.8) * np.sin(np.pi * draw.uniform(0.15, 0.3) * seconds(6)) ** 2


def applause(draw: Draw) -> Sound:
    """Many hands."""

    def clap():
        return noise(draw, 0.03, 0, (500, 5e3)) * envelope(0.03, 0.001, 0.006)

    return placed(
        4,
        [
            (at, draw.uniform(0.2, 1) * clap())
            for at in draw.uniform(0, 3.9, draw.integers(150, 600))
        ],
    )


def knocks(draw: Draw) -> Sound:
    """Knuckles on a door."""

    def knock():
        return partials(draw.uniform(120, 260), 0.15, (1, 0.4, 0.3)) * envelope(
            0.15, 0.001, 0.03
        ) + 0.4 * noise(draw, 0.15, 0.5, (200, 3e3)) * envelope(0.15, 0.001, 0.01)

    return placed(3, [(0.3 + 0.25 * n, knock()) for n in range(draw.integers(2, 7))])


def glass(draw: Draw) -> Sound:
    """Shards that ring."""

    def shard():
        return partials(draw.uniform(2e3, 6e3), 0.4, (1,)) * envelope(
            0.4, 0.001, draw.uniform(0.02, 0.1)
        )

    return placed(
        3,
        [
            (0.3, noise(draw, 0.2) * envelope(0.2, 0.001, 0.05)),
            *((0.3 + at, 0.5 * shard()) for at in draw.exponential(0.3, 25)),
        ],
    )


def crickets(draw: Draw) -> Sound:
    """Trains of pulses at one high pitch."""
    pulse = np.sin(2 * np.pi * 30 * seconds(4)) ** 2 * (
        (seconds(4) * draw.uniform(1.5, 3) % 1) < 0.4
    )
    return partials(draw.uniform(3500, 5000), 4, (1,)) * pulse + 0.02 * noise(draw, 4, 1)


def frog(draw: Draw) -> Sound:
    """Croaks: a buzz with two resonances."""

    def croak() -> Sound:
        buzz = (seconds(0.35) * draw.uniform(45, 90) % 1 < 0.1).astype(float)
        ring = np.exp(-seconds(0.02) * 300) * (
            np.sin(2 * np.pi * 700 * seconds(0.02)) + np.sin(2 * np.pi * 1900 * seconds(0.02))
        )
        return np.convolve(buzz, ring)[: len(buzz)] * np.sin(np.pi * seconds(0.35) / 0.35)

    return placed(4, [(at, croak()) for at in np.sort(draw.uniform(0, 3.5, 5))])


def digits(draw: Draw) -> Sound:
    """A number that is dialled."""

    def pair():
        return np.sin(2 * np.pi * draw.choice((697, 770, 852, 941)) * seconds(0.15)) + np.sin(
            2 * np.pi * draw.choice((1209, 1336, 1477)) * seconds(0.15)
        )

    return placed(3, [(0.25 * n, pair()) for n in range(11)])


def vacuum(draw: Draw) -> Sound:
    """A vacuum cleaner."""
    return noise(draw, 4, 0.5) + 0.4 * partials(
        draw.uniform(180, 420), 4, (1, 0.6, 0.5, 0.3, 0.2, 0.1)
    )


def train_horn(draw: Draw) -> Sound:
    """A chord of horns."""
    chord = [note(draw.integers(55, 62) + step) for step in (0, 3, 6, 9)]
    return sum(partials(one, 2.5, 1 / np.arange(1, 16) ** 0.7) for one in chord) * envelope(
        2.5, 0.1, 4
    )


def synthesiser(draw: Draw) -> Sound:
    """A sawtooth arpeggio through a filter that opens and closes."""
    step_s, root = draw.uniform(0.1, 0.2), draw.integers(45, 60)
    events = []
    for n in range(int(4 / step_s)):
        bright = 0.6 + 1.2 * np.sin(n * 0.2) ** 2
        tone = partials(
            note(root + (0, 3, 7, 12, 15)[n % 5]), step_s, np.arange(1.0, 25) ** -bright
        )
        events.append((n * step_s, tone * envelope(step_s, 0.005, 0.15)))
    return placed(4, events)


def gramophone(draw: Draw) -> Sound:
    """A tune of strings through a narrow, crackling channel."""
    spectrum = np.fft.rfft(strings(draw))
    hertz = np.fft.rfftfreq(4 * RATE_HZ, 1 / RATE_HZ)
    narrow = np.fft.irfft(np.where((hertz > 300) & (hertz < 3000), spectrum, 0), 4 * RATE_HZ)
    crackle = [(at, noise(draw, 0.005) * 2) for at in draw.uniform(0, 4, 80)]
    return narrow + placed(4, crackle) + 0.1 * noise(draw, 4, 0.5)


def drill(draw: Draw) -> Sound:
    """A drill under changing load."""
    load = 1 + 0.2 * np.interp(seconds(4), np.linspace(0, 4, 6), draw.uniform(-1, 1, 6))
    return partials(draw.uniform(150, 400) * load, 4, draw.uniform(0.3, 1, 15)) + 0.5 * noise(
        draw, 4, 0
    )


def typing(draw: Draw) -> Sound:
    """Keys of a keyboard."""

    def key():
        return noise(draw, 0.05, 0.3, (300, 6e3)) * envelope(0.05, 0.001, 0.008)

    return placed(
        4, [(at, draw.uniform(0.4, 1) * key()) for at in np.sort(draw.uniform(0, 3.9, 30))]
    )


Maker = Callable[[Draw], Sound]

CHOSEN_BY: dict[str, Maker] = {
    "piano note": one_piano_note, "piano chords": piano_chord, "piano melody": piano_melody,
    "siren": siren_wail, "two-tone siren": siren_two_tones, "footsteps": footsteps, "bell": bell,
    "small bell": small_bell, "brass": brass, "alarm clock": alarm_beeps, "fire alarm": fire_alarm,
    "telephone": telephone, "dog": dog, "hum": hum, "white noise": white, "pink noise": pink,
    "brown noise": brown, "drums": drums, "band": band_loop, "strings": strings, "guitar": guitar,
    "engine": engine, "clock": clock, "birds": birds, "rain": rain,
}  # fmt: skip
HELD_OUT: dict[str, Maker] = {
    "organ": organ, "flute": flute, "clarinet": clarinet, "whistle": whistle,
    "helicopter": helicopter, "wind": wind, "waves": waves, "applause": applause, "knocks": knocks,
    "glass": glass, "crickets": crickets, "dialling": digits, "vacuum": vacuum,
    "train horn": train_horn, "synthesiser": synthesiser, "gramophone": gramophone, "drill": drill,
    "typing": typing,
}  # fmt: skip
LIKE_A_VOWEL: dict[str, Maker] = {"frog": frog}
"""Pulses through two resonances, which is how a vowel is made, too."""
SOUNDS = {**CHOSEN_BY, **HELD_OUT, **LIKE_A_VOWEL}


def made(name: str, seed: int) -> NDArray[np.float32]:
    """A sound of a kind, float32 [time]; its largest sample is between 0.1 and 0.9."""
    draw = np.random.default_rng([seed, sum(map(ord, name))])
    sound = SOUNDS[name](draw)
    return (sound / np.abs(sound).max() * draw.uniform(0.1, 0.9)).astype(np.float32)


def main() -> None:
    """Write six sounds of each kind of CHOSEN_BY as wav files into the folder that is named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for kind in CHOSEN_BY:
        for seed in range(6):
            sound = SOUNDS[kind](np.random.default_rng((seed, 7)))
            sound = 0.5 * sound / max(1.0, np.abs(sound).max())
            soundfile.write(folder / f"{kind.replace(' ', '-')}-{seed}.wav", sound, RATE_HZ)


if __name__ == "__main__":
    main()
