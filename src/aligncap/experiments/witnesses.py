"""Claims held to witnesses from outside: tools that share no code with the package, transcripts,
and people who listened.

    python -m aligncap.experiments.witnesses --model mini --data ../shared/data/speech \
        --output docs/results/witnesses.md

`validation` asks how often captions contradict what the package measured, which is also what wrote
the captions it learnt from, fills its prompts and ranks its beams. Here the measurements are
Praat's (pitch, movement of the intensity, syllable nuclei), pyloudnorm's (loudness), the
transcript's (syllables a second), and what people say in secap's captions, beside what they say of
other clips. It needs the extra `evidence`.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

import aligncap
from aligncap.audio.files import load
from aligncap.captioner.captioner import Captioner
from aligncap.captioner.checkpoint import find_model, model_fingerprint
from aligncap.clues import detect_language, find_clues, judge, measured_clues
from aligncap.clues.evidence import (
    Claim,
    ClaimStatus,
    check_by_references,
    claim_of,
    claims_fingerprint,
)
from aligncap.data.manifest import Utterance, read_manifest
from aligncap.data.splits import is_validation, secap_source
from aligncap.data.syllables import count_syllables
from aligncap.errors import AlignCapError, DataError, MissingModelError
from aligncap.experiments import Page, command, write_page
from aligncap.storage import atomic_file, hash_of, hash_of_file
from aligncap.values import RATE_HZ, Clue, Fact, Facts, Verdict, Waveform

TRANSCRIBED = ("ravdess", "emodb", "nemo")
TRAITS = ("pitch", "volume", "pace")
SIDES = MappingProxyType(
    {"pitch": ("low", "normal", "high"), "volume": ("quiet", "normal", "loud"),
     "pace": ("slow", "normal", "fast")}
)  # fmt: skip
SEMITONE_ST = 1.0
DRAWS = 1000

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outside:
    """What tools from outside measure of a clip; None where they cannot tell."""

    pitch_hz: float | None
    """Praat's median of the pitch."""
    nuclei: int | None
    """Voiced peaks of Praat's intensity (de Jong & Wempe 2009)."""
    slope_db_per_s: float | None
    """The line through Praat's intensity where it is at most 25 dB below its top."""
    loudness_lufs: float | None
    """pyloudnorm's integrated loudness."""


def listen(waveform: Waveform) -> Outside:
    """Praat's and pyloudnorm's measurements; MissingModelError where they are not installed."""
    try:
        import parselmouth
        import pyloudnorm
    except ModuleNotFoundError as error:
        raise MissingModelError(
            f"witnesses need {error.name}, which is not installed: pip install 'aligncap[evidence]'"
        ) from error
    samples = waveform.samples.astype(np.float64)
    if waveform.duration_s < 0.5:  # shorter than what BS.1770 and Praat's intensity look at
        return Outside(None, None, None, None)
    sound = parselmouth.Sound(samples, RATE_HZ)
    hertz = sound.to_pitch(0.01, 75.0, 600.0).selected_array["frequency"]
    voiced = hertz[hertz > 0]
    intensity = sound.to_intensity(50.0, 0.01)
    times_s, levels_db = intensity.xs(), intensity.values[0]
    loud = levels_db > np.percentile(levels_db, 99) - 25.0
    slope = float(np.polyfit(times_s[loud], levels_db[loud], 1)[0]) if loud.sum() > 50 else None
    voicing = np.interp(times_s, np.arange(len(hertz)) * 0.01, hertz > 0) > 0.5
    lufs = pyloudnorm.Meter(RATE_HZ).integrated_loudness(samples)
    return Outside(
        float(np.median(voiced)) if len(voiced) >= 15 else None,
        _peaks(levels_db, loud, voicing),
        slope,
        float(lufs) if math.isfinite(lufs) else None,
    )


