"""What the pages name exists: files, folders, identifiers, modules that run."""

import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

from lmstudio_integrations.client.models.loading import DEFAULT_TTL
from lmstudio_integrations.client.support.arguments import TIMEOUTS
from lmstudio_integrations.client.transport.connect.addresses import DEFAULT_PORT
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings
from lmstudio_integrations.protocol.endpoints import ENDPOINTS, Rpc
from lmstudio_integrations.types.timeouts import ModelTimeouts
from tests.cookbook.recipes import RECIPES
from tests.docs.snippets import blocks, docstrings, read
from tests.test_package import NAME
from tools import recipe_pages

ROOT = Path(__file__).parents[2]
GENERATED = {"protocol.md", "changelog.md", "other-packages.md"}
"""The specification and the page on other packages name what others have; the changelog includes another page."""

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in (
        "*.md",
        "cookbook/*.md",
        "docs/*.md",
        "docs/guides/*.md",
        "docs/internals/**/*.md",
        "docs/langchain/*.md",
        "docs/llama-index/*.md",
        "docs/tools/*.md",
        "tools/*.md",
    )
    for path in ROOT.glob(pattern)
    if path.name not in GENERATED and path.name != "CHANGELOG.md"
)
RECIPE_PAGES = {f"docs/{recipe.page}": recipe for recipe in RECIPES}
"""The pages that exist only on the site."""

CODE = (
    *(f"{folder}/**/*.py" for folder in ("lmstudio_integrations", "tests", "tools", "benchmarks")),
    "cookbook/*",
    "pyproject.toml",
    "mkdocs.yml",
)

GUIDE = re.compile("docs/(guides|langchain|llama-index)/")
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"^```python$(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
PATH = re.compile(r"[\w.<>-]*(?:/[\w.<>-]+)*(?:\.(?:py|md|toml|mmd|svg)|/)")
IDENTIFIER = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*)(?:\(.*\))?")
LINK = re.compile(r"(?:\]\(|^\[[^\]]+\]: )(?!https?://|#)([^)#\s]+)", re.MULTILINE)
COMMAND_PAGES = [f"docs/tools/{name}.md" for name in ("cli", "emulator", "catalog", "cassettes", "faults", "testing")]
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
COMMAND = re.compile(r"python -m ((?:tests|tools|benchmarks)[.\w]*)")

FOREIGN = {
    "LMS_SERVER_HOST": "a variable of LM Studio's command line",
    "LANGSMITH_HIDE_INPUTS": "a variable of LangSmith",
    "LANGSMITH_HIDE_OUTPUTS": "a variable of LangSmith",
    "OLLAMA_HOST": "a variable of Ollama",
    "OllamaLLM": "a class of langchain-ollama",
    "OpenAIDecisions": "a class of langchain-openai",
    "as_chat_engine": "a method of LlamaIndex's indices",
    "max_iterations": "an argument of LlamaIndex's agents",
    "recursion_limit": "a setting of LangGraph",
    "write_stream": "a function of streamlit",
}
"""Names in the pages that nothing here contains, and what they are."""


def text_of(page: str) -> str:
    """Return the text of a page."""
    return recipe_pages.render(RECIPE_PAGES[page]) if page in RECIPE_PAGES else read(page)


def spans(page: str) -> Iterator[str]:
    """Yield what a page has in backticks, without its code blocks."""
    for span in SPAN.findall(FENCE.sub("", text_of(page))):
        yield " ".join(span.split())


@cache
def files() -> str:
    """Return every file and folder below the root, each on a line that begins with a slash."""
    folders = (NAME, "tests", "docs", "cookbook", "tools", "benchmarks", ".ci", ".github")
    paths = [*ROOT.iterdir(), *(path for name in folders for path in (ROOT / name).rglob("*"))]
    return "".join(f"/{path.relative_to(ROOT).as_posix()}\n" for path in paths)


