"""How much of the emotion survives telephone, codecs and noise, and what its probability is worth.

    python benchmarks/channels.py --model mini --data ../shared/data/speech

Each clip of speakers kept back for choosing is heard as it is and through each channel; counted
are the clips whose likeliest emotion stays the same, and those that are refused or taken for a
sound without words. Telephone is G.711 µ-law at 8 kHz between 300 and 3,400 Hz; mp3, Vorbis and
Opus are libsndfile's. The expected
calibration error (ECE) is over ten bins of the probability of the likeliest emotion.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import soxr
import typer

import aligncap
from aligncap.audio import SpeechDetector, load
from aligncap.captioner.checkpoint import find_model, read_meta
from aligncap.captioner.preparing import Preprocessor
from aligncap.data.manifest import Utterance, read_manifest
from aligncap.data.splits import is_validation
from aligncap.errors import NoSpeechError
from aligncap.experiments.validation import LABELLED
from aligncap.storage import hash_of
from aligncap.tokenizers import open_tokenizer
from aligncap.values import RATE_HZ, Samples, Waveform

TELEPHONE_HZ = 8_000
MU = 255.0
BINS = 10
LEAST_CALIBRATED = 100
"""Clips from which on the calibration error is told: of few, bins by chance are far off."""
BABBLERS = 6


def mu_law(samples: Samples) -> Samples:
    """Eight bits a sample by the µ-law of G.711, and back."""
    clipped = np.clip(samples.astype(np.float64), -1.0, 1.0)
    squeezed = np.sign(clipped) * np.log1p(MU * np.abs(clipped)) / np.log1p(MU)
    coded = np.round((squeezed + 1) / 2 * 255) / 255 * 2 - 1
    return (np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(MU)) / MU).astype(np.float32)


def telephone(samples: Samples) -> Samples:
    """A telephone line: 300 to 3,400 Hz, 8 kHz, µ-law; 16 kHz again."""
    narrow = soxr.resample(samples, RATE_HZ, TELEPHONE_HZ)
    spectrum = np.fft.rfft(narrow)
    hertz = np.fft.rfftfreq(len(narrow), 1 / TELEPHONE_HZ)
    spectrum[(hertz < 300) | (hertz > 3_400)] = 0
    passed = np.fft.irfft(spectrum, len(narrow)).astype(np.float32)
    found: Samples = soxr.resample(mu_law(passed), TELEPHONE_HZ, RATE_HZ).astype(np.float32)
    return found


def through(kind: str, subtype: str, compression: float) -> Callable[[Samples], Samples]:
    """Written by libsndfile in a lossy format and read again; `compression` is 0 (best) to 1."""

    def coded(samples: Samples) -> Samples:
        file = io.BytesIO()
        soundfile.write(
            file, samples, RATE_HZ, format=kind, subtype=subtype, compression_level=compression
        )
        file.seek(0)
        read, rate_hz = soundfile.read(file, dtype="float32")
        found: Samples = read if rate_hz == RATE_HZ else soxr.resample(read, rate_hz, RATE_HZ)
        return found

    return coded


def with_noise(samples: Samples, noise: Samples, snr_db: float) -> Samples:
    """Samples and a noise that is `snr_db` softer in power; shape [time] both."""
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    wanted = power / 10 ** (snr_db / 10)
    scale = np.sqrt(wanted / max(float(np.mean(np.square(noise, dtype=np.float64))), 1e-12))
    return np.clip(samples + scale * noise, -1.0, 1.0).astype(np.float32)


def pink(length: int, chance: np.random.Generator) -> Samples:
    """Noise whose power falls by 3 dB an octave, from 20 Hz on."""
    spectrum = np.fft.rfft(chance.normal(size=length))
    hertz = np.maximum(np.fft.rfftfreq(length, 1 / RATE_HZ), 20.0)
    return np.fft.irfft(spectrum / np.sqrt(hertz), length).astype(np.float32)


def babble(length: int, chance: np.random.Generator, voices: Sequence[Samples]) -> Samples:
    """Several voices at once, each over and over from a place of its own, equally loud."""
    mixed = np.zeros(length, np.float32)
    for pick in chance.choice(len(voices), BABBLERS, replace=len(voices) < BABBLERS):
        voice = voices[pick]
        rolled = np.roll(voice, int(chance.integers(len(voice))))
        mixed += np.resize(rolled, length) / (np.std(voice) + 1e-6)
    return mixed


def noises(voices: Sequence[Samples]) -> dict[str, Callable[[int, np.random.Generator], Samples]]:
    """White noise, pink noise and babble of these voices: of a length, by chance."""
    return {
        "white": lambda length, chance: chance.normal(size=length).astype(np.float32),
        "pink": pink,
        "babble": lambda length, chance: babble(length, chance, voices),
    }


def channels(voices: Sequence[Samples]) -> dict[str, Callable[[Samples], Samples]]:
    """What a clip is sent through, by name."""
    found: dict[str, Callable[[Samples], Samples]] = {
        "8 kHz µ-law": telephone,
        "mp3, medium": through("MP3", "MPEG_LAYER_III", 0.5),
        "mp3, smallest": through("MP3", "MPEG_LAYER_III", 0.99),
        "Vorbis, medium": through("OGG", "VORBIS", 0.5),
        "Opus, medium": through("OGG", "OPUS", 0.5),
        "Opus, smallest": through("OGG", "OPUS", 0.99),
    }
    for name, make in noises(voices).items():
        for snr_db in (10, 5):

            def noisy(samples: Samples, make=make, snr_db=snr_db) -> Samples:
                chance = np.random.default_rng(len(samples))
                return with_noise(samples, make(len(samples), chance), snr_db)

            found[f"{name} noise, {snr_db} dB"] = noisy
    return found


def calibration_error(probabilities: Sequence[float], right: Sequence[bool]) -> float:
    """The expected calibration error: the mean over bins, by their clips, of how far the mean
    probability is from the share that is right."""
    chances, hits = np.array(probabilities), np.array(right, dtype=float)
    bins = np.minimum((chances * BINS).astype(int), BINS - 1)
    gaps = [
        abs(chances[bins == one].mean() - hits[bins == one].mean()) * np.mean(bins == one)
        for one in np.unique(bins)
    ]
    return float(sum(gaps))


Heard = Mapping[str, float] | None
"""The probabilities of the emotions of a clip; None where it was refused."""


def likeliest(preprocessor: Preprocessor, waveform: Waveform) -> Heard:
    """What is heard of a clip before words are looked for; nothing where no words are heard."""
    try:
        speech = preprocessor.prepare(waveform)
    except NoSpeechError:
        return None
    return None if speech.vocalization else speech.tokens.readout["emotion"]


def remembered(file: Path | None, signature: str) -> dict[str, list[Heard]]:
    """What an earlier run with the same signature has heard, by channel."""
    lines = file.read_text(encoding="utf-8").splitlines() if file and file.exists() else []
    known = [json.loads(line) for line in lines]
    return {one["channel"]: one["heard"] for one in known if one["signature"] == signature}


def top(emotion: Mapping[str, float]) -> str:
    """The likeliest emotion."""
    return max(emotion, key=emotion.__getitem__)


def chosen(data: Path, corpora: Sequence[str], clips: int) -> list[Utterance]:
    """As many clips of each corpus, of speakers kept back, by the hash of their ids."""
    found: list[Utterance] = []
    for name in corpora:
        own = [u for u in read_manifest(data / name / "manifest.jsonl") if is_validation(u)]
        own = [u for u in own if u.emotion]
        found += sorted(own, key=lambda u: hash_of(f"channel/{u.id}"))[: clips // len(corpora)]
    return found


def main(
    model: Annotated[str, typer.Option(help="Built-in model or model folder.")] = "mini",
    data: Annotated[Path, typer.Option(help="Folder with a folder a corpus.")] = Path(
        "../shared/data/speech"
    ),
    clips: Annotated[int, typer.Option(help="Clips, all corpora together.")] = 200,
    corpora: Annotated[str, typer.Option(help="Corpora, parted by commas.")] = ",".join(LABELLED),
    output: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Leave out channels with this in their names.")
    ] = None,
    kept: Annotated[
        Path | None, typer.Option(help="File (.jsonl) that a run which was stopped goes on from.")
    ] = None,
) -> None:
    """Print, or write, the share of clips whose emotion stays the same through each channel."""
    folder = find_model(model)
    tokenizer = open_tokenizer("builtin", folder)
    longest_s = read_meta(folder).limits.max_speech_s
    preprocessor = Preprocessor(tokenizer, longest_s, SpeechDetector())
    utterances = chosen(data, corpora.split(","), clips)
    plain = [load(one.path) for one in utterances]
    hashes = hash_of("/".join(one.id for one in utterances))[:12]
    signature = f"{tokenizer.fingerprint[:12]}/{hashes}"
    known = remembered(kept, signature)

    def heard(name: str, send: Callable[[Samples], Samples]) -> list[Heard]:
        if name not in known:
            known[name] = [
                likeliest(preprocessor, Waveform(send(one.samples), one.source)) for one in plain
            ]
            if kept is not None:
                line = {"signature": signature, "channel": name, "heard": known[name]}
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
        return known[name]

    before = heard("as it is", lambda samples: samples)
    voices = [one.samples for one in plain]
    through_all = {
        name: heard(name, send)
        for name, send in channels(voices).items()
        if not any(text in name for text in without or ())
    }
    lines = [
        "# The emotion through telephone, codecs and noise",
        "",
        "Made by `python benchmarks/channels.py`, which explains what is done; do not edit. "
        f"Signature: aligncap {aligncap.__version__} · encoder {signature.partition('/')[0]} · "
        f"{sum(one is not None for one in before)} clips of speakers kept back for choosing "
        f"({corpora}) in which speech is heard · 95 % intervals by Wilson's formula.",
        "",
        *table(before, through_all),
        "",
        *calibration(before, utterances),
    ]
    text = "\n".join(lines) + "\n"
    if output is not None:
        output.write_text(text, encoding="utf-8")
    print(text)


def table(before: Sequence[Heard], through_all: Mapping[str, Sequence[Heard]]) -> list[str]:
    """Markdown: of the clips that are heard as they are, those that keep their emotion."""
    lines = ["| channel | same emotion | 95 % interval | refused |", "| --- | ---: | ---: | ---: |"]
    for name, after in through_all.items():
        pairs = [(a, b) for a, b in zip(before, after, strict=True) if a]
        same = sum(bool(b) and top(a) == top(b) for a, b in pairs if b)
        refused = sum(b is None for _, b in pairs)
        low, high = wilson(same, len(pairs))
        lines.append(
            f"| {name} | {same / len(pairs):.1%} | {low:.1%}–{high:.1%} "
            f"| {refused / len(pairs):.1%} |"
        )
    return lines


def wilson(part: int, whole: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    z = 1.959964
    middle = (part + z * z / 2) / (whole + z * z)
    reach = z / (whole + z * z) * np.sqrt(part * (whole - part) / whole + z * z / 4)
    return float(middle - reach), float(middle + reach)


def calibration(before: Sequence[Heard], utterances: Sequence[Utterance]) -> list[str]:
    """Markdown: the calibration error over all clips, and of each corpus."""
    rows = [
        (u.corpus or "", e, top(e) == u.emotion)
        for e, u in zip(before, utterances, strict=True)
        if e
    ]
    names = ["all", *dict.fromkeys(name for name, _, _ in rows)]
    lines = [
        "Clips as they are:",
        "",
        "| corpus | clips | likeliest emotion right | calibration error |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name in names:
        own = [(max(e.values()), right) for corpus, e, right in rows if name in ("all", corpus)]
        error = calibration_error(*zip(*own, strict=True))
        right = sum(hit for _, hit in own) / len(own)
        told = f"{error:.3f}" if len(own) >= LEAST_CALIBRATED else "–"
        lines.append(f"| {name} | {len(own)} | {right:.1%} | {told} |")
    return lines


if __name__ == "__main__":
    typer.run(main)
