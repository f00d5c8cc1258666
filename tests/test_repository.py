"""What a visitor of the repository finds: links that lead somewhere, clips as the script says."""

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from aligncap.audio import load, speech_activity

PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "src/aligncap/models"]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


@pytest.fixture(scope="module")
def make_clips(repository: Path) -> ModuleType:
    """The script of the example clips."""
    script = repository / "examples" / "make_clips.py"
    spec = importlib.util.spec_from_file_location("make_clips", script)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["make_clips"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def pages(repository: Path) -> list[Path]:
    named = [repository / name for name in PAGES]
    return [
        page for place in named for page in ([place] if place.is_file() else place.rglob("*.md"))
    ]


def test_links_lead_somewhere(repository: Path) -> None:
    links = [(page, link) for page in pages(repository) for link in LINK.findall(page.read_text())]
    assert len(links) > 5
    assert [f"{page}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def test_no_page_names_a_place_on_one_machine(repository: Path) -> None:
    home = re.compile(r"(?<![\w./])/(home|root|work|tmp|Users)/")
    assert [str(page) for page in pages(repository) if home.search(page.read_text())] == []


def test_the_clips_are_those_of_the_script(make_clips: ModuleType, example_clips) -> None:
    assert {clip.stem for clip in example_clips} == {clip.name for clip in make_clips.EXAMPLES}
    assert sum(clip.stat().st_size for clip in example_clips) < 600_000


def test_somebody_speaks_in_every_clip(example_clips: list[Path]) -> None:
    assert [clip.stem for clip in example_clips if not speech_activity(load(clip))] == []


def test_making_a_clip_again_gives_its_like(make_clips: ModuleType, example_clips) -> None:
    if shutil.which("espeak-ng") is None:
        pytest.skip("needs espeak-ng, which makes the example clips")
    clip = next(clip for clip in make_clips.EXAMPLES if clip.name == "man-halting")
    samples, rate_hz = make_clips.render(clip)
    stored = load(next(file for file in example_clips if file.stem == clip.name))
    assert len(samples) / rate_hz == pytest.approx(stored.duration_s, rel=0.1)
