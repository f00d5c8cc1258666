"""A command line whose streams and model the test holds."""

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from aligncap.audio import load
from aligncap.cli.console import Console
from aligncap.cli.main import main
from aligncap.errors import AlignCapError, MissingModelError, NoSpeechError
from aligncap.values import Caption, Clue, Evidence, Verdict, Waveform


class FakeModel:
    """Says how long and how loud a recording is; reads the audio as the real one does."""

    def __init__(self, name: str) -> None:
        self.name = name

    def caption_many(
        self,
        sources: Iterable[Path | Waveform],
        *,
        language: str,
        candidates: int,
        evidence: bool,
    ) -> Iterator[Caption | AlignCapError]:
        for source in sources:
            try:
                waveform = source if isinstance(source, Waveform) else load(source)
                if float(np.abs(waveform.samples).max()) < 1e-3:
                    raise NoSpeechError(f"{waveform.source}: nobody speaks in it")
            except AlignCapError as error:
                yield error
            else:
                yield self._caption(waveform, language, candidates, evidence)

    def _caption(
        self, waveform: Waveform, language: str, candidates: int, evidence: bool
    ) -> Caption:
        clue = Clue("loud", "volume", "loud", polarity=1)
        peak = float(np.abs(waveform.samples).max())
        verdict = Verdict.SUPPORTED if peak > 0.5 else Verdict.CONTRADICTED
        return Caption(
            text="一个人大声说话。" if language == "zh" else "Somebody speaks loudly.",
            language=language,
            duration_s=waveform.duration_s,
            evidence=(Evidence(clue, verdict, f"peak {peak:.1f}"),) if evidence else (),
            emotion={"angry": 0.7, "happy": 0.3},
            arousal=0.5,
            valence=None,
            gender=None,
            pitch="low",
            loudness="loud",
            pace=None,
            confidence=0.7,
            log_probability=-0.2,
            model=self.name,
            candidates=tuple(f"Candidate {number}." for number in range(1, candidates)),
        )


def _open_fake(name: str, *, tokenizer_path: Path | None = None) -> FakeModel:
    """The fake under the name `mini`; any other is missing."""
    if name != "mini":
        raise MissingModelError(f"{name}: no such model; built in: mini")
    return FakeModel(name)


@pytest.fixture
def open_fake() -> Callable[[str], FakeModel]:
    """Opens the fake model."""
    return _open_fake


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str


Aligncap = Callable[..., Ran]


@pytest.fixture
def aligncap() -> Aligncap:
    """Runs `aligncap` with arguments, standard input as bytes, and the fake model."""

    def run(*arguments: str | Path, stdin: bytes = b"") -> Ran:
        out, err = io.StringIO(), io.StringIO()
        typed = io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin)), encoding="utf-8")
        world = Console(stdin=typed, stdout=out, stderr=err, open_model=_open_fake)
        code = main([str(argument) for argument in arguments], world=world)
        return Ran(code, out.getvalue(), err.getvalue())

    return run
