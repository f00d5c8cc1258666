"""Stand-ins for models."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock

import numpy as np

from aligncap.audio import SpeechDetector, load
from aligncap.captioner.preparing import Spoken
from aligncap.captioner.segments import Segment, joined, segments
from aligncap.errors import AlignCapError, NoSpeechError
from aligncap.metrics import judge
from aligncap.metrics.aes import read_aes
from aligncap.metrics.judge import JudgeClient, Question, Reply
from aligncap.metrics.scores import ScoredClip
from aligncap.prosody import measure
from aligncap.prosody.baseline import Measured, baselines_of, voices_of
from aligncap.values import Baseline, Caption, Clue, Evidence, Verdict, Waveform


class FakeCaptioner:
    """Says how long and how loud a recording is; reads the audio as the real one does."""

    def __init__(self, name: str) -> None:
        self.name = self.signature = name

    def caption_many(
        self, sources: Iterable[Spoken | Path | Waveform], **options: object
    ) -> Iterator[Caption | AlignCapError]:
        for given in sources:
            source, baseline = given if isinstance(given, Spoken) else (given, None)
            try:
                waveform = source if isinstance(source, Waveform) else load(source)
                if float(np.abs(waveform.samples).max()) < 1e-3:
                    raise NoSpeechError(f"{waveform.source}: no speech in it")
            except AlignCapError as error:
                yield error
            else:
                yield replace(self._caption(waveform, **options), baseline=baseline)

    def segments(self, source: Path, **options: object) -> Iterator[Segment]:
        """The real ones, with the captions of the fake."""
        return joined(segments(self, source, detector=SpeechDetector(), **options))

    def baseline(self, recordings: Iterable[Path]) -> Baseline:
        return Baseline("test", len(list(recordings)), 190.0, -25.0, 5.0)

    def baselines(
        self,
        recordings: Iterable[Path | Waveform | AlignCapError],
        speakers: Sequence[str | None],
        *,
        kind: str = "speaker",
    ) -> list[Baseline]:
        found = self._measured(recordings)
        measured = [None if isinstance(one, AlignCapError) else one for one in found]
        return baselines_of(measured, speakers, kind=kind)

    def voices(self, recordings: Iterable[tuple[str, Waveform]]) -> dict[str, Baseline]:
        return voices_of(recordings, self._measured)

    def _measured(
        self, recordings: Iterable[Path | Waveform | AlignCapError]
    ) -> Iterator[Measured | AlignCapError]:
        for one in recordings:
            try:
                sound = load(one) if isinstance(one, Path) else one
            except AlignCapError as error:
                sound = error
            yield sound if isinstance(sound, AlignCapError) else (measure(sound), None)

    def _caption(
        self, waveform: Waveform, language: str, candidates: int = 1, evidence: bool = True
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


class FakeChatModel:
    """Replies by a function of the prompt."""

    def __init__(self, reply: Callable[[str], str], *, name: str = "fake") -> None:
        self.name = name
        self.settings: Mapping[str, object] = {"temperature": 0.0}
        self.prompts: list[str] = []
        self._reply, self._lock = reply, Lock()

    def ask(self, prompt: str) -> Reply:
        with self._lock:
            self.prompts.append(prompt)
        return Reply(text=self._reply(prompt))


def judge_of(model: FakeChatModel, folder: Path, **options: object) -> JudgeClient:
    cache = judge.ReplyCache(folder / "replies.sqlite", model=model.name, settings=model.settings)
    return JudgeClient(model, cache, **options)


def rating(score: object, reason: object = "as heard") -> str:
    return json.dumps({"reason": reason, "score": score})


def numbered_clip(number: int, hypothesis: str | None = None) -> ScoredClip:
    text = f"voice {number} is low" if hypothesis is None else hypothesis
    return ScoredClip(f"clip{number}", text, (f"voice {number} is low and slow",))


def ask_many(url: str, cache: Path) -> list[object]:
    """Sixty questions to a judge at that URL, three at once."""
    settings = judge.JudgeSettings(model="small", url=url, cache=cache, concurrency=3)
    with judge.open_judge_client(settings) as client:
        return client.ask([Question(f"clip{n}", f"rate {n}", read_aes) for n in range(60)])
