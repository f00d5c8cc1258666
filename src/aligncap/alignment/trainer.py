"""Training a stage: its recipe, its batches and their losses, and its run (§3.1, §4.2).

A `TrainingTask` makes batches of samples with their targets, an `Objective` gives the losses on a
batch, and `StageTrainer` reads the model, trains it with `fit`, validates, and writes a model
folder. The recipes of warm-up, KD and CE are in `kd`; those of `preference` use the same trainer.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Generic, Protocol, Self, TypeVar

import torch
from numpy.typing import NDArray
from pydantic import NonNegativeInt, model_validator
from torch import Tensor, nn

from aligncap.alignment import examples
from aligncap.alignment.init_model import (
    ModelSettings,
    connector_meta,
    init_model,
    plan_model,
)
from aligncap.alignment.sampling import BucketBatchSampler, validation_samples
from aligncap.captioner import checkpoint, prompts
from aligncap.captioner.model import (
    CaptionModel,
    max_positions,
    trainable_summary,
    trained_groups,
)
from aligncap.captioner.vocabulary import Vocabulary
from aligncap.errors import DataError, RecipeError
from aligncap.recipes import Count, one_of, recipe_section
from aligncap.storage import hash_of_file
from aligncap.tokenizers import KEPT
from aligncap.training import dry_run, loop
from aligncap.training.checkpoints import WeightAverage, kept_weights
from aligncap.training.devices import first_process_first, is_first_process
from aligncap.training.settings import FitSettings
from aligncap.values import LANGUAGES

LOG = logging.getLogger(__name__)

Targets = TypeVar("Targets")

SCORES = {
    **dict.fromkeys(("loss", "ce", "kl", "contradicted"), False),
    **dict.fromkeys(("accuracy", "margin", "reward"), True),
}
"""Validation scores by which the best model can be chosen, and whether higher is better."""

ENCODER_HINT = "train it with a recipe of kind 'encoder'"


@recipe_section
class ValidationSettings:
    """Losses on the rows of split "validation"."""

    every: Count = 500
    """Steps between; the last step always has one."""
    rows: NonNegativeInt = 256
    """Rows used, spread over all there are."""
    best: Annotated[str, one_of(SCORES)] | None = None
    """A validation score, such as "loss": the model that did best in it is kept, not the last."""
    patience: NonNegativeInt = 0
    """Validations in a row without a better one after which training stops; 0 = never."""

    @model_validator(mode="after")
    def _patience_has_a_score(self) -> Self:
        if self.best is None and self.patience:
            raise ValueError("patience needs a score: give best")
        return self


@recipe_section
class OutputSettings:
    """The model folder that a run ends with, `<output>/model`."""

    name: str = "aligncap"
    encoder: Path | None = None
    """Folder of the built-in speech tokenizer, copied into the model folder; where none is given,
    that of the rows is looked for beside them, in `model.start` and in what comes with the
    package."""


@recipe_section
class StageSettings:
    """The sections that the recipes of all stages have."""

    data: examples.DataSettings
    training: FitSettings
    model: ModelSettings = field(default_factory=ModelSettings)
    batch: examples.BatchSettings = field(default_factory=examples.BatchSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
    limits: checkpoint.CaptionLimits = field(default_factory=checkpoint.CaptionLimits)
    """Kept in the model folder: where its captions end; `caption_limits` are in force."""
    notes: checkpoint.ModelNotes = field(default_factory=checkpoint.ModelNotes)
    """Kept in the model folder: what its card says."""

    @cached_property
    def caption_limits(self) -> checkpoint.CaptionLimits:
        """The limits; one that is left at its default is that of `model.start`, if that is here."""
        start, usual = self.model.start, asdict(checkpoint.CaptionLimits())
        if start is None or not (start / checkpoint.META_FILE).exists():
            return self.limits
        own = {name: one for name, one in asdict(self.limits).items() if one != usual[name]}
        return replace(checkpoint.read_meta(start).limits, **own)

    def readings(
        self, prompter: examples.Prompter, sample: examples.Sample
    ) -> Iterable[prompts.SharedPromptRow]:
        """All that a model is to read of a sample, with nothing left out at random."""
        raise NotImplementedError

    def models(self) -> list[Path]:
        """Model folders that the losses of the run depend on."""
        return [] if self.model.start is None else [self.model.start]


@dataclass(frozen=True, slots=True)
class TaskBatch(Generic[Targets]):
    """Prompts with their responses, and the targets of the loss."""

    shared: prompts.SharedPromptBatch[NDArray[Any]]
    targets: Targets
    """The teacher's distributions of the N response tokens, which responses are pairs, …"""


