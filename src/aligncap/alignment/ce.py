"""The rival of KD: plain cross-entropy on the captions, speech in, no teacher.

The same student, rows, prompts and loop as `kd`; only the loss differs, so the two compare.
"""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from aligncap.alignment.dry_run import plan_stage
from aligncap.alignment.lessons import Lesson, no_teacher
from aligncap.alignment.objective import CaptionObjective
from aligncap.alignment.settings import StageSettings, StudentSettings
from aligncap.alignment.stages import Stage, read_training_rows
from aligncap.alignment.store import Distributions
from aligncap.recipes import recipe_section


@recipe_section
class CeSettings(StageSettings):
    """A recipe of kind "ce"."""

    student: StudentSettings = field(default_factory=StudentSettings)


SETTINGS = CeSettings


def plan(settings: CeSettings, _: Path) -> Mapping[str, object]:
    """What a dry run says of it (`dry_run`)."""
    return plan_stage(settings)


def run(settings: CeSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Train on speech and captions; the model folder is `output`/model."""
    data = read_training_rows(settings.data.rows, needs_speech=True)
    stage = Stage(settings, output, kind="ce", data=data)
    return stage.run(lesson_of(settings, stage), act_mode=settings.student.act_mode, resume=resume)


def lesson_of(settings: CeSettings, stage: Stage) -> Lesson[Distributions | None]:
    """The student's rows, as in `kd`, and the captions' own likelihood."""
    return Lesson(
        rows_of=lambda draw: [stage.prompter.student_row(draw, settings.student)],
        objective=CaptionObjective(ce_weight=1.0),
        beside=no_teacher,
    )
