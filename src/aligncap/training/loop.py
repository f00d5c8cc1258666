"""`fit`: the one training loop of every stage (§4.2), with its log, hooks and choice of the best.

Everything that is trained hands it a model, a step and batches; only the step differs.
"""

import json
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from accelerate.utils import broadcast, reduce, send_to_device
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aligncap.errors import InterruptedRunError, RecipeError
from aligncap.foreign import check_tensors, reading
from aligncap.recipes import FREE_ON_RESUME, as_table
from aligncap.storage import atomic_folder, write_atomic
from aligncap.training import checkpoints, devices
from aligncap.training.settings import FitSettings, learning_rate_at, seed_of

Report = Mapping[str, float]
"""The scalars of one step, or what a hook wants logged."""


@dataclass(frozen=True, slots=True)
class Hook:
    """Something done after some of the steps, in every process alike, without training the model.

    The model has the averaged weights meanwhile, where the run keeps an average.
    """

    due: Callable[[int], bool]
    """Whether to call it after so many steps."""
    call: Callable[[int, Report], Report | None]
    """Called as (steps done, that step's report); what it returns is logged."""


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C, or a scheduler's SIGTERM, sets the event at first and interrupts the second time."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: object) -> None:
        event.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def every(steps: int, function: Callable[[], Report]) -> Hook:
    """A hook that calls `function` after every so many steps and logs what it returns."""
    return Hook(due=lambda number: number % steps == 0, call=lambda *_: function())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it the model is in evaluation mode without gradients; then every module as before."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


LOG_FILE = "log.jsonl"


def read_log(output: Path) -> list[dict[str, float]]:
    """Every line of a run's log; one cut short by a kill, or damaged, is left out."""
    path = output / LOG_FILE
    if not path.exists():
        return []
    lines = []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
            int(values["step"])
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        lines.append(values)
    return lines


def cut_log(output: Path, step: int) -> None:
    """Remove the lines after `step`: a resumed run writes them again."""
    kept = [line for line in read_log(output) if line["step"] <= step]
    write_atomic(output / LOG_FILE, "".join(json.dumps(line) + "\n" for line in kept))


class RunLog:
    """A run's log.jsonl, TensorBoard where installed, and progress on stderr; use as a context."""

    def __init__(self, output: Path, *, done: int, steps: int, writes: bool) -> None:
        """`done` of `steps` are done; nothing is written or shown where `writes` is false."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._start_s, self._done, self._steps = time.monotonic(), done, steps
        self._writes, self._board = writes, None
        path = output / LOG_FILE if writes else Path(os.devnull)
        self._file = path.open("a", encoding="utf-8")
        if writes:
            with suppress(ImportError):
                from torch.utils.tensorboard import SummaryWriter

                self._board = SummaryWriter(str(output / "tensorboard"), purge_step=done + 1)
        console = Console(stderr=True)
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not (console.is_terminal and writes),
        )
        self._task = self._progress.add_task("training", total=steps, completed=done, loss="-")

    def __enter__(self) -> "RunLog":
        self._progress.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._progress.stop()
        self._file.close()
        if self._board is not None:
            self._board.close()

    def advance(self, step: int, loss: float) -> None:
        """Move the progress bar to `step`."""
        self._progress.update(self._task, completed=step, loss=f"{loss:.4f}")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add one line; it is on disk when this returns."""
        elapsed_s = time.monotonic() - self._start_s
        line = {"step": step, **values, "elapsed_s": round(elapsed_s, 2)}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self._writes and not self._progress.console.is_terminal:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            pace = (step - self._done) / max(elapsed_s, 1e-9)
            print(f"{step}/{self._steps}  {shown}  {pace:.2f} steps/s", file=sys.stderr)


BEST_FOLDER = "best"
"""Of a run: weights and buffers with the best validation score in a folder step-<number>; also
those that were the best at each kept checkpoint, so that a run can go on from any of these."""


