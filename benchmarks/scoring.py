"""Seconds and memory of scoring captions, beside pycocoevalcap in the same run.

Pairs are synthetic: two different sentences of the paraphrase grammar for one meaning. Ours are
the four n-gram metrics (BLEU-1 to 4, METEOR, ROUGE-L, CIDEr-D) and the clue scores where this
version has them, tokenisation included; pycocoevalcap's are its Java tokenizer, BLEU, ROUGE-L,
CIDEr-D and its METEOR 1.5 in Java. Without Java, BLEU, ROUGE-L and CIDEr-D remain to compare on
the same tokens. Each measurement has a process of its own; seconds are of the processor, of Java
too, so that other work on the machine counts less.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from language_models import machine, peak_mb

Timings = dict[str, float]

PACKAGES = ("aligncap", "numpy", "nltk", "pycocoevalcap")
MEANINGS = 1000
SENTENCES = 10
"""Of each meaning; pairs are drawn from them, so that 100,000 take seconds to make."""

OURS = ("bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge-l", "cider-d")
CLUES = "clue-f1"
SHARED = ("bleu", "rouge-l", "cider-d")
"""What both do without Java."""


def main() -> None:
    """Measure, print, and write the page where asked to."""
    asked = arguments()
    if asked.child:
        print(json.dumps(CHILDREN[asked.child](asked.pairs[0], asked.language)))
        return
    report: dict[str, Any] = {"machine": machine(*PACKAGES)}
    report["ours"] = {str(n): child("ours", n, asked.language) for n in sorted(asked.pairs)}
    names = ["pycocoevalcap"] if shutil.which("java") else ["pycocoevalcap without Java"]
    report["theirs"] = child(names[0], asked.against, asked.language)
    if str(asked.against) not in report["ours"]:
        report["ours"][str(asked.against)] = child("ours", asked.against, asked.language)
    text = page(report, asked)
    print(text)
    if asked.output:
        asked.output.write_text(text, encoding="utf-8")


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--against", type=int, default=10_000, help="pairs for pycocoevalcap")
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    return parser.parse_args()


def child(name: str, pairs: int, language: str) -> Timings:
    """One measurement in its own process."""
    command = [sys.executable, __file__, "--child", name, "--pairs", str(pairs)]
    command += ["--language", language]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: Timings = json.loads(done.stdout.splitlines()[-1])
    return measured


def draw_pairs(count: int, language: str) -> list[tuple[str, str]]:
    """Hypothesis and reference of each clip; the same every time."""
    from aligncap.data.captions import draw_captions
    from aligncap.data.grammar import ASPECTS, Meaning
    from aligncap.values import EMOTIONS

    rng = Random(0)
    pool = []
    for _ in range(MEANINGS):
        aspects = rng.sample(("pitch", "loudness", "pace", "clearness"), 3)
        meaning = Meaning(
            emotion=rng.choice(EMOTIONS),
            gender=rng.choice(("female", "male", None)),
            levels={aspect: rng.choice(ASPECTS[aspect]) for aspect in aspects},
        )
        pool.append(draw_captions(meaning, language, SENTENCES, rng))
    return [tuple(rng.sample(rng.choice(pool), 2)) for _ in range(count)]


def measure_ours(pairs: int, language: str) -> Timings:
    """Ours, stage by stage, and the intervals of 1,000 draws."""
    from aligncap.metrics.scores import METRICS, MetricOptions, ScoredClip, interval, open_metric
    from aligncap.metrics.tokenise import open_tokeniser

    drawn = draw_pairs(pairs, language)
    clips = [ScoredClip(str(n), said, (meant,)) for n, (said, meant) in enumerate(drawn)]
    options = MetricOptions(language=language)
    names = [*OURS, CLUES] if CLUES in METRICS else list(OURS)
    # Opened first: what they import and load is paid once, not by the pair.
    metrics = [open_metric(name, options) for name in names]
    taken: Timings = {}
    with timed(taken, "tokenise"):
        options.tokenised(clips, open_tokeniser(None, language))
    statistics = []
    for metric in metrics:
        with timed(taken, "bleu" if metric.name.startswith("bleu") else metric.name):
            statistics.append(metric.measure(clips))
    whole = sum(taken.values())
    with timed(taken, "intervals"):
        for row in statistics:
            interval(row)
    return {**taken, "whole": whole, "peak_mb": peak_mb()}


def measure_theirs(pairs: int, language: str) -> Timings:
    """pycocoevalcap with its two Java programs."""
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    taken: Timings = {}
    hypotheses, references = by_clip(pairs, language)
    with timed(taken, "tokenise"):
        told = [{n: [{"caption": t} for t in ts] for n, ts in side.items()} for side in
                (references, hypotheses)]  # fmt: skip
        gold, said = (PTBTokenizer().tokenize(side) for side in told)
    measure_python(gold, said, taken)
    with timed(taken, "meteor"):
        meteor = Meteor()
        meteor.compute_score(gold, said)
        meteor.meteor_p.stdin.close()
        meteor.meteor_p.wait()
    java_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {**taken, "whole": sum(taken.values()), "peak_mb": peak_mb(), "java_mb": java_mb}


def measure_theirs_without_java(pairs: int, language: str) -> Timings:
    """pycocoevalcap's Python on our tokens."""
    from aligncap.metrics.tokenise import open_tokeniser

    tokenise = open_tokeniser(None, language)
    hypotheses, references = (
        {n: [" ".join(tokenise(text)) for text in texts] for n, texts in side.items()}
        for side in by_clip(pairs, language)
    )
    taken: Timings = {}
    measure_python(references, hypotheses, taken)
    return {**taken, "whole": sum(taken.values()), "peak_mb": peak_mb()}


