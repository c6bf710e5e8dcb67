"""Pages for people: links and paths lead somewhere, and lines are short enough to be read as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import __version__
from tests.unit.generated import ROOT

WIDTH = 120
ROOT_PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
PAGES = (*ROOT_PAGES, "docs/*.md", "benchmarks/**/*.md", "app/**/*.md", "reranker/**/*.md", "tests/*/README.md")
HISTORY = {"CHANGELOG.md", "docs/decisions.md"}
"""They also name what is not there any more."""
MADE_BY_USERS = {"docker/.env"}
FOLDERS = "app|reranker|tests|benchmarks|docs|docker|mappings|pipelines"
PATH = re.compile(rf"(?<![\w./<-])((?:{FOLDERS})/[\w./*<>-]*[\w/*>])")
LINK = re.compile(r"\]\(([^()\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def pages() -> list[str]:
    found = [page for pattern in PAGES for page in ROOT.glob(pattern)]
    return sorted(str(page.relative_to(ROOT)) for page in found)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing_paths(text: str) -> Iterator[str]:
    for path in PATH.findall(text):
        pattern = re.sub(r"<[^>]*>", "*", path)
        named = (ROOT / path, ROOT / f"{path}.py")  # a benchmark goes by its name
        if not any(file.exists() for file in named) and not any(ROOT.glob(pattern)) and path not in MADE_BY_USERS:
            yield path


@pytest.mark.parametrize("name", pages())
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", [name for name in pages() if name not in HISTORY])
def test_paths_exist(name: str) -> None:
    assert list(missing_paths((ROOT / name).read_text())) == []


def test_the_stores_page_names_files_and_functions_that_exist() -> None:
    store = ROOT / "app" / "store"
    named = re.findall(r"`(\w+\.py)`(?: \(`([\w.]+)`\))?", (store / "README.md").read_text())
    assert len(named) > 20
    for file, function in named:
        assert function.rpartition(".")[2] in (store / file).read_text(), (file, function)


@pytest.mark.parametrize("name", pages())
def test_lines_are_short_save_those_of_tables(name: str) -> None:
    long = [
        f"{name}:{number}"
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        if len(line) > WIDTH and not line.startswith("|")
    ]
    assert long == []


def test_the_changelog_begins_with_this_version_and_goes_back_in_time() -> None:
    found = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [
        re.fullmatch(r"(\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)", title) for title in found if title != "Unreleased"
    ]
    assert all(released)
    versions = [(tuple(map(int, match[1].split("."))), match[2]) for match in released if match]
    assert ".".join(map(str, versions[0][0])) == __version__
    assert versions == sorted(versions, reverse=True)
