"""The recipes in `cookbook/`: which models each of them names, and how it is run.

The tests use it, and `tools.recipe_pages`.
"""

import os
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
OUTPUTS = ("output", "printed", "__pycache__", ".ipynb_checkpoints")
"""What earlier runs have written into the folder, or printed."""

CHAT, EMBEDDING = BUNDLED
TOOLS = "qwen/qwen3-4b"
VISION = "google/gemma-3-4b"
FAST = "qwen/qwen3-1.7b"
LARGE = "qwen/qwen3-14b"

TIMEOUT = 600
"""Seconds for one run."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe, and what it needs.

    Attributes:
        name: Its file is `cookbook/<name>.py`.
        models: The keys of the catalog's models that it names.
        program: Whether it is a program, and not a notebook.
        packages: What it needs besides the extra `all`: packages of the group `cookbook`. Its page names them.
        files: Its other files, in `cookbook/`; the page of a program shows them.
    """

    name: str
    models: tuple[str, ...] = (CHAT,)
    program: bool = False
    packages: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file."""
        return COOKBOOK / f"{self.name}.py"

    @property
    def page(self) -> str:
        """Its page on the site, from `docs/`; it is made when the site is built."""
        return f"recipes/{self.name}.md"

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
    Recipe("langchain_streaming"),
    Recipe("langchain_images", models=(VISION,)),
    Recipe("fastapi_chat", models=(TOOLS,), program=True, packages=("fastapi", "uvicorn")),
    Recipe("langchain_extraction"),
    Recipe(
        "langchain_rag_chroma",
        models=(CHAT, EMBEDDING),
        packages=("chromadb", "langchain-chroma", "langchain-text-splitters", "pypdf"),
    ),
    Recipe("llama_index_query", models=(CHAT, EMBEDDING)),
    Recipe(
        "llama_index_qdrant_ingestion",
        models=(EMBEDDING,),
        packages=("llama-index-vector-stores-qdrant", "qdrant-client"),
    ),
    Recipe("langchain_tools", models=(TOOLS,)),
    Recipe("langchain_agent", models=(TOOLS,)),
    Recipe("langchain_sql", models=(TOOLS,)),
    Recipe(
        "langchain_mcp",
        models=(TOOLS,),
        program=True,
        packages=("langchain-mcp-adapters", "mcp"),
        files=("servers/mcp_server.py",),
    ),
    Recipe("langgraph_memory", models=(TOOLS,)),
    Recipe("fastapi_agent", models=(TOOLS,), program=True, packages=("fastapi", "uvicorn")),
    Recipe("langchain_decisions", models=(FAST, LARGE)),
    Recipe("llama_index_agent", models=(TOOLS,), program=True),
    Recipe("native_model_check", models=(FAST,)),
    Recipe("langchain_several_hosts"),
    Recipe("langchain_evaluation", models=(FAST, LARGE)),
    Recipe("langchain_tracing", packages=("openinference-instrumentation-langchain", "opentelemetry-sdk")),
)

CATALOG = load(outputs.CATALOG)
"""The models of the recipes."""


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


def scripted(catalog: Catalog) -> Catalog:
    """Return the same models as fast as can be: scripted ones for those with weights, and no pace."""
    entries = (parse_model(entry.key, scripted=True) if entry.weights else entry for entry in catalog.models)
    return Catalog(models=tuple(entry.model_copy(update={"tokens_per_second": None}) for entry in entries))


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
