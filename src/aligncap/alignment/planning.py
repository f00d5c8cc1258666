"""What a dry run says of a stage: what it would load and train, and the memory and disk it takes.

    {"loads": [{"what", "name", "present", "cure"}],
     "parameters": {"total", "trained", "groups": {group: count}},
     "memory_bytes": {"weights", …, "total", "total_checkpointed"},
                       of one process, with nothing shared out
     "disk_bytes": {"checkpoints", "model", "teacher_cache", …, "total"},
     "assumed": {…},                   what the numbers rest on that is not known
     "notes": […]}

`parameters`, `memory_bytes` and `disk_bytes` are null where the model's size cannot be told. The
formulas are `memory`'s. What is not here is told with its cure; what is here and does not fit is
raised, as training would before its first step.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from aligncap.alignment.backbone_plan import BackbonePlan, plan_backbone
from aligncap.alignment.data import SpeechSource, one_source, read_rows, read_source
from aligncap.alignment.estimate import EstimateSettings
from aligncap.alignment.memory import (
    CHECKPOINTS_AT_ONCE,
    MemoryNeed,
    Numbers,
    Work,
    checkpoint_bytes,
    memory_need,
    model_folder_bytes,
    teacher_cache_bytes,
)
from aligncap.alignment.settings import StageSettings, TeacherSettings, check_layout
from aligncap.alignment.students import check_start
from aligncap.captioner.sizes import ModelSize
from aligncap.training.needs import Needed, needed_path, table_of

ROWS_CURE = (
    "make it with a recipe of kind 'token-rows' or 'rows', or as aligncap.alignment.data describes"
)
ENCODER_CURE = "train it with a recipe of kind 'encoder'"


def plan_stage(
    settings: StageSettings, *, hears: bool, teacher: TeacherSettings | None = None
) -> Mapping[str, object]:
    """The plan of a stage; `hears` says whether its student reads speech."""
    check_layout(settings)
    needed = [needed_path("training rows", path, cure=ROWS_CURE) for path in settings.data.rows]
    here = [path for path in settings.data.rows if path.exists()]
    source = one_source({path: read_source(path) for path in here}) if here else None
    captions = _captions_in(here) if len(here) == len(needed) else None
    backbone = plan_model(settings, source)
    size = backbone.size
    return {
        "loads": table_of(
            [*needed, *backbone.needed, *named_folders(settings), *_teacher(teacher)]
        ),
        "parameters": parameters_of(size) if size else None,
        "memory_bytes": _memory(size, settings, hears=hears, teacher=teacher) if size else None,
        "disk_bytes": _disk(size, settings, teacher=teacher, captions=captions) if size else None,
        "assumed": assumed_of(settings.estimate, source, hears=hears),
        "notes": list(backbone.notes),
    }


def plan_model(settings: StageSettings, source: SpeechSource | None) -> BackbonePlan:
    """The model of a stage whose rows hold the codes of `source`, None where no rows are here.

    DataError where it goes on from a model that is for other codes.
    """
    start, told = settings.model.start, source or settings.estimate
    if source is not None and start is not None and start.exists():
        check_start(start, source)
    return plan_backbone(settings.model, codebooks=told.codebooks, codebook_size=told.codebook_size)


def named_folders(settings: StageSettings) -> list[Needed]:
    """Further folders that a recipe names."""
    named = [
        ("built-in encoder", settings.model.codebook),
        ("encoder to keep", settings.output.encoder),
    ]
    return [needed_path(what, path, cure=ENCODER_CURE) for what, path in named if path]


def assumed_of(
    estimate: EstimateSettings, source: SpeechSource | None, *, hears: bool
) -> dict[str, object]:
    """What the numbers rest on: lengths, and the codebook where no rows tell it."""
    names = ["text_tokens", "caption_tokens"]
    names += ["speech_tokens"] if hears else []
    names += [] if source else ["codebooks", "codebook_size"]
    return {name: getattr(estimate, name) for name in names}


def parameters_of(size: ModelSize, *, head: int = 0) -> Mapping[str, object]:
    """All parameters and those that train, `head` being those of a head beside the model."""
    groups = {**size.trained, **({"head": head} if head else {})}
    return {"total": size.total + head, "trained": sum(groups.values()), "groups": groups}


def heard_tokens(estimate: EstimateSettings) -> int:
    """Tokens of a prompt with speech."""
    # The markers around the speech are two more; a reader may see the caption in its prompt.
    return estimate.speech_tokens + 2 + estimate.text_tokens


def numbers_of(settings: StageSettings) -> Numbers:
    """How a stage keeps its numbers."""
    return Numbers(
        weights=settings.model.dtype,
        step=settings.training.precision,
        eager=settings.model.attention == "eager",
        quantized=settings.model.quantization is not None,
    )


def memory_table(need: MemoryNeed, settings: StageSettings) -> dict[str, int]:
    """What is held by its names, and the most that is held at once."""
    return {
        **asdict(need),
        "total": need.total(checkpointed=settings.model.gradient_checkpointing),
        "total_checkpointed": need.total(checkpointed=True),
    }


def disk_table(
    size: ModelSize, settings: StageSettings, more: Mapping[str, int | None], *, head: int = 0
) -> Mapping[str, int | None]:
    """What a run writes: checkpoints, the best weights, the model folder and `more`, and the sum
    of what is known; `head` is the parameters of a head beside the model."""
    average = settings.training.ema_decay is not None
    kept = checkpoint_bytes(size, average=average) + 4 * (4 if average else 3) * head
    found: dict[str, int | None] = {
        "checkpoints": CHECKPOINTS_AT_ONCE * kept,
        "model": model_folder_bytes(size, settings.model.dtype) + 4 * head,
    }
    if settings.validation.best is not None:
        # A better one is whole before the one that was best goes.
        found["best"] = 2 * 4 * (sum(size.trained.values()) + head)
    found |= more
    return {**found, "total": sum(value or 0 for value in found.values())}


def _teacher(teacher: TeacherSettings | None) -> Iterable[Needed]:
    if teacher is not None and teacher.model is not None:
        cure = "train it with a recipe of kind 'warmup'"
        yield needed_path("teacher", teacher.model, cure=cure)


def _captions_in(paths: list[Path]) -> int:
    """Captions of all rows: each is an example of the teacher's."""
    rows = (row for path in paths for row in read_rows(path))
    return sum(len(texts) for row in rows for texts in row.captions.values())


