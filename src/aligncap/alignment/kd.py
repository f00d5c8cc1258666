"""The three training recipes of alignment (§3.1), over one trainer:

- "warmup", caption-only warm-up: the captions' likelihood after text prompts, P_act (and P_sem or
  a transcript, where asked for) (Eq. 2, 3). Its model is the student's start and, frozen, the
  teacher of a small model.
- "kd", KD-Regularization: distil the text-prompted teacher into the speech-prompted student. Of
  each caption token KL(teacher ‖ student) is minimised over the text vocabulary (Eq. 5; decisions
  1, 2, 4).
- "ce", plain cross-entropy, the baseline without a teacher: the same student, rows, prompts and
  loop as "kd"; only the loss differs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Self

import torch
from pydantic import NonNegativeFloat, PositiveFloat, model_validator
from torch import Tensor

from aligncap.alignment.examples import (
    Prompter,
    Sample,
    StudentSettings,
    one_source,
    read_source,
)
from aligncap.alignment.init_model import TEXT_ONLY
from aligncap.alignment.losses import caption_cross_entropy, kl_to_cached_teacher
from aligncap.alignment.teacher import (
    AdapterOffTeacher,
    Distributions,
    FrozenTeacher,
    Teacher,
    TeacherCache,
)
from aligncap.alignment.trainer import (
    StageSettings,
    StageTrainer,
    TaskBatch,
    TrainingTask,
    plan_training,
    read_training_rows,
)
from aligncap.captioner.checkpoint import load_torch
from aligncap.captioner.model import CaptionModel, has_adapter
from aligncap.captioner.prompts import TEACHER_PROMPTS, SharedPromptRow, to_torch
from aligncap.captioner.vocabulary import Vocabulary
from aligncap.clues.vocabulary import vocabulary
from aligncap.errors import RecipeError
from aligncap.recipes import Count, Share, Trainer, one_of, recipe_section
from aligncap.training.devices import first_process_first, is_distributed, training_device
from aligncap.training.dry_run import needed_path, weight_bytes
from aligncap.values import LANGUAGES

CACHE_FOLDER = "teacher"
"""Of a run: the teacher's distributions, where the recipe names no other folder."""

ROWS_HINT = "make it with a recipe of kind 'token-rows', or as alignment/examples.py describes"


@dataclass(frozen=True, slots=True)
class CaptionObjective:
    """kl_weight · KL(teacher ‖ student) + ce_weight · caption cross-entropy."""

    kl_weight: float = 0.0
    ce_weight: float = 1.0
    temperature: float = 1.0
    """That of the teacher's distributions; the student's logits are divided by it too."""
    smoothing: float = 0.0
    """Of the captions' labels, in training only."""
    weights: Tensor | None = None
    """Of each text token in the captions' cross-entropy, in training only; all alike if None."""

    def training_losses(
        self, model: CaptionModel, batch: TaskBatch[Distributions | None]
    ) -> dict[str, Tensor]:
        """{"loss", and "kl" and "ce" as far as they have a weight}: means per response token."""
        return self._losses(model, batch, kl=self.kl_weight > 0, ce=self.ce_weight > 0)

    def validation_losses(
        self, model: CaptionModel, batch: TaskBatch[Distributions | None]
    ) -> dict[str, Tensor]:
        """The same with "ce", and "kl" where there is a teacher, whatever their weights."""
        return self._losses(model, batch, kl=batch.targets is not None, ce=True)

    def _losses(
        self, model: CaptionModel, batch: TaskBatch[Distributions | None], *, kl: bool, ce: bool
    ) -> dict[str, Tensor]:
        logits = model.text_logits(to_torch(batch.shared, model.device))
        parts = {}
        if kl:
            teacher = batch.targets
            assert teacher is not None
            ids, top, rest = (
                torch.from_numpy(array).to(logits.device)
                for array in (teacher.ids, teacher.log_probs, teacher.log_rest)
            )
            parts["kl"] = kl_to_cached_teacher(logits, ids, top, rest, temperature=self.temperature)
        if ce:
            captions = torch.from_numpy(batch.shared.target_ids).to(logits.device)
            share, table = (self.smoothing, self.weights) if model.training else (0.0, None)
            table = None if table is None else table.to(logits.device)
            parts["ce"] = caption_cross_entropy(logits, captions, smoothing=share, weights=table)
        weights = {"kl": self.kl_weight, "ce": self.ce_weight}
        loss = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
        return {"loss": loss, **parts}

    def count(self, batch: TaskBatch[Distributions | None]) -> int:
        """Response tokens."""
        return len(batch.shared.target_ids)

    def weight_of(self, batch: TaskBatch[Distributions | None]) -> float:
        """Of the response tokens the sum of their weights: what training's losses are means over,
        where `weights` are given."""
        if self.weights is None:
            return self.count(batch)
        return float(self.weights[torch.from_numpy(batch.shared.target_ids)].sum())


