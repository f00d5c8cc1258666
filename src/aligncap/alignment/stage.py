"""What one batch of a stage holds, and the losses on it.

A lesson: what a stage teaches, batch by batch, and how far it is learnt on validation rows.

The language model that a stage trains: an earlier stage's, a pretrained one, or a new one.

What every stage does: read rows, train, validate, and leave a model folder.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aligncap.alignment.examples import (
    BucketBatchSampler,
    Prompter,
    Sample,
    SpeechSource,
    TrainingRow,
    one_source,
    read_rows,
    read_source,
    validation_draws,
)
from aligncap.alignment.losses import caption_cross_entropy, kl_to_cached_teacher
from aligncap.alignment.settings import SCORES, ModelSettings, StageSettings, check_layout
from aligncap.alignment.teacher import Distributions
from aligncap.captioner.backbones import open_backbone
from aligncap.captioner.checkpoint import (
    RUN_MODEL_FOLDER,
    TOKENIZER_FILE,
    ModelMeta,
    ModelNotes,
    SpeechTokenizerMeta,
    load_torch,
    read_meta,
    save,
)
from aligncap.captioner.model import (
    AdapterSettings,
    CaptionModel,
    add_adapter,
    add_speech_tokens,
    has_adapter,
    set_speech_rows,
    small_llama,
    trainable_summary,
)
from aligncap.captioner.prompts import (
    PromptBuilder,
    PromptTemplate,
    SharedPromptBatch,
    SharedPromptRow,
    collate,
    to_torch,
)
from aligncap.captioner.vocabulary import Vocabulary, read_tokenizer, train_text_tokenizer
from aligncap.errors import DataError, RecipeError
from aligncap.storage import write_atomic
from aligncap.tokenizers.builtin import open_builtin
from aligncap.tokenizers.encoder import load_encoder
from aligncap.training.checkpoints import WeightAverage, trained
from aligncap.training.devices import first_process_first, is_first_process
from aligncap.training.loop import BatchAt, BestWeights, Hook, Step, evaluating, fit
from aligncap.values import LANGUAGES

Beside = TypeVar("Beside")


@dataclass(frozen=True, slots=True)
class TaskBatch(Generic[Beside]):
    """Prompts with their responses, and what is known beside them."""

    shared: SharedPromptBatch[NDArray[Any]]
    beside: Beside
    """What the teacher says of each of the N targets, which responses are pairs, …"""

    @property
    def tokens(self) -> int:
        """Response tokens."""
        return len(self.shared.target_ids)


class Objective(Protocol[Beside]):
    """The losses of a stage."""

    def training_losses(self, model: Any, batch: TaskBatch[Beside]) -> dict[str, Tensor]:
        """{"loss", and its parts}: means over what the batch holds."""

    def validation_losses(self, model: Any, batch: TaskBatch[Beside]) -> dict[str, Tensor]:
        """The same, and whatever else can be told of rows that are not learnt from."""

    def count(self, batch: TaskBatch[Beside]) -> int:
        """What the losses are means over: response tokens, or pairs."""


@dataclass(frozen=True, slots=True)
class CaptionObjective:
    """kl_weight · KL(teacher ‖ student) + ce_weight · caption cross-entropy."""

    kl_weight: float = 0.0
    ce_weight: float = 1.0
    temperature: float = 1.0
    """That of the teacher's distributions; the student's are divided by it too."""

    def training_losses(
        self, model: CaptionModel, batch: TaskBatch[Distributions | None]
    ) -> dict[str, Tensor]:
        """{"loss", and "kl" and "ce" as far as they have a weight}: means per response token."""
        parts = {}
        logits = model.text_logits(to_torch(batch.shared, model.device))
        if self.kl_weight:
            parts["kl"] = self._kl(logits, batch)
        if self.ce_weight:
            parts["ce"] = _ce(logits, batch)
        return {"loss": self._sum(parts), **parts}

    def validation_losses(
        self, model: CaptionModel, batch: TaskBatch[Distributions | None]
    ) -> dict[str, Tensor]:
        """The same with every part that can be told, whatever its weight."""
        logits = model.text_logits(to_torch(batch.shared, model.device))
        parts = {"ce": _ce(logits, batch)}
        if batch.beside is not None:
            parts["kl"] = self._kl(logits, batch)
        return {"loss": self._sum(parts), **parts}

    def count(self, batch: TaskBatch[Distributions | None]) -> int:
        """Response tokens."""
        return batch.tokens

    def _sum(self, parts: dict[str, Tensor]) -> Tensor:
        weights = {"kl": self.kl_weight, "ce": self.ce_weight}
        return torch.stack([weights[name] * value for name, value in parts.items()]).sum()

    def _kl(self, logits: Tensor, batch: TaskBatch[Distributions | None]) -> Tensor:
        teacher = batch.beside
        assert teacher is not None
        ids, top, rest = (
            torch.from_numpy(array).to(logits.device)
            for array in (teacher.ids, teacher.log_probs, teacher.log_rest)
        )
        return kl_to_cached_teacher(logits, ids, top, rest, temperature=self.temperature)


def _ce(logits: Tensor, batch: TaskBatch[Distributions | None]) -> Tensor:
    return caption_cross_entropy(
        logits, torch.from_numpy(batch.shared.target_ids).to(logits.device)
    )


@dataclass(frozen=True, slots=True)
class TrainingTask(Generic[Beside]):
    """The rows of ids of a draw, what is known beside them, and the objective."""

    rows_of: Callable[[Sample], Sequence[SharedPromptRow]]
    objective: Objective[Beside]
    beside: Callable[[Sequence[Sample]], Beside]
    """Of the draws' responses, in order: a teacher's distributions, which are pairs, …"""

    def batch(self, draws: Sequence[Sample]) -> TaskBatch[Beside]:
        """The batch of some draws."""
        rows = [row for draw in draws for row in self.rows_of(draw)]
        # Any id pads: nothing ever attends to it.
        return TaskBatch(collate(rows, pad_id=0), self.beside(draws))

    def length_of(self, draw: Sample) -> int:
        """Tokens of a draw's longest row: what batches are sorted by."""
        return max(row.length for row in self.rows_of(draw))


