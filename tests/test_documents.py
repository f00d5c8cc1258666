"""What the documents name is there, and the example clips are what their script says."""

import re
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from aligncap.audio import load, speech_activity
from support.scripts import ROOT, load_script

DOCS = ROOT / "docs"
PAGES = [DOCS / "paper.md", ROOT / "CONTRIBUTING.md", *sorted((DOCS / "decisions").glob("*.md"))]
MANUALS = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
PUBLIC = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PUBLIC += [*DOCS.rglob("*.md"), *(ROOT / "src" / "aligncap" / "models").rglob("*.md")]


def identity(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def found_at(dotted: str) -> object:
    """A module, or what a module has under a name."""
    try:
        return import_module(dotted)
    except ModuleNotFoundError:
        module, _, name = dotted.rpartition(".")
        return getattr(found_at(module), name)


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_every_file_module_and_function_named_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    named = set(re.findall(r"`((?:src|tests|recipes|docs)/[^`\s]+)`", text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    for name in set(re.findall(r"`(aligncap(?:\.\w+)+)`", text)):
        found_at(name)


@pytest.mark.parametrize("page", MANUALS, ids=identity)
def test_every_import_of_an_example_works(page: Path) -> None:
    imports = r"^from (aligncap[\w.]*) import (.+)$"
    for module, names in re.findall(imports, page.read_text("utf-8"), re.MULTILINE):
        found = import_module(module)
        assert [name for name in names.split(", ") if not hasattr(found, name)] == [], module


def test_links_lead_somewhere_and_no_page_names_a_place_on_one_machine() -> None:
    links = re.compile(r"\]\((?!https?:|#)([^)#:]+)")
    found = [(page, link) for page in PUBLIC for link in links.findall(page.read_text("utf-8"))]
    assert len(found) > 5
    assert [f"{page}: {link}" for page, link in found if not (page.parent / link).exists()] == []
    home = re.compile(r"(?<![\w./])/(home|root|work|tmp|Users)/")
    assert [str(page) for page in PUBLIC if home.search(page.read_text("utf-8"))] == []


def test_every_function_of_the_paper_is_in_its_file() -> None:
    text = (DOCS / "paper.md").read_text("utf-8")
    cited = re.findall(r"`src/([\w/]+)\.py` \(((?:`[\w.]+`(?:, )?)+)\)", text)
    assert len(cited) > 10
    for path, names in cited:
        for name in re.findall(r"`([\w.]+)`", names):
            found_at(f"{path.replace('/', '.')}.{name}")


def test_the_table_of_the_paper_has_a_test_for_all_code() -> None:
    lines = (DOCS / "paper.md").read_text("utf-8").splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("| ")]
    equations = [row[0].strip() for row in rows if row[0].strip().startswith("Eq. ")]
    assert equations == [f"Eq. {number}" for number in range(1, 7)]
    for row in rows:
        assert ("`src/" in row[2] or "`recipes/" in row[2]) == ("`tests/" in row[3]), row[0]


def test_every_decision_is_in_the_list() -> None:
    listed = (DOCS / "decisions" / "README.md").read_text("utf-8")
    pages = [page.name for page in (DOCS / "decisions").glob("[0-9]*.md")]
    assert len(pages) == 14
    assert [name for name in pages if f"({name})" not in listed] == []


@pytest.fixture(scope="module")
def make_clips() -> Any:
    return load_script("examples/make_clips.py")


def test_the_clips_are_those_of_the_script_and_somebody_speaks(make_clips, example_clips) -> None:
    assert {clip.stem for clip in example_clips} == {clip.name for clip in make_clips.EXAMPLES}
    assert sum(clip.stat().st_size for clip in example_clips) < 600_000
    assert [clip.stem for clip in example_clips if not speech_activity(load(clip))] == []


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")
def test_making_a_clip_again_gives_its_like(make_clips, example_clips) -> None:
    clip = next(clip for clip in make_clips.EXAMPLES if clip.name == "man-halting")
    samples, rate_hz = make_clips.render(clip)
    stored = load(next(file for file in example_clips if file.stem == clip.name))
    assert len(samples) / rate_hz == pytest.approx(stored.duration_s, rel=0.1)
