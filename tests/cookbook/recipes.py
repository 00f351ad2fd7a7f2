"""The recipes in `cookbook/`: which models each of them needs, and how it is run.

The tests use it, and `tools.recipe_pages`.
"""

import os
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from lmstudio_integrations.emulator import Catalog
from lmstudio_integrations.emulator.models.catalog import BUNDLED, load, parse_model
from tools import outputs

COOKBOOK = outputs.CATALOG.parent
OUTPUTS = ("output", "__pycache__", ".ipynb_checkpoints")
"""What earlier runs have written into the folder."""

CHAT, EMBEDDING = BUNDLED
TOOLS = "qwen/qwen3-4b"
AGENT = "qwen/qwen3-8b"
VISION = "google/gemma-3-4b"
VISION_TOOLS = "qwen/qwen3-vl-4b"
LARGE = "qwen/qwen3-14b"
SLOW = "google/gemma-3-12b"
FAST = "qwen/qwen3-1.7b"
FASTER = "google/gemma-3-1b"
SQL = "openai/gpt-oss-20b"
DEEP = "qwen/qwen3-30b-a3b"
FILES = "qwen/qwen3-4b-2507"
FILES_EMULATOR = "servers/files_emulator.py"

TIMEOUT = 600
"""Seconds for one run."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe, and what it needs.

    Attributes:
        name: Its file is `cookbook/<name>.py`.
        models: The keys of the catalog's models that are loaded before it runs.
        program: Whether it is a program, and not a notebook.
        packages: What it needs besides the extra `all`: packages of the group `cookbook`. Its page names them.
        files: Its other files, in `cookbook/`; the page of a program shows them.
        emulator: The program that starts its emulator, in `cookbook/`, if that is not `serve`.
    """

    name: str
    models: tuple[str, ...] = (CHAT,)
    program: bool = False
    packages: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    emulator: str = ""

    @property
    def path(self) -> Path:
        """The file."""
        return COOKBOOK / f"{self.name}.py"

    @property
    def sources(self) -> dict[str, str]:
        """The texts of all of its files, by name; the recipe itself is the first."""
        names = (self.path.name, *self.files)
        return {name: (COOKBOOK / name).read_text(encoding="utf-8") for name in names}

    @property
    def missing(self) -> str:
        """Why it cannot run here; empty if it can."""
        missing = [name for name in self.packages if not is_installed(name)]
        return f"needs {', '.join(missing)}: run `uv sync --inexact --group cookbook`" if missing else ""


RECIPES = (
    Recipe("langchain_chain"),
    Recipe("langchain_retrieval", models=(CHAT, EMBEDDING)),
    Recipe(
        "langchain_rag_chroma",
        models=(CHAT, EMBEDDING),
        packages=("chromadb", "langchain-chroma", "langchain-text-splitters", "pypdf"),
    ),
    Recipe("langchain_streaming"),
    Recipe("langchain_tools", models=(TOOLS,)),
    Recipe("langchain_pydantic_tools", models=(SQL,)),
    Recipe("langchain_agent", models=(TOOLS,)),
    Recipe("langchain_sql", models=(SQL,)),
    Recipe("langchain_long_agent", models=(TOOLS,)),
    Recipe(
        "langchain_mcp",
        models=(AGENT,),
        program=True,
        packages=("langchain-mcp-adapters", "mcp"),
        files=("servers/mcp_server.py",),
    ),
    Recipe(
        "langchain_lm_studio_tools",
        models=(FILES,),
        files=(FILES_EMULATOR,),
        emulator=FILES_EMULATOR,
    ),
    Recipe("langgraph_memory", models=(AGENT,)),
    Recipe(
        "fastapi_chat",
        models=(AGENT,),
        program=True,
        packages=("fastapi", "uvicorn"),
    ),
    Recipe("gradio_chat", models=(AGENT, EMBEDDING), program=True, packages=("fastapi", "gradio")),
    Recipe("langchain_extraction"),
    Recipe("langchain_unsure_fields"),
    Recipe("langchain_cascade", models=(CHAT, SLOW)),
    Recipe("langchain_reasoning", models=(TOOLS,)),
    Recipe("langchain_images", models=(VISION,)),
    Recipe("langchain_models"),
    Recipe("langchain_fit_memory"),
    Recipe("llama_index_query", models=(CHAT, EMBEDDING)),
    Recipe(
        "llama_index_qdrant_ingestion",
        models=(EMBEDDING,),
        packages=("llama-index-vector-stores-qdrant", "qdrant-client"),
    ),
    Recipe("llama_index_agent", models=(TOOLS,), program=True),
    Recipe(
        "llama_index_lm_studio_tools",
        models=(FILES,),
        program=True,
        files=(FILES_EMULATOR,),
        emulator=FILES_EMULATOR,
    ),
    Recipe("llama_index_extraction"),
    Recipe("langchain_reranking", models=(LARGE, EMBEDDING), packages=("bm25s",)),
    Recipe("llama_index_citations", models=(LARGE, EMBEDDING)),
    Recipe("langchain_summary", models=(LARGE,), packages=("langchain-text-splitters",)),
    Recipe("langchain_classification", models=(LARGE,)),
    Recipe("langchain_evaluation", models=(FAST, LARGE)),
    Recipe("langchain_tracing", packages=("openinference-instrumentation-langchain", "opentelemetry-sdk")),
    Recipe("compare_models", models=(FAST, FASTER), packages=("ipython", "matplotlib")),
    Recipe("langchain_several_hosts"),
    Recipe("langchain_tool_images", models=(VISION_TOOLS,)),
    Recipe("deep_agent", models=(DEEP,), packages=("deepagents",)),
)


PLUGINS = Catalog.parse({"plugin": runpy.run_path(str(COOKBOOK / FILES_EMULATOR))["PLUGINS"]})
CATALOG = load(outputs.CATALOG).extended(PLUGINS)
"""The models of the cookbook, and the plugins of its emulators."""


def is_installed(package: str) -> bool:
    """Whether a package is installed."""
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def recipe_of(name: str) -> Recipe:
    """Return the recipe of a name."""
    return next(recipe for recipe in RECIPES if recipe.name == name)


def renamed(catalog: Catalog) -> Catalog:
    """Return the same models under other keys, as fast as can be: scripted ones for those with weights, and no pace."""
    entries = (parse_model(entry.key, scripted=True) if entry.weights else entry for entry in catalog.models)
    models = tuple(
        entry.model_copy(update={"key": other_key(entry.key), "tokens_per_second": None}) for entry in entries
    )
    return Catalog(models=models, presets=catalog.presets, plugins=catalog.plugins)


def other_key(key: str) -> str:
    """Return the key of a model in the renamed catalog."""
    return f"acme/{key.rpartition('/')[2]}-x"


def copy_cookbook(folder: Path) -> Path:
    """Copy the recipes and their data into a folder, so that what a recipe writes is not kept."""
    return Path(shutil.copytree(COOKBOOK, folder / "cookbook", ignore=shutil.ignore_patterns(*OUTPUTS)))


def environment(host: str | None) -> dict[str, str]:
    """Return the environment of a recipe; without a host, that of this process."""
    if host is None:
        return dict(os.environ)
    return {**outputs.environment(host), "PYTHONIOENCODING": "utf-8"}


def run(recipe: Recipe, folder: Path, host: str | None, timeout: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
    """Run a recipe as a process in a copy of the cookbook; warnings are errors."""
    return subprocess.run(
        [sys.executable, *outputs.WARNINGS, recipe.path.name],
        cwd=folder,
        env=environment(host),
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )
