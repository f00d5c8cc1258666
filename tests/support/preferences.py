"""Clips, candidates, judges and preference rows of a few lines."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from aligncap.alignment import kd
from aligncap.alignment.examples import BatchSettings, DataSettings, TrainingRow, write_rows
from aligncap.alignment.init_model import ModelSettings, SizeSettings
from aligncap.alignment.kd import WarmupSettings
from aligncap.captioner.choosing import CaptionCandidates
from aligncap.captioner.preparing import PreparedSpeech as Listened
from aligncap.captioner.record import CaptionHypothesis
from aligncap.captioner.runtimes import DecodeOptions, Hypothesis
from aligncap.data.manifest import write_facts
from aligncap.errors import AlignCapError, AudioError
from aligncap.preference import store as stored
from aligncap.preference.examples import PreferenceRow, write_preference_rows
from aligncap.preference.judges import Asked
from aligncap.preference.store import Candidate, Clip, ClipCandidates, Judgement, PreferenceStore
from aligncap.training.settings import FitSettings
from aligncap.values import Fact, Facts, SpeechTokens
from support.recipe_runs import run
from support.rows import FEELINGS, SOURCE

PROVENANCE = stored.Provenance(
    model="fake", fingerprint="0123", method="beam", options={"count": 3}
)


def facts_of(confidence: float = 1.0, **values: float) -> Facts:
    """Facts of this confidence, with these numbers and nothing else."""
    rows = {name: Fact(name, value, "", confidence) for name, value in values.items()}
    return Facts(duration_s=4.0, speech_s=3.5, by_name=MappingProxyType(rows))


FAST_LOUD_WOMAN = facts_of(
    pitch_offset_st=1.0, loudness_db=-15.0, pace_syllables_per_s=7.1, female_probability=0.99
)


def candidate(text: str, utterance: str = "u1", **more: object) -> Candidate:
    """A candidate that a beam search found."""
    known = {"token_ids": (1, 2), "log_probability": -1.0, "method": "beam", **more}
    return Candidate(utterance, "en", text, **known)


def finding(*texts: str, utterance: str = "u1", facts: Facts | None = None) -> ClipCandidates:
    """What a fake model gave of a clip."""
    clip = Clip(utterance, f"{utterance}.wav", facts)
    return ClipCandidates(clip, "en", tuple(candidate(text, utterance) for text in texts))


def fill(store: PreferenceStore, clips: int, each: int = 3) -> None:
    """Clips c00, c01 … with candidates "Caption 0 of c00." …"""
    for number in range(clips):
        name = f"c{number:02}"
        texts = [f"Caption {place} of {name}." for place in range(each)]
        store.add_findings([(finding(*texts, utterance=name), PROVENANCE)])


@dataclass(frozen=True)
class FakeJudge:
    """Scores by a hash of the caption, or as it is told."""

    name: str = "evidence"
    scores: Mapping[str, float] = field(default_factory=dict)
    batch_size: int = 1

    @property
    def signature(self) -> str:
        return f"{self.name}|fake"

    def judge(self, asked: Sequence[Asked]) -> list[list[Judgement]]:
        return [[self._judgement(one) for one in candidates] for _, candidates in asked]

    def close(self) -> None:
        pass

    def _judgement(self, one: Candidate) -> Judgement:
        drawn = int(stored.digest(self.name, one.text)[:6], 16) / 16**6
        score = self.scores.get(one.text, drawn)
        return Judgement(one.key, self.signature, score, {"drawn": drawn}, f"why {one.text}")


@dataclass
class FakeSampler:
    """Gives these captions of every recording; a file called broken.* cannot be read."""

    texts: Sequence[str]
    options: DecodeOptions = field(default_factory=DecodeOptions)
    heard: list[Path] = field(default_factory=list)

    def generate_many(
        self, sources: Iterable[Path], *, language: str, options: DecodeOptions
    ) -> Iterator[CaptionCandidates | AlignCapError]:
        for path in sources:
            self.heard.append(path)
            if path.stem == "broken":
                yield AudioError(f"{path}: is broken")
                continue
            wordings = tuple(
                CaptionHypothesis(text, Hypothesis((n, 2), -float(n + 1), -0.5))
                for n, text in enumerate(self.texts)
            )
            tokens = SpeechTokens(np.zeros((1, 4), dtype=np.int64))
            yield CaptionCandidates(Listened(3.0, None, FAST_LOUD_WOMAN, tokens), wordings)


DPO = """
kind = "dpo"
data = {rows = ["nowhere"]}
training = {precision = "float32", steps = 4, learning_rate = 1e-3, warmup_steps = 0, log_every = 2}
validation = {rows = 4}
check = {rows = 3}
"""
PPO = DPO.replace('"dpo"', '"ppo"') + "batch = {rows = 4, captions = 2}\n"
REWARD = DPO.replace('"dpo"', '"reward"').replace("check = {rows = 3}\n", "")

QUIET = facts_of(0.9, loudness_db=-40.0)
"""Facts that contradict "loud"."""


def preference_rows(count: int = 30, *, seed: int = 0) -> list[PreferenceRow]:
    """Clips whose three candidates name each feeling; the one of the codes is preferred."""
    chance = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        place = number % len(FEELINGS)
        texts = tuple(wording[0] for wording in FEELINGS.values())
        clip = TrainingRow(
            id=f"clip{number}",
            corpus="even" if number % 2 else "odd",
            split="validation" if number % 10 >= 7 else "train",
            speech=chance.integers(4 * place, 4 * place + 4, (1, int(chance.integers(4, 10)))),
            captions={"en": texts},
        )
        pairs = tuple((place, other) for other in range(3) if other != place)
        feeling = list(FEELINGS)[place]
        rows.append(PreferenceRow(clip=clip, pairs=pairs, facts=QUIET, emotion=feeling))
    return rows


def write_preferences(folder: Path, count: int = 60) -> Path:
    """The rows as a file in `folder`."""
    path = folder / "preferences.jsonl"
    write_preference_rows(path, SOURCE, preference_rows(count))
    return path


def train_start(folder: Path) -> Path:
    """A model that can say the captions and knows nothing of speech: a short warm-up."""
    write_rows(folder / "rows.jsonl", SOURCE, [row.clip for row in preference_rows(12)])
    settings = WarmupSettings(
        data=DataSettings(rows=(folder / "rows.jsonl",)),
        training=FitSettings(
            precision="float32", steps=60, learning_rate=1e-2, warmup_steps=5, log_every=30
        ),
        model=ModelSettings(new=SizeSettings(hidden=32, layers=2, heads=2, text_vocabulary=300)),
        batch=BatchSettings(rows=4, captions=3),
    )
    return Path(run(kd.train_warmup, settings, folder / "run")["model"])


def write_corpus(folder: Path, start: Path, *, count: int = 30) -> Path:
    """Training rows with a second view of each clip, their manifest and facts, and recipes of a
    few steps that go on from `start`; no recording is there. Returns the folder."""
    made = preference_rows(count)
    # Row ids name the view.
    views = [
        replace(row.clip, id=f"{row.clip.id}#{view}", measured={"en": "Feeling quiet"})
        for row in made
        for view in (0, 1)
    ]
    write_rows(folder / "rows.jsonl", SOURCE, views)
    lines = [
        {"id": row.clip.id, "file": f"{row.clip.id}.wav", "emotion": row.emotion, "corpus": "made"}
        for row in made
    ]
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    facts = "".join(f"{folder / line['file']}\t{write_facts(QUIET)}\n" for line in lines)
    (folder / "facts.jsonl").write_text(facts, "utf-8")
    for name, text in (("dpo", DPO), ("ppo", PPO), ("reward", REWARD)):
        (folder / f"{name}.toml").write_text(text, "utf-8")
    recipe = f"""
kind = "prefer"
start = "{start}"
candidates = {{count = 4, method = "sample", temperature = 1.0}}
learn = {{recipes = "{folder}"}}
[data]
rows = "{folder / "rows.jsonl"}"
manifests = ["{manifest}"]
facts = "{folder / "facts.jsonl"}"
clips = 12
validation_clips = 5
languages = ["en"]
"""
    (folder / "prefer.toml").write_text(recipe, "utf-8")
    return folder
