"""Runs recipes in tests: as parameters, on servers that several of them share."""

import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lmstudio_integrations.emulator import Catalog, Emulator
from tests.cookbook.recipes import RECIPES, TIMEOUT, Recipe, copy_cookbook, run

patient = pytest.mark.timeout(2 * TIMEOUT)
"""For tests that run recipes: their imports take seconds, on a busy machine many."""


def parameters() -> list[Any]:
    """Return the recipes as parameters."""
    return [
        pytest.param(recipe, id=recipe.name, marks=pytest.mark.skipif(bool(recipe.missing), reason=recipe.missing))
        for recipe in RECIPES
    ]


class Servers:
    """Servers that run until the end of a module: one for each set of loaded models, so that each is loaded once."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._running: dict[tuple[str, ...], Emulator] = {}

    def with_models(self, catalog: Catalog, keys: tuple[str, ...]) -> Emulator:
        """Return a server with these models of a catalog loaded, and no others."""
        server = self._running.get(keys)
        if server is None or sorted(each.identifier for each in server.loaded()) != sorted(keys):
            server = self._running[keys] = self._stack.enter_context(Emulator(catalog=catalog, load=keys))
        return server


Runner = Callable[[Recipe, Path, str], "subprocess.CompletedProcess[str]"]
"""Runs a recipe in a copy of the cookbook, on the server of an address."""


def check_run(recipe: Recipe, server: Emulator, folder: Path, runner: Runner = run) -> None:
    """Run a recipe on a server; check that it succeeds, prints something, and warns of nothing."""
    before = len(server.predictions) + len(server.embedded_texts)
    done = runner(recipe, copy_cookbook(folder), server.address)
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.strip()
    assert len(server.predictions) + len(server.embedded_texts) > before, "the recipe did not use this server"
