"""What a dry run says of a stage: what it would load and train, and the memory and disk it takes.

    {"loads": [{"what", "name", "present", "cure"}],
     "parameters": {"total", "trained", "groups": {group: count}},
     "memory_bytes": {"weights", …, "total", "total_checkpointed"},
     "disk_bytes": {"checkpoints", "model", "teacher_cache", "total"},
     "assumed": {…},                   what the numbers rest on that is not known
     "notes": […]}

`parameters`, `memory_bytes` and `disk_bytes` are null where the model's size cannot be told. The
formulas are `memory`'s.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from aligncap.alignment.backbone_plan import ROWS_CURE, Needed, needed_path, plan_backbone
from aligncap.alignment.data import read_rows, read_source
from aligncap.alignment.memory import (
    CHECKPOINTS_AT_ONCE,
    Numbers,
    Work,
    checkpoint_bytes,
    memory_need,
    model_folder_bytes,
    teacher_cache_bytes,
)
from aligncap.alignment.settings import StageSettings, TeacherSettings
from aligncap.captioner.sizes import ModelSize


def plan_stage(
    settings: StageSettings, *, hears: bool, teacher: TeacherSettings | None = None
) -> Mapping[str, object]:
    """The plan of a stage; `hears` says whether its student reads speech."""
    needed = [needed_path("training rows", path, cure=ROWS_CURE) for path in settings.data.rows]
    estimate = settings.estimate
    here = [path for path in settings.data.rows if path.exists()]
    source = read_source(here[0]) if here else None
    codebooks = source.codebooks if source else estimate.codebooks
    codebook_size = source.codebook_size if source else estimate.codebook_size
    captions = _captions_in(here) if len(here) == len(needed) else None
    backbone = plan_backbone(settings.model, codebooks=codebooks, codebook_size=codebook_size)
    needed += [*backbone.needed, *_folders(settings, teacher)]
    size = backbone.size
    return {
        "loads": [one.table for one in needed],
        "parameters": _parameters(size) if size else None,
        "memory_bytes": _memory(size, settings, hears=hears, teacher=teacher) if size else None,
        "disk_bytes": _disk(size, settings, teacher=teacher, captions=captions) if size else None,
        "assumed": {
            **{name: getattr(estimate, name) for name in ("text_tokens", "caption_tokens")},
            **({"speech_tokens": estimate.speech_tokens} if hears else {}),
            **({} if here else {"codebooks": codebooks, "codebook_size": codebook_size}),
        },
        "notes": list(backbone.notes),
    }


def _folders(settings: StageSettings, teacher: TeacherSettings | None) -> list[Needed]:
    """Further folders that a recipe names."""
    named = [
        ("built-in encoder", settings.model.codebook, "train it with a recipe of kind 'encoder'"),
        ("encoder to keep", settings.output.encoder, "train it with a recipe of kind 'encoder'"),
        ("teacher", teacher.model if teacher else None, "train it with a recipe of kind 'warmup'"),
    ]
    return [needed_path(what, path, cure=cure) for what, path, cure in named if path]


def _captions_in(paths: list[Path]) -> int:
    """Captions of all rows: each is an example of the teacher's."""
    rows = (row for path in paths for row in read_rows(path))
    return sum(len(texts) for row in rows for texts in row.captions.values())


def _parameters(size: ModelSize) -> Mapping[str, object]:
    return {
        "total": size.total,
        "trained": sum(size.trained.values()),
        "groups": size.trained,
    }


def _memory(
    size: ModelSize, settings: StageSettings, *, hears: bool, teacher: TeacherSettings | None
) -> Mapping[str, int]:
    estimate, batch = settings.estimate, settings.batch
    # The markers around the speech are two more; a reader may see the caption in its prompt.
    heard = estimate.speech_tokens + 2 + estimate.text_tokens
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
        work(heard if hears else read),
        Numbers(
            weights=settings.model.dtype,
            step=settings.training.precision,
            eager=settings.model.attention == "eager",
        ),
        average=settings.training.ema_decay is not None,
        own_teacher=own,
        teacher_work=work(read) if teacher else None,
    )
    return {
        **asdict(need),
        "total": need.total(checkpointed=False),
        "total_checkpointed": need.total(checkpointed=True),
    }


def _disk(
    size: ModelSize,
    settings: StageSettings,
    *,
    teacher: TeacherSettings | None,
    captions: int | None,
) -> Mapping[str, int | None]:
    average = settings.training.ema_decay is not None
    found: dict[str, int | None] = {
        "checkpoints": CHECKPOINTS_AT_ONCE * checkpoint_bytes(size, average=average),
        "model": model_folder_bytes(size, settings.model.dtype),
    }
    if teacher is not None:
        found["teacher_cache"] = captions and teacher_cache_bytes(
            captions * settings.estimate.caption_tokens,
            top_k=teacher.top_k,
            text_rows=size.text_rows,
            examples=captions,
        )
    return {**found, "total": sum(value or 0 for value in found.values())}