class Objective(Protocol[Targets]):
    """The losses of a task."""

    def training_losses(self, model: Any, batch: TaskBatch[Targets]) -> dict[str, Tensor]:
        """{"loss", and its parts}: means over the batch."""

    def validation_losses(self, model: Any, batch: TaskBatch[Targets]) -> dict[str, Tensor]:
        """The same, and whatever else can be measured on rows that are not trained on."""

    def count(self, batch: TaskBatch[Targets]) -> int:
        """What the losses are means over: response tokens, or pairs."""


@dataclass(frozen=True, slots=True)
class TrainingTask(Generic[Targets]):
    """How samples become batches, and the losses on them."""

    rows_of: Callable[[examples.Sample], Sequence[prompts.SharedPromptRow]]
    objective: Objective[Targets]
    targets: Callable[[Sequence[examples.Sample]], Targets]
    """Of the samples' responses, in order: a teacher's distributions, which are pairs, …"""
    weight_of: Callable[[TaskBatch[Targets]], float] | None = None
    """What the training losses are means over, where that is not the objective's `count`."""

    def batch(self, samples: Sequence[examples.Sample]) -> TaskBatch[Targets]:
        """The batch of some samples."""
        rows = [row for sample in samples for row in self.rows_of(sample)]
        # Any id pads: nothing ever attends to it.
        return TaskBatch(prompts.collate(rows, pad_id=0), self.targets(samples))

    def length_of(self, sample: examples.Sample) -> int:
        """Tokens of a sample's longest row: what batches are sorted by."""
        return max(row.length for row in self.rows_of(sample))


