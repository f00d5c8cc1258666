"""What a run may be given beside its step: hooks, evaluation, and a calm end after Ctrl-C."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

Report = Mapping[str, float]
"""The scalars of one step, or what a hook wants logged."""

Hook = Callable[[int, Report], Report | None]
"""Called as (steps done, this step's report) after each step."""


@contextmanager
def interrupt_noted() -> Iterator[threading.Event]:
    """Ctrl-C sets the event instead of breaking a step; a second one breaks at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.getsignal(signal.SIGINT)

    def note(*_: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def every(steps: int, function: Callable[[], Report]) -> Hook:
    """A hook that calls `function` every so many steps and has what it returns logged."""

    def hook(number: int, _: Report) -> Report | None:
        return function() if number % steps == 0 else None

    return hook


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
