"""Recipes: TOML files that describe a training run, read into frozen dataclasses.

    kind = "kd"               # which trainer, a name of TRAINERS

    [training]                # a section of that trainer's settings: only what differs
    steps = 4000

An unknown key is an error that names the nearest; types and ranges are declared by the settings
classes (`recipe_section`). Paths are relative to the working folder.
"""

import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import wraps
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import PydanticCustomError

from aligncap.errors import (
    AlignCapError,
    DataError,
    MissingModelError,
    RecipeError,
    UnknownNameError,
)
from aligncap.foreign import read_table, read_text, reason_of
from aligncap.storage import check_outputs, write_atomic

T = TypeVar("T")

TRAINERS = {
    "encoder": "aligncap.tokenizers.encoder_training:ENCODER",
    "readout": "aligncap.tokenizers.readout_training:READOUT",
    "pace": "aligncap.tokenizers.pace_training:PACE",
    "token-rows": "aligncap.alignment.rows:TOKEN_ROWS",
    "codebook": "aligncap.alignment.codebook:CODEBOOK",
    "warmup": "aligncap.alignment.kd:WARMUP",
    "kd": "aligncap.alignment.kd:KD",
    "ce": "aligncap.alignment.kd:CE",
    "joint": "aligncap.alignment.joint:JOINT",
    "text-rows": "aligncap.alignment.text_rows:TEXT_ROWS",
    "alignment": "aligncap.alignment.alignments:ALIGNMENT",
    "secap": "aligncap.baselines.secap:SECAP",
    "released": "aligncap.baselines.released:RELEASED",
    "dpo": "aligncap.preference.dpo:DPO",
    "reward": "aligncap.preference.reward:REWARD",
    "ppo": "aligncap.preference.ppo:PPO",
    "prefer": "aligncap.preference.pipeline:PREFER",
}
"""Kind of recipe → module and name of its `Trainer`; imported on use, since it needs torch."""

MOST_RECIPE_BYTES = 2**20

TRAIN_EXTRA = {"torch", "transformers", "peft", "accelerate", "safetensors"}

FREE_ON_RESUME = frozenset(
    {
        *("steps", "save_every", "log_every", "rounds"),
        *("sharding", "deepspeed", "gradient_checkpointing", "precision"),
    }
)
"""Settings that a resumed run may change: how long it goes on, what it writes, and how its work
is laid out on devices."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """How a kind of recipe is read, planned and trained."""

    settings: type[Any]
    """The class of its sections."""
    plan: Callable[[Any, Path], Mapping[str, object]]
    """plan(settings, output) returns what a dry run prints."""
    run: Callable[..., Mapping[str, object]]
    """run(settings, output, *, resume) trains and returns a summary."""


RECIPE_FILE = "recipe.json"
"""In the folder of a run: its kind and every setting."""

RESULTS = (
    RECIPE_FILE,
    *("model", "best", "encoder", "rows.jsonl", "plain.jsonl", "even.jsonl", "prefer.sqlite"),
)
"""In the folder of a run: what the trainers write there and would write over."""


def run_recipe(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    output: Path | None = None,
    resume: bool = False,
    dry_run: bool = False,
) -> Mapping[str, object]:
    """Train a recipe in the folder `output` (`runs/<recipe>` by default).

    Returns the trainer's summary; with `dry_run` nothing is trained or written, and the kind,
    output, every setting and the trainer's plan are returned. RecipeError or UnknownNameError
    names the setting.
    """
    output = output or Path("runs") / path.stem
    table = read_toml(path)
    for override in overrides:
        apply_override(table, override)
    kind = table.pop("kind", None)
    if kind is None:
        raise RecipeError(f"{path}: says no kind; begin with kind = one of {', '.join(TRAINERS)}")
    if not isinstance(kind, str) or kind not in TRAINERS:
        raise UnknownNameError(f"kind of recipe ({path})", str(kind), TRAINERS)
    table.pop("estimate", None)  # a section of older recipes without use
    trainer = _trainer(kind)
    settings = read_section(trainer.settings, table, file=str(path))
    results = [output / name for name in RESULTS]
    check_outputs(results, [path, *_paths_in(settings)], overwrite=True)
    described = {"kind": kind, "settings": as_table(settings)}
    if dry_run:
        return {"output": str(output), **described, "plan": trainer.plan(settings, output)}
    _write_settings(output, described, trainer.settings, resume=resume)
    return trainer.run(settings, output, resume=resume)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as tables; RecipeError where it cannot be read."""
    hint = "give a .toml file"
    text = read_text(path, hint=hint, most_bytes=MOST_RECIPE_BYTES, refused=RecipeError)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: is no TOML: {reason_of(error)}") from error