class StageTrainer:
    """The rows and the model of one run of a stage, and how it is trained."""

    def __init__(
        self,
        settings: StageSettings,
        output: Path,
        *,
        kind: str,
        data: tuple[Sequence[examples.TrainingRow], examples.SpeechSource],
    ) -> None:
        """`data` are the rows, and whose speech tokens they hold."""
        check_layout(settings)
        self.settings, self.output, self._kind = settings, output, kind
        self.limits = settings.caption_limits
        rows, self._source = data
        self.model, self._template = init_model(
            settings.model,
            rows=rows,
            source=self._source,
            output=output,
            seed=settings.training.seed,
        )
        builder = prompts.PromptBuilder(
            self.model.vocabulary, self._template, vectors=self.model.vectors
        )
        too_long = rows_too_long(settings, builder, rows, max_positions(self.model.bare))
        for line in described_too_long(too_long, rows):
            LOG.warning("%s", line)
        self.places = [place for place in range(len(rows)) if place not in too_long]
        """Of the rows given, those that the model can read."""
        self.rows = [rows[place] for place in self.places]
        self.prompter = examples.Prompter(builder, self.rows)

    def sampler(self, length_of: Callable[[examples.Sample], int]) -> BucketBatchSampler:
        """The samples of each batch; batches are sorted by `length_of`."""
        return BucketBatchSampler(
            self.rows,
            data=self.settings.data,
            batch=self.settings.batch,
            seed=self.settings.training.seed,
            length_of=length_of,
        )

    def validation_samples(self) -> list[examples.Sample]:
        """The samples of every validation, always the same."""
        settings = self.settings
        return validation_samples(
            self.rows,
            limit=settings.validation.rows,
            data=settings.data,
            captions=settings.batch.captions,
        )

    def run(
        self,
        task: TrainingTask[Any],
        *,
        acoustic_prompt_source: str,
        resume: bool,
        module: nn.Module | None = None,
        extra_metrics: Callable[[], Mapping[str, float]] = dict,
    ) -> Mapping[str, object]:
        """Train, validate, and write the model folder; returns its path and the last losses.

        `module` is trained in place of the model where it has more parts than the model;
        `extra_metrics` are logged at every validation.
        """
        module = self.model if module is None else module
        sampler = self.sampler(task.length_of)
        return self.train(
            module,
            lambda batch: task.objective.training_losses(module, batch),
            lambda number: task.batch(sampler.samples_at(number)),
            weight_of=task.weight_of or task.objective.count,
            validate=self.validator(task, module, extra_metrics=extra_metrics),
            acoustic_prompt_source=acoustic_prompt_source,
            resume=resume,
        )

    def validator(
        self,
        task: TrainingTask[Any],
        module: nn.Module,
        *,
        extra_metrics: Callable[[], Mapping[str, float]] = dict,
    ) -> Callable[[], Mapping[str, float]]:
        """A function that returns {"validation_loss", …}: means over the validation rows, each
        batch counted as `Objective.count` says, and the extra metrics."""
        samples = sorted(self.validation_samples(), key=task.length_of)
        size, objective = self.settings.batch.rows, task.objective

        def validate() -> Mapping[str, float]:
            sums: dict[str, float] = {}
            total = 0
            with loop.evaluating(module):
                for start in range(0, len(samples), size):
                    # Made anew each time: kept, the batches would hold a mask each.
                    batch = task.batch(samples[start : start + size])
                    count = objective.count(batch)
                    total += count
                    for name, value in objective.validation_losses(module, batch).items():
                        sums[name] = sums.get(name, 0.0) + float(value) * count
            means = {f"validation_{name}": value / total for name, value in sums.items()}
            return {**means, **extra_metrics()}

        return validate

    def train(
        self,
        module: nn.Module,
        step: loop.Step,
        batch_at: loop.BatchAt,
        *,
        weight_of: loop.WeightOf,
        validate: Callable[[], Mapping[str, float]],
        acoustic_prompt_source: str,
        resume: bool,
    ) -> Mapping[str, object]:
        """`run` with batches and validation of the caller's own."""
        training, validation = self.settings.training, self.settings.validation
        average = None if training.ema_decay is None else WeightAverage(module, training.ema_decay)
        described = trainable_summary(module)
        every, last_step = validation.every, training.steps
        hook = loop.Hook(
            due=lambda number: number % every == 0 or number == last_step,
            call=lambda *_: validate(),
        )
        best = self._best_weights(module)
        history = loop.fit(
            module,
            step,
            batch_at,
            training,
            self.output,
            resume=resume,
            hooks=[hook if best is None else best.watch(hook)],
            average=average,
            should_stop=best.should_stop if best is not None else lambda: False,
            weight_of=weight_of,
            inputs=self._inputs(),
        )
        best_step = None if best is None else best.restore(module)
        if average is not None and best_step is None:
            average.copy_to_model()
        folder = self.output / checkpoint.RUN_MODEL_FOLDER
        # The other processes may begin from the folder next.
        with first_process_first():
            if is_first_process():
                meta = self._meta(acoustic_prompt_source, described)
                checkpoint.save(folder, self.model, meta, encoder=self._encoder())
        last: dict[str, float] = {}
        for line in history.log:
            last.update(line)
        found = {} if best_step is None else {"best_step": best_step}
        return {"model": str(folder), "trained": described, **last, **found}

    def _best_weights(self, module: nn.Module) -> loop.BestWeights | None:
        """Where the recipe asks for them; RecipeError where there is nothing to validate on."""
        chosen = self.settings.validation
        if chosen.best is None:
            return None
        if all(row.split != "validation" for row in self.rows):
            raise RecipeError(
                f"validation.best is {chosen.best}, but no row is of split 'validation'; give "
                "rows to validate on, or leave out best and patience"
            )
        return loop.BestWeights(
            self.output,
            score=f"validation_{chosen.best}",
            higher=SCORES[chosen.best],
            patience=chosen.patience,
            # Of the average where there is one: that is what a hook sees.
            weights=lambda: kept_weights(module),
        )

    def _encoder(self) -> Path | None:
        """The folder of the speech tokenizer that the model hears with, where it is one that is
        kept with it: the recipe's, or the one of the rows, found beside them, in the start or
        shipped."""
        settings = self.settings
        if settings.output.encoder is not None or self._source.name not in KEPT:
            return settings.output.encoder
        # The rows' own first: clue words may lie beside it.
        folders = [path.parent for path in settings.data.rows]
        folders += [] if settings.model.start is None else [settings.model.start]
        return checkpoint.find_encoder(self._source.fingerprint, folders)

    def _inputs(self) -> dict[str, str]:
        """Hashes of the rows and of the models that the run begins with."""
        found = {str(path): hash_of_file(path) for path in self.settings.data.rows}
        return found | {
            str(path): checkpoint.model_fingerprint(path) for path in self.settings.models()
        }

    def _connector(self, started: checkpoint.ModelMeta | None) -> prompts.ConnectorMeta:
        if self.model.connector is None:
            return prompts.ConnectorMeta()
        if started is not None and started.connector.name:
            return started.connector
        settings = self.settings.model.connector
        assert settings is not None
        width = self._source.feature_width
        return connector_meta(settings, width, vectors=self.model.vectors)

    def _meta(self, acoustic_prompt_source: str, described: str) -> checkpoint.ModelMeta:
        source, settings, model = self._source, self.settings, self.settings.model
        started = None if model.start is None else checkpoint.read_meta(model.start)
        base, notes = "", settings.notes
        weights = "full" if model.lora is None else "adapter"
        if model.freeze and (model.base or (started and started.weights == "connector")):
            weights = "connector"  # a frozen base is not copied
        if weights != "full":
            base = (started.base if started else "") or str(model.base or model.start)
        if started is not None and notes == checkpoint.ModelNotes():
            notes = replace(started.notes, scores={})  # the scores of the start are not its own
        return checkpoint.ModelMeta(
            name=settings.output.name,
            languages=tuple(
                language
                for language in LANGUAGES
                if settings.data.languages.get(language, 0) > 0
                and any(language in row.captions for row in self.rows)
            ),
            tokenizer=checkpoint.SpeechTokenizerMeta(
                name=source.name,
                fingerprint=source.fingerprint,
                frame_rate_hz=source.frame_rate_hz,
                options=source.options,
            ),
            vocabulary=self.model.vocabulary.shape,
            prompts=self._template,
            limits=self.limits,
            act_mode=acoustic_prompt_source,
            plans=bool(started and started.plans) or any(map(examples.is_planned, self.rows)),
            connector=self._connector(started),
            base=base,
            weights=weights,
            notes=notes,
            provenance={
                "kind": self._kind,
                "seed": str(settings.training.seed),
                "steps": str(settings.training.steps),
                "rows": str(len(self.rows)),
                "trained": described,
            },
        )


