"""Which two captions a person is shown next, and in which order: pure functions of the store.

Everything is drawn by hashes of names, so a page that is opened again goes on where it was.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from aligncap.errors import RecipeError
from aligncap.preference.annotations import Annotation
from aligncap.preference.store import Group
from aligncap.preference.values import Candidate, digest

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Task:
    """Two candidates of a clip to choose between."""

    id: str
    file: str
    """The clip's recording, as the store names it."""
    low: Candidate
    """The one whose key comes first."""
    high: Candidate

    @property
    def pair(self) -> Pair:
        """The candidates' keys, as `Annotation.pair` has them."""
        return (self.low.key, self.high.key)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a person has come."""

    done: int
    left: int


def tasks_of(groups: Iterable[Group], *, per_clip: int) -> list[Task]:
    """Up to `per_clip` pairs of each clip's candidates; captions of the corpus are not shown."""
    if per_clip < 1:
        raise RecipeError(f"pairs of a clip are {per_clip}, must be at least 1")
    tasks = []
    for clip, _, candidates in groups:
        keyed = sorted((one.key, one) for one in candidates if one.method != "gold")
        both = [
            Task(digest("task", low, high), clip.file, first, second)
            for (low, first), (high, second) in combinations(keyed, 2)
        ]
        tasks += sorted(both, key=lambda task: task.id)[:per_clip]
    return tasks


def in_order(task: Task, annotator: str) -> tuple[Candidate, Candidate]:
    """The two candidates as this person is shown them: the same each time, at random over all."""
    swapped = _draw("order", annotator, task.id) < 0.5
    return (task.high, task.low) if swapped else (task.low, task.high)


def is_shared(task: Task, share: float) -> bool:
    """Whether everybody is asked: so `share` of the tasks are, to see how far people agree."""
    return _draw("shared", task.id) < share


def open_tasks(
    tasks: Sequence[Task], annotations: Collection[Annotation], annotator: str, *, share: float
) -> list[Task]:
    """What this person is still to be asked, the next first.

    A task that is not shared is over when anybody has answered it; one that was skipped is left
    to the others. Each person has an order of their own, so two rarely meet.
    """
    mine = {one.pair for one in annotations if one.annotator == annotator}
    answered = {one.pair for one in annotations if one.value is not None}
    left = [
        task
        for task in tasks
        if task.pair not in mine and (is_shared(task, share) or task.pair not in answered)
    ]
    return sorted(left, key=lambda task: digest(annotator, task.id))


def progress_of(
    tasks: Sequence[Task], annotations: Collection[Annotation], annotator: str, *, share: float
) -> Progress:
    """How many tasks this person has answered or skipped, and how many are left."""
    pairs = {task.pair for task in tasks}
    done = sum(one.annotator == annotator and one.pair in pairs for one in annotations)
    return Progress(done, len(open_tasks(tasks, annotations, annotator, share=share)))


def _draw(*parts: str) -> float:
    """A number in [0, 1) that depends on these words only."""
    return int(digest(*parts)[:12], 16) / 16**12
