"""What a run may be given beside its step: hooks, evaluation, and a calm end when told to stop.

The record of a run: one JSON line every few steps, TensorBoard where installed, progress.

The best weights of a run by what its validations log, and when to stop waiting for better.

The state of one run of `fit`, and the one step that it takes again and again.

`fit`: the one training loop, for every stage.
"""

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast, reduce, send_to_device
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aligncap.errors import DataError, InterruptedRunError, RecipeError
from aligncap.recipes import FREE_ON_RESUME, as_table
from aligncap.storage import atomic_folder, write_atomic
from aligncap.training.checkpoints import (
    AVERAGE_FILE,
    OPTIMIZER_FILE,
    WEIGHTS_FILE,
    WeightAverage,
    gathered,
    kept_weights,
    latest_checkpoint,
    load_state,
    load_weights,
    save_checkpoint,
    trained,
)
from aligncap.training.devices import (
    ParallelStrategy,
    all_gather_objects,
    is_distributed,
    is_first_process,
    local_share,
    open_strategy,
    processes,
    reporting_lost_processes,
)
from aligncap.training.settings import FitSettings, learning_rate_at, seed_of

Report = Mapping[str, float]
"""The scalars of one step, or what a hook wants logged."""


@dataclass(frozen=True, slots=True)
class Hook:
    """Something that is done after some of the steps, in every process alike.

    The model it sees has the averaged weights, where the run keeps an average. A hook reads: it
    learns nothing.
    """

    due: Callable[[int], bool]
    """Whether it is, after so many steps."""
    call: Callable[[int, Report], Report | None]
    """Called as (steps done, that step's report); what it returns is logged."""


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C, or a scheduler's SIGTERM, sets the event instead of breaking a step; a second one
    breaks at once."""
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
    """A hook that calls `function` every so many steps and has what it returns logged."""
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
    """Every line of a run's log; a line cut short by a kill is left out."""
    path = output / LOG_FILE
    if not path.exists():
        return []
    lines = []
    for line in path.read_text("utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def cut_log(output: Path, step: int) -> None:
    """Forget the lines after `step`: a resumed run writes them again."""
    kept = [line for line in read_log(output) if line["step"] <= step]
    write_atomic(output / LOG_FILE, "".join(json.dumps(line) + "\n" for line in kept))


class RunLog:
    """Writes a run's log lines and shows its progress on stderr; use as a context."""

    def __init__(self, output: Path, *, done: int, steps: int, writes: bool = True) -> None:
        self._writes = writes
        path = output / LOG_FILE if writes else Path(os.devnull)
        self._file = path.open("a", encoding="utf-8")
        self._board = _tensorboard(output / "tensorboard", done) if writes else None
        self._progress, self._task = _progress(done, steps, writes)
        self._start_s, self._done, self._steps = time.monotonic(), done, steps

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


def _tensorboard(folder: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=done + 1)


def _progress(done: int, steps: int, writes: bool) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console, disable=not (console.is_terminal and writes))
    return progress, progress.add_task("training", total=steps, completed=done, loss="-")


BEST_FOLDER = "best"
"""Of a run: the weights that did best in validation, and which step had them."""

BEST_WEIGHTS_FILE, STEP_FILE = "weights.safetensors", "step.json"


