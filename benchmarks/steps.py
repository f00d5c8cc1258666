"""What the benchmarks of training steps share: random models and ids, and measuring apart.

Time is processor time of a process of its own (the least of several steps, on one thread), so that
what else runs on the machine does not count; memory is the most that process held, beyond what it
began with.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from language_models import peak_mb

from aligncap.captioner.model import seeded
from aligncap.captioner.prompts import SharedPromptRow

LEARNING_RATE = 1e-4
EOS = 1
PROMPTS = (75, 300, 500)


@dataclass(frozen=True)
class Ids:
    """As much of a vocabulary as a step asks for: text first, and speech behind it."""

    size: int
    text_vocab_size: int
    pad_id: int = 0

    @property
    def new_ids(self) -> range:
        """The ids of speech."""
        return range(self.text_vocab_size, self.size)


@dataclass(frozen=True)
class Case:
    """What is measured: which system on which sizes."""

    system: str
    responses: int
    """Of one prompt: candidates, or captions."""
    prompt: int
    rows: int
    response: int
    vocabulary: int
    hidden: int
    layers: int
    repeat: int

    def __str__(self) -> str:
        return f"{self.system}, {self.responses} a clip, prompt {self.prompt}"


@dataclass(frozen=True)
class Measured:
    """A system on its sizes."""

    step: Callable[[], Any]
    """What is timed, over and over."""
    outcome: Callable[[], Any]
    """What comes out before the first step, to be compared with the other system's."""


Systems = Mapping[str, Callable[[Case], Measured]]


def random_llama(case: Case, *, spread: float = 0.02, seed: int = 0) -> Any:
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
    with seeded(seed):
        return LlamaForCausalLM(config)


def random_rows(
    case: Case, chance: np.random.Generator, *, texts: int | None = None
) -> list[SharedPromptRow]:
    """Clips of random ids, each with responses of different lengths, of the first `texts` ids."""

    def ids(count: int, end: int) -> list[int]:
        drawn: list[int] = chance.integers(5, end, count).tolist()
        return drawn

    rows = []
    for _ in range(case.rows):
        lengths = chance.integers(case.response - 5, case.response + 6, case.responses)
        prompt = ids(case.prompt, case.vocabulary)
        said = [[*ids(n - 1, texts or case.vocabulary), EOS] for n in lengths]
        rows.append(SharedPromptRow(tuple(prompt), tuple(map(tuple, said))))
    return rows


def optimizer_of(model: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW over what trains, as a stage has it."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=LEARNING_RATE, fused=True)


def follow(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Backward and update."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _measure(systems: Systems, case: Case) -> dict[str, Any]:
    before_mb = peak_mb()
    system = systems[case.system](case)
    outcome = system.outcome()
    system.step()
    taken = []
    for _ in range(case.repeat):
        started = time.process_time()
        system.step()
        taken.append(time.process_time() - started)
    return {"outcome": outcome, "seconds": min(taken), "peak_mb": peak_mb() - before_mb}


def measured(systems: Systems, case: Case) -> dict[str, Any]:
    """Processor seconds of the fastest step, the peak of memory, and the outcome."""
    found: dict[str, Any] = apart(_measure, systems, case)
    print(f"{case}: {found['seconds']:.3f} s", flush=True)
    return found


def apart(work: Callable[..., Any], *given: Any) -> Any:
    """What work gives in a process of its own, on one thread; its peak of memory is its own too."""
    context = multiprocessing.get_context("fork")
    with context.Pool(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return pool.apply(work, given)


def arguments(about: str | None, **sizes: int) -> argparse.Namespace:
    """What was typed; `sizes` are the options of the model and the batch with their defaults."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, help="markdown file to write")
    parser.add_argument("--prompts", type=int, nargs="+", default=PROMPTS)
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def case_of(asked: argparse.Namespace, **chosen: Any) -> Case:
    """The case of a system, a number of responses and a prompt, in the sizes asked for."""
    sizes = ("rows", "response", "vocabulary", "hidden", "layers", "repeat")
    return Case(**chosen, **{name: getattr(asked, name) for name in sizes})


def deliver(text: str, output: Path | None) -> None:
    """Print a report, and write it where asked to."""
    print(text)
    if output:
        output.write_text(text, encoding="utf-8")
