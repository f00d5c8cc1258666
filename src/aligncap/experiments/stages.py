"""What a run trains, read off its recipe: each input that lies below `runs/` is made by a recipe of
its own, first, and shared by all runs that need the same.

A path `runs/reproduce/small/lm/model` in a recipe is the folder `model` of the run of
`recipes/reproduce/small/lm.toml`. What is set of a recipe here is its data, its seed, and what an
arm changes; everything else is the recipe's.

    <out>/shared/<recipe>-<hash>/            a stage: the folder of its run
                                stage.json   written when it is done
                 tokens, teacher             caches that all share
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligncap.errors import RecipeError
from aligncap.experiments.comparison import Corpus, Run, Scale
from aligncap.preference.pipeline import METHODS
from aligncap.recipes import apply_override, read_toml
from aligncap.storage import canonical_json, hash_of, hash_of_file

SHARED = "shared"
DONE_FILE = "stage.json"

RUNS = "runs/"

CACHES = ("tokens", "cache")
"""Settings that name a folder which runs share whatever they are."""

SEEDED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("kd", "ce", "secap", "dpo", "reward", "ppo"), ("training.seed",)),
    "prefer": ("candidates.seed",),
}
"""Kinds of recipes that are run again for each seed. Warm-up, joint space and rows are made once:
seeds differ in what is learnt from speech."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A recipe with what it is given, in its folder."""

    recipe: Path
    kind: str
    overrides: tuple[str, ...]
    key: str
    """A hash of everything that the result depends on."""
    folder: Path
    needs: tuple["Stage", ...] = ()

    @property
    def name(self) -> str:
        """What it is called."""
        return self.recipe.stem

    @property
    def done(self) -> Mapping[str, Any] | None:
        """What was written when it was done, if it is."""
        path = self.folder / DONE_FILE
        if not path.is_file():
            return None
        found: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
        return found

    def in_order(self) -> Iterator["Stage"]:
        """All that it needs, and then itself; some may come more than once."""
        for one in self.needs:
            yield from one.in_order()
        yield self


class Planner:
    """The stages of runs."""

    def __init__(self, scale: Scale, data: Path, out: Path) -> None:
        self._scale, self._data, self._out = scale, data, out
        self._hashes: dict[Path, str] = {}
        self._stages: dict[tuple[str, ...], Stage | None] = {}

    def stage_of(self, run: Run) -> Stage:
        """The stage that gives a run's model, with all that it needs."""
        stage = self._stage(run.arm.recipe, run)
        if stage is None:
            raise RecipeError(
                f"{run.arm.recipe}: reads corpora that the test {run.test_name} does not name"
            )
        return stage

    def inputs_hash(self, run: Run) -> str:
        """A hash of the manifests that a run is trained and tested on."""
        test = run.test
        names = dict.fromkeys((*test.train, *test.texts, *test.apart, test.test))
        files = [file for name in names for part in ("train", "validation", "test")
                 for file in self._scale.corpora[name].files(part)]  # fmt: skip
        return hash_of("|".join(self._hash(file) for file in dict.fromkeys(files)))[:12]

    def made_of(self, run: Run, stage: Stage) -> dict[str, object]:
        """Everything that a run's captions depend on."""
        corpus = self._scale.corpora[run.test.test]
        tested = [corpus.split, corpus.language, *map(self._hash, corpus.files(corpus.split))]
        return {
            "stage": stage.key,
            "beam_size": self._scale.beam_size,
            "clips": self._scale.clips,
            "tested": hash_of("|".join(tested))[:12],
        }

    def _hash(self, file: str) -> str:
        path = self._data / file
        if path not in self._hashes:
            # A dry run says what a machine would need that has the corpora.
            self._hashes[path] = hash_of_file(path) if path.is_file() else f"{file} is not here"
        return self._hashes[path]

    def _stage(self, recipe: Path, run: Run) -> Stage | None:
        """The stage of a recipe; None for rows of corpora that the test does not name."""
        key = (str(recipe), run.arm_name, run.test_name, str(run.seed))
        if key not in self._stages:
            self._stages[key] = self._make(recipe, run)
        return self._stages[key]

    def _make(self, recipe: Path, run: Run) -> Stage | None:
        table = read_toml(recipe)
        changes = [*run.test.changes.get(recipe.stem, ()), *run.arm.changes.get(recipe.stem, ())]
        for change in changes:
            apply_override(table, change)
        kind, corpora = str(table.get("kind")), self._corpora(recipe, run)
        if not corpora:
            return None
        needs: dict[str, Stage] = {}
        language = self._scale.corpora[run.test.test].language
        inputs = [*in_language(table, language), *self._inputs(recipe, table, run, needs)]
        seeds = [f"{name}={run.seed}" for name in SEEDED.get(kind, ())]
        parts: list[object] = [kind, table, seeds]
        if kind == "prefer":
            for learnt, other in learn_recipes(table).items():
                own = self._inputs(other, read_toml(other), run, needs, given=GIVEN_BY_PREFER)
                own = [*table["learn"].get(learnt, ()), *own, f"training.seed={run.seed}"]
                seeds.append(f"learn.{learnt}={json.dumps(own)}")
                parts.append([read_toml(other), own])
        manifests, read = self._manifests(kind, corpora)
        parts += [one.key for one in needs.values()] + in_language(table, language)
        key = hash_of(canonical_json([*parts, *map(self._hash, read)]))[:12]
        overrides = (*changes, *inputs, *manifests, *seeds)
        folder = self._out / SHARED / f"{recipe.stem}-{key}"
        return Stage(recipe, kind, overrides, key, folder, tuple(needs.values()))

    def _corpora(self, recipe: Path, run: Run) -> list[Corpus]:
        """What a recipe reads if it reads manifests."""
        test, asked = run.test, self._scale.reads.get(recipe.stem, "train")
        names = {"train": test.train, "texts": test.texts, "apart": test.apart}[asked]
        return [self._scale.corpora[name] for name in names]

    def _manifests(self, kind: str, corpora: Sequence[Corpus]) -> tuple[list[str], list[str]]:
        """The overrides that name the manifests a stage of this kind reads, and the files.

        RecipeError where some corpora have parts of their own and some are split by their speakers:
        rows know one way or the other.
        """
        train = [file for one in corpora for file in one.files("train")]
        chosen = [file for one in corpora if not one.manifests for file in one.validation]
        whole = [file for one in corpora for file in one.manifests]
        if chosen and whole and kind == "token-rows":
            raise RecipeError(
                f"{whole[0]} is split by its speakers and {chosen[0]} is a part of its own; give "
                "corpora that are read together either manifests, or train, validation and test "
                "(aligncap corpus NAME … --split)"
            )
        if kind == "token-rows":
            settings = {"data": train, "validation": chosen}
        elif kind == "prefer":
            settings = {"data.manifests": [*train, *chosen]}
        else:
            return [], []
        named = {
            name: json.dumps([str(self._data / file) for file in files])
            for name, files in settings.items()
        }
        return [f"{name}={files}" for name, files in named.items()], [*train, *chosen]

    def _inputs(
        self,
        recipe: Path,
        table: Mapping[str, Any],
        run: Run,
        needs: dict[str, Stage],
        *,
        given: Sequence[str] = (),
    ) -> list[str]:
        """The overrides that put stages' folders in place of the paths below `runs/`, those `given`
        otherwise left out; the stages are added to `needs`."""
        found = []
        for key, value in settings_with_runs(table):
            if key in given:
                continue
            paths = [value] if isinstance(value, str) else value
            made = [self._path(recipe, key, path, run, needs) for path in paths]
            kept = [path for path in made if path is not None]
            if not kept:
                raise RecipeError(
                    f"{recipe}: {key} is of corpora that the test {run.test_name} does not name"
                )
            found.append(f"{key}={json.dumps(kept[0] if isinstance(value, str) else kept)}")
        return found

    def _path(
        self, recipe: Path, key: str, path: str, run: Run, needs: dict[str, Stage]
    ) -> str | None:
        """A path of a recipe, below a stage's folder if it is below `runs/`; None where that stage
        is none of this run."""
        if not path.startswith(RUNS):
            return path
        if key.rpartition(".")[2] in CACHES:
            return str(self._out / SHARED / Path(path).name)
        made_by, rest = recipe_of(path, recipe)
        made_by = made_by.with_name(f"{run.test.instead.get(made_by.stem, made_by.stem)}.toml")
        stage = self._stage(made_by, run)
        if stage is None:
            return None
        needs[stage.key] = stage
        return str(stage.folder / rest)