def _peaks(levels_db: Floats, loud: NDArray[np.bool_], voiced: NDArray[np.bool_]) -> int:
    """Voiced maxima of the intensity with dips of 2 dB between them."""
    inner = levels_db[1:-1]
    found = np.flatnonzero((inner > levels_db[:-2]) & (inner >= levels_db[2:])) + 1
    kept: list[int] = []
    for peak in (int(one) for one in found if loud[one]):
        dip = levels_db[kept[-1] : peak].min() if kept else -math.inf
        if kept and min(levels_db[kept[-1]], levels_db[peak]) - dip < 2.0:
            if levels_db[peak] > levels_db[kept[-1]]:
                kept[-1] = peak
        else:
            kept.append(peak)
    return sum(bool(voiced[peak]) for peak in kept)


def listen_all(utterances: Sequence[Utterance], cache: Path) -> list[Outside]:
    """`listen` for each utterance; those in `cache` (JSON) are not listened to again."""
    known: dict[str, Any] = json.loads(cache.read_text("utf-8")) if cache.exists() else {}
    missing = [one for one in utterances if str(one.path) not in known]
    for one in missing:
        known[str(one.path)] = asdict(listen(load(one.path)))
    if missing:
        with atomic_file(cache) as file:
            json.dump(known, file)
    return [Outside(**known[str(one.path)]) for one in utterances]


@dataclass(frozen=True, slots=True)
class Heard:
    """A clip with its caption and what the package measured and heard of it."""

    utterance: Utterance
    text: str
    language: str
    facts: Facts

    @property
    def speaking_s(self) -> float:
        """From the first speech to the last, pauses included."""
        paused = self.facts.by_name.get("pause_share")
        return self.facts.speech_s / (1.0 - ((paused.value if paused else None) or 0.0))

    @property
    def text_rate(self) -> float | None:
        """Syllables a second by the transcript, pauses included; None without one."""
        one = self.utterance
        count = count_syllables(one.text, one.language) if one.text else None
        return count / self.speaking_s if count and self.facts.speech_s else None


def hear(
    captioner: Captioner,
    utterances: Sequence[Utterance],
    language: str,
    texts: Mapping[str, str] | None = None,
) -> list[Heard]:
    """Each clip with the caption that the model writes, or with its text of `texts` by id, in the
    language that this is in; clips that hold no words are left out.

    DataError where `texts` lack a clip.
    """
    if texts is not None and (missing := [one.id for one in utterances if one.id not in texts]):
        raise DataError(
            f"{len(missing)} of {len(utterances)} clips have no caption, the first is "
            f"{missing[0]}; caption the manifests of {', '.join((*TRANSCRIBED, 'secap'))}"
        )
    outcomes = captioner.caption_many(
        [one.path for one in utterances], language=language, evidence=False
    )
    found = []
    for one, caption in zip(utterances, outcomes, strict=True):
        if isinstance(caption, AlignCapError):
            raise caption
        if caption.facts and not caption.vocalization:
            text = texts[one.id] if texts else caption.text
            said_in = detect_language(text) if texts else language
            found.append(Heard(one, text, said_in, caption.facts))
    return found


def witnessed(heard: Heard, outside: Outside) -> Facts:
    """The facts with nothing but what witnesses from outside say of pitch, loudness and pace; the
    pitch that is expected of the voice is the package's."""
    said: dict[str, tuple[float | None, str]] = {
        "loudness_db": (outside.loudness_lufs, "LUFS"),
        "loudness_slope_db_per_s": (outside.slope_db_per_s, "dB/s"),
        "pace_syllables_per_s": (heard.text_rate, "syllables/s of the transcript"),
    }
    median, offset = (heard.facts.value(n) for n in ("pitch_median_hz", "pitch_offset_st"))
    if outside.pitch_hz and median and offset is not None:
        said["pitch_offset_st"] = (offset + 12 * math.log2(outside.pitch_hz / median), "st")
    facts = {
        name: Fact(name, value, unit, 1.0)
        for name, (value, unit) in said.items()
        if value is not None
    }
    return replace(heard.facts, by_name=MappingProxyType(facts))


