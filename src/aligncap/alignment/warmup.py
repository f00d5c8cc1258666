"""Stage (i), caption-only warm-up: the language model learns to speak from text alone (Eq. 2, 3).

It reads P_act (and P_sem or a transcript, if asked to) and learns the captions by maximum
likelihood. What it becomes is the student's start and, frozen, the teacher of a small model.
"""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Self

from pydantic import NonNegativeFloat, model_validator

from aligncap.alignment.dry_run import plan_stage
from aligncap.alignment.lessons import Lesson, no_teacher
from aligncap.alignment.objective import CaptionObjective
from aligncap.alignment.settings import StageSettings
from aligncap.alignment.stages import Stage, read_training_rows
from aligncap.alignment.students import TEXT_ONLY
from aligncap.captioner.prompts import TEACHER_PROMPTS
from aligncap.recipes import Share, one_of, recipe_section


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


SETTINGS = WarmupSettings


def plan(settings: WarmupSettings, _: Path) -> Mapping[str, object]:
    """What a dry run says of it (`dry_run`)."""
    return plan_stage(settings)


def run(settings: WarmupSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Train on captions alone; the model folder is `output`/model."""
    data = read_training_rows(settings.data.rows, needs_speech=False)
    stage = Stage(settings, output, kind=TEXT_ONLY, data=data)
    lesson = Lesson(
        rows_of=lambda draw: stage.prompter.warmup_rows(
            draw, prompts=settings.prompts, act_dropout=settings.act_dropout
        ),
        objective=CaptionObjective(ce_weight=1.0),
        beside=no_teacher,
    )
    return stage.run(lesson, act_mode="none", resume=resume)
