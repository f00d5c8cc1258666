"""Rewards of captions (decision 13): the evidence judge's score, or a reward model's.

The reward model is a captioner's body that reads prompt and caption, with a scalar head; it learns
by Bradley–Terry from the same pairs that DPO learns from. `CaptionCheck` says at each validation
how the policy's greedy captions do: preference losses can look well while captions get worse.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Protocol, Self

import torch
from pydantic import NonNegativeInt, model_validator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from aligncap.alignment.examples import Prompter, Sample
from aligncap.alignment.teacher import batch_of
from aligncap.alignment.trainer import StageTrainer, TaskBatch, TrainingTask
from aligncap.captioner.captioner import generate_captions
from aligncap.captioner.checkpoint import CaptionLimits, load_torch, read_meta
from aligncap.captioner.decoding import TorchRuntime
from aligncap.captioner.model import CaptionModel, seeded
from aligncap.captioner.prefill import TorchBatch
from aligncap.captioner.prompts import PromptBuilder, SharedPromptRow, to_torch
from aligncap.captioner.record import CaptionHypothesis
from aligncap.captioner.runtimes import DecodeOptions, ResponseRules
from aligncap.clues import emotion_of, find_clues, judge
from aligncap.errors import DataError, MissingModelError
from aligncap.foreign import AGAIN, check_tensors, reading
from aligncap.preference import examples
from aligncap.preference.judges import EvidenceJudge, EvidenceWeights
from aligncap.preference.store import Candidate, Clip, normal_form
from aligncap.recipes import Trainer, one_of, recipe_section
from aligncap.training.devices import is_first_process, training_device
from aligncap.training.loop import evaluating
from aligncap.training.pretrained import check_finite
from aligncap.values import Verdict

REWARDS = ("evidence", "model")

EMPTY_REWARD = -1.0
"""Of an empty rollout: worse than a sentence that claims nothing, which has 0."""


class RewardOf(Protocol):
    """How good captions of a clip are; more is better."""

    def __call__(self, row: examples.PreferenceRow, texts: Sequence[str]) -> list[float]:
        """The reward of each text, which is in the row's language."""


@recipe_section
class RewardSettings:
    """Which reward, and where it is."""

    name: Annotated[str, one_of(REWARDS)] = "evidence"
    """"evidence" (what the signal and the labels show: a verifiable reward) or "model"."""
    model: Path | None = None
    """Folder of the reward model, for "model"."""
    evidence: EvidenceWeights = field(default_factory=EvidenceWeights)
    """What claims are worth and what they cost, for "evidence"."""

    @model_validator(mode="after")
    def _model_is_given(self) -> Self:
        if (self.name == "model") != (self.model is not None):
            raise ValueError('the reward "model" needs reward.model, its folder; others have none')
        return self


def open_reward(settings: RewardSettings) -> RewardOf:
    """The reward that the settings name."""
    if settings.model is not None:
        return ModelReward(settings.model)
    return EvidenceReward(EvidenceJudge(settings.evidence))


@dataclass(frozen=True, slots=True)
class EvidenceReward:
    """The score of the evidence judge (decision 11)."""

    judge: EvidenceJudge = field(default_factory=EvidenceJudge)

    def __call__(self, row: examples.PreferenceRow, texts: Sequence[str]) -> list[float]:
        """As `RewardOf`."""
        name = row.clip.id
        clip = Clip(
            utterance=name,
            file="",
            facts=row.facts,
            emotion=row.emotion,
            gender=row.gender,
            references=row.references,
        )
        captions = [text for text in texts if normal_form(text)]
        candidates = [Candidate(name, row.language, text) for text in captions]
        (found,) = self.judge.judge([(clip, candidates)])
        scores = {text: one.score for text, one in zip(captions, found, strict=True)}
        return [scores.get(text, EMPTY_REWARD) for text in texts]


HEAD_FILE = "reward_head.safetensors"
"""In a reward model's folder, next to the model."""


class RewardModel(nn.Module):
    """Gives every response a scalar: a linear head on the hidden state of its last token."""

    centre: Tensor
    spread: Tensor

    def __init__(self, body: CaptionModel, *, seed: int = 0) -> None:
        super().__init__()
        self.body = body
        with seeded(seed):
            self.head = nn.Linear(body.width, 1)
            # As small as a normalised state is wide: rewards begin near 0 (Stiennon et al. 2020).
            nn.init.normal_(self.head.weight, std=(body.width + 1) ** -0.5)
            nn.init.zeros_(self.head.bias)
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.body.device

    def forward(self, batch: TorchBatch) -> Tensor:
        """Raw rewards [R] of the responses of a batch of `with_last_token` rows."""
        last = batch.response_lengths.cumsum(0) - 1
        states = self.body.predicting_states(batch)[last]
        rewards: Tensor = self.head(states.float()).squeeze(-1)
        return rewards

    def rewards(self, rows: Sequence[SharedPromptRow]) -> Tensor:
        """Rewards [R] without gradient, in standard deviations from the usual caption."""
        with evaluating(self):
            raw = self(batch_of(self.body, [with_last_token(row) for row in rows]))
        standard: Tensor = (raw - self.centre) / self.spread
        return standard

    def standardise(self, rows: Sequence[SharedPromptRow]) -> None:
        """Make the rewards of these rows' responses have mean 0 and standard deviation 1.

        Only differences are learnt; PPO wants a scale that means the same in every run.
        """
        self.centre.zero_()
        self.spread.fill_(1.0)
        raw = torch.cat([self.rewards([row]) for row in rows])
        self.centre.copy_(raw.mean())
        self.spread.copy_(raw.std(correction=0).clamp(min=1e-6))


