"""The paper's comparison as plain data: which systems are trained on what and tested on what, for
each table and figure. `aligncap reproduce` reads it from recipes/reproduce/<scale>.toml.

    clips = 120                       tested clips of a corpus, at most
    seeds = 3

    [corpora.emodb]                   manifests are relative to the folder of the data
    manifests = ["emodb/manifest.jsonl"]
    language = "en"                   of the captions that are scored

    [tests.emodb]
    protocol = "in-domain"
    train = ["ravdess", "emodb"]
    test = "emodb"

    [reads]                           what a recipe of rows reads, if not the training corpora
    captions = "texts"

    [arms.secap]                      what is trained: a recipe, and what is changed of its stages
    title = "SECap"
    recipe = "recipes/reproduce/small/secap.toml"

    [items.table1]
    arms = ["secap", …]
    tests = ["emodb", …]

A run is an arm, a test and a seed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from aligncap.data.manifest import Utterance, read_manifest
from aligncap.data.splits import split_of
from aligncap.errors import RecipeError, UnknownNameError
from aligncap.recipes import Count, one_of, read_section, read_toml, recipe_section
from aligncap.storage import hash_of
from aligncap.values import LANGUAGES

SCALES = ("small", "paper")
SCALE_FILE = "recipes/reproduce/{}.toml"

ITEMS = (
    *("table1", "table2", "table3", "table4"),
    *("figure2", "figure3", "figure7", "figure8", "figure9"),
)
"""What `aligncap reproduce` makes."""

PROTOCOLS = ("in-domain", "zero-shot", "cross-corpus")
"""Decision 7. "zero-shot": of the tested corpus captions alone are trained on."""

CorporaOf = Literal["train", "texts", "apart"]

SPLITS = ("train", "validation", "test")


@recipe_section
class Corpus:
    """Where a corpus lies. Either all of it, split by this project's fixed speakers
    (`data.splits`), or a manifest of each part; those that are read together are of one kind."""

    manifests: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    language: Annotated[str, one_of(LANGUAGES)] = "en"
    """Of the captions that are scored."""
    split: Literal["validation", "test"] = "test"
    """Whose clips are tested. Nothing is chosen by them if they are "test"."""

    @model_validator(mode="after")
    def _either_way(self) -> Self:
        if bool(self.manifests) == bool(self.train):
            raise ValueError("give manifests, or train, validation and test")
        return self

    def files(self, part: str) -> tuple[str, ...]:
        """The manifests that hold the clips of a part."""
        own: tuple[str, ...] = getattr(self, part)
        return self.manifests or own


@recipe_section
class Test:
    """What is trained on, and what the captions are then of."""

    protocol: Annotated[str, one_of(PROTOCOLS)]
    train: Annotated[tuple[str, ...], Field(min_length=1)]
    """Corpora of which pairs of speech and captions are trained on."""
    texts: tuple[str, ...] = ()
    """Corpora of which captions alone are trained on besides."""
    apart: tuple[str, ...] = ()
    """Corpora that a joint space which met none of these pairs is trained on."""
    test: str
    instead: Mapping[str, str] = field(default_factory=dict)
    """Stages by the names of their recipes, and those that take their places: {rows = "frozen"}."""
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What is changed of a stage, as `Arm.changes`, for all arms."""
    paper: str = ""
    """The paper's numbers that stand beside these: a part of a table of its ("EMOSEC")."""

    @model_validator(mode="after")
    def _is_what_it_says(self) -> Self:
        seen = self.test in self.train
        if seen != (self.protocol == "in-domain"):
            how = "is" if seen else "is not"
            raise ValueError(f"is {self.protocol}, and {self.test} {how} among what is trained on")
        if (self.protocol == "zero-shot") != (self.test in self.texts):
            raise ValueError("zero-shot, and no other protocol, has the tested corpus in texts")
        return self


@recipe_section
class Arm:
    """Something that is trained and compared."""

    title: str
    recipe: Path
    """The recipe that gives the model; what it needs is made by the recipes of its inputs."""
    system: str = "AlignCap"
    alignment: str = ""
    """As the paper names it, where there is one."""
    preference: Literal["none", "po", "rlhf", "ce-control"] = "none"
    without: tuple[str, ...] = ()
    """Parts that are left out: "p_act", "kl", "po" (Table 2)."""
    language_model: str = ""
    """Where arms differ in it (Table 4)."""
    point: Mapping[str, NonNegativeInt] = field(default_factory=dict)
    """Of figure 9: {pairs = 200} or {steps = 100}."""
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What is changed of a stage, by the name of its recipe: {kd = ["teacher.prompt=sem"]}."""
    paper: str = ""
    """The paper's name of it, where it is another than the title."""

    @property
    def paper_name(self) -> str:
        """As the paper's tables have it."""
        return self.paper or self.title