def no_targets(_: Sequence[Sample]) -> None:
    """What stands beside captions that are learnt by themselves."""


def validation_means(
    module: nn.Module, objective: Objective[Any], batches: Iterable[TaskBatch[Any]]
) -> dict[str, float]:
    """{"validation_loss", …}: means over everything that the batches hold (`Objective.count`)."""
    sums: dict[str, float] = {}
    total = 0
    with evaluating(module):
        for batch in batches:
            count = objective.count(batch)
            total += count
            for name, value in objective.validation_losses(module, batch).items():
                sums[name] = sums.get(name, 0.0) + float(value) * count
    return {f"validation_{name}": value / total for name, value in sums.items()}


TEXT_ONLY = "warmup"
"""The stage that trains no speech token: what it makes fits any tokenizer of the same size."""


def init_model(
    settings: ModelSettings,
    *,
    rows: Sequence[TrainingRow],
    source: SpeechSource,
    output: Path,
    seed: int,
) -> tuple[CaptionModel, PromptTemplate]:
    """The model to train, and the prompts it was or will be made with.

    A new model's text tokenizer is learnt from the rows' texts and kept in `output`, so that a
    resumed run has the same one. DataError where an earlier stage's model is for other speech
    tokens.
    """
    template = PromptTemplate()
    if settings.start is not None:
        template = check_start(settings.start, source)
        model = load_torch(
            settings.start,
            dtype=settings.dtype,
            quantization=settings.quantization,
            trainable=True,
        )
    elif settings.base is not None:
        causal_lm, vocabulary = open_backbone(
            settings.base,
            codebook_size=source.codebook_size,
            codebooks=source.codebooks,
            dtype=settings.dtype,
            quantization=settings.quantization,
        )
        add_speech_tokens(causal_lm, vocabulary)
        model = CaptionModel(causal_lm, vocabulary)
    else:
        vocabulary = _own_vocabulary(settings, rows, source, template, output / TOKENIZER_FILE)
        sizes = {k: v for k, v in asdict(settings.new).items() if k != "text_vocabulary"}
        model = CaptionModel(small_llama(vocabulary, seed=seed, **sizes), vocabulary)
    if settings.attention is not None:
        model.bare.set_attn_implementation(settings.attention)
    if settings.codebook is not None:
        set_speech_rows(model, codebook_of(settings.codebook, source), seed=seed)
    if settings.lora is not None and not _goes_on(model, settings.lora):
        model = add_adapter(model, settings.lora)
    if settings.gradient_checkpointing:
        checkpoint_layers(model)
    return model.train(), template


def checkpoint_layers(model: CaptionModel) -> None:
    """Have each layer keep its input only in training, and run again on the way back.

    Not reentrant: under a frozen embedding that would find no input to give a gradient to.
    """
    # Older releases of transformers know the second name only; newer ones warn of it.
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    enable = next(found for name in names if (found := getattr(model.bare, name, None)))
    enable({"use_reentrant": False})


def _goes_on(model: CaptionModel, lora: AdapterSettings) -> bool:
    """Whether the model has an adapter already; RecipeError where it is of another rank."""
    if not has_adapter(model):
        return False
    ranks = {config.r for config in model.causal_lm.peft_config.values()}
    if ranks != {lora.rank}:
        raise RecipeError(
            f"the adapter that model.start has is of rank {max(ranks)}, not {lora.rank}; "
            "set model.lora.rank to go on with it"
        )
    return True