def exists(path: str) -> bool:
    """Whether a path of a page exists, from the root or from any folder below it; `<name>` stands for any name."""
    pattern = re.sub(r"<\w+>|\*", r"[^/\n]*", path.strip("/").replace(".", r"\."))
    return re.search(f"/{pattern}\n", files()) is not None


def known_words() -> set[str]:
    files = (path for pattern in CODE for path in ROOT.glob(pattern) if path.is_file())
    return {
        word
        for path in files
        if path != Path(__file__) and path.parent.parent.name != "neighbours"  # those are full of names of others
        for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))
    }


@cache
def words_in_programs(page: str) -> set[str]:
    """Return the words in the programs on a page of the site, which `tests/cookbook` runs."""
    if not page.startswith("docs/"):
        return set()
    return set(re.findall(r"\w+", " ".join(PROGRAM.findall(text_of(page)))))


def test_every_path_on_a_page_exists() -> None:
    named = [(page, span) for page in (*PAGES, *RECIPE_PAGES) for span in spans(page) if PATH.fullmatch(span)]
    assert [(page, span) for page, span in named if not exists(span)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if GUIDE.match(page) and PROGRAM.search(read(page))])
def test_a_guide_with_programs_begins_with_what_they_need(page: str) -> None:
    assert (
        read(page).partition("# ")[2].split("\n\n")[1].startswith("*[The programs here](../tools/emulator.md#pages) ")
    )


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_the_links_of_a_page_lead_somewhere_in_the_repository(page: str) -> None:
    """As whoever reads it there follows them; those of the site are checked when it is built."""
    targets = [(ROOT / page).parent / link for link in LINK.findall(FENCE.sub("", read(page)))]
    assert [target for target in targets if not target.exists()] == []


@pytest.mark.leaf("command_line")
@pytest.mark.parametrize("page", COMMAND_PAGES)
def test_the_commands_on_a_page_have_its_options(page: str) -> None:
    from lmstudio_integrations.cli._app import app

    group: Any = typer.main.get_group(app)
    options = {
        name: {each for param in group.get_command(None, name).params for each in param.opts} for name in group.commands
    }
    everywhere = {"--help", "--install-completion"}
    for name, used in re.findall(r"\blmsi (\w+)(.*)", "\n".join(blocks(page, "sh") + blocks(page, "yaml"))):
        assert set(OPTION.findall(used)) <= options[name], (name, used)
    named = {each for each in OPTION.findall(read(page)) if not each.startswith("--lmstudio-")}
    assert named <= everywhere.union(*options.values())


@pytest.mark.slow
def test_every_name_on_the_pages_exists() -> None:
    known = known_words()
    unknown = {
        word
        for page in (*PAGES, *RECIPE_PAGES)
        for span in spans(page)
        if not PATH.fullmatch(span) and (found := IDENTIFIER.fullmatch(span))
        for word in found[1].split(".")
        if word not in known and word not in words_in_programs(page)
    }
    assert unknown == FOREIGN.keys()


def test_every_module_that_a_page_runs_exists() -> None:
    named = [(page, module) for page in (*PAGES, *RECIPE_PAGES) for module in COMMAND.findall(text_of(page))]
    assert [(page, module) for page, module in named if find_spec(module) is None] == []


@pytest.mark.slow
def test_every_file_that_a_docstring_names_exists() -> None:
    named = {
        (str(path.relative_to(ROOT)), span)
        for path in sorted((ROOT / NAME).rglob("*.py"))
        for text, _ in docstrings(path)
        for span in re.findall(r"`([\w/]+\.py)`", text)
    }
    assert len(named) > 100, "the docstrings were not read"
    assert sorted((path, span) for path, span in named if not exists(span)) == []


def rows_of(header: str) -> Iterator[list[str]]:
    """Yield the cells of the rows of a table of the page on timeouts."""
    table = read("docs/guides/timeouts.md").split(f"\n{header}\n", 1)[1].split("\n\n", 1)[0]
    for row in table.splitlines()[1:]:
        yield [cell.strip() for cell in row.strip("|").split("|")]