def _memory(
    size: ModelSize, settings: StageSettings, *, hears: bool, teacher: TeacherSettings | None
) -> Mapping[str, int]:
    estimate, batch = settings.estimate, settings.batch
    read = estimate.text_tokens + estimate.caption_tokens
    own = teacher is not None and not (settings.model.lora and teacher.model is None)

    def work(prompt_tokens: int) -> Work:
        return Work(
            rows=batch.rows,
            prompt_tokens=prompt_tokens,
            responses=batch.captions,
            response_tokens=estimate.caption_tokens,
        )

    need = memory_need(
        size,
        work(heard_tokens(estimate) if hears else read),
        numbers_of(settings),
        average=settings.training.ema_decay is not None,
        own_teacher=own,
        teacher_work=work(read) if teacher else None,
    )
    return memory_table(need, settings)


def _disk(
    size: ModelSize,
    settings: StageSettings,
    *,
    teacher: TeacherSettings | None,
    captions: int | None,
) -> Mapping[str, int | None]:
    if teacher is None:
        return disk_table(size, settings, {})
    cache = captions and teacher_cache_bytes(
        captions * settings.estimate.caption_tokens,
        top_k=teacher.top_k,
        text_rows=size.text_rows,
        examples=captions,
    )
    return disk_table(size, settings, {"teacher_cache": cache})
