"""What was met before is remembered: first names, how often, in which parts."""

from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from aligncap.data.splits import Seen, Shared


def test_who_was_first_is_told(tmp_path: Path) -> None:
    with Seen(tmp_path) as seen:
        assert seen.meet("id", "a", name="first") is None
        assert seen.meet("id", "a", name="second") == "first"
        assert seen.meet("sound", "a", name="third") is None
        assert seen.number("id") == seen.number("sound") == 1
        assert list(seen.times("id")) == [("first", 2)]
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_is_forgotten(tmp_path: Path) -> None:
    left = Seen(tmp_path)
    left.meet("id", "a", name="old")
    with Seen(tmp_path) as seen:
        assert seen.meet("id", "a", name="new") is None
    left._database.close()


@settings(deadline=None, max_examples=30)
@given(notes=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2)), max_size=40))
def test_notes_count_as_a_set_of_sets_does(notes: list[tuple[str, int]], tmp_path_factory) -> None:
    parts: dict[str, set[int]] = {}
    for what, part in notes:
        parts.setdefault(what, set()).add(part)
    times = Counter(what for what, _ in notes)
    with Seen(tmp_path_factory.mktemp("seen")) as seen:
        for what, part in notes:
            seen.note("x", what, name=what, part=part)
        assert dict(seen.times("x")) == dict(times)
        assert list(seen.shared("x")) == [
            Shared(what, tuple(sorted(where)), times[what])
            for what, where in sorted(parts.items())
            if len(where) > 1
        ]
