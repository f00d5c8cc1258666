"""One KD step against two plain forward passes for each caption, in one run on one machine.

    python benchmarks/alignment.py [--output docs/results/alignment-benchmark.md]

Both distil the same frozen teacher into the same student over the same clips and captions. Here a
clip's captions share its prompt, and what the teacher says was computed once (`TeacherCache`); the
rival (`plain_kd.py`) runs teacher and student on prompt and caption, for each caption and step. A
step is forward, backward and AdamW. The student is trained whole, its teacher a model of its own,
or by LoRA, its teacher the base with the adapter off. How time and memory are measured: `steps.py`.

Loss and gradient before the first step are compared with the teacher's whole vocabulary kept, in
float32 and as the cache rounds it; with the top k alone the loss is a lower bound (decision 2).
"""

import argparse
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import version
from itertools import product

from caption import machine
from kd_steps import AROUND, SPEECH_IDS, differences, ours, plain
from steps import (
    Systems,
    apart,
    arguments,
    case_of,
    deliver,
    measured,
)

from aligncap.alignment.kd import TeacherSettings

CAPTIONS = (1, 5)
VOCABULARIES = (8_192 + SPEECH_IDS, 32_000 + SPEECH_IDS)
"""Beside the one asked for; the second is LLaMA's."""

KINDS = {"trained whole": False, "LoRA": True}
"""How the student is trained, and whether by LoRA."""

TOP_K = TeacherSettings().top_k

SYSTEMS: Systems = {
    **{f"aligncap, {kind}": partial(ours, lora=lora, top_k=TOP_K) for kind, lora in KINDS.items()},
    **{
        f"aligncap, {kind}, all": partial(ours, lora=lora, top_k=None)
        for kind, lora in KINDS.items()
    },
    **{f"plain, {kind}": partial(plain, lora=lora) for kind, lora in KINDS.items()},
}


def time_lines(asked: argparse.Namespace, kind: str) -> Iterator[str]:
    """The table of time and memory."""
    yield f"## Time and memory, {kind}\n"
    yield (
        "| captions | prompt | aligncap | plain | times faster "
        f"| aligncap, top {TOP_K} | times faster "
        "| teacher, once | memory, aligncap | memory, plain |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for captions, prompt in product(CAPTIONS, asked.prompts):
        whole, top, rival = (
            measured(SYSTEMS, case_of(asked, system=name, responses=captions, prompt=prompt))
            for name in (f"aligncap, {kind}, all", f"aligncap, {kind}", f"plain, {kind}")
        )
        yield (
            f"| {captions} | {prompt} | {whole['seconds']:.2f} s | {rival['seconds']:.2f} s "
            f"| {rival['seconds'] / whole['seconds']:.2f} | {top['seconds']:.2f} s "
            f"| {rival['seconds'] / top['seconds']:.2f} | {top['outcome']:.2f} s "
            f"| {top['peak_mb']:.0f} MB | {rival['peak_mb']:.0f} MB |"
        )


def vocabulary_lines(asked: argparse.Namespace) -> Iterator[str]:
    """The table of larger vocabularies in the same model."""
    yield "## Time by vocabulary, trained whole, one caption\n"
    yield (
        "The plain student projects every position of the prompt on the whole vocabulary, ours "
        "its last. That is least with mini's small one; of a larger model the layers are more of "
        "the work.\n"
    )
    yield f"| vocabulary | prompt | aligncap, top {TOP_K} | plain | times faster |"
    yield "| --- | --- | --- | --- | --- |"
    sizes, prompt = vars(asked), sorted(asked.prompts)[len(asked.prompts) // 2]
    for vocabulary in VOCABULARIES:
        other = argparse.Namespace(**{**sizes, "vocabulary": vocabulary})
        mine, rival = (
            measured(
                SYSTEMS, case_of(other, system=f"{s}, trained whole", responses=1, prompt=prompt)
            )
            for s in ("aligncap", "plain")
        )
        yield (
            f"| {vocabulary:,} | {prompt} | {mine['seconds']:.2f} s | {rival['seconds']:.2f} s "
            f"| {rival['seconds'] / mine['seconds']:.2f} |"
        )


def agreement_lines(asked: argparse.Namespace) -> Iterator[str]:
    """The table of losses and gradients."""
    yield "## Agreement\n"
    yield (
        "Largest differences from the plain loss and gradient before the first step: with the "
        "teacher's whole vocabulary in float32, and as the cache keeps it (float16).\n"
    )
    yield (
        "| student | captions | prompt | plain loss | loss | gradient | loss, as kept "
        "| gradient, as kept | largest gradient |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for (kind, lora), captions, prompt in product(KINDS.items(), CAPTIONS, asked.prompts):
        case = case_of(asked, system=kind, responses=captions, prompt=prompt)
        value, exact, kept = apart(differences, case, lora)
        yield (
            f"| {kind} | {captions} | {prompt} | {value:.5f} | {exact} | {kept} "
            f"| {exact.largest:.1e} |"
        )


def report(asked: argparse.Namespace) -> str:
    """The whole report as markdown."""
    about = machine(1)
    lines = [
        "# KD steps",
        "",
        "Made by `python benchmarks/alignment.py`; do not edit. One run, one thread, processor "
        f"time; {about['cpu']}, torch {about['torch']}, transformers {about['transformers']}, "
        f"peft {version('peft')}, aligncap {version('aligncap')}.",
        "",
        f"LLaMA with random weights in the size of mini (vocabulary {asked.vocabulary:,}, of which "
        f"{SPEECH_IDS} speech; width {asked.hidden}, {asked.layers} layers); {asked.rows} clips a "
        f"step, captions of about {asked.response} tokens. The teacher reads P_act, P_sem "
        f"and P_instruct (about {sum(AROUND) + asked.response - 1} tokens), the student as many "
        "tokens as the table says. The rival (`benchmarks/plain_kd.py`) "
        "runs teacher and student on prompt and caption, for each caption, at each step; ours "
        "reads the prompt once for all captions, and what the teacher said from its cache, which "
        "was filled once in the time given. The loss is the same where the teacher's whole text "
        f"vocabulary is kept (first times); recipes keep the top {TOP_K}, for a lower bound of it. "
        f"Memory is what a step takes beyond Python and its libraries, ours with the top {TOP_K}.",
    ]
    for kind in KINDS:
        lines += ["", *time_lines(asked, kind)]
    lines += ["", *vocabulary_lines(asked), "", *agreement_lines(asked)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write where asked to."""
    asked = arguments(__doc__, rows=4, response=30, vocabulary=2560, hidden=256, layers=4, repeat=5)
    # Loaded before the processes part, so that they are in nobody's memory.
    for name in ("peft", "transformers.models.llama.modeling_llama"):
        import_module(name)
    deliver(report(asked), asked.output)


if __name__ == "__main__":
    main()
