"""Stage (ii), KD-Regularization: a student that hears learns to say what a teacher that reads says.

The teacher reads P_act (and P_sem or the transcript), the student speech tokens; of each caption
token KL(teacher ‖ student) is minimised over the text vocabulary (Eq. 5; decisions 1, 2, 4).
"""

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Self

from pydantic import model_validator

from aligncap.alignment.draws import Draw
from aligncap.alignment.dry_run import plan_stage
from aligncap.alignment.lessons import Lesson
from aligncap.alignment.objective import CaptionObjective
from aligncap.alignment.settings import (
    LossSettings,
    StageSettings,
    StudentSettings,
    TeacherSettings,
)
from aligncap.alignment.stages import Stage, read_training_rows
from aligncap.alignment.store import Distributions
from aligncap.alignment.teacher import AdapterOffTeacher, FrozenTeacher, Teacher, TeacherCache
from aligncap.captioner.adapters import has_adapter
from aligncap.captioner.checkpoint import load_torch
from aligncap.captioner.model import CaptionModel
from aligncap.errors import RecipeError
from aligncap.recipes import recipe_section
from aligncap.training import first_process_first, has_company, training_device

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


SETTINGS = KdSettings


def plan(settings: KdSettings, _: Path) -> Mapping[str, object]:
    """What a dry run says of it (`dry_run`)."""
    return plan_stage(settings, teacher=settings.teacher)


def run(settings: KdSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Distil the teacher into the student; the model folder is `output`/model."""
    data = read_training_rows(settings.data.rows, needs_speech=True)
    stage = Stage(settings, output, kind="kd", data=data)
    lesson = lesson_of(settings, stage, settings.teacher.cache or output / CACHE_FOLDER)
    return stage.run(lesson, act_mode=settings.student.act_mode, resume=resume)


def lesson_of(
    settings: KdSettings, stage: Stage, cache_folder: Path
) -> Lesson[Distributions | None]:
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
    if has_company():
        # One process alone asks as it goes. Of several, one would ask a model that is shared out
        # while the others do something else.
        stage.model.to(training_device())
        with first_process_first():
            cache.fill(examples)

    def teacher(draws: Sequence[Draw]) -> Distributions:
        return cache.lookup([e for d in draws for e in prompter.teacher_examples(d, prompt)])

    return Lesson(
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