def apply_override(table: dict[str, Any], override: str) -> None:
    """Set "section.key=value" in `table`; the value is TOML, or else plain text."""
    key, equals, text = override.partition("=")
    *sections, name = [part.strip() for part in key.split(".")]
    if not equals or not name or not all(sections):
        raise RecipeError(f"--set {override}: write section.key=value")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override}: {section} is a value, not a section")
    try:
        table[name] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        table[name] = text.strip()
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"--set {key}: {reason_of(error)}") from error


CONFIG = ConfigDict(extra="forbid", strict=True)

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field, Field))
def recipe_section(cls: type[T]) -> type[T]:
    """A frozen keyword-only dataclass whose values are checked against their annotations.

    Wrong values raise RecipeError or UnknownNameError, one line for the first.
    """
    made: Any = pydantic_dataclass(cls, frozen=True, kw_only=True, config=CONFIG)
    checked = made.__init__

    @wraps(checked)
    def create(self: Any, **values: object) -> None:
        try:
            checked(self, **values)
        except ValidationError as error:
            raise _one_line(error, made) from None

    made.__init__ = create
    kind: type[T] = made
    return kind


def one_of(names: Iterable[str]) -> AfterValidator:
    """An annotation of text: one of the names of a table."""
    known = tuple(names)

    def check(name: str) -> str:
        if name not in known:
            raise PydanticCustomError("unknown_name", "unknown", {"known": known})
        return name

    return AfterValidator(check)


def read_section(kind: type[T], table: Mapping[str, Any], *, file: str) -> T:
    """A table of a recipe as settings of the class `kind`, sections within sections.

    RecipeError or UnknownNameError names file, section and key.
    """
    # As JSON, where pydantic takes lists for tuples and text for paths, and converts nothing else.
    text = json.dumps(_with_none(kind, table), default=str)
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        raise _one_line(error, kind, file) from None
    except AlignCapError as error:
        raise RecipeError(f"{file}: {error}") from error


