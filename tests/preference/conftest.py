"""What tests of preferences share."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.preferences import train_start, write_preferences


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny captioner that preferences can go on from."""
    return train_start(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="session")
def preferences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of preference rows."""
    return write_preferences(tmp_path_factory.mktemp("preferences"))


@pytest.fixture
def changed(request: pytest.FixtureRequest, preferences: Path, start: Path) -> Any:
    """The settings of the test's module with changes."""
    return partial(request.module.settings_of, preferences, start)
