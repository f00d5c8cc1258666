"""One DPO step against trl's, and candidates against transformers', in one run on one machine.

    python benchmarks/preference.py [--output docs/results/preference-benchmark.md]

All candidates of a clip share its prompt here; trl reads prompt and response again for each side
of each pair. Both start from the same random weights, see the same ids, and have the reference's
log-probabilities given; a step is forward, backward and AdamW. Best against the rest: K candidates
are K - 1 pairs. Then five beams a prompt are searched by our runtime and by
`transformers.generate`. Time is processor time of a process of its own (the least of several
steps, on one thread), so that what else runs on the machine does not count; memory is the most that
process held, beyond what it began with.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from caption import machine
from language_models import peak_mb
from trl_rival import inputs_of, open_trainer

from aligncap.alignment.objective import LessonBatch
from aligncap.captioner.batches import SharedPromptRow, collate
from aligncap.captioner.model import CaptionModel, seeded
from aligncap.captioner.runtime import DecodeOptions, ResponseRules
from aligncap.captioner.torch_runtime import TorchRuntime
from aligncap.preference.dpo import PairLossSettings, PairObjective
from aligncap.preference.pair_lessons import Pairs

PROMPTS = (75, 300, 500)
CANDIDATES = (2, 5)
BETA, LEARNING_RATE = 0.1, 1e-4
EOS = 1


@dataclass(frozen=True)
class TextOnly:
    """A vocabulary all of whose ids are text: then both softmaxes run over the same rows."""

    size: int

    @property
    def text_rows(self) -> int:
        """As `Vocabulary` has it."""
        return self.size


@dataclass(frozen=True)
class Case:
    """What is measured: which system on which sizes."""

    system: str
    candidates: int
    prompt: int
    rows: int
    response: int
    vocabulary: int
    hidden: int
    layers: int
    repeat: int


def model_of(case: Case, *, spread: float = 0.02) -> Any:
    """A LLaMA with random weights, the same for all systems."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=case.vocabulary,
        hidden_size=case.hidden,
        intermediate_size=-(-case.hidden * 8 // 3 // 32) * 32,
        num_hidden_layers=case.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=spread,
        bos_token_id=2,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    with seeded(0):
        return LlamaForCausalLM(config)


def rows_of(case: Case) -> tuple[list[SharedPromptRow], Pairs]:
    """Clips of random ids, each with K responses of different lengths, the first the best."""
    chance = np.random.default_rng(0)
    ids = lambda count: chance.integers(5, case.vocabulary, count).tolist()  # noqa: E731
    rows, chosen, rejected = [], [], []
    for row in range(case.rows):
        lengths = chance.integers(case.response - 5, case.response + 6, case.candidates)
        rows.append(SharedPromptRow(ids(case.prompt), [[*ids(n - 1), EOS] for n in lengths]))
        first = row * case.candidates
        chosen += [first] * (case.candidates - 1)
        rejected += range(first + 1, first + case.candidates)
    reference = chance.normal(-200, 3, case.rows * case.candidates).astype(np.float32)
    return rows, Pairs(np.array(chosen), np.array(rejected), reference)


def our_step(case: Case) -> Callable[[], float]:
    """One step of ours; returns the loss before it."""
    rows, pairs = rows_of(case)
    model = CaptionModel(model_of(case), TextOnly(case.vocabulary))  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    objective = PairObjective(PairLossSettings(beta=BETA))

    def step() -> float:
        # What `fit` does for each batch: the rows are put together anew as well.
        batch = LessonBatch(collate(rows, pad_id=0), pairs)
        loss = objective.training_losses(model, batch)["loss"]
        return follow(loss, optimizer)

    return step


def trl_step(case: Case) -> Callable[[], float]:
    """One step of trl's trainer on the same pairs."""
    rows, pairs = rows_of(case)
    trainer = open_trainer(model_of(case), beta=BETA)
    optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=LEARNING_RATE, fused=True)
    said = [(place, s) for place, row in enumerate(rows) for s in row.responses]
    places = list(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))
    assert pairs.reference is not None
    known = pairs.reference.tolist()
    trainer.model.train()

    def step() -> float:
        inputs = inputs_of(
            trainer,
            [row.prompt_ids for row in rows],
            [(said[c][0], said[c][1], said[r][1]) for c, r in places],
            [(known[c], known[r]) for c, r in places],
        )
        return follow(trainer.compute_loss(trainer.model, inputs), optimizer)

    return step