@torch.no_grad()
def codebook_of(folder: Path, source: SpeechSource) -> Tensor:
    """What the entries of a built-in encoder's codebook become behind it, [codes, width].

    DataError where the rows were made with another tokenizer.
    """
    if open_builtin(folder).fingerprint != source.fingerprint:
        raise DataError(
            f"{folder}: is not the {source.name} ({source.fingerprint[:12]}) of the rows; name the "
            "encoder they were made with"
        )
    quantizer = load_encoder(folder).quantizer
    vectors: Tensor = quantizer.leave(quantizer.codebook)
    return vectors


def check_start(folder: Path, source: SpeechSource) -> PromptTemplate:
    """The prompts of an earlier stage's model; DataError where it is for other speech tokens than
    the rows hold."""
    meta = read_meta(folder)
    sizes = meta.vocabulary.codebooks, meta.vocabulary.codebook_size
    same = meta.tokenizer.fingerprint == source.fingerprint
    if sizes != (source.codebooks, source.codebook_size) or not (
        same or meta.provenance.get("kind") == TEXT_ONLY
    ):
        raise DataError(
            f"{folder}: is for speech tokens of {meta.tokenizer.name} "
            f"({meta.tokenizer.fingerprint[:12]}, {sizes[0]} x {sizes[1]}), the rows hold those of "
            f"{source.name} ({source.fingerprint[:12]}, {source.codebooks} x "
            f"{source.codebook_size}); make the rows again or start from another model"
        )
    return meta.prompts


def _own_vocabulary(
    settings: ModelSettings,
    rows: Sequence[TrainingRow],
    source: SpeechSource,
    template: PromptTemplate,
    path: Path,
) -> Vocabulary:
    with first_process_first():
        if not path.exists():
            texts = [*template.instructions.values(), *dict.fromkeys(_texts(rows))]
            tokenizer = train_text_tokenizer(texts, settings.new.text_vocabulary)
            write_atomic(path, tokenizer.to_str(pretty=True))
    return Vocabulary.of(
        read_tokenizer(path), codebook_size=source.codebook_size, codebooks=source.codebooks
    )


def _texts(rows: Iterable[TrainingRow]) -> Iterator[str]:
    for row in rows:
        if row.split == "train":
            for captions in row.captions.values():
                yield from captions
            yield from row.act.values()
            yield from row.measured.values()
            yield from row.heard.values()
            if row.transcript:
                yield row.transcript


def base_model_of(model: ModelSettings) -> str:
    """What the adapter that is trained stands on; "" where the whole model is."""
    if model.lora is None:
        return ""
    below = read_meta(model.start).base if model.start is not None else ""
    return below or str(model.base or model.start)


def notes_of(settings: StageSettings) -> ModelNotes:
    """The recipe's notes; where it has none, those of the model it goes on from, whose scores are
    not its own."""
    start = settings.model.start
    if start is None or settings.notes != ModelNotes():
        return settings.notes
    return replace(read_meta(start).notes, scores={})


LOG = logging.getLogger(__name__)