class BestWeights:
    """Watches one logged score, keeps the weights that had the best, and says when it is enough.

    All it knows comes from the log, so a resumed run decides as an uninterrupted one.
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
        """`score` is a name in the log, better when `higher` says so; `weights` are those that
        the score is of; with `patience` 0 there is always more to wait for."""
        self._output, self._score, self._patience = output, score, patience
        self._sign = 1.0 if higher else -1.0
        self._weights = weights
        self._enough: bool | None = None

    def watching(self, hook: Hook) -> Hook:
        """The same hook, with the score that it returns taken note of."""

        def watched(number: int, report: Report) -> Report | None:
            told = hook.call(number, report)
            if told:
                if self._score not in told:
                    raise RecipeError(
                        f"the validation rows tell no {self._score}, only {', '.join(told)}; "
                        "choose another validation.best"
                    )
                scores = {**self._scores(), number: self._sign * told[self._score]}
                self._decide(scores)
                first = is_first_process()
                weights = gathered(self._weights(), keep=first)
                if number == _best_of(scores) and first:
                    self._keep(number, weights)
            return told

        return Hook(hook.due, watched)

    def enough(self) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        if self._enough is None:
            self._decide(self._scores())
        return bool(self._enough)

    def restore(self, model: nn.Module) -> int | None:
        """Put the best weights into `model`; returns their step, None where none was validated.

        DataError where what was kept is of another step than the log says.
        """
        scores = self._scores()
        if not scores:
            return None
        folder, best = self._output / BEST_FOLDER, _best_of(scores)
        kept = json.loads((folder / STEP_FILE).read_text("utf-8"))["step"]
        if kept != best:
            raise DataError(
                f"{folder}: holds the weights of step {kept}, the log says {best} was best; "
                "train again in another folder"
            )
        stored = load_file(folder / BEST_WEIGHTS_FILE)
        with torch.no_grad():
            for name, parameter in trained(model).items():
                parameter.copy_(stored[name])
        return best

    def _scores(self) -> dict[int, float]:
        lines = [line for line in read_log(self._output) if self._score in line]
        return {int(line["step"]): self._sign * line[self._score] for line in lines}

    def _decide(self, scores: Mapping[int, float]) -> None:
        since = sum(step > _best_of(scores) for step in scores) if scores else 0
        self._enough = self._patience > 0 and since >= self._patience

    def _keep(self, number: int, weights: dict[str, Tensor]) -> None:
        with atomic_folder(self._output / BEST_FOLDER) as partial:
            save_file(weights, partial / BEST_WEIGHTS_FILE)
            (partial / STEP_FILE).write_text(json.dumps({"step": number}), encoding="utf-8")


def _best_of(scores: Mapping[int, float]) -> int:
    """The step with the best score, the first of equals."""
    return max(sorted(scores), key=lambda step: scores[step])


Step = Callable[[Any], Mapping[str, Tensor]]
BatchAt = Callable[[int], Any]


class Run:
    """A run of `fit`: the model, how its work is shared, its average, how many steps are done."""

    _parallel: ParallelStrategy

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
        self._share = local_share(settings.accumulation, self._processes.num_processes)
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
        if is_distributed():
            # Processes that began apart would stay apart: gradients are shared, weights are not.
            broadcast(
                [tensor.data for tensor in (*self._model.parameters(), *self._model.buffers())]
            )
        if self._average is not None:
            self._average.begin()
        if found is not None:
            self._restore(found)
        # From here on the weights may be shared out.
        self._parallel = open_strategy(self._model, self._settings, share=self._share)
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
        self._held = all_gather_objects(self._parallel.held())
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
        if not is_distributed():
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
        if not is_distributed():
            return stop
        flag = torch.tensor(float(stop), device=self._device)
        return bool(reduce(flag, "sum") > 0)


@dataclass(frozen=True, slots=True)
class History:
    """What a finished run wrote: `log` holds every line of log.jsonl."""

    checkpoint: Path
    log: tuple[Mapping[str, float], ...]

    def trace(self, name: str = "loss") -> list[tuple[int, float]]:
        """(step, value) of one logged quantity."""
        return [(int(line["step"]), line[name]) for line in self.log if name in line]


def fit(
    model: nn.Module,
    step: Step,
    batch_at: BatchAt,
    settings: FitSettings,
    output: Path,
    *,
    resume: bool,
    hooks: Sequence[Hook] = (),
    average: WeightAverage | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> History:
    """Train `model` in place and keep checkpoints and a log in `output`.

    `batch_at(number)` gives batch 0, 1, 2 … and depends on nothing else, so a resumed run needs no
    memory of its data; `accumulation` batches make one optimiser step. `step(batch)` returns scalar
    tensors: "loss", whose gradient is followed, and parts that are only logged. torch's seed is
    set anew for every batch. A hook that is due is called as (steps done, this step's report) and
    what it returns is logged. Training ends before its last step once `enough()` says so, such as
    that of `BestWeights`. The last checkpoint is the finished model, with running averages of the
    weights where `ema_decay` is set (`load_average`).

    With `resume` it goes on from the last checkpoint, if there is one, and gives the same losses
    as an uninterrupted run. Raises RecipeError where `output` holds another run or the loss is
    not finite, InterruptedRunError after Ctrl-C or SIGTERM (with all that is done saved).

    Under torchrun the processes share the batches of each step, so that `accumulation` must be a
    multiple of their number, and the way that `settings.sharding` names (`parallel`) shares the
    rest; losses are those of one process. Every process must call, with the same model; the first
    one writes. LostProcessError where one of them dies. Afterwards each has the whole model.
    """
    run = Run(model, step, batch_at, settings, output, average)
    run.start(resume=resume)
    with ExitStack() as stack:
        stack.enter_context(reporting_lost_processes(output))
        stop = stack.enter_context(deferred_interrupt())
        log = stack.enter_context(run.open_log())
        model.train()
        while run.done < settings.steps and not run.agreed(enough()):
            run.advance(log, hooks)
            if run.agreed(stop.is_set()):
                kept = run.save()
                raise InterruptedRunError(
                    f"stopped at step {run.done} of {settings.steps}; "
                    f"{kept} keeps it: run the same command with --resume to go on"
                )
        kept = run.finish()
    return History(kept, tuple(read_log(output)))
