"""The files for language models: each page of the site in Markdown, and the list of them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("markdownify", reason="needs the docs group: uv sync --inexact --group docs")

from tests.cookbook.recipes import RECIPES
from tests.docs.snippets import ROOT
from tools.search_boost import CONTRIBUTORS

FILES = [path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")]
SOURCES = sorted([*FILES, *(recipe.page for recipe in RECIPES)])
CHANGELOG = "internals/changelog.md"
SITE_TIMEOUT = 900


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as readers see it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, timeout=SITE_TIMEOUT, check=True)
    return folder


@pytest.mark.exhaustive
@pytest.mark.timeout(SITE_TIMEOUT)
def test_every_page_has_a_twin_and_is_listed_in_the_order_of_the_navigation(site: Path) -> None:
    listed = re.findall(r"^- \[.+\]\((.+\.md)\): \S.*$", (site / "llms.txt").read_text(encoding="utf-8"), re.MULTILINE)
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    navigation = re.findall(r": (\S+\.md)$", menu, re.MULTILINE)
    assert listed == navigation
    assert sorted(listed) == [path for path in SOURCES if path == CHANGELOG or not path.startswith(CONTRIBUTORS)]
    twins = [(site / path).read_text(encoding="utf-8") for path in listed]
    left = re.compile(r"^:::|--8<--|&para;|¶", re.MULTILINE)
    assert [twin for twin in twins if not twin.startswith("# ") or left.search(twin)] == []
    whole = (site / "llms-full.txt").read_text(encoding="utf-8")
    assert re.findall(r"^<!-- (\S+\.md) -->$", whole, re.MULTILINE) == listed
    assert all(twin in whole for twin in twins)


@pytest.mark.exhaustive
@pytest.mark.timeout(SITE_TIMEOUT)
@pytest.mark.parametrize(
    ("page", "part"),
    [
        ("langchain/streaming.md", "\nThe| capital| of| France|"),
        ("recipes/langchain_tools.md", "def pier("),
        ("reference/langchain/ChatLMStudio.md", "### `ttl` `float | None = None`\n\n"),
        (CHANGELOG, "# Changelog\n"),
        ("tools/testing.md", "runs-on: "),
    ],
)
def test_a_twin_has_what_the_page_shows(site: Path, page: str, part: str) -> None:
    assert part in (site / page).read_text(encoding="utf-8")


@pytest.mark.exhaustive
@pytest.mark.timeout(SITE_TIMEOUT)
def test_a_recipe_page_links_the_file_that_it_shows(site: Path) -> None:
    page = (site / "recipes/langchain_tools/index.html").read_text(encoding="utf-8")
    assert '<a href="../../cookbook/langchain_tools.py" download>' in page
    source = (ROOT / "cookbook/langchain_tools.py").read_bytes()
    assert (site / "cookbook/langchain_tools.py").read_bytes() == source


@pytest.mark.exhaustive
@pytest.mark.timeout(SITE_TIMEOUT)
def test_the_search_finds_every_recipe(site: Path) -> None:
    index = json.loads((site / "search/search_index.json").read_text(encoding="utf-8"))
    found = {entry["location"] for entry in index["docs"] if entry["text"]}
    assert {f"recipes/{recipe.name}/" for recipe in RECIPES} <= found