class Stage:
    """The rows and the model of one run of a stage."""

    def __init__(
        self,
        settings: StageSettings,
        output: Path,
        *,
        kind: str,
        data: tuple[Sequence[TrainingRow], SpeechSource],
    ) -> None:
        """`data` is what is learnt from, and whose speech tokens it holds."""
        check_layout(settings)
        self.settings, self.output, self._kind = settings, output, kind
        self.rows, self._source = data
        self.model, self._template = init_model(
            settings.model,
            rows=self.rows,
            source=self._source,
            output=output,
            seed=settings.training.seed,
        )
        builder = PromptBuilder(self.model.vocabulary, self._template)
        self.prompter = Prompter(builder, self.rows)

    def plan(self, length_of: Callable[[Sample], int]) -> BucketBatchSampler:
        """Which draws each batch holds; batches are sorted by `length_of`."""
        return BucketBatchSampler(
            self.rows,
            data=self.settings.data,
            batch=self.settings.batch,
            seed=self.settings.training.seed,
            length_of=length_of,
        )

    def validation_draws(self) -> list[Sample]:
        """The draws that validations are of, always the same."""
        settings = self.settings
        return validation_draws(
            self.rows,
            limit=settings.validation.rows,
            data=settings.data,
            captions=settings.batch.captions,
        )

    def run(
        self,
        lesson: TrainingTask[Any],
        *,
        act_mode: str,
        resume: bool,
        module: nn.Module | None = None,
        also: Callable[[], Mapping[str, float]] = dict,
    ) -> Mapping[str, object]:
        """Train, validate, and write the model folder; returns where it is and the last losses.

        `module` is what is trained where that is more than the model; `also` tells what else is
        to be logged at a validation.
        """
        module = self.model if module is None else module
        plan = self.plan(lesson.length_of)
        return self.train(
            module,
            lambda batch: lesson.objective.training_losses(module, batch),
            lambda number: lesson.batch(plan.draws_at(number)),
            validate=self.validation(lesson, module, also=also),
            act_mode=act_mode,
            resume=resume,
        )

    def validation(
        self,
        lesson: TrainingTask[Any],
        module: nn.Module,
        *,
        also: Callable[[], Mapping[str, float]] = dict,
    ) -> Callable[[], Mapping[str, float]]:
        """What tells the losses on the validation rows, and whatever `also` tells."""
        draws = self.validation_draws()
        draws.sort(key=lesson.length_of)
        size = self.settings.batch.rows

        def validate() -> Mapping[str, float]:
            # Made anew each time: kept, they would hold a mask for each batch.
            batches = (lesson.batch(draws[i : i + size]) for i in range(0, len(draws), size))
            means = validation_means(module, lesson.objective, batches) if draws else {}
            return {**means, **also()}

        return validate

    def train(
        self,
        module: nn.Module,
        step: Step,
        batch_at: BatchAt,
        *,
        validate: Callable[[], Mapping[str, float]],
        act_mode: str,
        resume: bool,
    ) -> Mapping[str, object]:
        """`run` for whoever makes batches and validates in a way of its own."""
        settings = self.settings
        decay = settings.training.ema_decay
        average = None if decay is None else WeightAverage(module, decay)
        described = trainable_summary(module)
        hook = self._hook(validate)
        best = self._best(module)
        history = fit(
            module,
            step,
            batch_at,
            settings.training,
            self.output,
            resume=resume,
            hooks=[hook if best is None else best.watch(hook)],
            average=average,
            should_stop=best.should_stop if best is not None else lambda: False,
        )
        kept = None if best is None else best.restore(module)
        if average is not None and kept is None:
            average.copy_to_model()
        folder = self.output / RUN_MODEL_FOLDER
        # Whatever the others do next may begin from the folder.
        with first_process_first():
            if is_first_process():
                meta = self._meta(act_mode, described)
                save(folder, self.model, meta, encoder=settings.output.encoder)
        last: dict[str, float] = {}
        for line in history.log:
            last.update(line)
        found = {} if kept is None else {"best_step": kept}
        return {"model": str(folder), "trained": described, **last, **found}

    def _hook(self, validate: Callable[[], Mapping[str, float]]) -> Hook:
        """A hook of `fit`: now and then, and at the end, `validate`."""
        every, last = self.settings.validation.every, self.settings.training.steps
        return Hook(
            due=lambda number: number % every == 0 or number == last, call=lambda *_: validate()
        )

    def _best(self, module: nn.Module) -> BestWeights | None:
        asked = self.settings.validation
        if asked.best is None:
            return None
        return BestWeights(
            self.output,
            score=f"validation_{asked.best}",
            higher=SCORES[asked.best],
            patience=asked.patience,
            # Of the average where there is one: that is what a hook sees.
            weights=lambda: trained(module),
        )

    def _meta(self, act_mode: str, described: str) -> ModelMeta:
        source, settings = self._source, self.settings
        return ModelMeta(
            name=settings.output.name,
            languages=tuple(
                language
                for language in LANGUAGES
                if settings.data.languages.get(language, 0) > 0
                and any(language in row.captions for row in self.rows)
            ),
            tokenizer=SpeechTokenizerMeta(
                name=source.name,
                fingerprint=source.fingerprint,
                frame_rate_hz=source.frame_rate_hz,
                options=source.options,
            ),
            vocabulary=self.model.vocabulary.shape,
            prompts=self._template,
            limits=settings.limits,
            act_mode=act_mode,
            base=base_model_of(settings.model),
            weights="adapter" if settings.model.lora else "full",
            notes=notes_of(settings),
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
) -> tuple[list[TrainingRow], SpeechSource]:
    """The rows of several files, which must hold the codes of one speech tokenizer.

    With `needs_speech` rows of captions alone are left out. DataError where the tokenizers differ
    or nothing is left to learn from.
    """
    source = one_source({path: read_source(path) for path in paths})
    every = [row for path in paths for row in read_rows(path)]
    rows = [row for row in every if row.speech is not None or not needs_speech]
    if not any(row.split == "train" for row in rows):
        raise DataError(f"{', '.join(map(str, paths))}: no row of split 'train' to learn from")
    LOG.info("%d rows, %d without speech left out", len(rows), len(every) - len(rows))
    return rows, source
