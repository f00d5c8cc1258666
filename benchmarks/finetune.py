"""What `aligncap finetune` gains on a corpus, with other clips each time.

    python benchmarks/finetune.py iesc --model mini-1 --seeds 5 --output docs/results/finetune.md

Of the corpus's speakers, in an order drawn by the seed, clips are taken until there are `--clips`;
`aligncap finetune --labels-only` makes a model of them, and clips of the speakers that are left are
heard by the model before and after. Recall is macro recall of the likeliest emotion; processor time
is that of the whole command. The corpus should be one that the model was not trained on.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import aligncap
from aligncap.audio import load
from aligncap.captioner.checkpoint import find_model
from aligncap.data.manifest import Utterance, read_manifest
from aligncap.metrics.claims import macro_recall
from aligncap.storage import hash_of
from aligncap.tokenizers.builtin import open_builtin
from aligncap.values import SpeechTokens


def parted(every: Sequence[Utterance], clips: int, seed: int) -> tuple[list[Utterance], ...]:
    """Clips of some speakers to learn from, and those of the others, in an order by the seed."""
    speakers = sorted({str(one.speaker) for one in every})
    np.random.default_rng(seed).shuffle(speakers)
    taken: list[Utterance] = []
    while speakers and len(taken) < clips:
        speaker = speakers.pop()
        taken += [one for one in every if str(one.speaker) == speaker]
    order = sorted(taken, key=lambda one: hash_of(f"{seed}/{one.id}"))
    return order[:clips], [one for one in every if str(one.speaker) in speakers]


def tuned(clips: Sequence[Utterance], model: str, out: Path) -> float:
    """Make a model of clips by the command line; its processor time in seconds."""
    table = out.with_suffix(".jsonl")
    rows = [
        {
            "id": one.id,
            "file": str(one.path.absolute()),
            "emotion": one.emotion,
            "speaker": one.speaker,
        }
        for one in clips
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [sys.executable, "-m", "aligncap", "finetune", str(table), "--out", str(out)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command += ["--model", model, "--labels-only"]
    done = subprocess.run(command, check=False, stdout=sys.stderr)
    if done.returncode > 1:  # 1: some clips hold no speech and are left out
        raise SystemExit(done.returncode)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def recall(clips: Sequence[Utterance], heard: Sequence[SpeechTokens]) -> float:
    """Macro recall of the likeliest emotion."""
    emotions = [tokens.readout["emotion"] for tokens in heard]
    named: list[str | None] = [max(one, key=one.__getitem__) for one in emotions]
    return macro_recall([str(one.emotion) for one in clips], named)


def main(
    corpus: Annotated[str, typer.Argument(help="A folder of the data.")],
    model: Annotated[str, typer.Option(help="The exported model to begin with.")] = "mini",
    data: Annotated[Path, typer.Option(help="Folder with a folder a corpus.")] = Path(
        "../shared/data/speech"
    ),
    clips: Annotated[int, typer.Option(help="Clips to learn from.")] = 200,
    heard: Annotated[int, typer.Option(help="Clips of other speakers, at most.")] = 400,
    seeds: Annotated[int, typer.Option(help="Times, with other speakers each.")] = 5,
    output: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
) -> None:
    """Print, or write, recall before and after."""
    every = [one for one in read_manifest(data / corpus / "manifest.jsonl") if one.emotion]
    plain = open_builtin(find_model(model))
    known: dict[str, SpeechTokens] = {}
    gains, times, lines = [], [], []
    for seed in range(seeds):
        own, others = parted(every, clips, seed)
        others = sorted(others, key=lambda one: hash_of(one.id))[:heard]
        for one in others:
            if one.id not in known:
                known[one.id] = plain.hear(load(one.path))
        tokens = [known[one.id] for one in others]
        before = recall(others, [plain.corrected(one) for one in tokens])
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "tuned"
            times.append(tuned(own, model, out))
            fitted = open_builtin(out)
            after = recall(others, [fitted.corrected(one) for one in tokens])
        gains.append(after - before)
        speakers = len({one.speaker for one in own}), len({one.speaker for one in others})
        lines.append(
            f"| {seed} | {len(own)} of {speakers[0]} | {len(others)} of {speakers[1]} "
            f"| {before:.3f} | {after:.3f} | {times[-1]:.0f} s |"
        )
        print(lines[-1], flush=True)
        if output is not None:
            text = page(f"Finetuning {model} to {corpus}", plain.fingerprint, lines, gains)
            output.write_text(text, encoding="utf-8")


def page(title: str, fingerprint: str, lines: Sequence[str], gains: Sequence[float]) -> str:
    """The table as markdown."""
    spread = f", {min(gains):+.3f} to {max(gains):+.3f}" if len(gains) > 1 else ""
    return "\n".join(
        [
            f"# {title}",
            "",
            "Made by `python benchmarks/finetune.py`, which explains what is done; do not edit. "
            f"Signature: aligncap {aligncap.__version__} · encoder {fingerprint[:12]}.",
            "",
            "| seed | clips learnt from, speakers | clips heard, speakers | before | after "
            "| processor time |",
            "| --- | --- | --- | ---: | ---: | ---: |",
            *lines,
            "",
            f"Mean gain over {len(gains)} seeds: {statistics.mean(gains):+.3f}{spread}.",
            "",
        ]
    )


if __name__ == "__main__":
    typer.run(main)
