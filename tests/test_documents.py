"""What the documents name is there."""

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [DOCS / "paper.md", ROOT / "CONTRIBUTING.md", *sorted((DOCS / "decisions").glob("*.md"))]
MANUALS = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def identity(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_every_file_named_exists(page: Path, repository: Path) -> None:
    text = page.read_text("utf-8")
    named = set(re.findall(r"`((?:src|tests|recipes|docs)/[^`\s]+)`", text))
    assert [name for name in sorted(named) if not (repository / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_every_module_or_function_named_exists(page: Path) -> None:
    for name in set(re.findall(r"`(aligncap(?:\.\w+)+)`", page.read_text("utf-8"))):
        try:
            import_module(name)
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition(".")
            assert hasattr(import_module(module), attribute), name


@pytest.mark.parametrize("page", MANUALS, ids=identity)
def test_every_import_of_an_example_works(page: Path) -> None:
    imports = r"^from (aligncap[\w.]*) import (.+)$"
    for module, names in re.findall(imports, page.read_text("utf-8"), re.MULTILINE):
        found = import_module(module)
        assert [name for name in names.split(", ") if not hasattr(found, name)] == [], module


def test_every_function_of_the_paper_is_in_its_file() -> None:
    text = (DOCS / "paper.md").read_text("utf-8")
    cited = re.findall(r"`src/([\w/]+)\.py` \(((?:`[\w.]+`(?:, )?)+)\)", text)
    assert len(cited) > 10
    for path, names in cited:
        for name in re.findall(r"`([\w.]+)`", names):
            found = import_module(path.replace("/", "."))
            for part in name.split("."):
                found = getattr(found, part)


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
    assert len(pages) == 13
    assert [name for name in pages if f"({name})" not in listed] == []
