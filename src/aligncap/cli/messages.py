"""What a run says beside its results, as the command line says everything: one line each."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aligncap.cli.world import World
from aligncap.errors import InterruptedRunError


class _Said(logging.Handler):
    """Hands each warning to the world."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.say(record.getMessage())


@contextmanager
def warnings_said(world: World) -> Iterator[None]:
    """Within, each warning of the package is a line on the world's standard error."""
    handler = _Said(world)
    logger = logging.getLogger("aligncap")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def stoppable(kept: Callable[[], str]) -> Iterator[None]:
    """Within, Ctrl-C ends with one line that says what is kept."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise InterruptedRunError(f"stopped; {kept()}; the same command goes on") from stop
