"""Stage (i), caption-only warm-up: the language model learns to speak from text alone (Eq. 2, 3).

It reads P_act (and P_sem or a transcript, if asked to) and learns the captions by maximum
likelihood. What it becomes is the student's start and, frozen, the teacher of a small model.

The rival of KD: plain cross-entropy on the captions, speech in, no teacher.

The same student, rows, prompts and loop as `kd`; only the loss differs, so the two compare.

Stage (ii), KD-Regularization: a student that hears learns to say what a teacher that reads says.

The teacher reads P_act (and P_sem or the transcript), the student speech tokens; of each caption
token KL(teacher ‖ student) is minimised over the text vocabulary (Eq. 5; decisions 1, 2, 4).
"""

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Self

from pydantic import NonNegativeFloat, model_validator

from aligncap.alignment.dry_run import plan_stage
from aligncap.alignment.examples import Sample
from aligncap.alignment.settings import (
    LossSettings,
    StageSettings,
    StudentSettings,
    TeacherSettings,
)
from aligncap.alignment.stage import (
    TEXT_ONLY,
    CaptionObjective,
    Stage,
    TrainingTask,
    no_targets,
    read_training_rows,
)
from aligncap.alignment.teacher import (
    AdapterOffTeacher,
    Distributions,
    FrozenTeacher,
    Teacher,
    TeacherCache,
)
from aligncap.captioner.checkpoint import load_torch
from aligncap.captioner.model import CaptionModel, has_adapter
from aligncap.captioner.prompts import TEACHER_PROMPTS
from aligncap.errors import RecipeError
from aligncap.recipes import Share, Trainer, one_of, recipe_section
from aligncap.training.devices import first_process_first, is_distributed, training_device


@recipe_section
class WarmupSettings(StageSettings):
    """A recipe of kind "warmup"."""

    prompts: Mapping[Annotated[str, one_of(TEACHER_PROMPTS)], NonNegativeFloat] = field(
        default_factory=lambda: {"act": 1.0}
    )
    """How often each teacher prompt is read; one that a teacher is to read must be learnt here.
    A row without a transcript reads "act" instead of "act+transcript"."""
    act_dropout: Share = 0.1
    """Share of "act" prompts without any clue: the captions as they come."""

    @model_validator(mode="after")
    def _some_prompt(self) -> Self:
        if not sum(self.prompts.values()) > 0:
            raise ValueError("prompts asks for no prompt")
        return self


def plan_warmup(settings: WarmupSettings, _: Path) -> Mapping[str, object]:
    """What a dry run says of it (`dry_run`)."""
    return plan_stage(settings)


def train_warmup(settings: WarmupSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Train on captions alone; the model folder is `output`/model."""
    data = read_training_rows(settings.data.rows, needs_speech=False)
    stage = Stage(settings, output, kind=TEXT_ONLY, data=data)
    lesson = TrainingTask(
        rows_of=lambda draw: stage.prompter.warmup_rows(
            draw, prompts=settings.prompts, act_dropout=settings.act_dropout
        ),
        objective=CaptionObjective(ce_weight=1.0),
        beside=no_targets,
    )
    return stage.run(lesson, act_mode="none", resume=resume)


@recipe_section
class CeSettings(StageSettings):
    """A recipe of kind "ce"."""

    student: StudentSettings = field(default_factory=StudentSettings)


def plan_ce(settings: CeSettings, _: Path) -> Mapping[str, object]:
    """What a dry run says of it (`dry_run`)."""
    return plan_stage(settings)


def train_ce(settings: CeSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Train on speech and captions; the model folder is `output`/model."""
    data = read_training_rows(settings.data.rows, needs_speech=True)
    stage = Stage(settings, output, kind="ce", data=data)
    return stage.run(ce_task(settings, stage), act_mode=settings.student.act_mode, resume=resume)


def ce_task(settings: CeSettings, stage: Stage) -> TrainingTask[Distributions | None]:
    """The student's rows, as in `kd`, and the captions' own likelihood."""
    return TrainingTask(
        rows_of=lambda draw: [stage.prompter.student_row(draw, settings.student)],
        objective=CaptionObjective(ce_weight=1.0),
        beside=no_targets,
    )


CACHE_FOLDER = "teacher"
"""Of a run: the teacher's distributions, where the recipe names no other folder."""


@recipe_section
class KdSettings(StageSettings):
    """A recipe of kind "kd"."""

    student: StudentSettings = field(default_factory=StudentSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    loss: LossSettings = field(default_factory=LossSettings)

    @model_validator(mode="after")
    def _teacher_reads(self) -> Self:
        if not (self.teacher.model or self.model.start or self.model.lora):
            raise ValueError(
                "the teacher needs a model that reads: give model.start (a warmed-up model), "
                "teacher.model, or a LoRA adapter over model.base"
            )
        return self


def plan_kd(settings: KdSettings, _: Path) -> Mapping[str, object]:
    """What a dry run says of it (`dry_run`)."""
    return plan_stage(settings, teacher=settings.teacher)


def train_kd(settings: KdSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Distil the teacher into the student; the model folder is `output`/model."""
    data = read_training_rows(settings.data.rows, needs_speech=True)
    stage = Stage(settings, output, kind="kd", data=data)
    lesson = kd_task(settings, stage, settings.teacher.cache or output / CACHE_FOLDER)
    return stage.run(lesson, act_mode=settings.student.act_mode, resume=resume)


def kd_task(
    settings: KdSettings, stage: Stage, cache_folder: Path
) -> TrainingTask[Distributions | None]:
    """The student's rows, the teacher's distributions of the same captions, and Eq. 5."""
    prompter, prompt = stage.prompter, settings.teacher.prompt
    examples = prompter.all_examples(prompt)
    cache = TeacherCache(
        cache_folder,
        open_teacher(settings, stage.model),
        examples,
        top_k=settings.teacher.top_k,
        temperature=settings.teacher.temperature,
    )
    if is_distributed():
        # One process alone asks as it goes. Of several, one would ask a model that is shared out
        # while the others do something else.
        stage.model.to(training_device())
        with first_process_first():
            cache.fill(examples)

    def teacher(draws: Sequence[Sample]) -> Distributions:
        return cache.lookup([e for d in draws for e in prompter.teacher_examples(d, prompt)])

    return TrainingTask(
        rows_of=lambda draw: [prompter.student_row(draw, settings.student)],
        objective=CaptionObjective(
            kl_weight=settings.loss.kl_weight,
            ce_weight=settings.loss.ce_weight,
            temperature=settings.teacher.temperature,
        ),
        beside=teacher,
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
    if (
        model.vocabulary.token_names()[: model.vocabulary.text_rows]
        != (student.vocabulary.token_names()[: student.vocabulary.text_rows])
    ):
        raise RecipeError(
            f"{folder}: its text vocabulary is not the student's; distil between models of one "
            "tokenizer, such as both from one warm-up"
        )
    return FrozenTeacher(model)


WARMUP = Trainer(WarmupSettings, plan_warmup, train_warmup)


CE = Trainer(CeSettings, plan_ce, train_ce)


KD = Trainer(KdSettings, plan_kd, train_kd)
