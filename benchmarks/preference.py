"""One DPO step against trl's, and candidates against transformers', in one run on one machine.

    python benchmarks/preference.py [--output docs/results/preference-benchmark.md]

All candidates of a clip share its prompt here; trl reads prompt and response again for each side
of each pair. Both start from the same random weights, see the same ids, and have the reference's
log-probabilities given; a step is forward, backward and AdamW. Best against the rest: K candidates
are K - 1 pairs. The loss of each pair before the first step is compared: ours out of the shared
batch, trl's alone. Then five beams a prompt are searched by our runtime and by
`transformers.generate`. How time and memory are measured: `steps.py`.
"""

import argparse
import os
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from caption import machine
from steps import (
    EOS,
    Case,
    Ids,
    Measured,
    Systems,
    arguments,
    case_of,
    deliver,
    follow,
    measured,
    optimizer_of,
    random_llama,
    random_rows,
)
from trl_rival import inputs_of, open_trainer

from aligncap.alignment.trainer import TaskBatch
from aligncap.captioner.decoding import TorchRuntime
from aligncap.captioner.model import CaptionModel
from aligncap.captioner.prompts import SharedPromptRow, collate
from aligncap.captioner.runtimes import DecodeOptions, ResponseRules
from aligncap.preference.dpo import PairLossSettings, PairObjective
from aligncap.preference.examples import Pairs

CANDIDATES = (2, 5)
BETA = 0.1


def pairs_of(case: Case) -> tuple[list[SharedPromptRow], Pairs]:
    """Clips with K responses each, the first the best, and what the reference says of them."""
    chance = np.random.default_rng(0)
    rows = random_rows(case, chance)
    first = np.repeat(np.arange(case.rows) * case.responses, case.responses - 1)
    rank = np.tile(np.arange(1, case.responses), case.rows)
    reference = chance.normal(-200, 3, case.rows * case.responses).astype(np.float32)
    return rows, Pairs(first, first + rank, reference)


def ours(case: Case) -> Measured:
    """A step of ours."""
    rows, pairs = pairs_of(case)
    # All ids are text, as trl's softmax runs over all rows.
    ids: Any = Ids(case.vocabulary, case.vocabulary)
    model = CaptionModel(random_llama(case), ids).train()
    optimizer = optimizer_of(model)
    objective = PairObjective(PairLossSettings(beta=BETA))

    def loss(some: Pairs) -> torch.Tensor:
        # What `fit` does for each batch: the rows are put together anew as well.
        batch = TaskBatch(collate(rows, pad_id=0), some)
        return objective.training_losses(model, batch)["loss"]

    def each() -> list[float]:
        ends = zip(pairs.chosen, pairs.rejected, strict=True)
        single = [Pairs(np.array([c]), np.array([r]), pairs.reference) for c, r in ends]
        with torch.no_grad():
            return [float(loss(one)) for one in single]

    return Measured(step=lambda: follow(loss(pairs), optimizer), outcome=each)


def trl(case: Case) -> Measured:
    """A step of trl's trainer on the same pairs."""
    rows, pairs = pairs_of(case)
    trainer = open_trainer(random_llama(case), beta=BETA)
    optimizer = optimizer_of(trainer.model)
    said = [(place, s) for place, row in enumerate(rows) for s in row.responses]
    places = list(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))
    assert pairs.reference is not None
    known = pairs.reference.tolist()
    trainer.model.train()

    def loss(some: Sequence[tuple[int, int]]) -> torch.Tensor:
        inputs = inputs_of(
            trainer,
            [row.prompt_ids for row in rows],
            [(said[c][0], said[c][1], said[r][1]) for c, r in some],
            [(known[c], known[r]) for c, r in some],
        )
        found: torch.Tensor = trainer.compute_loss(trainer.model, inputs)
        return found

    def each() -> list[float]:
        with torch.no_grad():
            return [float(loss([one])) for one in places]

    return Measured(step=lambda: follow(loss(places), optimizer), outcome=each)


def our_beams(case: Case) -> Measured:
    """Our beam search; the best beam of each prompt."""
    rows, _ = pairs_of(case)
    rules = ResponseRules(case.vocabulary, (EOS,))
    runtime = TorchRuntime(random_llama(case, spread=0.1).eval(), rules)
    options = DecodeOptions(
        beam_size=5, captions=5, min_length=case.response, max_length=case.response
    )
    prompts = [row.prompt_ids for row in rows]

    def search() -> list[list[int]]:
        return [list(one[0].ids) for one in runtime.generate(prompts, options)]

    return Measured(step=search, outcome=search)


