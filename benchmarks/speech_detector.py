"""How well speech is told from everything else, as captioning does it: shares that are captioned.

    python benchmarks/speech_detector.py [--data ../shared/data/speech] [--count 100] [--seed 0]
        [--parts detector,model,speed]

Made sounds (`sounds.py`): `--each` of every kind, the kinds that the detector's thresholds were
chosen by apart from those that nothing was chosen by. Where recordings of people are given: the
share of clips refused, clean and in white noise, pink noise and babble at 5 dB. Then what the whole
of `mini` does with the same sounds, whose encoder may name a sound without words that the detector
refused, and with people's sounds without words, of speakers kept back. Processor time is
that of the whole preparation of a clip (measuring and encoding) with the detector and without.
"""

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from channels import noises, with_noise
from sounds import CHOSEN_BY, HELD_OUT, LIKE_A_VOWEL, made

from aligncap.audio import SpeechDetector, load, speech_activity
from aligncap.captioner.checkpoint import find_model, read_meta
from aligncap.captioner.preparing import PreparedSpeech, Preprocessor
from aligncap.data.manifest import Utterance, read_manifest
from aligncap.data.splits import is_validation
from aligncap.errors import NoSpeechError
from aligncap.tokenizers import open_tokenizer
from aligncap.values import Samples, Waveform

ROOT = Path(__file__).resolve().parent.parent
SNR_DB = 5.0
KINDS = {"chosen by": CHOSEN_BY, "held out": HELD_OUT, "like a vowel": LIKE_A_VOWEL}
DETECTOR = SpeechDetector()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/speech")
    parser.add_argument("--count", type=int, default=100, help="clips of each corpus")
    parser.add_argument("--each", type=int, default=8, help="sounds of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", default="detector,model,speed")
    asked = parser.parse_args()
    parts = asked.parts.split(",")
    if "detector" in parts:
        detector(asked)
    if "model" in parts:
        model(asked)
    if "speed" in parts:
        speed()


def detector(asked: argparse.Namespace) -> None:
    """The tables of the detector by itself."""
    print("| made sounds | kinds | sounds | as speech | by `speech_activity` alone | which |")
    print("|---|---:|---:|---:|---:|---|")
    first = 1000 * (1 + asked.seed)
    for title, kinds in KINDS.items():
        sound_row(title, list(kinds), range(first, first + asked.each))
    if asked.data.is_dir():
        corpora(asked.data, asked.count, random.Random(asked.seed))
    else:
        print(f"\n{asked.data}: no recordings of people there")


def model(asked: argparse.Namespace) -> None:
    """What `mini` makes of made sounds, and of people's sounds without words."""
    first = 1000 * (1 + asked.seed)
    prepare = preparation(DETECTOR).prepare
    print("\n| heard by `mini` | sounds | refused | named a person's sound | taken for speech |")
    print("|---|---:|---:|---:|---:|")
    for title, kinds in KINDS.items():
        found = Counter(
            outcome(prepare, made(kind, seed))
            for kind in kinds
            for seed in range(first, first + asked.each)
        )
        outcome_row(title, found)
    manifest = asked.data / "nonverbal/manifest.jsonl"
    if not manifest.is_file():
        return
    for kind, rows in groupby(
        sorted(filter(is_validation, read_manifest(manifest)), key=vocalization_of),
        key=vocalization_of,
    ):
        found = Counter(outcome(prepare, load(one.path).samples) for one in rows)
        outcome_row(f"{kind} (named so {found[kind]})", found)


def vocalization_of(one: Utterance) -> str:
    """The sound without words that a clip holds."""
    return one.vocalization or ""


def outcome(prepare: Callable[[Waveform], PreparedSpeech], samples: Samples) -> str:
    """ "refused", "speech", or the name of a sound without words."""
    try:
        return prepare(Waveform(samples, "a sound")).vocalization or "speech"
    except NoSpeechError:
        return "refused"


