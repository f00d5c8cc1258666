"""The state of one run of `fit`, and the one step that it takes again and again."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast, reduce, send_to_device
from safetensors.torch import load_file
from torch import Tensor, nn

from aligncap.errors import RecipeError
from aligncap.recipes import FREE_ON_RESUME, as_table
from aligncap.training.average import AVERAGE_FILE, WeightAverage
from aligncap.training.checkpoints import (
    OPTIMIZER_FILE,
    WEIGHTS_FILE,
    kept_weights,
    latest_checkpoint,
    load_state,
    load_weights,
    save_checkpoint,
)
from aligncap.training.devices import has_company, processes, share_of, told_by_each
from aligncap.training.hooks import Hook
from aligncap.training.log import RunLog, cut_log
from aligncap.training.parallel import Parallel, open_parallel
from aligncap.training.settings import FitSettings, learning_rate_at, seed_of
from aligncap.training.whole import gathered

Step = Callable[[Any], Mapping[str, Tensor]]
BatchAt = Callable[[int], Any]


class Run:
    """A run of `fit`: the model, how its work is shared, its average, how many steps are done."""

    _parallel: Parallel

    def __init__(
        self,
        model: nn.Module,
        step: Step,
        batch_at: BatchAt,
        settings: FitSettings,
        output: Path,
        average: WeightAverage | None,
    ) -> None:
        self._processes = processes()
        self._device: torch.device = self._processes.device
        self._share = share_of(settings.accumulation, self._processes.num_processes)
        self._model, self._step, self._batch_at = model, step, batch_at
        self._settings, self._output = settings, output
        model.to(self._device)
        if average is None and settings.ema_decay is not None:
            average = WeightAverage(model, settings.ema_decay)
        self._average = average
        self._sums: dict[str, float] = {}
        self._saved: int | None = None
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
        if has_company():
            # Processes that began apart would stay apart: gradients are shared, weights are not.
            broadcast(
                [tensor.data for tensor in (*self._model.parameters(), *self._model.buffers())]
            )
        if self._average is not None:
            self._average.begin()
        if found is not None:
            self._restore(found)
        # From here on the weights may be shared out.
        self._parallel = open_parallel(self._model, self._settings, share=self._share)
        if self._average is not None:
            self._average.follow()
        if found is not None:
            self._parallel.load_moments(found)
        if self._processes.is_main_process:
            cut_log(self._output, self.done)
        self._tell()
        self._processes.wait_for_everyone()

    def _restore(self, found: Path) -> None:
        state: dict[str, Any] = load_state(found)
        for name, value in as_table(self._settings).items():
            if name not in FREE_ON_RESUME and state["settings"].get(name, value) != value:
                raise RecipeError(
                    f"{found}: was trained with {name} = {state['settings'][name]}, not {value}; "
                    "resume with the same settings or name another folder"
                )
        load_weights(self._model, found)
        if self._average is not None:
            self._average.restore(load_file(found / AVERAGE_FILE), state["average_updates"])
        self._sums = dict(state["sums"])
        self.done = state["step"]

    def _tell(self) -> None:
        """Have the first process say how the run is shared, where it is."""
        self._held = told_by_each(self._parallel.held())
        if len(self._held) > 1 and self._processes.is_main_process:
            print(
                f"{len(self._held)} processes, sharding {self._settings.sharding}: each takes "
                f"{self._share} of {self._settings.accumulation} batches a step; weights and "
                f"moments held: {', '.join(f'{held:,}' for held in self._held)}",
                file=sys.stderr,
            )

    def open_log(self) -> RunLog:
        """The run's log; only the first process writes."""
        main = self._processes.is_main_process
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
        for hook in [hook for hook in hooks if hook.due(self.done)]:
            with nullcontext() if self._average is None else self._average.applied():
                told = self._parallel.call(hook.call, self.done, report)
            if told:
                log.write(self.done, told)
        if self.done % self._settings.save_every == 0:
            self.save()

    def _take_step(self) -> dict[str, float]:
        settings, state = self._settings, self._processes
        report: dict[str, float] = {}
        for part in range(self._share):
            # A step's batches are the same whatever the number of processes.
            number = self.done * settings.accumulation + part * state.num_processes
            number += state.process_index
            torch.manual_seed(seed_of(settings.seed, number))
            batch = send_to_device(self._batch_at(number), self._device)
            values = self._parallel.learn(self._losses, batch, last=part == self._share - 1)
            for name, value in values.items():
                report[name] = report.get(name, 0.0) + float(value.detach()) / self._share
        report = self._shared(report)
        if not math.isfinite(report["loss"]):
            raise RecipeError(
                f"the loss is {report['loss']} at step {self.done + 1}; "
                "lower learning_rate or lengthen warmup_steps"
            )
        rate = learning_rate_at(self.done + 1, settings)
        report["gradient_norm"] = self._parallel.follow(rate)
        report["learning_rate"] = rate
        if self._average is not None:
            self._average.update()
        return report

    def _losses(self, batch: Any) -> dict[str, Tensor]:
        """The losses of a batch, of which only "loss" is followed."""
        coarse = self._settings.precision == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=coarse):
            values = self._step(batch)
        return {n: v if n == "loss" else v.detach() for n, v in values.items()}

    def _shared(self, report: dict[str, float]) -> dict[str, float]:
        """The mean of a report over all processes."""
        if not has_company():
            return report
        values = torch.tensor(list(report.values()), device=self._device)
        means = reduce(values, "mean").tolist()
        return dict(zip(report, means, strict=True))

    def save(self) -> Path:
        """Write a checkpoint of this moment; returns its folder. Every process gives its part, the
        first one writes."""
        folder = self._output / f"checkpoint-{self.done}"
        if self._saved == self.done:
            return folder
        main = self._processes.is_main_process
        files = {
            WEIGHTS_FILE: gathered(kept_weights(self._model), keep=main),
            OPTIMIZER_FILE: gathered(self._parallel.moments(), keep=main),
        }
        if self._average is not None:
            files[AVERAGE_FILE] = gathered(self._average.weights, keep=main)
        state = {
            "settings": as_table(self._settings),
            "sums": dict(self._sums),
            "average_updates": 0 if self._average is None else self._average.updates,
            "held": self._held,
        }
        if main:
            save_checkpoint(self._output, self.done, files=files, state=state)
        self._processes.wait_for_everyone()
        self._saved = self.done
        return folder

    def finish(self) -> Path:
        """Save, and leave model and average whole in every process; returns the last checkpoint."""
        kept = self.save()
        self._parallel.finish()
        if self._average is not None:
            self._average.follow()
        return kept

    def agreed(self, stop: bool) -> bool:
        """Whether any process was told to stop."""
        if not has_company():
            return stop
        flag = torch.tensor(float(stop), device=self._device)
        return bool(reduce(flag, "sum") > 0)