@recipe_section
class Item:
    """A table or figure: every arm on every test."""

    arms: tuple[str, ...] = ()
    tests: Annotated[tuple[str, ...], Field(min_length=1)]
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Table 2: an arm, and those that lack a part of it, which are shown as differences to it."""
    ours: str | None = None
    """The arm that is compared with the best system of others."""
    paper: str = ""
    """The part of the paper's table whose numbers stand beside those of every test; a test may name
    its own."""
    note: str = ""
    """What a reader has to know; it stands under the table."""

    @property
    def all_arms(self) -> tuple[str, ...]:
        """The arms, each once, and those that they are compared with."""
        lesser = [arm for whole, own in self.without.items() for arm in (whole, *own)]
        return tuple(dict.fromkeys((*self.arms, *lesser)))


@recipe_section
class Scale:
    """A file of recipes/reproduce."""

    clips: Count = 120
    seeds: Count = 3
    beam_size: Count = 4
    """Of the captions that are scored."""
    reads: Mapping[str, CorporaOf] = field(default_factory=dict)
    """Recipes of rows that read other corpora of a test than those it trains on."""
    corpora: Mapping[str, Corpus]
    tests: Mapping[str, Test]
    arms: Mapping[str, Arm]
    items: Mapping[Annotated[str, one_of(ITEMS)], Item]

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for item in self.items.values():
            ours = (item.ours,) if item.ours else ()
            _check("arm", (*item.all_arms, *ours), self.arms)
            _check("test", item.tests, self.tests)
        for test in self.tests.values():
            _check("corpus", (*test.train, *test.texts, *test.apart, test.test), self.corpora)
        return self


def _check(kind: str, names: Sequence[str], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            raise UnknownNameError(kind, name, known)


def read_scale(name: str, systems: Sequence[Path] = ()) -> Scale:
    """The scale "small" or "paper", or a file like theirs, with more `systems` in its table 1.

    RecipeError or UnknownNameError names the setting, or the file that is not there.
    """
    path = Path(SCALE_FILE.format(name)) if name in SCALES else Path(name)
    if not path.is_file():
        where = (
            "run it in the folder of the repository" if name in SCALES else "give small or paper"
        )
        raise RecipeError(f"--scale {name}: no file {path}; {where}, or give a file like theirs")
    scale = read_section(Scale, read_toml(path), file=str(path))
    for recipe in systems:
        scale = with_system(scale, recipe)
    return scale


def with_system(scale: Scale, recipe: Path) -> Scale:
    """The scale with a row more in table 1: the model that a recipe gives, under the name that its
    output has."""
    table, name = read_toml(recipe), recipe.stem
    title = str(table.get("output", {}).get("name", name))
    if name in scale.arms or "table1" not in scale.items:
        raise RecipeError(
            f"{recipe}: there is an arm called {name} already; name the file otherwise"
        )
    arms = {**scale.arms, name: Arm(title=title, recipe=recipe, system=title)}
    first = scale.items["table1"]
    items = {**scale.items, "table1": replace(first, arms=(*first.arms, name))}
    return replace(scale, arms=arms, items=items)


@dataclass(frozen=True, slots=True)
class Run:
    """An arm, trained with a seed and tested."""

    arm_name: str
    arm: Arm
    test_name: str
    test: Test
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.arm_name}.{self.test_name}.seed{self.seed}"


def planned_runs(scale: Scale, items: Sequence[str], seeds: int) -> list[Run]:
    """The runs that tables and figures need, each once: all of the first seed before those of the
    second, so that there is a whole table soon."""
    found: dict[str, Run] = {}
    for seed in range(seeds):
        for item in items:
            for run in runs_of_item(scale, item, seed):
                found.setdefault(run.name, run)
    return list(found.values())


def runs_of_item(scale: Scale, item: str, seed: int) -> Iterator[Run]:
    """The runs of one table or figure and one seed."""
    if item not in scale.items:
        raise UnknownNameError("table or figure of this scale", item, scale.items)
    for test in scale.items[item].tests:
        for arm in scale.items[item].all_arms:
            yield Run(arm, scale.arms[arm], test, scale.tests[test], seed)


def tested_clips(corpus: Corpus, data: Path, limit: int) -> list[Utterance]:
    """The clips that are captioned: at most so many, chosen by a hash of their names, in the order
    of the manifests."""
    own = [
        clip
        for file in corpus.files(corpus.split)
        for clip in read_manifest(data / file)
        if not corpus.manifests or split_of(clip) == corpus.split
    ]
    if not own:
        raise RecipeError(
            f"{data}: no clip of the {corpus.split} speakers is in {corpus.files('test')}"
        )
    kept = set(sorted((one.id for one in own), key=hash_of)[:limit])
    return [one for one in own if one.id in kept]
