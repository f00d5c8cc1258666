"""What a run may be given beside its step: hooks, evaluation, and a calm end when told to stop."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

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
def interrupt_noted() -> Iterator[threading.Event]:
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
