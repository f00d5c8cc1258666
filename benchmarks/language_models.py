"""The language model alone: CTranslate2, our torch runtime, and plain `transformers.generate`.

All get the same prompts and write responses of one fixed length.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESPONSE_TOKENS = 30
CLIP_S = 3.0
"""Speech of the single prompt; the batch has 1.5 to 8 s."""

Generate = Callable[[Sequence[Sequence[int]]], object]


def random_model(folder: Path, like: str) -> Path:
    """A LLaMA of mini's size with random weights over the vocabulary of an exported model."""
    from aligncap.captioner.checkpoint import find_model, load_vocabulary, read_meta, save
    from aligncap.captioner.model import CaptionModel, small_llama

    exported = find_model(like)
    meta, vocabulary = read_meta(exported), load_vocabulary(exported)
    save(folder, CaptionModel(small_llama(vocabulary), vocabulary), meta)
    return folder


def measure_language_model(asked: argparse.Namespace) -> dict[str, float]:
    """Milliseconds a caption, alone and in a batch."""
    started = time.perf_counter()
    generate, vocabulary = OPENERS[asked.child](asked)
    opened_s = time.perf_counter() - started
    single, batch = prompts(vocabulary, [CLIP_S]), prompts(vocabulary, durations(asked.batch))
    generate(batch[:2])
    return {
        "open_s": opened_s,
        "single_ms": 1000 * fastest(lambda: generate(single), times=5),
        "batch_ms_per_caption": 1000 * fastest(lambda: generate(batch), times=2) / len(batch),
        "peak_mb": peak_mb(),
    }


def open_ours(asked: argparse.Namespace) -> tuple[Generate, Any]:
    """Our torch runtime, or CTranslate2's in the quantisation that the name says."""
    from aligncap.captioner.checkpoint import load_torch, load_vocabulary
    from aligncap.captioner.runtimes import (
        CT2Runtime,
        DecodeOptions,
        LanguageRuntime,
        ResponseRules,
    )

    vocabulary = load_vocabulary(asked.trained)
    rules = ResponseRules(vocabulary.text_vocab_size, (vocabulary.eos_id,))
    options = DecodeOptions(
        beam_size=asked.beams, min_length=RESPONSE_TOKENS, max_length=RESPONSE_TOKENS
    )
    runtime: LanguageRuntime
    if asked.child == "torch":
        from aligncap.captioner.decoding import TorchRuntime

        limit_torch(asked.threads)
        runtime = TorchRuntime(load_torch(asked.trained).causal_lm, rules)
    else:
        quantization = asked.child.removeprefix("ct2 ")
        folder = asked.work / quantization
        if not folder.is_dir():
            # The conversion needs torch; a process of its own keeps that out of the peak.
            subprocess.run([sys.executable, "-c", CONVERT, asked.trained, folder], check=True)
        runtime = CT2Runtime(folder, rules, replicas=asked.threads)
    return lambda batch: runtime.generate(batch, options), vocabulary


CONVERT = """
import sys; from pathlib import Path
from aligncap.captioner.checkpoint import load_torch
from aligncap.captioner.export import convert
model, folder = load_torch(Path(sys.argv[1])), Path(sys.argv[2])
convert(model.causal_lm, model.vocabulary, folder, quantization=folder.name)
"""


def open_transformers(asked: argparse.Namespace) -> tuple[Generate, Any]:
    """`generate` as transformers has it, on a batch padded on the left."""
    import torch
    from transformers import GenerationConfig

    from aligncap.captioner.checkpoint import load_torch

    limit_torch(asked.threads)
    model = load_torch(asked.trained)
    pad_id = model.vocabulary.pad_id
    config = GenerationConfig(
        num_beams=asked.beams,
        do_sample=False,
        min_new_tokens=RESPONSE_TOKENS,
        max_new_tokens=RESPONSE_TOKENS,
        eos_token_id=model.vocabulary.eos_id,
        pad_token_id=pad_id,
    )

    def generate(batch: Sequence[Sequence[int]]) -> object:
        longest = max(map(len, batch))
        ids = torch.tensor([[pad_id] * (longest - len(row)) + list(row) for row in batch])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch])
        with torch.inference_mode():
            return model.causal_lm.generate(ids, attention_mask=mask, generation_config=config)

    return generate, model.vocabulary


def limit_torch(threads: int) -> None:
    """As many threads for torch as the others have."""
    import torch

    torch.set_num_threads(threads)


def durations(count: int) -> list[float]:
    """Lengths of speech in seconds, the same in each process."""
    return [1.5 + 6.5 * ((37 * number) % 101) / 100 for number in range(count)]


def prompts(vocabulary: Any, lengths_s: Sequence[float]) -> list[tuple[int, ...]]:
    """Prompts with random speech of the given lengths, 12.5 tokens a second."""
    import numpy as np

    from aligncap.captioner.prompts import PromptBuilder
    from aligncap.values import SpeechTokens

    draw = np.random.default_rng(0)
    builder = PromptBuilder(vocabulary)
    shape = (vocabulary.shape.codebooks, vocabulary.shape.codebook_size)
    return [
        builder.student(
            SpeechTokens(draw.integers(0, shape[1], (shape[0], max(1, int(12.5 * length_s))))),
            language="en",
        )
        for length_s in lengths_s
    ]


def fastest(action: Callable[[], object], *, times: int) -> float:
    """Seconds of the fastest of several runs: the one least disturbed."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return min(taken)


def machine(*packages: str) -> dict[str, Any]:
    """What numbers depend on: the processor, how busy it is, and versions."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def peak_mb() -> float:
    """The most memory this process has held, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


OPENERS = {
    "ct2 int8": open_ours,
    "ct2 float32": open_ours,
    "torch": open_ours,
    "transformers.generate": open_transformers,
}

LANGUAGE_MODELS = tuple(OPENERS)
