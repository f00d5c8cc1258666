"""A progress bar on standard error, where somebody is there to see it."""

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from aligncap.cli.world import World

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

T = TypeVar("T")


class Progress:
    """Shown only if standard error is a terminal and the results do not go to a terminal too."""

    def __init__(self, world: World, doing: str, *, results_on_stdout: bool) -> None:
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        if world.stderr.isatty() and not (results_on_stdout and world.stdout.isatty()):
            self._bar, self._task = _rich_bar(world, doing)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def expect(self, items: Iterable[T]) -> Iterable[T]:
        """The items; counted first where there is a bar to show how many are left."""
        if self._bar is None or self._task is None:
            return items
        counted: Sequence[T] = list(items)
        self._bar.update(self._task, total=len(counted))
        return counted

    def expect_as_many(self, count: Callable[[], int]) -> None:
        """How many there will be, counted only where there is a bar to show how many are left."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=count())

    def advance(self) -> None:
        """One more is done."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


class JudgeProgress:
    """Shows on a bar how many questions are answered, of all metrics together."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._total = bar, 0

    def __call__(self, done: int, of: int) -> None:
        """One more of a metric's questions is answered."""
        if done == 1:
            self._total += of
            self._bar.expect(range(self._total))
        self._bar.advance()


def _rich_bar(world: World, doing: str) -> "tuple[RichProgress, TaskID]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(file=world.stderr),
        transient=True,
    )
    return bar, bar.add_task(doing, total=None)
