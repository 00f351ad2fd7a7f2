"""Runs recipes in tests: as parameters, on a server that they share."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.models.catalog import BUNDLED
from tests.cookbook.recipes import RECIPES, TIMEOUT, Recipe, copy_cookbook, run
from tools.outputs import normalize
from tools.recipe_pages import printed

patient = pytest.mark.timeout(2 * TIMEOUT)
"""For tests that run recipes: their imports take seconds, on a busy machine many."""


def parameters() -> list[Any]:
    """Return the recipes as parameters."""
    return [
        pytest.param(recipe, id=recipe.name, marks=pytest.mark.skipif(bool(recipe.missing), reason=recipe.missing))
        for recipe in RECIPES
    ]


Runner = Callable[[Recipe, Path, str], "subprocess.CompletedProcess[str]"]
"""Runs a recipe in a copy of the cookbook, on the server of an address."""


def check_run(recipe: Recipe, server: Emulator, folder: Path, runner: Runner = run) -> None:
    """Run a recipe on a server; check that it succeeds, prints what its page shows, and warns of nothing."""
    before = len(server.predictions) + len(server.embedded_texts)
    done = runner(recipe, copy_cookbook(folder), server.address)
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.strip()
    assert len(server.predictions) + len(server.embedded_texts) > before, "the recipe did not use this server"
    if not BUNDLED.keys() & {*recipe.models}:  # the server has scripted models in place of those
        assert lines(done.stdout) == lines("".join(printed(recipe)))


def lines(output: str) -> list[str]:
    """Return the lines of an output; tools that run at once print theirs in any order."""
    return sorted(line for line in normalize(output).splitlines() if line)
