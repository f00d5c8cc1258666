"""Stage (i), caption-only warm-up: the language model learns to speak from text alone (Eq. 2, 3).

It reads P_act (and P_sem or a transcript, if asked to) and learns the captions by maximum
likelihood. What it becomes is the student's start and, frozen, the teacher of a small model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aligncap.alignment.dry_run import plan_stage
from aligncap.alignment.lessons import Lesson, no_teacher
from aligncap.alignment.objective import CaptionObjective
from aligncap.alignment.settings import StageSettings
from aligncap.alignment.stages import Stage, read_training_rows
from aligncap.alignment.students import TEXT_ONLY
from aligncap.captioner.prompts import TEACHER_PROMPTS
from aligncap.errors import RecipeError, UnknownNameError


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupSettings(StageSettings):
    """A recipe of kind "warmup"."""

    prompts: Mapping[str, float] = field(default_factory=lambda: {"act": 1.0})
    """How often each teacher prompt is read; one that a teacher is to read must be learnt here.
    A row without a transcript reads "act" instead of "act+transcript"."""
    act_dropout: float = 0.1
    """Share of "act" prompts without any clue: the captions as they come."""

    def __post_init__(self) -> None:
        for name, weight in self.prompts.items():
            if name not in TEACHER_PROMPTS:
                raise UnknownNameError("teacher prompt", name, TEACHER_PROMPTS)
            if weight < 0:
                raise RecipeError(f"prompts.{name} is {weight}, must be 0 or more")
        if not sum(self.prompts.values()) > 0:
            raise RecipeError("prompts asks for no prompt")
        if not 0 <= self.act_dropout <= 1:
            raise RecipeError(f"act_dropout is {self.act_dropout}, must be in [0, 1]")


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
