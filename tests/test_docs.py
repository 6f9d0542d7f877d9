"""What the pages of the documentation point to is there: files, headings, commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *DOCS.glob("*.md"),
        *(ROOT / "deploy").rglob("*.md"),
        ROOT / "examples" / "README.md",
    ]
)
MAKEFILE = (ROOT / "Makefile").read_text()
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors that forges make of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)]+)\)", prose(page))
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} is not there"
        if anchor:
            assert anchor in anchors(target), f"{target} has no heading for #{anchor}"


@every_page
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"(?:`|^|&& )make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert named <= targets


@every_page
def test_every_file_that_is_named_exists(page: Path) -> None:
    """A file that moves takes its name in the documentation along."""
    named = re.findall(
        r"`((?:app|tests|trials|benchmarks|deploy|docs|examples)/[^`\s:]*)", prose(page)
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


DEPLOYED = [ROOT / "Dockerfile", ROOT / "compose.yaml", *(ROOT / "deploy").rglob("*.*")]


@pytest.mark.parametrize("path", [*PAGES, *DEPLOYED], ids=lambda page: str(page.relative_to(ROOT)))
def test_the_command_is_called_lantern(path: Path) -> None:
    """Flask's own is shown for its development server alone."""
    assert not re.search(r"flask --app wsgi (?!run\b)", path.read_text(errors="replace"))


def test_the_index_has_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)\)", (DOCS / "index.md").read_text()))
    pages = {page.name for page in DOCS.glob("*.md")} - {"index.md"}
    top = {f"../{name}" for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")}
    assert pages | top <= linked


def test_the_readme_links_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()))
    assert {f"docs/{page.name}" for page in DOCS.glob("*.md")} <= linked
    assert {"LICENSE", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"} <= linked


def test_what_runs_before_a_commit_is_what_make_lint_runs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    [repository] = config["repos"]
    [hook] = repository["hooks"]
    assert repository["repo"] == "local"
    assert hook["entry"] == "make lint"
    assert hook["pass_filenames"] is False


def test_the_changelog_begins_with_this_version() -> None:
    from app import __version__

    text = (ROOT / "CHANGELOG.md").read_text()
    [first, *_] = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert first in ("Unreleased", __version__)
    if first == "Unreleased":
        assert __version__ in text.partition("## [Unreleased]")[2]
