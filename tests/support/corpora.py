"""Corpora in miniature, laid out as their owners ship them, with noise for speech."""

import csv
import io
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import soundfile


def noise(file: Path, *, rate_hz: int = 16_000, length_s: float = 0.3) -> Path:
    """A sound file whose noise is its own: seeded by its name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    drawn = np.random.default_rng(zlib.crc32(file.name.encode()))
    soundfile.write(file, 0.1 * drawn.standard_normal(round(length_s * rate_hz)), rate_hz)
    return file


def lines(file: Path, *written: str, encoding: str = "utf-8") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in written), encoding=encoding)
    return file


def table(file: Path, *rows: Sequence[str]) -> Path:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(rows)
    return lines(file, *written.getvalue().splitlines())


def esd(source: Path) -> Path:
    """Two speakers, two sentences in each of five emotions; one speaker split as shipped lately."""
    emotions = ("Neutral", "Angry", "Happy", "Sad", "Surprise")
    for speaker, flat, encoding in (("0003", True, "utf-16"), ("0011", False, "utf-8")):
        home, said = source / "Emotion Speech Dataset" / speaker, []
        words = ("打远一看。", "他来了。") if flat else ("I say so.", "You do.")
        for (block, emotion), number in product(enumerate(emotions), (0, 1)):
            stem = f"{speaker}_{350 * block + number + 1:06}"
            noise(
                home / emotion / ("" if flat else ("train", "evaluation")[number]) / f"{stem}.wav"
            )
            said.append(f"{stem}\t{words[number]}\t{'中立' if flat else emotion}")
        lines(home / f"{speaker}.txt", *said, "", encoding=encoding)
    return source


ESD_COUNTS = {"0003": 10, "0011": 10}


def iemocap(source: Path) -> Path:
    """Two dialogues of two sessions, three turns each."""
    for session, dialog in (("1", "Ses01F_impro01"), ("2", "Ses02M_script01_1")):
        home = source / f"Session{session}"
        codes = {f"{dialog}_F000": "neu", f"{dialog}_M000": "exc", f"{dialog}_F001": "xxx"}
        for turn in codes:
            noise(home / "sentences" / "wav" / dialog / f"{turn}.wav")
        lines(home / "sentences" / "wav" / dialog / "._hidden.wav", "not a sound")
        rated = [
            f"[6.2901 - 8.2357]\t{turn}\t{code}\t[2.5000, 2.5000, 2.5000]\n"
            "C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom 2;\t()"
            for turn, code in codes.items()
        ]
        head = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]"
        lines(home / "dialog" / "EmoEvaluation" / f"{dialog}.txt", head, "", *rated)
        said = [f"{turn} [006.2901-008.2357]: Words of {turn}." for turn in codes]
        lines(home / "dialog" / "transcriptions" / f"{dialog}.txt", *said, "M: (breathing)")
    return source


IEMOCAP_COUNTS = {"Ses01": 3, "Ses02": 3}


def captioned(source: Path) -> list[str]:
    """The stems of every ESD and IEMOCAP clip below a folder."""
    return sorted(file.stem for file in source.rglob("*_*.wav") if not file.name.startswith("."))


def emosec(source: Path) -> Path:
    """Captions as a dict of lists over the miniatures of ESD and IEMOCAP."""
    esd(source / "ESD")
    iemocap(source / "IEMOCAP_full_release")
    captions = {stem: [f"Caption of {stem}.", f"Another of {stem}."] for stem in captioned(source)}
    lines(source / "merged_file.json", json.dumps(captions))
    return source


EMOSEC_COUNTS = {"esd": 20, "iemocap": 6}


def mer2023(source: Path) -> Path:
    """Four parts of two labelled clips, their sound taken out; one clip of them has captions."""
    for number, part in enumerate(("train", "test1", "test2", "test3")):
        names = (f"sample_{number}0", f"sample_{number}1")
        for name in names:
            noise(source / ("audio" if number else "train") / f"{name}.wav")
        rows = [(names[0], "worried", "-1.0"), (names[1], "neutral", "0.0")]
        table(source / f"{part}-label.csv", ("name", "discrete", "valence"), *rows)
    lines(source / "test3" / "sample_unlabelled.mp4", "passed over")
    chinese = "视频中有人。在音频中，他的声音低沉。文本说再见。"
    english = "In the video, a man sits. In the audio, his voice is low and slow. He says bye."
    head = ("name", "chinese", "english")
    table(source / "EMER.csv", head, ("sample_00", chinese, english))
    return source


def nnime(source: Path) -> Path:
    for emotion in ("angry", "Frustration", "surprise"):
        for who in "AB":
            noise(source / f"{emotion}_01_{who}_{len(emotion)}.wav", rate_hz=44_100)
    return source


def secap(source: Path) -> Path:
    clips = [f"tx_emulate_00_{book}_0001_00000{clip}" for book in (110, 111) for clip in (1, 2)]
    for clip in clips:
        noise(source / "wav" / f"{clip}.wav", rate_hz=24_000)
    lines(source / "wav.scp", *(f"{clip} /elsewhere/wav/{clip}.wav" for clip in clips))
    lines(source / "text.txt", *(f"{clip} 话 {clip}" for clip in clips))
    captions = {clip: [f"难过的{clip}", "她很难过"] for clip in clips}
    lines(source / "fid2captions.json", json.dumps(captions))
    return source


def ravdess(source: Path) -> Path:
    for actor in ("01", "02"):
        for emotion, intensity in (("02", "01"), ("05", "02")):
            stem = f"03-01-{emotion}-{intensity}-01-02-{actor}"
            noise(source / f"Actor_{actor}" / f"{stem}.wav", rate_hz=48_000)
        noise(source / f"Actor_{actor}" / f"03-02-05-01-01-01-{actor}.wav")  # a song
        lines(source / f"Actor_{actor}" / f"01-01-05-01-01-01-{actor}.mp4", "a film")
    return source


def emodb(source: Path) -> Path:
    for stem in ("03a01Fa", "03a01Wa", "08b03Lb", "08a05Nd"):
        noise(source / "wav" / f"{stem}.wav")
    return source


def folder(source: Path) -> Path:
    noise(source / "one.wav", rate_hz=44_100)
    noise(source / "deep" / "two.flac")
    lines(source / "deep" / "two.txt", "A woman speaks softly.", "", "She sounds tired.")
    lines(source / "one.json", json.dumps({"speaker": "anna", "emotion": "calm"}))
    lines(source / "notes.md", "passed over")
    return source


MINIATURES: Mapping[str, tuple[Callable[[Path], Path], Mapping[str, int]]] = {
    "emosec": (emosec, EMOSEC_COUNTS),
    "mer2023": (mer2023, {"all": 8}),
    "nnime": (nnime, {"all": 6}),
    "secap": (secap, {"all": 4}),
    "esd": (esd, ESD_COUNTS),
    "iemocap": (iemocap, IEMOCAP_COUNTS),
    "ravdess": (ravdess, {"01": 2, "02": 2}),
    "emodb": (emodb, {"all": 4}),
    "folder": (folder, {}),
}
"""Each corpus in miniature, and how many clips its parts have."""
