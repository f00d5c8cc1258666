"""Who is shown what: laws of the draw, and what is left for whom."""

from aligncap.preference import Annotation, Clip
from aligncap.service.annotate import (
    Task,
    is_shared,
    open_tasks,
    presentation_order,
    tasks_of,
)
from preference.small import candidate

PEOPLE = ("anna", "bo", "cy")


def tasks(clips: int, *, each: int = 3, per_clip: int = 1) -> list[Task]:
    groups = []
    for number in range(clips):
        name = f"c{number:03}"
        texts = [candidate(f"Caption {place} of {name}.", name) for place in range(each)]
        gold = candidate("Gold.", name, method="gold")
        groups.append((Clip(name, f"{name}.wav"), "en", [gold, *texts]))
    return tasks_of(groups, per_clip=per_clip)


def said(task: Task, annotator: str, choice: str = "first") -> Annotation:
    first, second = presentation_order(task, annotator)
    return Annotation(f"{annotator}/{task.id}", annotator, first.key, second.key, choice)


def test_a_clip_gives_so_many_pairs_at_most_and_never_the_corpus_caption() -> None:
    assert len(tasks(10)) == 10
    assert len(tasks(10, per_clip=2)) == 20
    assert len(tasks(10, per_clip=99)) == 30  # of three candidates, three pairs
    assert tasks(3, each=1) == []
    assert not [one for task in tasks(9) for one in (task.low, task.high) if one.method == "gold"]
    assert len({task.pair for task in tasks(10, per_clip=99)}) == 30


def test_the_order_is_stable_and_at_random() -> None:
    found = tasks(400)
    first = [presentation_order(task, "anna") for task in found]
    assert first == [presentation_order(task, "anna") for task in found]
    swapped = sum(one[0] == task.high for one, task in zip(first, found, strict=True))
    assert 150 < swapped < 250
    others = [presentation_order(task, "bo") for task in found]
    assert 100 < sum(a == b for a, b in zip(first, others, strict=True)) < 300


def test_the_shared_part_is_the_share_asked_for() -> None:
    found = tasks(1000)
    assert sum(is_shared(task, 0.0) for task in found) == 0
    assert 150 < sum(is_shared(task, 0.2) for task in found) < 250
    assert sum(is_shared(task, 1.0) for task in found) == 1000


def test_a_task_is_over_when_answered_but_shared_ones_are_for_everybody() -> None:
    found = tasks(40)
    kept: list[Annotation] = []
    for annotator in PEOPLE:
        while left := open_tasks(found, kept, annotator, share=0.25):
            kept.append(said(left[0], annotator))
    by_pair = {
        task.pair: [one.annotator for one in kept if one.pair == task.pair] for task in found
    }
    for task in found:
        people = list(PEOPLE) if is_shared(task, 0.25) else ["anna"]
        assert by_pair[task.pair] == people


def test_what_one_skips_is_left_to_the_others() -> None:
    (task,) = tasks(1)
    skipped = [said(task, "anna", "skip")]
    assert open_tasks([task], skipped, "anna", share=0) == []
    assert open_tasks([task], skipped, "bo", share=0) == [task]


def test_people_go_different_ways() -> None:
    found = tasks(50)
    orders = [[one.id for one in open_tasks(found, [], name, share=0)] for name in PEOPLE]
    assert len({tuple(order) for order in orders}) == 3
    assert len({order[0] for order in orders}) == 3