def test_the_default_timeouts_on_the_page_and_in_descriptions_are_those_of_the_code() -> None:
    written = {name.strip("`"): default for name, default, _ in rows_of("| timeout | default | limits |")}
    assert written == {name: "none" if limit is None else f"{limit:g}" for name, limit in TIMEOUTS.items()}
    for name, limit in TIMEOUTS.items():
        stated = "No limit by default." if limit is None else f"The default is {limit:g};"
        assert stated in (ModelTimeouts.model_fields[name].description or ""), name


def test_the_page_on_timeouts_names_the_calls_that_wait_in_the_queue_of_a_model() -> None:
    called = {"tokenize": "`tokenize`", "countTokens": "`count_tokens`", "embedString": "embeddings"}
    of_all = [each for endpoints in ENDPOINTS.values() for each in endpoints.values() if isinstance(each, Rpc)]
    assert {each.name for each in of_all if each.timeout_name == "queue_timeout"} == called.keys()
    (limits,) = (row[2] for row in rows_of("| timeout | default | limits |") if row[0] == "`queue_timeout`")
    assert [name for name, words in called.items() if words not in limits] == []


def default(setting: str, make: Any = ChatLMStudio) -> Any:
    return make.model_fields[setting].default


STATED_DEFAULTS = (
    ("cookbook/langchain_several_hosts.py", f"`connect_timeout`, {TIMEOUTS['connect_timeout']:g} seconds unless"),
    ("docs/internals/reliability.md", f"with the defaults after {TIMEOUTS['keepalive']:g} seconds"),
    ("docs/guides/loading.md", f"or {'one hour' if DEFAULT_TTL == 60 * 60 else DEFAULT_TTL} under `explicit`"),
    ("docs/guides/loading.md", f"| `{default('load_policy')}`, the default for language models |"),
    ("docs/guides/loading.md", f"| `{default('load_policy', LMStudioEmbeddings)}`, the default for embeddings,"),
    ("docs/guides/loading.md", f"| both `{default('load_policy')}`, the default |"),
    ("docs/guides/remote-host.md", f"the port is {DEFAULT_PORT} by default"),
    ("docs/guides/reasoning.md", f'| `"{default("send_reasoning")}"`, the default |'),
)
"""What pages say of a default, as the code has it."""

OTHER_DEFAULTS = (
    "the port is 443 by default",  # of the protocol
    "`max_iterations` rounds, 20 by default",  # of LlamaIndex
)
"""Numbers that pages call a default, and that are none of ours."""

DEFAULT_NUMBER = re.compile(r"\d`?\)?,? (?:is )?(?:the|by) default|\bdefaults? (?:is|of|after|,)?[ `]*\d")


def test_a_page_states_the_defaults_that_the_code_has() -> None:
    assert [(page, text) for page, text in STATED_DEFAULTS if text not in " ".join(text_of(page).split())] == []


def test_every_number_that_a_page_calls_a_default_is_compared_with_the_code() -> None:
    compared = [*(statement for _, statement in STATED_DEFAULTS), *OTHER_DEFAULTS]
    lines = [(page, line) for page in PAGES for line in text_of(page).splitlines() if DEFAULT_NUMBER.search(line)]
    assert len(lines) > len(OTHER_DEFAULTS)
    assert [(page, line) for page, line in lines if not any(text in line for text in compared)] == []


def test_the_limits_of_a_chat_on_the_page_are_those_that_it_sends() -> None:
    limits = {call: (policy.strip("`"), tokens) for call, policy, tokens in rows_of("| call | policy | tokens |")}
    with Emulator([ModelEntry(key="m")]) as server:
        ChatLMStudio(model="m", host=server.address).invoke("q")
    (sent,) = server.predictions
    tokens = sent.config.get("maxTokens", "none")
    assert limits["`ChatLMStudio`, `LMStudioLLM`, LlamaIndex's `LMStudio`"] == (
        sent.config["contextOverflowPolicy"],
        str(tokens).strip("`"),
    )
