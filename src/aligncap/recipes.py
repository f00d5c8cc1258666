"""Recipes: TOML files that say what is trained, read into typed frozen values.

    kind = "kd"               # which trainer, a name of TRAINERS

    [training]                # a section of that trainer's settings: only what differs
    steps = 4000

An unknown key is an error that names the nearest; values are checked for type here and for range
by the values themselves. Paths are taken from the working folder.
"""

import json
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from aligncap.errors import AlignCapError, MissingModelError, RecipeError, UnknownNameError
from aligncap.storage import write_atomic

T = TypeVar("T")

TRAINERS = {
    "encoder": "aligncap.speech.encoder_training",
    "rows": "aligncap.alignment.preparing",
    "token-rows": "aligncap.alignment.token_rows",
    "warmup": "aligncap.alignment.warmup",
    "kd": "aligncap.alignment.kd",
    "ce": "aligncap.alignment.ce",
    "dpo": "aligncap.preference.dpo",
    "reward": "aligncap.preference.reward",
    "ppo": "aligncap.preference.ppo",
    "prefer": "aligncap.preference.whole",
}
"""What a recipe can train: kind → module with SETTINGS (a dataclass), plan(settings, output), what
a dry run says, and run(settings, output, *, resume); imported on use, since it brings torch."""

TRAIN_EXTRA = {"torch", "transformers", "peft", "accelerate", "safetensors"}

FREE_ON_RESUME = frozenset(
    {
        *("steps", "save_every", "log_every", "rounds"),
        *("sharding", "deepspeed", "gradient_checkpointing"),
    }
)
"""Settings that a resumed run may change: how long it goes on, what it writes, and how its work
is laid out on devices."""

RECIPE_FILE = "recipe.json"
"""In the folder of a run: the kind and every setting that it was trained with."""


def run_recipe(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    output: Path | None = None,
    resume: bool = False,
    dry_run: bool = False,
) -> Mapping[str, object]:
    """Train what a recipe describes, in the folder `output` (`runs/<recipe>` by default).

    Returns the trainer's summary; with `dry_run` the kind, output, every setting and what it would
    load and take; nothing is trained or written then. Raises RecipeError or UnknownNameError
    naming the setting.
    """
    output = output or Path("runs") / path.stem
    table = read_toml(path)
    for override in overrides:
        apply_override(table, override)
    kind = table.pop("kind", None)
    if kind is None:
        raise RecipeError(f"{path}: says no kind; begin with kind = one of {', '.join(TRAINERS)}")
    if kind not in TRAINERS:
        raise UnknownNameError(f"kind of recipe ({path})", str(kind), TRAINERS)
    table.pop("estimate", None)  # of older recipes: what dry runs once assumed, read by nothing
    trainer = _trainer(kind)
    settings = read_section(trainer.SETTINGS, table, place=Place(str(path)))
    described = {"kind": kind, "settings": as_table(settings)}
    if dry_run:
        return {"output": str(output), **described, "plan": trainer.plan(settings, output)}
    _sign(output, described, resume=resume)
    summary: Mapping[str, object] = trainer.run(settings, output, resume=resume)
    return summary


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as tables; RecipeError where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot be read ({error.strerror}); give a .toml file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: is no TOML: {error}") from error


def apply_override(table: dict[str, Any], override: str) -> None:
    """Change `table` as "section.key=value" says; the value is TOML, or else plain text."""
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


@dataclass(frozen=True, slots=True)
class Place:
    """Where in which recipe something stands, for messages."""

    file: str
    section: str = ""

    def inside(self, name: str) -> "Place":
        """The section `name` of this section."""
        return Place(self.file, f"{self.section}.{name}" if self.section else name)

    def __str__(self) -> str:
        return f"{self.file} [{self.section}]" if self.section else self.file


def read_section(kind: type[T], table: Mapping[str, Any], *, place: Place) -> T:
    """A table as a value of the dataclass `kind`, sections within sections.

    RecipeError or UnknownNameError names file, section and key.
    """
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise UnknownNameError(f"setting in {place}", key, known)
    values = {
        key: _read_value(hints[key], value, place.inside(key)) for key, value in table.items()
    }
    for name, field in known.items():
        if name in values or not (field.default is field.default_factory is MISSING):
            continue
        if not is_dataclass(hints[name]):
            raise RecipeError(f"{place}: {name} is missing; it has no default")
        values[name] = _read_value(hints[name], {}, place.inside(name))
    try:
        return kind(**values)
    except AlignCapError as error:
        raise RecipeError(f"{place}: {error}") from error


def _read_value(kind: Any, value: Any, place: Place) -> Any:
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value == "none" and type(None) in options:
            return None
        (kind,) = [option for option in options if option is not type(None)]
        return _read_value(kind, value, place)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, Mapping):
        return read_section(kind, value, place=place)
    if origin is tuple and isinstance(value, list):
        return tuple(_read_value(options[0], item, place) for item in value)
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {name: _read_value(options[1], v, place.inside(name)) for name, v in value.items()}
    return _read_plain(kind, value, place)


PLAIN = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    Path: "a path in quotes",
}


def _read_plain(kind: Any, value: Any, place: Place) -> Any:
    number = isinstance(value, int) and not isinstance(value, bool)
    if kind is float and (number or isinstance(value, float)):
        return float(value)
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    if (kind is int and number) or (kind in (bool, str) and isinstance(value, kind)):
        return value
    expected = PLAIN.get(kind, "a list" if get_origin(kind) is tuple else "a section")
    raise RecipeError(f"{place.file}: {place.section} is {value!r}, must be {expected}")


def as_table(value: Any) -> Any:
    """A settings value as plain JSON values, sections as objects."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_table(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_table(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [as_table(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _trainer(kind: str) -> Any:
    try:
        return import_module(TRAINERS[kind])
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in TRAIN_EXTRA:
            raise
        raise MissingModelError(
            f"training needs {error.name}, which is not installed: pip install 'aligncap[train]'"
        ) from error


def _sign(output: Path, described: Mapping[str, Any], *, resume: bool) -> None:
    """Keep the settings beside the run; a resumed run must have the same ones."""
    path = output / RECIPE_FILE
    if resume and path.exists():
        before = dict(_leaves(json.loads(path.read_text(encoding="utf-8"))))
        for key, value in _leaves(described):
            free = key.rpartition(".")[2] in FREE_ON_RESUME
            if not free and before.get(key, value) != value:
                raise RecipeError(
                    f"{output}: was begun with {key} = {before[key]!r}, not {value!r}; "
                    "resume with the same recipe or give another --output"
                )
    elif path.exists() and any(output.glob("checkpoint-*")):
        raise RecipeError(
            f"{output}: holds a run already; go on with --resume or give another --output"
        )
    # Each of several processes comes here: none may read what another has half written.
    write_atomic(path, json.dumps(described, indent=1, ensure_ascii=False) + "\n")


def _leaves(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            found += _leaves(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found