GIVEN_BY_PREFER = ("data.rows", "model.start", "reward.model")
"""What a round of preferences gives the recipes that it learns with."""


def in_language(table: Mapping[str, Any], language: str) -> list[str]:
    """The override that has captions of one language alone, for a recipe that names languages."""
    named = table["data"].get("languages") if isinstance(table.get("data"), Mapping) else None
    if isinstance(named, Mapping):
        return [f"data.languages={{{language} = 1.0}}"]
    return [f'data.languages=["{language}"]'] if named else []


def learn_recipes(table: Mapping[str, Any]) -> dict[str, Path]:
    """The recipes that a recipe of kind "prefer" learns with, by their kind."""
    learn = table.get("learn", {})
    folder = Path(learn.get("recipes", "recipes/mini"))
    return {kind: folder / f"{kind}.toml" for kind in METHODS[learn.get("method", "dpo")]}


def settings_with_runs(
    table: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str | list[str]]]:
    """The settings of a recipe that name something below `runs/`, by their dotted names."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from settings_with_runs(value, f"{prefix}{key}.")
        elif isinstance(value, str) and value.startswith(RUNS):
            yield prefix + key, value
        elif isinstance(value, list) and any(str(one).startswith(RUNS) for one in value):
            yield prefix + key, [str(one) for one in value]


def recipe_of(path: str, user: Path) -> tuple[Path, Path]:
    """The recipe whose run a path below `runs/` is in, and what it is called there; the recipe lies
    in the folder `recipes` that `user` is in, in that of the working folder, or beside `user`."""
    parts = Path(path).parts[1:]
    roots = [one for one in user.parents if one.name == "recipes"][:1]
    for root in (*roots, Path("recipes")):
        for length in range(len(parts), 0, -1):
            recipe = root.joinpath(*parts[: length - 1], f"{parts[length - 1]}.toml")
            if recipe.is_file():
                return recipe, Path(*parts[length:])
    beside = user.parent / f"{parts[0]}.toml"
    if beside.is_file():
        return beside, Path(*parts[1:])
    raise RecipeError(
        f"{user}: {path} is the run of no recipe; there is no recipes/{'/'.join(parts[:-1])}.toml"
    )
