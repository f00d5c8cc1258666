"""The paper's alignments by name, each as a run of recipes (§2, §5.2): recipes of kind "alignment".

    none      No-Align: a space that met no pair of these rows; captions alone are learnt from
    cl        CL-Align: the space is trained on the rows' pairs of speech and captions
    cl+ni     CL+NI-Align: and Gaussian noise is added to the captions' vectors
    cl+proj   CL+Proj-Align: and speech is projected on the captions' vectors
    kd        KD-Align: the language model's answers to speech are drawn to those to text

The first four align before decoding: a clip is a vector of a joint space, from which a connector
makes a prefix of the language model. It is trained on captions' own vectors, and speech takes their
place when captioning. Steps are folders of the run; what is done is not done again.

    <output>/space     the joint space ("cl" and on)
             text      captions with their vectors
             lm        the language model, on these captions alone
             captioner its run, with the folder `model`
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeFloat, model_validator

from aligncap.alignment.rows import ROWS_FILE
from aligncap.alignment.space import CONFIG_FILE, FORMAT
from aligncap.captioner.checkpoint import ENCODER_FOLDER, RUN_MODEL_FOLDER
from aligncap.errors import RecipeError
from aligncap.foreign import AGAIN, read_table
from aligncap.recipes import Trainer, one_of, recipe_section, run_recipe
from aligncap.training import dry_run


@dataclass(frozen=True, slots=True)
class Alignment:
    """What an alignment before decoding does."""

    contrastive: bool = False
    """Whether the space is trained on the rows' pairs."""
    noisy: bool = False
    projected: bool = False


BEFORE_DECODING: Mapping[str, Alignment] = MappingProxyType(
    {
        "none": Alignment(),
        "cl": Alignment(contrastive=True),
        "cl+ni": Alignment(contrastive=True, noisy=True),
        "cl+proj": Alignment(contrastive=True, projected=True),
    }
)
ALIGNMENTS = (*BEFORE_DECODING, "kd")


@recipe_section
class AlignmentSettings:
    """A recipe of kind "alignment"."""

    alignment: Annotated[str, one_of(ALIGNMENTS)] = "kd"
    rows: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Training rows of speech and captions."""
    space: Path | None = None
    """A space that was trained on other corpora: all there is of No-Align, and where the others
    begin. A CLAP is never trained and serves No-Align only."""
    noise: NonNegativeFloat = 0.015
    """cl+ni: the variance."""
    recipes: Path = Path("recipes/mini/alignment")
    """Folder of joint.toml, lm.toml, prefix.toml, warmup.toml and kd.toml."""
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What is changed of a step's recipe: {prefix = ["training.steps=300"]}."""

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if self.alignment == "none" and self.space is None:
            raise ValueError(
                "No-Align needs a space that met none of these pairs: give space, trained on other "
                "corpora, or a CLAP"
            )
        for name in self.changes:
            if name not in STEPS:
                raise ValueError(f"changes names {name!r}; known are {', '.join(STEPS)}")
        return self


STEPS = ("joint", "lm", "prefix", "warmup", "kd")
"""Recipes of the steps."""


def run_alignment(
    settings: AlignmentSettings, output: Path, *, resume: bool
) -> Mapping[str, object]:
    """Every step that is not done yet; returns the last one's summary, with its model folder."""
    del resume  # every step goes on where it was
    output.mkdir(parents=True, exist_ok=True)
    summary: Mapping[str, object] = {}
    for folder, recipe, changes in _steps(settings, output):
        summary = run_recipe(recipe, overrides=changes, output=output / folder, resume=True)
    return {"alignment": settings.alignment, **summary}


def plan_alignment(settings: AlignmentSettings, output: Path) -> Mapping[str, object]:
    """The dry run: what is read, and "steps" with the plan of each."""
    hint = "make it with a recipe of kind 'token-rows'"
    needed = [dry_run.needed_path("training rows", path, hint=hint) for path in settings.rows]
    if settings.space is not None:
        hint = "train it with a recipe of kind 'joint'"
        hint += ", or fetch a CLAP" if settings.alignment == "none" else ""
        needed.append(dry_run.needed_path("joint space", settings.space, hint=hint))
    steps: dict[str, Any] = {}
    for folder, recipe, changes in _steps(settings, output):
        described: Any = run_recipe(recipe, overrides=changes, output=output / folder, dry_run=True)
        steps[folder] = described["plan"]
    last = list(steps.values())[-1]
    shared = {key: last[key] for key in ("parameters", "memory", "disk", "assumed") if key in last}
    table = dry_run.plan_table(needed, notes=[f"{len(steps)} steps: {', '.join(steps)}"])
    return {**table, **shared, "steps": steps}


def _steps(settings: AlignmentSettings, output: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """Of each step its folder, its recipe, and what is changed of it."""
    if settings.alignment == "kd":
        yield from _after_decoding(settings, output)
        return
    how, space = BEFORE_DECODING[settings.alignment], settings.space
    if how.contrastive:
        if space is not None:
            _check_trainable(space)
        start = [] if space is None else [f'model.start="{space}"']
        yield _step(settings, "space", "joint", [_data(settings.rows), *start])
        space = output / "space" / RUN_MODEL_FOLDER
    rows, encoder = output / "text" / ROWS_FILE, output / "text" / ENCODER_FOLDER
    named = ", ".join(f'"{path}"' for path in settings.rows)
    projected = str(how.projected).lower()
    text = [f"rows=[{named}]", f'space="{space}"', f"projected={projected}"]
    yield "text", settings.recipes / "text-rows.toml", text
    yield _step(settings, "lm", "lm", [_data((rows,))])
    prefix = [
        _data((rows,)),
        f'model.start="{output / "lm" / RUN_MODEL_FOLDER}"',
        f'output.encoder="{encoder}"',
        f"student.noise={settings.noise if how.noisy else 0.0}",
    ]
    yield _step(settings, "captioner", "prefix", prefix)


def _check_trainable(space: Path) -> None:
    """RecipeError where a folder is there and holds no joint space of our own."""
    config = space / CONFIG_FILE
    own = config.is_file() and FORMAT in read_table(config, hint=AGAIN)
    if space.exists() and not own:
        raise RecipeError(
            f"{space}: is no space of a run of kind 'joint', and no other can be trained on the "
            'pairs; a CLAP serves alignment = "none" only'
        )


def _after_decoding(
    settings: AlignmentSettings, output: Path
) -> Iterator[tuple[str, Path, list[str]]]:
    yield _step(settings, "lm", "warmup", [_data(settings.rows)])
    start = f'model.start="{output / "lm" / RUN_MODEL_FOLDER}"'
    yield _step(settings, "captioner", "kd", [_data(settings.rows), start])


def _step(
    settings: AlignmentSettings, folder: str, name: str, changes: list[str]
) -> tuple[str, Path, list[str]]:
    return folder, settings.recipes / f"{name}.toml", [*changes, *settings.changes.get(name, ())]


def _data(rows: tuple[Path, ...]) -> str:
    named = ", ".join(f'"{path}"' for path in rows)
    return f"data.rows=[{named}]"


ALIGNMENT = Trainer(AlignmentSettings, plan_alignment, run_alignment)