def follow(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> float:
    """Backward and update."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def our_beams(case: Case) -> Callable[[], list[list[int]]]:
    """Our beam search; the best beam of each prompt."""
    rows, _ = rows_of(case)
    rules = ResponseRules(case.vocabulary, (EOS,))
    runtime = TorchRuntime(model_of(case, spread=0.1).eval(), rules)
    options = DecodeOptions(
        beam_size=5, captions=5, min_length=case.response, max_length=case.response
    )
    prompts = [row.prompt_ids for row in rows]
    return lambda: [list(one[0].ids) for one in runtime.generate(prompts, options)]


def transformers_beams(case: Case) -> Callable[[], list[list[int]]]:
    """`transformers.generate` with as many beams, all of them returned."""
    from transformers import GenerationConfig

    rows, _ = rows_of(case)
    model = model_of(case, spread=0.1).eval()
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

    return search


SYSTEMS: dict[str, Callable[[Case], Callable[[], Any]]] = {
    "aligncap": our_step,
    "trl": trl_step,
    "aligncap beams": our_beams,
    "transformers beams": transformers_beams,
}


def measure(case: Case) -> dict[str, Any]:
    """Processor seconds of the fastest of several runs, peak memory, and what came out first."""
    torch.set_num_threads(1)
    before_mb = peak_mb()
    action = SYSTEMS[case.system](case)
    outcome, taken = action(), []
    for _ in range(case.repeat):
        started = time.process_time()
        action()
        taken.append(time.process_time() - started)
    return {"outcome": outcome, "seconds": min(taken), "peak_mb": peak_mb() - before_mb}


def apart(case: Case) -> dict[str, Any]:
    """`measure` in a process of its own, whose peak of memory is its own as well."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found: dict[str, Any] = pool.apply(measure, (case,))
    print(f"{case.system}, K = {case.candidates}, prompt {case.prompt}: {found['seconds']:.2f} s")
    return found


def report(asked: argparse.Namespace) -> str:
    """The whole report as markdown."""
    sizes = {name: getattr(asked, name) for name in SIZES}
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
        "tokens; the reference's log-probabilities are given. Memory is what a step takes beyond "
        "Python and its libraries.",
        "",
        "| candidates | prompt | pairs | aligncap | trl | times faster | difference of losses | "
        "memory, aligncap | memory, trl |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for candidates in CANDIDATES:
        for prompt in asked.prompts:
            ours, trl = (apart(Case(s, candidates, prompt, **sizes)) for s in ("aligncap", "trl"))
            lines.append(
                f"| {candidates} | {prompt} | {asked.rows * (candidates - 1)} "
                f"| {ours['seconds']:.2f} s | {trl['seconds']:.2f} s "
                f"| {trl['seconds'] / ours['seconds']:.1f} "
                f"| {abs(ours['outcome'] - trl['outcome']):.1e} "
                f"| {ours['peak_mb']:.0f} MB | {trl['peak_mb']:.0f} MB |"
            )
    return "\n".join([*lines, "", *beam_lines(asked, sizes)]) + "\n"


def beam_lines(asked: argparse.Namespace, sizes: dict[str, int]) -> Sequence[str]:
    """The table of candidate generation."""
    lines = [
        f"Five beams of {asked.response} tokens for each of {asked.rows} prompts:",
        "",
        "| prompt | aligncap | transformers.generate | times faster | same best beam |",
        "| --- | --- | --- | --- | --- |",
    ]
    for prompt in asked.prompts:
        ours, plain = (
            apart(Case(f"{s} beams", 1, prompt, **sizes)) for s in ("aligncap", "transformers")
        )
        pairs = zip(ours["outcome"], plain["outcome"], strict=True)
        lines.append(
            f"| {prompt} | {ours['seconds']:.2f} s | {plain['seconds']:.2f} s "
            f"| {plain['seconds'] / ours['seconds']:.1f} "
            f"| {sum(a == b for a, b in pairs)} of {asked.rows} |"
        )
    return lines


SIZES = ("rows", "response", "vocabulary", "hidden", "layers", "repeat")


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, help="markdown file to write")
    parser.add_argument("--prompts", type=int, nargs="+", default=PROMPTS)
    for name, default in zip(SIZES, (4, 30, 2048, 192, 4, 2), strict=True):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    # Libraries' bars and warnings would be printed among the numbers.
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Loaded before the processes part, so that they are in nobody's memory.
    for name in ("datasets", "trl.trainer.dpo_trainer", "transformers.models.llama.modeling_llama"):
        import_module(name)
    text = report(asked)
    print(text)
    if asked.output:
        asked.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
