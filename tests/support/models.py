"""Stand-ins for models."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from aligncap.audio import load
from aligncap.errors import AlignCapError, NoSpeechError
from aligncap.values import Caption, Clue, Evidence, Verdict, Waveform


class FakeCaptioner:
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
