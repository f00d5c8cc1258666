"""The rival of KD: plain cross-entropy on the captions, speech in, no teacher.

The same student, rows, prompts and loop as `kd`; only the loss differs, so the two compare.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aligncap.alignment.objective import Objective
from aligncap.alignment.planning import plan_stage
from aligncap.alignment.settings import StageSettings, StudentSettings
from aligncap.alignment.stages import Lesson, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class CeSettings(StageSettings):
    """A recipe of kind "ce"."""

    student: StudentSettings = field(default_factory=StudentSettings)


SETTINGS = CeSettings


def plan(settings: CeSettings, _: Path) -> Mapping[str, object]:
    """What a dry run says of it (`planning`)."""
    return plan_stage(settings, hears=True)


def run(settings: CeSettings, output: Path, *, resume: bool) -> Mapping[str, object]:
    """Train on speech and captions; the model folder is `output`/model."""
    stage = Stage(settings, output, kind="ce", needs_speech=True)
    return stage.run(lesson_of(settings, stage), act_mode=settings.student.act_mode, resume=resume)


def lesson_of(settings: CeSettings, stage: Stage) -> Lesson:
    """The student's rows, as in `kd`, and the captions' own likelihood."""
    return Lesson(
        rows_of=lambda draw: [stage.prompter.student_row(draw, settings.student)],
        objective=Objective(ce_weight=1.0),
    )
