"""What every stage does: read rows, train, validate, and leave a model folder."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from aligncap.alignment.data import SpeechSource, TrainingRow, one_source, read_rows, read_source
from aligncap.alignment.draws import BatchPlan, Draw, validation_draws
from aligncap.alignment.lessons import Lesson, validation_means
from aligncap.alignment.prompting import Prompter
from aligncap.alignment.settings import SCORES, StageSettings, check_layout
from aligncap.alignment.students import base_of, notes_of, open_student
from aligncap.captioner.checkpoint import save
from aligncap.captioner.meta import RUN_MODEL_FOLDER, ModelMeta, SpeechTokenizerMeta
from aligncap.captioner.model import trainable_summary
from aligncap.captioner.prompts import PromptBuilder
from aligncap.errors import DataError
from aligncap.training import (
    BestWeights,
    Hook,
    WeightAverage,
    first_process_first,
    fit,
    is_first_process,
)
from aligncap.training.checkpoints import trained
from aligncap.training.run import BatchAt, Step
from aligncap.values import LANGUAGES

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
        self.model, self._template = open_student(
            settings.model,
            rows=self.rows,
            source=self._source,
            output=output,
            seed=settings.training.seed,
        )
        builder = PromptBuilder(self.model.vocabulary, self._template)
        self.prompter = Prompter(builder, self.rows)

    def plan(self, length_of: Callable[[Draw], int]) -> BatchPlan:
        """Which draws each batch holds; batches are sorted by `length_of`."""
        return BatchPlan(
            self.rows,
            data=self.settings.data,
            batch=self.settings.batch,
            seed=self.settings.training.seed,
            length_of=length_of,
        )

    def validation_draws(self) -> list[Draw]:
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
        lesson: Lesson[Any],
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
        lesson: Lesson[Any],
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
            hooks=[hook if best is None else best.watching(hook)],
            average=average,
            enough=best.enough if best is not None else lambda: False,
        )
        kept = None if best is None else best.restore(module)
        if average is not None and kept is None:
            average.keep()
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
            base=base_of(settings.model),
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
