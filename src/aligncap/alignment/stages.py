"""What every stage does: read rows, train, validate, and leave a model folder."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aligncap.alignment.data import SpeechSource, TrainingRow, read_rows, read_source
from aligncap.alignment.draws import BatchPlan, Draw, validation_draws
from aligncap.alignment.objective import LessonBatch, Objective
from aligncap.alignment.prompting import Prompter
from aligncap.alignment.settings import StageSettings
from aligncap.alignment.store import Distributions
from aligncap.alignment.students import open_student
from aligncap.captioner.batches import SharedPromptRow, collate
from aligncap.captioner.checkpoint import save
from aligncap.captioner.meta import ModelMeta, SpeechTokenizerMeta
from aligncap.captioner.model import CaptionModel, trainable_summary
from aligncap.captioner.prompts import PromptBuilder
from aligncap.errors import DataError
from aligncap.training import WeightAverage, evaluating, fit, is_first_process
from aligncap.values import LANGUAGES

LOG = logging.getLogger(__name__)

MODEL_FOLDER = "model"
"""Of a run: the model folder it ends with."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a stage teaches: the rows of ids of a draw, who is listened to, and the objective."""

    rows_of: Callable[[Draw], Sequence[SharedPromptRow]]
    objective: Objective
    teacher: Callable[[Sequence[Draw]], Distributions] | None = None
    """The teacher's distributions of the draws' captions, in order."""

    def batch(self, draws: Sequence[Draw]) -> LessonBatch:
        """The batch of some draws."""
        rows = [row for draw in draws for row in self.rows_of(draw)]
        teacher = None if self.teacher is None else self.teacher(draws)
        # Any id pads: nothing ever attends to it.
        return LessonBatch(collate(rows, pad_id=0), teacher)

    def length_of(self, draw: Draw) -> int:
        """Tokens of a draw's longest row: what batches are sorted by."""
        return max(row.length for row in self.rows_of(draw))


class Stage:
    """The rows and the model of one run of a stage."""

    def __init__(
        self, settings: StageSettings, output: Path, *, kind: str, needs_speech: bool
    ) -> None:
        self.settings, self.output, self._kind = settings, output, kind
        self.rows, self._source = read_training_rows(settings.data.rows, needs_speech=needs_speech)
        self.model, self._template = open_student(
            settings.model,
            rows=self.rows,
            source=self._source,
            output=output,
            seed=settings.training.seed,
        )
        self._trained = trainable_summary(self.model)
        builder = PromptBuilder(self.model.vocabulary, self._template)
        self.prompter = Prompter(builder, self.rows)

    def plan(self, lesson: Lesson) -> BatchPlan:
        """Which draws each batch holds."""
        return BatchPlan(
            self.rows,
            data=self.settings.data,
            batch=self.settings.batch,
            seed=self.settings.training.seed,
            length_of=lesson.length_of,
        )

    def run(self, lesson: Lesson, *, act_mode: str, resume: bool) -> Mapping[str, object]:
        """Train, validate, and write the model folder; returns where it is and the last losses."""
        settings, model, plan = self.settings, self.model, self.plan(lesson)
        decay = settings.training.ema_decay
        average = None if decay is None else WeightAverage(model, decay)
        history = fit(
            model,
            lambda batch: lesson.objective.training_losses(model, batch),
            lambda number: lesson.batch(plan.draws_at(number)),
            settings.training,
            self.output,
            resume=resume,
            hooks=[self.validation_hook(lesson, model=model, average=average)],
            average=average,
        )
        if average is not None:
            average.keep()
        folder = self.output / MODEL_FOLDER
        if is_first_process():
            save(folder, model, self._meta(act_mode), encoder=settings.output.encoder)
        last: dict[str, float] = {}
        for line in history.log:
            last.update(line)
        return {"model": str(folder), "trained": self._trained, **last}

    def validation_hook(
        self, lesson: Lesson, *, model: CaptionModel, average: WeightAverage | None
    ) -> Callable[[int, Mapping[str, float]], Mapping[str, float] | None]:
        """A hook of `fit`: now and then the losses on validation rows, of the averaged weights."""
        settings = self.settings
        draws = validation_draws(
            self.rows,
            limit=settings.validation.rows,
            data=settings.data,
            captions=settings.batch.captions,
        )
        draws.sort(key=lesson.length_of)
        size = settings.batch.rows

        def hook(number: int, _: Mapping[str, float]) -> Mapping[str, float] | None:
            due = number % settings.validation.every == 0 or number == settings.training.steps
            if not due or not draws:
                return None
            # Made anew each time: kept, they would hold a mask for each batch.
            batches = (lesson.batch(draws[i : i + size]) for i in range(0, len(draws), size))
            if average is None:
                return validation_means(model, lesson.objective, batches)
            with average.applied():
                return validation_means(model, lesson.objective, batches)

        return hook

    def _meta(self, act_mode: str) -> ModelMeta:
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
            base=str(settings.model.base or settings.model.start) if settings.model.lora else "",
            weights="adapter" if settings.model.lora else "full",
            notes=settings.notes,
            provenance={
                "kind": self._kind,
                "seed": str(settings.training.seed),
                "steps": str(settings.training.steps),
                "rows": str(len(self.rows)),
                "trained": self._trained,
            },
        )


def read_training_rows(
    paths: Sequence[Path], *, needs_speech: bool
) -> tuple[list[TrainingRow], SpeechSource]:
    """The rows of several files, which must hold the codes of one speech tokenizer.

    With `needs_speech` rows of captions alone are left out. DataError where the tokenizers differ
    or nothing is left to learn from.
    """
    sources = {path: read_source(path) for path in paths}
    source = sources[paths[0]]
    for path, other in sources.items():
        if other != source:
            raise DataError(
                f"{path}: holds codes of {other.name} ({other.fingerprint[:12]}), {paths[0]} of "
                f"{source.name} ({source.fingerprint[:12]}); make both with one tokenizer"
            )
    every = [row for path in paths for row in read_rows(path)]
    rows = [row for row in every if row.speech is not None or not needs_speech]
    if not any(row.split == "train" for row in rows):
        raise DataError(f"{', '.join(map(str, paths))}: no row of split 'train' to learn from")
    LOG.info("%d rows, %d without speech left out", len(rows), len(every) - len(rows))
    return rows, source


def validation_means(
    model: CaptionModel, objective: Objective, batches: Iterable[LessonBatch]
) -> dict[str, float]:
    """{"validation_loss", "validation_ce", …}: means over all response tokens of the batches."""
    sums: dict[str, float] = {}
    tokens = 0
    with evaluating(model):
        for batch in batches:
            tokens += batch.tokens
            for name, value in objective.validation_losses(model, batch).items():
                sums[name] = sums.get(name, 0.0) + float(value) * batch.tokens
    return {f"validation_{name}": total / tokens for name, total in sums.items()}