class BestWeights:
    """Keeps the weights with the best validation score, and stops a run that no longer improves.

    Scores are read from the log, so a resumed run decides as an uninterrupted one.
    """

    def __init__(
        self,
        output: Path,
        *,
        score: str,
        higher: bool,
        patience: int,
        weights: Callable[[], Mapping[str, Tensor]],
    ) -> None:
        """`score` is a name in the log, better if `higher` or lower; `weights()` are the weights
        and buffers scored (`kept_weights`); with `patience` 0 no run is stopped."""
        self._output, self._score, self._patience = output, score, patience
        self._sign = 1.0 if higher else -1.0
        self._weights = weights
        self._stop: bool | None = None

    def watch(self, hook: Hook) -> Hook:
        """The same hook, after which the weights are kept if its score is the best so far."""

        def watched(number: int, report: Report) -> Report | None:
            logged = hook.call(number, report)
            if logged is None or self._score not in logged:
                raise RecipeError(
                    f"the validation rows tell no {self._score}, only "
                    f"{', '.join(logged or ()) or 'nothing'}; choose another validation.best, or "
                    "none, or give rows that tell it"
                )
            scores = {**self._scores(), number: self._sign * logged[self._score]}
            self._stop = self._no_better(scores)
            first = devices.is_first_process()
            weights = checkpoints.gather(self._weights(), keep=first)
            if number == _best_step(scores) and first:
                with atomic_folder(self._folder(number)) as partial:
                    save_file(weights, partial / checkpoints.WEIGHTS_FILE)
                self._remove_others(scores)
            return logged

        return Hook(hook.due, watched)

    def should_stop(self) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        if self._stop is None:
            self._stop = self._no_better(self._scores())
        return self._stop

    def restore(self, model: nn.Module) -> int | None:
        """Put the best weights into `model`; returns their step, None where none was validated.

        DataError where they are not there or damaged.
        """
        scores = self._scores()
        if not scores:
            return None
        best = _best_step(scores)
        path = self._folder(best) / checkpoints.WEIGHTS_FILE
        hint = "train again in another folder"
        check_tensors(path, hint=hint)
        with reading(path, hint=hint), torch.no_grad():
            stored = load_file(path)
            for name, tensor in checkpoints.kept_weights(model).items():
                tensor.copy_(stored[name])
        return best

    def _folder(self, step: int) -> Path:
        return self._output / BEST_FOLDER / f"step-{step}"

    def _remove_others(self, scores: Mapping[int, float]) -> None:
        """Remove weights that are not the best of all, nor of those up to a kept checkpoint."""
        ends = [checkpoints.step_of(kept) for kept in checkpoints.checkpoints(self._output)]
        parts = [{n: scores[n] for n in scores if n <= end} for end in ends]
        needed = {self._folder(_best_step(part)) for part in (scores, *parts) if part}
        for folder in {*(self._output / BEST_FOLDER).glob("step-*")} - needed:
            shutil.rmtree(folder)

    def _scores(self) -> dict[int, float]:
        lines = [line for line in read_log(self._output) if self._score in line]
        return {int(line["step"]): self._sign * line[self._score] for line in lines}

    def _no_better(self, scores: Mapping[int, float]) -> bool:
        since = sum(step > _best_step(scores) for step in scores) if scores else 0
        return self._patience > 0 and since >= self._patience


def _best_step(scores: Mapping[int, float]) -> int:
    """The step with the best score, the first of equals."""
    return max(sorted(scores), key=lambda step: scores[step])


Step = Callable[[Any], Mapping[str, Tensor]]
BatchAt = Callable[[int], Any]
WeightOf = Callable[[Any], float]
"""What the losses of a batch are means over: its response tokens, its pairs, …"""


def _equal_weight(_: Any) -> float:
    return 1.0


RunInput = Mapping[str, str]
"""What a run is trained on, each with a hash of its content: a resumed run must have the same."""