@recipe_section
class TeacherSettings:
    """The frozen text-prompted teacher (decisions 1, 2, 4)."""

    prompt: Annotated[str, one_of(TEACHER_PROMPTS)] = "act"
    """Its prompt: "act", "act+sem" (the paper), "act+transcript", or "sem", the paper's without
    P_act (Table 2)."""
    model: Path | None = None
    """Its model folder; `model.start` where not given, and the base itself under LoRA."""
    temperature: PositiveFloat = 1.0
    top_k: Count = 32
    """Tokens of each distribution that are kept; the rest counts as one."""
    cache: Path | None = None
    """Folder of its distributions, to share between runs; inside the run's where not given."""


@recipe_section
class LossSettings:
    """What is minimised: kl_weight · KL(teacher ‖ student) + ce_weight · caption cross-entropy."""

    kl_weight: NonNegativeFloat = 1.0
    ce_weight: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if not self.kl_weight + self.ce_weight > 0:
            raise ValueError("kl_weight and ce_weight are both 0")
        return self


@recipe_section
class KdSettings(StageSettings):
    """A recipe of kind "kd"."""

    student: StudentSettings = field(default_factory=StudentSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    loss: LossSettings = field(default_factory=LossSettings)

    @model_validator(mode="after")
    def _some_teacher(self) -> Self:
        if not (self.teacher.model or self.model.start or self.model.lora):
            raise ValueError(
                "the teacher needs a model that reads: give model.start (a warmed-up model), "
                "teacher.model, or a LoRA adapter over model.base"
            )
        return self

    def readings(self, prompter: Prompter, sample: Sample) -> Iterable[SharedPromptRow]:
        """The student's row and the teacher's."""
        teacher = prompter.teacher_examples(sample, self.teacher.prompt)
        rows = (SharedPromptRow(one.prompt_ids, (one.response_ids,)) for one in teacher)
        return [prompter.student_row(sample, self.student), *rows]

    def models(self) -> list[Path]:
        """The start and the teacher."""
        return [*super().models(), *([self.teacher.model] if self.teacher.model else [])]


def train_kd(settings: KdSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Distil the teacher into the student; the model folder is `output`/model."""
    data = read_training_rows(settings.data.rows, needs_speech=True)
    trainer = StageTrainer(settings, output, kind="kd", data=data)
    task = kd_task(settings, trainer, settings.teacher.cache or output / CACHE_FOLDER)
    return trainer.run(task, acoustic_prompt_source=settings.student.act_mode, resume=resume)


def kd_task(
    settings: KdSettings, trainer: StageTrainer, cache_folder: Path
) -> TrainingTask[Distributions | None]:
    """The student's rows, the teacher's distributions of the same captions, and Eq. 5."""
    prompter, prompt = trainer.prompter, settings.teacher.prompt
    examples = prompter.all_examples(prompt)
    cache = TeacherCache(
        cache_folder,
        open_teacher(settings, trainer.model),
        examples,
        top_k=settings.teacher.top_k,
        temperature=settings.teacher.temperature,
    )
    if is_distributed():
        # One process alone fills the cache as it trains. Of several, one would run a forward pass
        # of a sharded model while the others do something else.
        trainer.model.to(training_device())
        with first_process_first():
            cache.fill(examples)

    def distributions(samples: Sequence[Sample]) -> Distributions:
        return cache.lookup([e for s in samples for e in prompter.teacher_examples(s, prompt)])

    return TrainingTask(
        rows_of=lambda sample: [prompter.student_row(sample, settings.student)],
        objective=CaptionObjective(
            kl_weight=settings.loss.kl_weight,
            ce_weight=settings.loss.ce_weight,
            temperature=settings.teacher.temperature,
        ),
        targets=distributions,
    )


def open_teacher(settings: KdSettings, student: CaptionModel) -> Teacher:
    """The frozen teacher: a model folder, or the student's own base with the adapter off.

    RecipeError where the teacher's text vocabulary is not the student's.
    """
    folder = settings.teacher.model
    if folder is None and has_adapter(student):
        return AdapterOffTeacher(student)
    folder = folder or settings.model.start
    assert folder is not None  # KdSettings makes sure
    model = load_torch(folder, device=str(training_device()), dtype=settings.model.dtype)
    own, students = (
        one.vocabulary.token_names()[: one.vocabulary.text_vocab_size] for one in (model, student)
    )
    if own != students:
        raise RecipeError(
            f"{folder}: its text vocabulary is not the student's; distil between models of one "
            "tokenizer, such as both from one warm-up"
        )
    return FrozenTeacher(model)


@recipe_section
class CeSettings(StageSettings):
    """A recipe of kind "ce"."""

    student: StudentSettings = field(default_factory=StudentSettings)
    label_smoothing: Share = 0.0
    """Share of each target that is spread over all tokens; WavCaps' is 0.1."""
    label_tokens: Count | None = None
    """Tokens of a caption that is learnt, its end among them; of a longer one the beginning and
    the end."""

    def row(self, prompter: Prompter, sample: Sample) -> SharedPromptRow:
        """The student's row, its captions as long as they may be."""
        row, most = prompter.student_row(sample, self.student), self.label_tokens
        if most is None:
            return row
        cut = tuple(ids if len(ids) <= most else (*ids[: most - 1], ids[-1])
                    for ids in row.responses)  # fmt: skip
        return replace(row, responses=cut)

    def readings(self, prompter: Prompter, sample: Sample) -> Iterable[SharedPromptRow]:
        """The student's row."""
        return [self.row(prompter, sample)]


def train_ce(settings: CeSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Train on speech and captions; the model folder is `output`/model."""
    data = read_training_rows(settings.data.rows, needs_speech=True)
    trainer = StageTrainer(settings, output, kind="ce", data=data)
    task = ce_task(settings, trainer)
    return trainer.run(task, acoustic_prompt_source=settings.student.act_mode, resume=resume)


def ce_task(settings: CeSettings, trainer: StageTrainer) -> TrainingTask[Distributions | None]:
    """The student's rows, as in `kd_task`, and the captions' own likelihood."""
    return TrainingTask(
        rows_of=lambda sample: [settings.row(trainer.prompter, sample)],
        objective=CaptionObjective(ce_weight=1.0, smoothing=settings.label_smoothing),
        targets=lambda _: None,
    )


@recipe_section
class WarmupSettings(StageSettings):
    """A recipe of kind "warmup"."""

    prompts: Mapping[Annotated[str, one_of(TEACHER_PROMPTS)], NonNegativeFloat] = field(
        default_factory=lambda: {"act": 1.0}
    )
    """How often each teacher prompt is sampled; one that KD's teacher gets must be trained here.
    A row without a transcript has "act" instead of "act+transcript"."""
    act_dropout: Share = 0.1
    """Share of "act" prompts without any clue: captions without a condition."""
    emotion_weight: PositiveFloat = 1.0
    """How many times a token of an emotion's word counts. They are one in ten of a caption's, and a
    small model that is trained briefly heeds the emotion of P_act the sooner."""

    @model_validator(mode="after")
    def _some_prompt(self) -> Self:
        if not sum(self.prompts.values()) > 0:
            raise ValueError("prompts asks for no prompt")
        return self

    def readings(self, prompter: Prompter, sample: Sample) -> Iterable[SharedPromptRow]:
        """Each caption after each of the prompts."""
        kinds = [kind for kind, weight in self.prompts.items() if weight > 0]
        examples = (one for kind in kinds for one in prompter.teacher_examples(sample, kind))
        return [SharedPromptRow(one.prompt_ids, (one.response_ids,)) for one in examples]


def train_warmup(settings: WarmupSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Train on captions alone; the model folder is `output`/model."""
    data = read_training_rows(settings.data.rows, needs_speech=False)
    trainer = StageTrainer(settings, output, kind=TEXT_ONLY, data=data)
    weights = emotion_weights(trainer.model.vocabulary, settings.emotion_weight)
    objective = CaptionObjective(weights=weights)
    task = TrainingTask(
        rows_of=lambda sample: trainer.prompter.warmup_rows(
            sample, prompts=settings.prompts, act_dropout=settings.act_dropout
        ),
        objective=objective,
        targets=lambda _: None,
        weight_of=objective.weight_of,
    )
    return trainer.run(task, acoustic_prompt_source="none", resume=resume)


def emotion_weights(words: Vocabulary, weight: float) -> Tensor | None:
    """Of each text token 1, or `weight` where it is a word of emotion or the best part of one,
    [text ids]; None for a weight of 1. Shorter pieces are parts of other words too: they stay."""
    if weight == 1:
        return None
    table = torch.ones(words.text_vocab_size)
    for language in LANGUAGES:
        for word in vocabulary(language).words.values():
            if all(sense.trait != "emotion" for sense in word.senses):
                continue
            for text in (word.text, f" {word.text}"):
                ids = words.encode_text(text)
                pieces = [words.decode([one]).strip() for one in ids]
                for one, piece in zip(ids, pieces, strict=True):
                    if len(piece) >= (2 if len(ids) == 1 else 5):
                        table[one] = weight
    return table


def plan_stage(settings: StageSettings, _: Path) -> Mapping[str, object]:
    """The dry run of any of the three; a teacher of its own is counted as large as the student."""
    needed = [needed_path("training rows", path, hint=ROWS_HINT) for path in settings.data.rows]
    here = [path for path in settings.data.rows if path.exists()]
    source = one_source({path: read_source(path) for path in here}) if here else None
    folders, frozen = [], None
    if isinstance(settings, KdSettings):
        teacher = settings.teacher.model
        if teacher is not None:
            hint = "train it with a recipe of kind 'warmup'"
            folders.append(needed_path("teacher", teacher, hint=hint))
        if teacher is not None or not settings.model.lora:
            frozen = weight_bytes
    speaks = not isinstance(settings, WarmupSettings)
    return plan_training(
        settings,
        source,
        rows=needed,
        clips=lambda: read_training_rows(here, needs_speech=speaks)[0],
        more=folders,
        frozen=frozen,
    )


WARMUP = Trainer(WarmupSettings, plan_stage, train_warmup)
KD = Trainer(KdSettings, plan_stage, train_kd)
CE = Trainer(CeSettings, plan_stage, train_ce)
