"""The state of one run of `fit`, and the one step that it takes again and again."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, send_to_device
from safetensors.torch import load_file
from torch import Tensor, nn

from aligncap.errors import RecipeError
from aligncap.recipes import FREE_ON_RESUME
from aligncap.training.average import AVERAGE_FILE, WeightAverage
from aligncap.training.checkpoints import (
    latest_checkpoint,
    load_optimizer,
    load_state,
    load_weights,
    save_checkpoint,
    trained,
)
from aligncap.training.hooks import Hook
from aligncap.training.log import RunLog, cut_log
from aligncap.training.optimizer import make_optimizer
from aligncap.training.settings import FitSettings, learning_rate_at, seed_of

Step = Callable[[Any], Mapping[str, Tensor]]
BatchAt = Callable[[int], Any]


class Run:
    """A run of `fit`: the model, its optimiser, its average, and how many steps are done."""

    def __init__(
        self,
        model: nn.Module,
        step: Step,
        batch_at: BatchAt,
        settings: FitSettings,
        output: Path,
        average: WeightAverage | None,
    ) -> None:
        precision = "bf16" if settings.precision == "bfloat16" else "no"
        self._accelerator = Accelerator(
            gradient_accumulation_steps=settings.accumulation, mixed_precision=precision
        )
        self._model, self._step, self._batch_at = model, step, batch_at
        self._settings, self._output = settings, output
        model.to(self._accelerator.device)
        if self._accelerator.num_processes > 1:
            # Processes that began apart would stay apart: gradients are shared, weights are not.
            broadcast([tensor.data for tensor in (*model.parameters(), *model.buffers())])
        if average is None and settings.ema_decay is not None:
            average = WeightAverage(model, settings.ema_decay)
        if average is not None:
            average.to(self._accelerator.device)
        self._average = average
        self._optimizer = make_optimizer(model, settings)
        self._sums: dict[str, float] = {}
        self.done = 0

    def start(self, *, resume: bool) -> None:
        """Go on from the last checkpoint, or make sure that there is none."""
        found = latest_checkpoint(self._output)
        if found is not None and not resume:
            raise RecipeError(
                f"{self._output}: holds a run already ({found.name}); "
                "go on with --resume or name another folder"
            )
        self._output.mkdir(parents=True, exist_ok=True)
        if found is not None:
            self._restore(found)
        if self._accelerator.is_main_process:
            cut_log(self._output, self.done)
        self._accelerator.wait_for_everyone()

    def _restore(self, found: Path) -> None:
        state: dict[str, Any] = load_state(found)
        for name, value in asdict(self._settings).items():
            if name not in FREE_ON_RESUME and state["settings"].get(name, value) != value:
                raise RecipeError(
                    f"{found}: was trained with {name} = {state['settings'][name]}, not {value}; "
                    "resume with the same settings or name another folder"
                )
        load_weights(self._model, found)
        load_optimizer(self._model, self._optimizer, found)
        if self._average is not None:
            self._average.restore(load_file(found / AVERAGE_FILE), state["average_updates"])
        self._sums = dict(state["sums"])
        self.done = state["step"]

    def open_log(self) -> RunLog:
        """The run's log; only the first process writes."""
        main = self._accelerator.is_main_process
        return RunLog(self._output, done=self.done, steps=self._settings.steps, writes=main)

    def advance(self, log: RunLog, hooks: Sequence[Hook]) -> None:
        """Take one optimiser step, tell log and hooks, and save when it is time."""
        report = self._take_step()
        self.done += 1
        for name, value in {**report, "steps": 1}.items():
            self._sums[name] = self._sums.get(name, 0) + value
        log.advance(self.done, report["loss"])
        if self.done % self._settings.log_every == 0 or self.done == self._settings.steps:
            count = self._sums.pop("steps")
            log.write(self.done, {name: total / count for name, total in self._sums.items()})
            self._sums.clear()
        for hook in hooks:
            told = hook(self.done, report)
            if told:
                log.write(self.done, told)
        if self.done % self._settings.save_every == 0:
            self.save()

    def _take_step(self) -> dict[str, float]:
        accelerator, settings = self._accelerator, self._settings
        report: dict[str, float] = {}
        for part in range(settings.accumulation):
            number = self.done * settings.accumulation + part
            number = number * accelerator.num_processes + accelerator.process_index
            torch.manual_seed(seed_of(settings.seed, number))
            batch = send_to_device(self._batch_at(number), accelerator.device)
            with accelerator.autocast():
                values = self._step(batch)
            accelerator.backward(values["loss"])
            for name, value in values.items():
                share = float(value.detach()) / settings.accumulation
                report[name] = report.get(name, 0.0) + share
        report = self._shared(report)
        if not math.isfinite(report["loss"]):
            raise RecipeError(
                f"the loss is {report['loss']} at step {self.done + 1}; "
                "lower learning_rate or lengthen warmup_steps"
            )
        report["gradient_norm"] = self._follow_gradient()
        report["learning_rate"] = self._optimizer.param_groups[0]["lr"]
        return report

    def _shared(self, report: dict[str, float]) -> dict[str, float]:
        """The mean of a report over all processes."""
        if self._accelerator.num_processes == 1:
            return report
        values = torch.tensor(list(report.values()), device=self._accelerator.device)
        means = self._accelerator.reduce(values, "mean").tolist()
        return dict(zip(report, means, strict=True))

    def _follow_gradient(self) -> float:
        parameters = list(trained(self._model).values())
        if self._accelerator.num_processes > 1:
            for parameter in parameters:
                # A weight that this process's batch left out still counts in the mean.
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self._accelerator.reduce(gradient, "mean")
        limit = self._settings.clip_norm
        norm = nn.utils.clip_grad_norm_(parameters, math.inf if limit is None else limit)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate_at(self.done + 1, self._settings)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update()
        return float(norm)

    def save(self) -> Path:
        """Write a checkpoint of this moment; returns its folder."""
        target = self._output / f"checkpoint-{self.done}"
        if self._accelerator.is_main_process:
            extra = {} if self._average is None else {AVERAGE_FILE: self._average.weights}
            state = {
                "settings": asdict(self._settings),
                "sums": dict(self._sums),
                "average_updates": 0 if self._average is None else self._average.updates,
            }
            save_checkpoint(
                self._output,
                self.done,
                model=self._model,
                optimizer=self._optimizer,
                extra=extra,
                state=state,
            )
        self._accelerator.wait_for_everyone()
        return target

    def agreed(self, stop: bool) -> bool:
        """Whether any process was told to stop."""
        if self._accelerator.num_processes == 1:
            return stop
        flag = torch.tensor(float(stop), device=self._accelerator.device)
        return bool(self._accelerator.reduce(flag, "sum") > 0)