def verdicts(heard: Sequence[Heard], outside: Sequence[Outside]) -> dict[str, dict[Verdict, int]]:
    """By trait how many claims of captions the witnesses support, contradict and cannot tell."""
    counts = {trait: dict.fromkeys(Verdict, 0) for trait in TRAITS}
    for one, witness in zip(heard, outside, strict=True):
        said = [clue for clue in find_clues(one.text, one.language) if clue.trait in TRAITS]
        for evidence in judge(said, witnessed(one, witness)):
            counts[evidence.clue.trait][evidence.verdict] += 1
    return counts


def claim_lines(counts: Mapping[str, Mapping[Verdict, int]]) -> list[str]:
    """Markdown: the claims of captions by trait, beside what the witnesses say."""
    lines = ["| claims about | claims | supported | contradicted | cannot tell |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for trait, found in counts.items():
        total = sum(found.values())
        cells = " | ".join(f"{found[verdict] / max(1, total):.1%}" for verdict in Verdict)
        lines.append(f"| {trait} | {total} | {cells} |")
    return lines


def fact_lines(heard: Sequence[Heard], outside: Sequence[Outside]) -> list[str]:
    """Markdown: how near the package's measurements come to those from outside."""

    def pairs(name: str, other: Callable[[Outside], float | None]) -> Floats:
        found = [
            (one.facts.value(name), other(witness))
            for one, witness in zip(heard, outside, strict=True)
        ]
        return np.array([pair for pair in found if None not in pair], np.float64).reshape(-1, 2)

    pitch = pairs("pitch_median_hz", lambda one: one.pitch_hz)
    level = pairs("loudness_db", lambda one: one.loudness_lufs)
    slope = pairs("loudness_slope_db_per_s", lambda one: one.slope_db_per_s)
    near = float(np.mean(np.abs(12 * np.log2(pitch[:, 0] / pitch[:, 1])) <= SEMITONE_ST))
    apart = float(np.median(np.abs(level[:, 0] - level[:, 1])))
    clear = np.abs(slope[:, 0]) > 2.0
    same = float(np.mean(np.sign(slope[clear, 0]) == np.sign(slope[clear, 1])))
    return [
        "| what | witness | clips | agreement |",
        "| --- | --- | --- | --- |",
        f"| median pitch | Praat | {len(pitch)} | {near:.1%} within a semitone |",
        f"| loudness | pyloudnorm | {len(level)} | half within {apart:.2f} LU |",
        f"| rise or fall of loudness, 2 dB/s or more | Praat | {clear.sum()} | {same:.1%} alike |",
    ]


def rate_lines(heard: Sequence[Heard], outside: Sequence[Outside]) -> list[str]:
    """Markdown: correlation of the paces with the transcripts' rate, corpus by corpus."""
    lines = ["| corpus | clips | the fact | its source | Praat's nuclei |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for corpus in dict.fromkeys(one.utterance.corpus for one in heard):
        rows = [
            (rate, pace, (witness.nuclei or 0) / one.speaking_s, one.facts[PACE_FACT].unit)
            for one, witness in zip(heard, outside, strict=True)
            if one.utterance.corpus == corpus
            and (rate := one.text_rate) is not None
            and (pace := one.facts.value(PACE_FACT)) is not None
        ]
        if len(rows) < 10:
            continue
        table = np.array([row[:3] for row in rows])
        ours, theirs = (float(np.corrcoef(table[:, 0], table[:, n])[0, 1]) for n in (1, 2))
        source = "speech encoder" if "encoder" in rows[0][3] else "nuclei, claims nothing"
        lines.append(f"| {corpus} | {len(rows)} | {ours:.2f} | {source} | {theirs:.2f} |")
    return lines


PACE_FACT = "pace_syllables_per_s"


def people_half(utterance: Utterance) -> str:
    """The half of secap that a source is of: "chosen", on which thresholds were, or "report"."""
    number = int(hash_of(f"people\0{secap_source(utterance.id)}")[:8], 16)
    return "report" if number % 2 else "chosen"


@dataclass(frozen=True, slots=True)
class AgainstPeople:
    """How often people contradict claims of the clip that they listened to, and of other clips."""

    clips: int
    claims: int
    contradicted: float
    shuffled: float
    ratio_interval: tuple[float, float]
    """95 % of 1,000 bootstrap draws of clips, of contradicted over shuffled."""


def against_people(
    people: Sequence[frozenset[Claim]], ours: Sequence[frozenset[Claim]]
) -> AgainstPeople | None:
    """Of clips that people say something of and we as well: the share of our claims that what they
    say contradicts, and that share over all pairs of clips; None where nothing can be compared."""
    known = [n for n, (said, own) in enumerate(zip(people, ours, strict=True)) if said]
    if not known or not any(ours[n] for n in known):
        return None
    against = np.array(
        [[sum(_contradict(people[i], one) for one in ours[j]) for j in known] for i in known],
        np.float64,
    )
    claims = np.array([len(ours[j]) for j in known], np.float64)
    rng = np.random.default_rng(0)
    draws = rng.multinomial(len(known), np.full(len(known), 1 / len(known)), DRAWS)
    own, shuffled = _shares(against, claims, np.ones((1, len(known))))
    drawn_own, drawn_shuffled = _shares(against, claims, draws.astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = drawn_own / drawn_shuffled
    # Draws in which nobody contradicts anybody have no ratio.
    finite = ratios[np.isfinite(ratios)]
    low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (math.nan, math.nan)
    return AgainstPeople(
        len(known), int(claims.sum()), float(own[0]), float(shuffled[0]), (float(low), float(high))
    )


def _contradict(people: frozenset[Claim], claim: Claim) -> bool:
    return check_by_references(claim, people)[0] is ClaimStatus.CONTRADICTED


def _shares(against: Floats, claims: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Of each row of weights [draws, clips]: contradicted by the own clip's people, by others'."""
    same = np.diagonal(against)
    with np.errstate(invalid="ignore", divide="ignore"):
        own = (weights @ same) / (weights @ claims)
        pairs = ((weights @ against) * weights).sum(1) - np.square(weights) @ same
        whole = weights.sum(1) * (weights @ claims) - np.square(weights) @ claims
        return own, pairs / whole


def people_lines(heard: Sequence[Heard]) -> list[str]:
    """Markdown: what measured claims and captions say of a level, beside what people say of it."""
    people = [
        _levels(c for text in one.utterance.captions for c in find_clues(text)) for one in heard
    ]
    sources = {
        "measured": [_levels(measured_clues(one.facts)) for one in heard],
        "captions": [_levels(find_clues(one.text, one.language)) for one in heard],
    }
    lines = [
        "| claims | about | sources | clips | claims | contradicted | shuffled | ratio, 95 % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for half in ("chosen", "report"):
        places = [n for n, one in enumerate(heard) if people_half(one.utterance) == half]
        for name, ours in sources.items():
            for trait in TRAITS:
                found = against_people(
                    [_of(trait, people[n]) for n in places], [_of(trait, ours[n]) for n in places]
                )
                if found is None:
                    lines.append(f"| {name} | {trait} | {half} | – | 0 | – | – | – |")
                    continue
                low, high = found.ratio_interval
                lines.append(
                    f"| {name} | {trait} | {half} | {found.clips} | {found.claims} | "
                    f"{found.contradicted:.1%} | {found.shuffled:.1%} | {low:.2f}–{high:.2f} |"
                )
    return lines


def _levels(clues: Iterable[Clue]) -> frozenset[Claim]:
    return frozenset(claim_of(clue) for clue in clues if clue.meaning in SIDES.get(clue.trait, ()))


def _of(trait: str, claims: frozenset[Claim]) -> frozenset[Claim]:
    return frozenset(claim for claim in claims if claim[0] == trait)


def sampled(utterances: Sequence[Utterance], most: int) -> list[Utterance]:
    """At most so many, evenly chosen in the order of their ids' hashes."""
    return sorted(utterances, key=lambda one: hash_of(f"{one.corpus}/{one.id}"))[:most]


def read_texts(path: Path) -> dict[str, str]:
    """Captions by id of JSON lines with "id" (or "file", whose name is the id) and "caption"."""
    found = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            found[str(row.get("id") or Path(row["file"]).stem)] = str(row["caption"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f'{path}:{number}: needs "id" or "file", and "caption"; write it with: '
                "aligncap caption FOLDER --format jsonl"
            ) from error
    return found


def report(model: str, data: Path, cache: Path, *, most: int, captions: Path | None = None) -> Page:
    """The whole report; of a file of captions in place of the model's, if one is given."""
    captioner, texts = aligncap.load(model), read_texts(captions) if captions else None
    every = {
        name: list(read_manifest(data / name / "manifest.jsonl"))
        for name in (*TRANSCRIBED, "secap")
    }
    spoken = [
        one
        for name in TRANSCRIBED
        for one in sampled([u for u in every[name] if is_validation(u)], most // len(TRANSCRIBED))
    ]
    spoken += sampled([one for one in every["secap"] if one.text], most // len(TRANSCRIBED))
    remarked = [
        one
        for one in every["secap"]
        if _levels(c for text in one.captions for c in find_clues(text, "zh"))
    ]
    heard = hear(captioner, spoken, "en", texts)
    outside = listen_all([one.utterance for one in heard], cache)
    people = hear(captioner, sampled(remarked, most), "zh", texts)
    asked = command("witnesses", **({"captions": captions} if captions else {}))
    whose = f" · captions {hash_of_file(captions)[:12]}" if captions else ""
    made = (
        f"Made by `{asked}`; do not edit. Signature: aligncap {aligncap.__version__} · "
        f"model {model_fingerprint(find_model(model))[:12]}{whose} · "
        f"rules {claims_fingerprint()} · {len(heard)} clips, {len(people)} that people remarked on."
    )
    lines = [
        *_TOLD,
        "",
        "## Measurements",
        "",
        *fact_lines(heard, outside),
        "",
        "Correlation of the pace with the transcript's syllables a second, pauses included:",
        "",
        *rate_lines(heard, outside),
        "",
        f"## Claims of {'the' if captions else 'English'} captions",
        "",
        *claim_lines(verdicts(heard, outside)),
        "",
        "## People",
        "",
        *people_lines(people),
    ]
    return f"{captions.name if captions else model} before witnesses from outside", made, lines


_TOLD = (
    "`test.md` counts claims that the package's own measurements contradict. Those also",
    "wrote the captions that a model learnt from, fill its prompts and rank its beams: that number",
    "says that captions follow the measurements, not that the measurements are right. Here the",
    "witnesses are Praat (pitch, movement of the intensity), pyloudnorm (loudness), transcripts",
    "(pace) and the people who captioned secap. *Shuffled* is the share contradicted by what",
    "people say of other clips. Thresholds were chosen on half of secap's sources; *report* is the",
    "other half. The clips of labelled corpora are of speakers kept back for choosing; secap's",
    "transcribed clips are not kept back: an encoder taught by transcripts has read them.",
)


def main(
    model: Annotated[str, typer.Option(help="Built-in model or model folder.")] = "mini",
    data: Annotated[Path, typer.Option(help="Folder with a folder a corpus.")] = Path(
        "../shared/data/speech"
    ),
    output: Annotated[Path, typer.Option(help="Markdown file to write.")] = Path(
        "docs/results/witnesses.md"
    ),
    captions: Annotated[
        Path | None, typer.Option(help="JSONL of captions to judge in place of the model's.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Keeps what the tools measured.")] = Path(
        "runs/witnesses.json"
    ),
    most: Annotated[int, typer.Option(help="Clips a question, at most.")] = 300,
) -> None:
    """Hold claims to witnesses from outside and write the table."""
    write_page(output, *report(model, data, cache, most=most, captions=captions))


if __name__ == "__main__":
    typer.run(main)