def read_training_rows(
    paths: Sequence[Path], *, needs_speech: bool
) -> tuple[list[examples.TrainingRow], examples.SpeechSource]:
    """The rows of several files, which must hold the codes of one speech tokenizer.

    With `needs_speech` rows of captions alone are left out. DataError where the tokenizers differ
    or nothing is left to train on.
    """
    source = examples.one_source({path: examples.read_source(path) for path in paths})
    every = [row for path in paths for row in examples.read_rows(path)]
    rows = [row for row in every if row.speech is not None or not needs_speech]
    if not any(row.split == "train" for row in rows):
        raise DataError(f"{', '.join(map(str, paths))}: no row of split 'train' to learn from")
    LOG.info("%d rows, %d without speech left out", len(rows), len(every) - len(rows))
    return rows, source


def rows_too_long(
    settings: StageSettings,
    builder: prompts.PromptBuilder,
    rows: Sequence[examples.TrainingRow],
    positions: int | None,
) -> dict[int, tuple[int, int]]:
    """Places of the rows that a model with so many positions (None: any number) cannot read; of
    each the positions it takes, and those there are."""
    if positions is None:
        return {}
    prompter, found = examples.Prompter(builder, rows), {}
    for place, row in enumerate(rows):
        samples = (
            examples.Sample(place, language, tuple(range(len(texts))), None)
            for language, texts in row.captions.items()
            if settings.data.languages.get(language, 0) > 0
        )
        taken = max(
            (
                len(read.prompt_ids) + max(map(len, read.responses)) - 1
                for sample in samples
                for read in settings.readings(prompter, sample)
            ),
            default=0,
        )
        if taken > positions:
            found[place] = taken, positions
    return found


