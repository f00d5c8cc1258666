"""A model by its name on the hub: from the local cache, or a line that says what to fetch."""

from pathlib import Path

import pytest

from aligncap.captioner.loading import find_model
from aligncap.errors import MissingModelError


def test_a_name_of_the_hub_that_is_not_here_says_what_to_fetch() -> None:
    with pytest.raises(MissingModelError) as told:
        find_model("nobody/aligncap-kd")
    assert "hf download nobody/aligncap-kd" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_folder_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_model("org/name") == Path("org/name")


@pytest.mark.parametrize("name", ["./org/name", "/org/name", "a/b/c", "org/../name"])
def test_a_path_is_no_name(name: str) -> None:
    with pytest.raises(MissingModelError, match="check the path") as told:
        find_model(name)
    assert "hf download" not in str(told.value)