def with_last_token(row: SharedPromptRow) -> SharedPromptRow:
    """A row whose responses are fed to their very end: a batch leaves out the last token."""
    return SharedPromptRow(row.prompt_ids, tuple((*ids, ids[-1]) for ids in row.responses))


def save_head(model: RewardModel, folder: Path) -> None:
    """Write the head into the folder of the reward model's body."""
    tensors = {"weight": model.head.weight, "bias": model.head.bias}
    tensors |= {"centre": model.centre, "spread": model.spread}
    save_file({n: t.detach().cpu().clone() for n, t in tensors.items()}, folder / HEAD_FILE)


def load_reward_model(folder: Path) -> RewardModel:
    """The reward model of a folder; MissingModelError where there is no head in it."""
    path = folder / HEAD_FILE
    if not path.is_file():
        raise MissingModelError(
            f"{folder}: holds no {HEAD_FILE}, so it is no reward model; train one with kind "
            '= "reward"'
        )
    model = RewardModel(load_torch(folder))
    check_tensors(path, hint=AGAIN)
    with reading(path, hint=AGAIN), torch.no_grad():
        stored = load_file(path)
        for name in ("weight", "bias"):
            getattr(model.head, name).copy_(stored[name])
        model.centre.copy_(stored["centre"])
        model.spread.copy_(stored["spread"])
        check_finite(model.head)
    return model.to(training_device()).requires_grad_(requires_grad=False).eval()


class ModelReward:
    """The reward of a trained reward model."""

    def __init__(self, folder: Path) -> None:
        self._model, self._folder = load_reward_model(folder), folder
        meta = read_meta(folder)
        self._builder = PromptBuilder(
            self._model.body.vocabulary, meta.prompts, vectors=meta.connector.vectors
        )
        self._student = examples.prompt_settings(meta.act_mode)

    def __call__(self, row: examples.PreferenceRow, texts: Sequence[str]) -> list[float]:
        """As `RewardOf`; the prompt is encoded once for all texts."""
        if row.language not in self._builder.template.instructions:
            raise DataError(f"{self._folder}: knows no captions in {row.language!r}")
        prompter = Prompter(self._builder, [row.clip])
        prompt = prompter.student_row(Sample(0, row.language, (0,), None), self._student).prompt_ids
        responses = tuple(tuple(self._builder.response(text)) for text in texts)
        found: list[float] = self._model.rewards([SharedPromptRow(prompt, responses)]).tolist()
        return found


SCALE_ROWS = 256
"""Clips over whose candidates the trained rewards are standardised."""