def transformers_beams(case: Case) -> Measured:
    """`transformers.generate` with as many beams, all of them returned."""
    from transformers import GenerationConfig

    rows, _ = pairs_of(case)
    model = random_llama(case, spread=0.1).eval()
    config = GenerationConfig(
        num_beams=5,
        num_return_sequences=5,
        do_sample=False,
        min_new_tokens=case.response,
        max_new_tokens=case.response,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    ids = torch.tensor([row.prompt_ids for row in rows])

    def search() -> list[list[int]]:
        with torch.inference_mode():
            found = model.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=config
            )
        return [[int(i) for i in one] for one in found[::5, case.prompt :]]

    return Measured(step=search, outcome=search)


SYSTEMS: Systems = {
    "aligncap": ours,
    "trl": trl,
    "aligncap beams": our_beams,
    "transformers beams": transformers_beams,
}


def report(asked: argparse.Namespace) -> str:
    """The whole report as markdown."""
    about = machine(1)
    lines = [
        "# DPO steps and candidates",
        "",
        "Made by `python benchmarks/preference.py`; do not edit. One run, one thread, processor "
        f"time; {about['cpu']}, torch {about['torch']}, transformers {about['transformers']}, "
        f"trl {version('trl')}, aligncap {version('aligncap')}.",
        "",
        f"LLaMA with random weights (vocabulary {asked.vocabulary:,}, width {asked.hidden}, "
        f"{asked.layers} layers); {asked.rows} clips a step, responses of about {asked.response} "
        "tokens; the reference's log-probabilities are given. The difference is the largest of any "
        "pair's loss, ours taken out of the shared batch. Memory is what a step takes beyond "
        "Python and its libraries.",
        "",
        "| candidates | prompt | pairs | aligncap | trl | times faster | difference, a pair | "
        "memory, aligncap | memory, trl |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for candidates in CANDIDATES:
        for prompt in asked.prompts:
            mine, theirs = (
                measured(SYSTEMS, case_of(asked, system=s, responses=candidates, prompt=prompt))
                for s in ("aligncap", "trl")
            )
            apart_by = np.abs(np.subtract(mine["outcome"], theirs["outcome"])).max()
            lines.append(
                f"| {candidates} | {prompt} | {asked.rows * (candidates - 1)} "
                f"| {mine['seconds']:.2f} s | {theirs['seconds']:.2f} s "
                f"| {theirs['seconds'] / mine['seconds']:.1f} | {apart_by:.1e} "
                f"| {mine['peak_mb']:.0f} MB | {theirs['peak_mb']:.0f} MB |"
            )
    return "\n".join([*lines, "", *beam_lines(asked)]) + "\n"


def beam_lines(asked: argparse.Namespace) -> Sequence[str]:
    """The table of candidate generation."""
    lines = [
        f"Five beams of {asked.response} tokens for each of {asked.rows} prompts:",
        "",
        "| prompt | aligncap | transformers.generate | times faster | same best beam |",
        "| --- | --- | --- | --- | --- |",
    ]
    for prompt in asked.prompts:
        mine, plain = (
            measured(SYSTEMS, case_of(asked, system=f"{s} beams", responses=1, prompt=prompt))
            for s in ("aligncap", "transformers")
        )
        both = zip(mine["outcome"], plain["outcome"], strict=True)
        lines.append(
            f"| {prompt} | {mine['seconds']:.2f} s | {plain['seconds']:.2f} s "
            f"| {plain['seconds'] / mine['seconds']:.1f} "
            f"| {sum(a == b for a, b in both)} of {asked.rows} |"
        )
    return lines


def main() -> None:
    """Measure, print, and write where asked to."""
    asked = arguments(__doc__, rows=4, response=30, vocabulary=2048, hidden=192, layers=4, repeat=8)
    # Libraries' bars and warnings would be printed among the numbers.
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Loaded before the processes part, so that they are in nobody's memory.
    for name in ("datasets", "trl.trainer.dpo_trainer", "transformers.models.llama.modeling_llama"):
        import_module(name)
    deliver(report(asked), asked.output)


if __name__ == "__main__":
    main()