def _with_none(kind: Any, table: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null: "none" stands for it where it is allowed."""
    hints, values = get_type_hints(kind), dict(table)
    for name, value in values.items():
        options = get_args(hints.get(name)) or (hints.get(name),)
        sections = [option for option in options if is_dataclass(option)]
        if value == "none" and type(None) in options:
            values[name] = None
        elif sections and isinstance(value, Mapping):
            values[name] = _with_none(sections[0], value)
    return values


def _one_line(error: ValidationError, kind: Any, file: str = "") -> AlignCapError:
    """One line for the first error: its place, the value, and what is allowed."""
    unknown = "unexpected_keyword_argument"  # often the cause of the others
    first = min(error.errors(include_url=False), key=lambda one: one["type"] != unknown)
    loc, fault = first["loc"], first["type"]
    keys = [part for part in loc[:-1] if isinstance(part, str)]
    section = ".".join(keys)
    name = ".".join([*keys, *(part for part in loc[-1:] if isinstance(part, str))])
    name = name.removesuffix(".[key]")
    where = f"{file}: " if file else ""
    if fault == unknown:
        inside = f"{file} [{section}]" if section else file or kind.__name__
        names = [one.name for one in fields(_annotation(kind, loc[:-1])[0])]
        return UnknownNameError(f"setting in {inside}", str(loc[-1]), names)
    if fault == "value_error":
        place = f"{file} [{name}]: " if file and name else where
        return RecipeError(f"{place}{first['ctx']['error']}")
    if fault == "missing":
        return RecipeError(f"{where}{name} is missing; it has no default")
    plain, rules = _annotation(kind, loc)
    known = get_args(plain) if fault == "literal_error" else first.get("ctx", {}).get("known")
    if known:
        choice = f"choice of {name} ({file})" if file else f"choice of {name}"
        return UnknownNameError(choice, str(first["input"]), known)
    rule = PLAIN.get(plain, "a list" if get_origin(plain) is tuple else "a section")
    if fault == "too_short":
        rule += f" of at least {first['ctx']['min_length']}"
    elif not fault.endswith("_type"):
        rule = _range(rules)
    return RecipeError(f"{where}{name} is {first['input']!r}, must be {rule}")


def _annotation(kind: Any, loc: Sequence[str | int]) -> tuple[Any, list[Any]]:
    """The type at a location in a settings class, and the rules of its values."""
    kind, rules = _bare(kind)
    of_keys: Any = str
    for part in loc:
        options = get_args(kind)
        if part == "[key]":
            kind = of_keys
        elif isinstance(part, int):
            kind = options[0]
        elif get_origin(kind) is Mapping:
            of_keys, kind = options
        else:
            kind = get_type_hints(kind, include_extras=True)[part]
        kind, rules = _bare(kind)
    return kind, rules


def _bare(kind: Any) -> tuple[Any, list[Any]]:
    """A type without annotations and None, and the rules among the annotations."""
    rules: list[Any] = []
    while (origin := get_origin(kind)) in (Annotated, Union, UnionType):
        if origin is Annotated:
            rules += [r for rule in kind.__metadata__ for r in getattr(rule, "metadata", [rule])]
        kind = next(option for option in get_args(kind) if option is not type(None))
    return kind, rules


def _range(rules: Sequence[Any]) -> str:
    """The permitted range in words: "in [0, 1)", "above 0", "at least 1"."""
    bounds = {
        name: getattr(rule, name)
        for rule in rules
        for name in ("ge", "gt", "le", "lt")
        if getattr(rule, name, None) is not None
    }
    lower, upper = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if lower is not None and upper is not None:
        opened, closed = "[" if "ge" in bounds else "(", "]" if "le" in bounds else ")"
        return f"in {opened}{lower}, {upper}{closed}"
    if lower is not None:
        least = f"{lower} or more" if lower == 0 else f"at least {lower}"
        return least if "ge" in bounds else f"above {lower}"
    return f"at most {upper}" if "le" in bounds else f"below {upper}"


PLAIN: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    Path: "a path in quotes",
}


def as_table(value: Any) -> Any:
    """A settings value as plain JSON values, sections as objects."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_table(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_table(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [as_table(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _trainer(kind: str) -> Trainer:
    module, _, name = TRAINERS[kind].partition(":")
    try:
        trainer: Trainer = getattr(import_module(module), name)
        return trainer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in TRAIN_EXTRA:
            raise
        raise MissingModelError(
            f"training needs {error.name}, which is not installed: pip install 'aligncap[train]'"
        ) from error


def _write_settings(
    output: Path, described: Mapping[str, Any], kind: type[Any], *, resume: bool
) -> None:
    """Write recipe.json; RecipeError where a resumed run would have other settings than before,
    which are those of the class `kind`."""
    path = output / RECIPE_FILE
    if resume and path.exists():
        before, now = dict(_leaves(_settings_before(path, kind))), dict(_leaves(described))
        for key in before | now:
            was, value = (repr(one[key]) if key in one else "nothing" for one in (before, now))
            if was != value and key.rpartition(".")[2] not in FREE_ON_RESUME:
                raise RecipeError(
                    f"{output}: was begun with {key} = {was}, not {value}; "
                    "resume with the same recipe or give another --output"
                )
    elif any(output.glob("checkpoint-*")) or any((output / one).exists() for one in RESULTS[1:]):
        raise RecipeError(
            f"{output}: holds a run already; go on with --resume or give another --output"
        )
    # Several processes may do this at once.
    write_atomic(path, json.dumps(described, indent=1, ensure_ascii=False) + "\n")


def _settings_before(path: Path, kind: type[Any]) -> Mapping[str, Any]:
    """A run's recipe.json as this release would write it: settings that there were not yet have
    their defaults, those that are no more are left out."""
    hint = "put it back, or give another --output and begin anew"
    table = read_table(path, hint=hint)
    settings = table.get("settings")
    if not isinstance(settings, Mapping):
        raise DataError(f"{path}: is damaged (no settings); {hint}")
    known = read_section(kind, _known(kind, settings), file=str(path))
    return {"kind": table.get("kind"), "settings": as_table(known)}


def _known(kind: Any, table: Mapping[str, Any]) -> dict[str, Any]:
    """What a settings class has of a table."""
    hints = get_type_hints(kind)
    found = {name: value for name, value in table.items() if name in hints}
    for name, value in found.items():
        section = _bare(hints[name])[0]
        if is_dataclass(section) and isinstance(value, Mapping):
            found[name] = _known(section, value)
    return found


def _paths_in(value: Any) -> Iterator[Path]:
    """Every path among settings, and every text, which may be one (`model.base`)."""
    if isinstance(value, str | Path):
        yield Path(value)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from chain.from_iterable(_paths_in(getattr(value, one.name)) for one in fields(value))
    elif isinstance(value, Mapping | tuple | list):
        values = value.values() if isinstance(value, Mapping) else value
        yield from chain.from_iterable(map(_paths_in, values))


def _leaves(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            found += _leaves(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found