class Run:
    """The state of a run of `fit`: model, parallel strategy, average, and how many steps are done.

    Its methods are called in every process alike.
    """

    _parallel: devices.DataParallel

    def __init__(
        self,
        model: nn.Module,
        step: Step,
        batch_at: BatchAt,
        settings: FitSettings,
        output: Path,
        average: checkpoints.WeightAverage | None,
        weight_of: WeightOf,
        inputs: RunInput,
    ) -> None:
        self._processes = devices.processes()
        self._device: torch.device = self._processes.device
        self._share = devices.local_share(settings.accumulation, self._processes.num_processes)
        self._model, self._step, self._batch_at = model, step, batch_at
        self._settings, self._output = settings, output
        self._bfloat16 = devices.takes_bfloat16(settings.precision, self._device)
        self._weight_of, self._inputs = weight_of, inputs
        model.to(self._device)
        if average is None and settings.ema_decay is not None:
            average = checkpoints.WeightAverage(model, settings.ema_decay)
        self._average = average
        self._sums: dict[str, float] = {}
        self._saved: int | None = None
        self.done = 0

    def start(self, *, resume: bool) -> None:
        """Go on from the last checkpoint, or make sure that there is none."""
        found = checkpoints.latest_checkpoint(self._output)
        if found is not None and not resume:
            raise RecipeError(
                f"{self._output}: holds a run already ({found.name}); "
                "go on with --resume or name another folder"
            )
        self._output.mkdir(parents=True, exist_ok=True)
        if devices.is_distributed():
            # Only gradients are averaged, so all processes must begin with the same weights.
            broadcast([t.data for t in (*self._model.parameters(), *self._model.buffers())])
        if self._average is not None:
            self._average.reset()
        if found is not None:
            self._restore(found)
        # From here on the weights may be sharded.
        self._parallel = devices.open_strategy(self._model, self._settings, share=self._share)
        if self._average is not None:
            self._average.match_layout()
        if found is not None:
            self._parallel.load_moments(found)
        self._local_numels = devices.all_gather_number(self._parallel.local_numel())
        if self._processes.is_main_process:
            cut_log(self._output, self.done)
            if devices.is_distributed():
                print(
                    f"{len(self._local_numels)} processes, sharding {self._settings.sharding}: "
                    f"each takes {self._share} of {self._settings.accumulation} batches a step; "
                    "weights and moments held: "
                    + ", ".join(f"{numel:,}" for numel in self._local_numels),
                    file=sys.stderr,
                )
        self._processes.wait_for_everyone()

    def _restore(self, found: Path) -> None:
        state = checkpoints.load_state(found)
        for name, value in as_table(self._settings).items():
            if name not in FREE_ON_RESUME and state["settings"].get(name, value) != value:
                raise RecipeError(
                    f"{found}: was trained with {name} = {state['settings'][name]}, not {value}; "
                    "resume with the same settings or name another folder"
                )
        for name, content in self._inputs.items():
            if state["inputs"].get(name, content) != content:
                raise RecipeError(
                    f"{name}: is not what {found} was trained on; put it back as it was, or give "
                    "another --output and begin anew"
                )
        checkpoints.load_weights(self._model, found)
        if self._average is not None:
            self._average.weights = checkpoints.load_average(self._model, found)
            self._average.updates = state["average_updates"]
        self._sums = dict(state["sums"])
        self.done = state["step"]

    def advance(self, log: RunLog, hooks: Sequence[Hook]) -> None:
        """Take one optimiser step, log it, call the hooks that are due, and save when due."""
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
                logged = self._parallel.run_wrapped(hook.call, self.done, report)
            if logged:
                log.write(self.done, logged)
        if self.done % self._settings.save_every == 0:
            self.save()

    def _take_step(self) -> dict[str, float]:
        settings, state = self._settings, self._processes
        report: dict[str, float] = {}
        # A step's batches are the same whatever the number of processes.
        first = self.done * settings.accumulation + state.process_index
        numbers = [first + part * state.num_processes for part in range(self._share)]
        batches = []
        for number in numbers:
            torch.manual_seed(seed_of(settings.seed, number))
            batches.append(self._batch_at(number))
        for number, batch, factor in zip(numbers, batches, self._factors(batches), strict=True):
            torch.manual_seed(seed_of(settings.seed, number))
            values = self._parallel.backward(
                self._losses,
                send_to_device(batch, self._device),
                factor=factor,
                last=number == numbers[-1],
            )
            for name, value in values.items():
                mean = float(value.detach()) * factor / self._share
                report[name] = report.get(name, 0.0) + mean
        if devices.is_distributed():
            means = reduce(torch.tensor(list(report.values()), device=self._device), "mean")
            report = dict(zip(report, means.tolist(), strict=True))
        if not math.isfinite(report["loss"]):
            raise RecipeError(
                f"the loss is {report['loss']} at step {self.done + 1}; "
                "lower learning_rate or lengthen warmup_steps"
            )
        rate = learning_rate_at(self.done + 1, settings)
        report["gradient_norm"] = self._parallel.optimizer_step(rate)
        report["learning_rate"] = rate
        if self._average is not None:
            self._average.update()
        return report

    def _factors(self, batches: Sequence[Any]) -> list[float]:
        """Of each batch what its loss is multiplied by before the step's batches are averaged, so
        that the result is the mean over all that they hold, in every process."""
        weights = [self._weight_of(batch) for batch in batches]
        total = sum(weights)
        if devices.is_distributed():
            # float64 holds counts exactly.
            found = torch.tensor(total, device=self._device, dtype=torch.float64)
            total = float(reduce(found, "sum"))
        return [weight * self._settings.accumulation / total for weight in weights]

    def _losses(self, batch: Any) -> dict[str, Tensor]:
        """The losses of a batch, of which only "loss" has a gradient."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            values = self._step(batch)
        return {n: v if n == "loss" else v.detach() for n, v in values.items()}

    def save(self) -> Path:
        """Have the first process write a checkpoint of the present state; returns its folder."""
        folder = self._output / f"checkpoint-{self.done}"
        if self._saved == self.done:
            return folder
        main = self._processes.is_main_process
        files = {
            checkpoints.WEIGHTS_FILE: checkpoints.gather(
                checkpoints.kept_weights(self._model), keep=main
            ),
            checkpoints.OPTIMIZER_FILE: checkpoints.gather(self._parallel.moments(), keep=main),
        }
        if self._average is not None:
            files[checkpoints.AVERAGE_FILE] = checkpoints.gather(self._average.weights, keep=main)
        state = {
            "settings": as_table(self._settings),
            "sums": dict(self._sums),
            "inputs": dict(self._inputs),
            "average_updates": 0 if self._average is None else self._average.updates,
            "held": self._local_numels,
        }
        if main:
            checkpoints.save_checkpoint(self._output, self.done, files=files, state=state)
        self._processes.wait_for_everyone()
        self._saved = self.done
        return folder

    def finish(self) -> Path:
        """Save, and unshard model and average in every process; returns the last checkpoint."""
        kept = self.save()
        self._parallel.unshard()
        if self._average is not None:
            self._average.match_layout()
        return kept

    def any_process(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if not devices.is_distributed():
            return flag
        return bool(reduce(torch.tensor(float(flag), device=self._device), "sum") > 0)


@dataclass(frozen=True, slots=True)
class History:
    """The last checkpoint of a finished run, and every line of its log.jsonl."""

    checkpoint: Path
    log: tuple[Mapping[str, float], ...]


def fit(
    model: nn.Module,
    step: Step,
    batch_at: BatchAt,
    settings: FitSettings,
    output: Path,
    *,
    resume: bool,
    hooks: Sequence[Hook] = (),
    average: checkpoints.WeightAverage | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    weight_of: WeightOf = _equal_weight,
    inputs: RunInput = MappingProxyType({}),
) -> History:
    """Train `model` in place and keep checkpoints and a log in `output`.

    `batch_at(number)` gives batch 0, 1, 2 … and depends on nothing else but the `inputs`, which a
    resumed run must have again; `accumulation` batches make one optimiser step, whose losses are
    means over all that its batches hold by `weight_of(batch)`, which are equal where not given.
    `step(batch)` returns scalar tensors: "loss", which is minimised, and parts that are only
    logged. torch's seed is set anew for every batch. Training ends before its last step once
    `should_stop()` (`BestWeights`). The last checkpoint is the finished model, with averaged
    weights where `ema_decay` is set.

    With `resume` it goes on from the last checkpoint, if there is one, with the losses of an
    uninterrupted run. Raises RecipeError where `output` holds another run or the loss is not
    finite, InterruptedRunError after Ctrl-C or SIGTERM (with all that is done saved).

    Under torchrun every process must call, with the same model. The processes share the batches of
    each step, so that `accumulation` must be a multiple of their number, and weights and moments as
    `settings.sharding` says (`devices`); losses are those of one process. Afterwards each has the
    full model. LostProcessError where one of them dies.
    """
    run = Run(model, step, batch_at, settings, output, average, weight_of, inputs)
    run.start(resume=resume)
    writes = devices.is_first_process()
    with ExitStack() as stack:
        stack.enter_context(devices.reporting_lost_processes(output))
        stop = stack.enter_context(deferred_interrupt())
        log = stack.enter_context(
            RunLog(output, done=run.done, steps=settings.steps, writes=writes)
        )
        model.train()
        while run.done < settings.steps and not run.any_process(should_stop()):
            run.advance(log, hooks)
            if run.any_process(stop.is_set()):
                kept = run.save()
                raise InterruptedRunError(
                    f"stopped at step {run.done} of {settings.steps}; "
                    f"{kept} keeps it: run the same command with --resume to go on"
                )
        kept = run.finish()
    return History(kept, tuple(read_log(output)))