@recipe_section
class RewardModelSettings(examples.PreferenceSettings):
    """A recipe of kind "reward"."""

    batch: examples.PairBatchSettings = field(default_factory=examples.PairBatchSettings)

    @model_validator(mode="after")
    def _goes_on(self) -> Self:
        examples.require_start(self)
        return self


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log σ(r_c - r_r) of each pair, [pairs]: the reward model's loss (Ouyang et al. 2022, Eq. 1).

    `chosen` and `rejected` [pairs] are scalar rewards; only their differences count.
    """
    return -logsigmoid(chosen - rejected)


@dataclass(frozen=True, slots=True)
class BradleyTerryObjective:
    """-log σ(r_chosen - r_rejected)."""

    def training_losses(
        self, model: RewardModel, batch: TaskBatch[examples.Pairs]
    ) -> dict[str, Tensor]:
        """{"loss", "accuracy", "margin"}: means over pairs."""
        rewards = model(to_torch(batch.shared, model.device))
        chosen, rejected = (
            rewards[torch.from_numpy(places).to(model.device)]
            for places in (batch.targets.chosen, batch.targets.rejected)
        )
        return {
            "loss": bradley_terry(chosen, rejected).mean(),
            "accuracy": (chosen > rejected).float().mean(),
            "margin": (chosen - rejected).detach().mean(),
        }

    def validation_losses(
        self, model: RewardModel, batch: TaskBatch[examples.Pairs]
    ) -> dict[str, Tensor]:
        """The same."""
        return self.training_losses(model, batch)

    def count(self, batch: TaskBatch[examples.Pairs]) -> int:
        """Pairs."""
        return len(batch.targets.chosen)


def plan(settings: RewardModelSettings, _: Path) -> Mapping[str, object]:
    """The plan of a dry run."""
    return examples.plan_preference(settings, wrap=RewardModel)


def train_reward_model(
    settings: RewardModelSettings, output: Path, *, resume: bool
) -> Mapping[str, object]:
    """Fit the reward model; `output`/model holds its body and its head."""
    every, source = examples.read_preferences(settings.data.rows)
    rows = examples.with_pairs(every, candidates=settings.batch.captions)
    data = [row.clip for row in rows], source
    trainer = StageTrainer(settings, output, kind="reward", data=data)
    rows = [rows[place] for place in trainer.places]
    act_mode = examples.start_act_mode(settings)
    book = examples.PairDataset(
        trainer.prompter, rows, candidates=settings.batch.captions, act_mode=act_mode
    )
    task = TrainingTask(
        rows_of=lambda sample: [with_last_token(book.row_of(sample))],
        objective=BradleyTerryObjective(),
        targets=book.pairs_of,
    )
    model = RewardModel(trainer.model, seed=settings.training.seed)
    summary = trainer.run(task, acoustic_prompt_source=act_mode, resume=resume, module=model)
    samples = [one for one in book.all_samples() if rows[one.row].clip.split == "train"]
    model.standardise([book.row_of(one) for one in samples[:: -(-len(samples) // SCALE_ROWS)]])
    if is_first_process():
        save_head(model, Path(str(summary["model"])))
    return summary


REWARD = Trainer(RewardModelSettings, plan, train_reward_model)


@recipe_section
class CheckSettings:
    """Captions that are generated and checked at each validation."""

    rows: NonNegativeInt = 64
    """Validation rows that are captioned, spread over all there are; 0 checks nothing."""


@dataclass(frozen=True, slots=True)
class RowCaptioner:
    """A model, and what it needs to caption preference rows."""

    model: CaptionModel
    prompter: Prompter
    limits: CaptionLimits
    act_mode: str
    """Where the prompt's P_act comes from."""

    def prompt_ids(self, place: int, row: examples.PreferenceRow) -> tuple[int, ...]:
        """The prompt of a row, the one at `place` in the prompter's list."""
        sample = Sample(place, row.language, (0,), None)
        return self.prompter.student_row(sample, examples.prompt_settings(self.act_mode)).prompt_ids

    def generate(
        self, prompts: Sequence[Sequence[int]], options: DecodeOptions
    ) -> list[tuple[CaptionHypothesis, ...]]:
        """For each prompt up to `options.captions` captions, best first."""
        vocabulary = self.model.vocabulary
        rules = ResponseRules.of(vocabulary, self.limits.stop_characters)
        runtime = TorchRuntime(self.model, rules)
        return generate_captions(runtime, vocabulary, prompts, options)


class CaptionCheck:
    """Captions a fixed choice of validation rows and checks what the captions claim."""

    def __init__(
        self,
        captioner: RowCaptioner,
        rows: Sequence[examples.PreferenceRow],
        settings: CheckSettings,
        *,
        reward: RewardOf | None = None,
    ) -> None:
        self._captioner, self._reward = captioner, reward
        places = [place for place, row in enumerate(rows) if row.clip.split == "validation"]
        step = max(1.0, len(places) / max(1, settings.rows))
        chosen = [places[int(i * step)] for i in range(min(settings.rows, len(places)))]
        self._rows = [rows[place] for place in chosen]
        self._prompts = [captioner.prompt_ids(place, rows[place]) for place in chosen]

    def __call__(self) -> dict[str, float]:
        """Means over the captions, as far as the rows have what is needed:

        "validation_contradicted" (of the claims that the signal can verify, the share that it
        contradicts: the hallucination rate), "validation_clues" and "validation_tokens" a caption
        (saying less is the cheap way to a lower rate), "validation_emotion" (share that names
        the labelled emotion) and "validation_reward".
        """
        if not self._rows:
            return {}
        limits = self._captioner.limits
        options = DecodeOptions(
            beam_size=1, min_length=limits.min_tokens, max_length=limits.max_tokens
        )
        best = [one[0] for one in self._captioner.generate(self._prompts, options)]
        texts = [one.text for one in best]
        clues = [
            find_clues(text, row.language) for text, row in zip(texts, self._rows, strict=True)
        ]
        count = len(texts)
        means = {
            "validation_clues": sum(map(len, clues)) / count,
            "validation_tokens": sum(len(one.hypothesis.ids) for one in best) / count,
        }
        both = list(zip(self._rows, clues, strict=True))
        measured = [judge(found, row.facts) for row, found in both if row.facts is not None]
        if measured:
            verdicts = Counter(one.verdict for evidence in measured for one in evidence)
            wrong = verdicts[Verdict.CONTRADICTED]
            means["validation_contradicted"] = wrong / max(1, wrong + verdicts[Verdict.SUPPORTED])
        named = [emotion_of(found) == row.emotion for row, found in both if row.emotion is not None]
        if named:
            means["validation_emotion"] = sum(named) / len(named)
        if self._reward is not None:
            pairs = zip(self._rows, texts, strict=True)
            means["validation_reward"] = sum(self._reward(r, [t])[0] for r, t in pairs) / count
        return means
