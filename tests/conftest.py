"""What tests of every part may use."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from support.killer import kill_leftovers

if TYPE_CHECKING:
    from aligncap.preference.store import PreferenceStore

# One thread, here and in the processes that tests start: with several, the last digits of sums
# depend on what else the machine does, and a resumed run is compared bit for bit. Said before
# numpy and torch are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Products of int8 numbers are not the same on every processor: without VNNI sums of two saturate,
# and the beams of a caption part elsewhere. Goldens are of the processor that most have.
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("CT2_FORCE_CPU_ISA", "AVX2")
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

# A busy machine is no bug: no example is refused for its time.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Ends what a failed test has started."""
    yield
    kill_leftovers()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def example_clips() -> list[Path]:
    """The synthetic example clips, by name."""
    clips = sorted((ROOT / "examples" / "clips").glob("*.ogg"))
    assert clips, "examples/clips is empty: make clips"
    return clips


@pytest.fixture(scope="session")
def speech_data() -> Path:
    """The folder of real recordings beside the repository; the test is skipped without it."""
    folder = ROOT.parent / "shared" / "data" / "speech"
    if not folder.is_dir():
        pytest.skip("needs the recordings of ../shared/data/speech")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator["PreferenceStore"]:
    """An empty store of preferences."""
    from aligncap.preference.store import PreferenceStore

    with PreferenceStore(tmp_path / "s.sqlite") as opened:
        yield opened
