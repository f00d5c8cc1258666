"""`fit`: the one training loop, for every stage."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from aligncap.errors import InterruptedRunError
from aligncap.training.average import WeightAverage
from aligncap.training.devices import telling_of_lost_processes
from aligncap.training.hooks import Hook, interrupt_noted
from aligncap.training.log import read_log
from aligncap.training.run import BatchAt, Run, Step
from aligncap.training.settings import FitSettings


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
        stack.enter_context(telling_of_lost_processes(output))
        stop = stack.enter_context(interrupt_noted())
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