SHOWN = 5
"""Rows left out that are named one by one."""


def described_too_long(
    found: Mapping[int, tuple[int, int]], rows: Sequence[examples.TrainingRow]
) -> Iterable[str]:
    """A line for each of the first rows that are left out, and one for the others."""
    for place, (taken, positions) in islice(found.items(), SHOWN):
        yield (
            f"{rows[place].id}: left out, it takes {taken} positions and the model has "
            f"{positions}; cut the audio, or use fewer codebooks or a LLaMA"
        )
    if len(found) > SHOWN:
        yield f"{len(found) - SHOWN} more rows of {len(rows)} are left out for the same reason"


def check_layout(settings: StageSettings) -> None:
    """RecipeError where 4-bit weights would have to be sharded over processes."""
    sharding, quantization = settings.training.sharding, settings.model.quantization
    if quantization is not None and sharding in ("fsdp", "zero3"):
        raise RecipeError(
            f"model.quantization {quantization} packs weights in a way that training.sharding "
            f"{sharding} cannot share out; use none, zero1 or zero2",
        )


def _notes_too_long(
    settings: StageSettings,
    source: examples.SpeechSource | None,
    captioner: CaptionModel,
    clips: Callable[[], Sequence[examples.TrainingRow]],
) -> list[str]:
    """`described_too_long` of a dry run, as far as rows and text tokenizer are here."""
    positions, start = max_positions(captioner.bare), settings.model.start
    if positions is None or source is None or not isinstance(captioner.vocabulary, Vocabulary):
        return []
    template = prompts.PromptTemplate() if start is None else checkpoint.read_meta(start).prompts
    rows = clips()
    builder = prompts.PromptBuilder(captioner.vocabulary, template, vectors=captioner.vectors)
    return list(described_too_long(rows_too_long(settings, builder, rows, positions), rows))


def plan_training(
    settings: StageSettings,
    source: examples.SpeechSource | None,
    *,
    rows: Iterable[dry_run.Needed],
    clips: Callable[[], Sequence[examples.TrainingRow]],
    more: Iterable[dry_run.Needed] = (),
    wrap: Callable[[CaptionModel], nn.Module] | None = None,
    frozen: Callable[[CaptionModel], int] | None = None,
    notes: Iterable[str] = (),
) -> dict[str, object]:
    """The dry run of a stage on rows that hold the codes of `source`, None where none are here.

    `clips` reads them where the kind of model cannot read rows of any length. `wrap` puts a head
    on the model that is trained; `frozen` gives the bytes of further models.
    """
    check_layout(settings)
    planned = plan_model(settings.model, source)
    encoders = {
        "built-in encoder": settings.model.codebook,
        "encoder to keep": settings.output.encoder,
    }
    folders = [
        dry_run.needed_path(what, path, hint=ENCODER_HINT)
        for what, path in encoders.items()
        if path
    ]
    needed, notes = [*rows, *planned.needed, *folders, *more], [*planned.notes, *notes]
    captioner = planned.model
    if captioner is None:
        return dry_run.plan_table(needed, assumed=planned.assumed, notes=notes)
    notes += _notes_too_long(settings, source, captioner, clips)
    with torch.device("meta"):
        model = wrap(captioner) if wrap else captioner
    average = settings.training.ema_decay is not None
    groups = trained_groups(captioner)
    if wrap:
        groups["head"] = sum(p.numel() for p in set(model.parameters()) - {*captioner.parameters()})
    trained_bytes = dry_run.trained_bytes(model)
    disk: dict[str, int | None] = {
        "checkpoints": dry_run.checkpoints_bytes(model, average=average),
        "model": trained_bytes if "LoRA" in groups else dry_run.weight_bytes(model),
    }
    if settings.validation.best is not None:
        disk["best"] = dry_run.best_bytes(model)
    memory = dry_run.training_memory(
        model,
        average=average,
        frozen=frozen(captioner) if frozen else 0,
        quantized=settings.model.quantization is not None,
    )
    return dry_run.plan_table(
        needed,
        parameters=dry_run.count_parameters(groups, model),
        memory=memory,
        disk=disk,
        assumed=planned.assumed,
        notes=notes,
    )
