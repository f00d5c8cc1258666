"""The benchmark of finetuning: speakers on one side only."""

from pathlib import Path
from typing import Any

import pytest

from aligncap.data.manifest import Utterance
from support.scripts import load_script


@pytest.fixture(scope="module")
def benchmark_script() -> Any:
    return load_script("benchmarks/finetune.py")


def test_no_speaker_is_learnt_from_and_heard(benchmark_script: Any) -> None:
    every = [
        Utterance(f"{speaker}-{n}", Path("x.wav"), speaker=f"s{speaker}", emotion="sad")
        for speaker in range(6)
        for n in range(5)
    ]
    for seed in range(4):
        own, others = benchmark_script.parted(every, 12, seed)
        assert len(own) == 12
        assert len(others) == 15
        assert not {one.speaker for one in own} & {one.speaker for one in others}
    drawn = {
        frozenset(c.speaker for c in benchmark_script.parted(every, 12, s)[0]) for s in range(4)
    }
    assert len(drawn) > 1