def measure_python(gold: Any, said: Any, taken: Timings) -> None:
    """The three metrics that it counts in Python."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    with timed(taken, "bleu"):
        Bleu(4).compute_score(gold, said, verbose=0)
    with timed(taken, "rouge-l"):
        Rouge().compute_score(gold, said)
    with timed(taken, "cider-d"):
        Cider().compute_score(gold, said)


def by_clip(pairs: int, language: str) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Hypotheses and references as pycocoevalcap takes them."""
    drawn = draw_pairs(pairs, language)
    return (
        {n: [said] for n, (said, _) in enumerate(drawn)},
        {n: [meant] for n, (_, meant) in enumerate(drawn)},
    )


@contextmanager
def timed(taken: Timings, name: str) -> Iterator[None]:
    """Adds the processor's seconds, of this process and of those it has waited for."""
    started = processor_s()
    yield
    taken[name] = taken.get(name, 0.0) + processor_s() - started


def processor_s() -> float:
    """Seconds of the processor so far."""
    java = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + java.ru_utime + java.ru_stime


def page(report: dict[str, Any], asked: argparse.Namespace) -> str:
    """The report as Markdown."""
    about, theirs = report["machine"], report["theirs"]
    ours = report["ours"][str(asked.against)]
    versions = ", ".join(f"{name} {about[name]}" for name in list(about)[3:])
    lines = [
        "# How fast captions are scored",
        "",
        f"Made by `python benchmarks/scoring.py --language {asked.language} --output FILE`; do "
        "not edit. Seconds of the",
        f"processor, {about['cpu']}, {about['cores']} of its cores, load "
        f"{about['load_before']:.1f} before; {versions}.",
        "",
        f"{asked.against:,} pairs, one reference each. METEOR is the one of 2005 here and METEOR "
        "1.5 (Java) there; loading it",
        'counts, as it does in each run. "without Java" is BLEU, ROUGE-L and CIDEr-D on tokens '
        "that are there already.",
        "",
        "| seconds | aligncap | pycocoevalcap | times |",
        "| --- | --- | --- | --- |",
    ]
    stages = [name for name in ours if name not in ("peak_mb", "intervals", "whole")]
    lines += [row(name, ours[name], theirs.get(name)) for name in stages]
    plain = [sum(side[name] for name in SHARED) for side in (ours, theirs)]
    lines.append(row("without Java", *plain))
    lines.append(row("**as a whole**", ours["whole"], theirs["whole"]))
    java = f", {theirs['java_mb']:.0f} MB of Java beside" if "java_mb" in theirs else ""
    lines += [
        "",
        f"Peak of memory: aligncap {ours['peak_mb']:.0f} MB, pycocoevalcap "
        f"{theirs['peak_mb']:.0f} MB{java}.",
        "",
        "## From few pairs to many",
        "",
        "| pairs | seconds | microseconds a pair | intervals of 1,000 draws, s | peak, MB |",
        "| --- | --- | --- | --- | --- |",
    ]
    for pairs, taken in sorted(report["ours"].items(), key=lambda item: int(item[0])):
        per_pair = 1e6 * taken["whole"] / int(pairs)
        lines.append(
            f"| {int(pairs):,} | {taken['whole']:.2f} | {per_pair:.0f} | {taken['intervals']:.2f} "
            f"| {taken['peak_mb']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def row(name: str, ours: float, theirs: float | None) -> str:
    """A line of the comparison; what they do not have is left out."""
    if theirs is None:
        return f"| {name} | {ours:.2f} | – | – |"
    return f"| {name} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} |"


CHILDREN: dict[str, Callable[[int, str], Timings]] = {
    "ours": measure_ours,
    "pycocoevalcap": measure_theirs,
    "pycocoevalcap without Java": measure_theirs_without_java,
}

if __name__ == "__main__":
    main()