def outcome_row(title: str, found: Counter[str]) -> None:
    """A line: the shares of what became of sounds."""
    count = found.total()
    named = count - found["refused"] - found["speech"]
    shares = [f"{n / count:.1%}" for n in (found["refused"], named, found["speech"])]
    print(f"| {title} | {count} | {' | '.join(shares)} |", flush=True)


def preparation(detector: SpeechDetector | None) -> Preprocessor:
    """What `mini` does to a recording before it looks for words."""
    folder = find_model("mini")
    longest_s = read_meta(folder).limits.max_speech_s
    return Preprocessor(open_tokenizer("builtin", folder), longest_s, detector)


def sound_row(title: str, kinds: Sequence[str], seeds: range) -> None:
    """A line: how many of the sounds are taken for speech, and of which kinds."""
    found, before = {}, 0
    for kind in kinds:
        sounds = [made(kind, seed) for seed in seeds]
        found[kind] = sum(map(DETECTOR.hears_speech, sounds))
        before += sum(bool(speech_activity(Waveform(one))) for one in sounds)
    count = len(kinds) * len(seeds)
    which = ", ".join(f"{kind} {n}" for kind, n in found.items() if n)
    shares = f"{sum(found.values()) / count:.1%} | {before / count:.1%}"
    print(f"| {title} | {len(kinds)} | {count} | {shares} | {which} |", flush=True)


def corpora(data: Path, count: int, draw: random.Random) -> None:
    """A line for each corpus: the share of its clips that is refused."""
    print("\n| clips refused | n | clean | white | pink | babble |\n|---|---:|---:|---:|---:|---:|")
    sets = {}
    for folder in sorted(data.iterdir()):
        rows = [json.loads(line) for line in (folder / "manifest.jsonl").open(encoding="utf-8")]
        kinds = {"": [row for row in rows if not row.get("vocalization")]}
        for row in rows:
            if sound := row.get("vocalization"):
                kinds.setdefault(sound, []).append(row)
        for kind, of_kind in kinds.items():
            drawn = draw.sample(of_kind, min(count, len(of_kind)))
            sounds = [load(folder / row["file"]).samples for row in drawn]
            if sounds:
                sets[kind or folder.name] = (bool(kind), sounds)
    people = [one for wordless, sounds in sets.values() if not wordless for one in sounds]
    kinds_of_noise = noises(people)
    chance = np.random.default_rng(draw.getrandbits(32))
    for name, (wordless, sounds) in sets.items():
        shares = [refused(sounds)]
        shares += [
            refused([with_noise(one, make(len(one), chance), SNR_DB) for one in sounds])
            for make in (() if wordless else kinds_of_noise.values())
        ]
        cells = [f"{share:.1%}" for share in shares] + [""] * (4 - len(shares))
        print(f"| {name} | {len(sounds)} | {' | '.join(cells)} |", flush=True)


def refused(sounds: Sequence[Samples]) -> float:
    """Share of sounds in which no speech is heard."""
    return 1 - float(np.mean([DETECTOR.hears_speech(one) for one in sounds]))


def speed() -> None:
    """Processor time of preparing the example clips, with the detector and without."""
    clips = [load(path) for path in sorted((ROOT / "examples/clips").glob("*.ogg"))]
    ways = {has: preparation(DETECTOR if has else None).prepare for has in (True, False)}
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(6):
        for has, taken in times.items():
            started = time.process_time()
            for clip in clips:
                ways[has](clip)
            taken.append((time.process_time() - started) / len(clips))
    with_s, without_s = min(times[True]), min(times[False])
    length_s = np.mean([clip.duration_s for clip in clips])
    print(
        f"\nPreparing a clip of {length_s:.1f} s takes {with_s / without_s:.2f} times as long with "
        f"the detector as without ({1e3 * (with_s - without_s):.1f} ms more of this processor)."
    )


if __name__ == "__main__":
    main()
