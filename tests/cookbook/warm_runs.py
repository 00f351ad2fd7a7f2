"""Runs recipes in processes that have the frameworks imported already, which saves seconds for each recipe.

`multiprocessing` forks them from a server that imports the frameworks once. Where it cannot fork, as on Windows, each
process imports them itself. What a plain process would notice, such as a warning at an import, `recipes.run` notices.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

from tests.cookbook.recipes import TIMEOUT, Recipe, environment

if sys.platform == "win32":
    CONTEXT = multiprocessing.get_context("spawn")
else:
    CONTEXT = multiprocessing.get_context("forkserver")
IMPORTED = ("langchain.agents", "langchain_core.vectorstores", "llama_index.core", "tests.cookbook.warm_runs")
"""What takes long to import. Importing it starts no thread, so the process can be forked."""


def run_warm(recipe: Recipe, folder: Path, host: str) -> subprocess.CompletedProcess[str]:
    """Run a recipe in a copy of the cookbook, as `recipes.run` does."""
    CONTEXT.set_forkserver_preload(list(IMPORTED))
    outputs = [folder / "stdout", folder / "stderr"]
    process = CONTEXT.Process(target=_run, args=(recipe.path.name, folder, outputs, environment(host)))
    process.start()
    process.join(TIMEOUT)
    process.kill()  # if it still runs
    process.join()
    stdout, stderr = (path.read_text(encoding="utf-8") for path in outputs)
    return subprocess.CompletedProcess(recipe.name, process.exitcode or 0, stdout, stderr)


def _run(name: str, folder: Path, outputs: list[Path], variables: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.stdout, sys.stderr = (path.open("w", encoding="utf-8") for path in outputs)
    sys.argv = [name]
    sys.path.insert(0, str(folder))
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.filterwarnings("ignore", "unclosed database", ResourceWarning)  # of qdrant-client, since Python 3.13
    runpy.run_path(name, run_name="__main__")
