"""Every recipe runs, and its own assertions pass: with the models of the catalog, and with models of other names."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lmstudio_integrations.emulator import Catalog, Emulator
from tests.cookbook.recipes import CATALOG, RECIPES, Recipe, copy_cookbook, other_key, renamed, run

RUN = [pytest.param(each, id=each.name) for each in RECIPES]
MARKED = [pytest.param(each, id=each.name, marks=[pytest.mark.real_model] if each.is_real else []) for each in RECIPES]


class Servers:
    """Servers that run until the end of a module: one for each set of loaded models, so that each is loaded once."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._running: dict[tuple[str, ...], Emulator] = {}

    def with_models(self, catalog: Catalog, keys: tuple[str, ...]) -> Emulator:
        """Return a server with these models and no others loaded."""
        server = self._running.get(keys)
        if server is None or sorted(each.identifier for each in server.loaded()) != sorted(keys):
            server = self._running[keys] = self._stack.enter_context(Emulator(catalog=catalog, load=keys))
        return server


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """The servers of this module."""
    with ExitStack() as stack:
        yield Servers(stack)


def check(recipe: Recipe, server: Emulator, folder: Path) -> None:
    """Run a recipe on a server; check that it succeeds, prints something, and warns of nothing."""
    if recipe.missing:
        pytest.skip(recipe.missing)
    before = len(server.predictions) + len(server.embedded_texts)
    done = run(recipe, copy_cookbook(folder), server.address)
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.strip()
    assert len(server.predictions) + len(server.embedded_texts) > before, "the recipe did not use this server"


@pytest.mark.parametrize("recipe", MARKED)
def test_a_recipe_runs(recipe: Recipe, servers: Servers, tmp_path: Path) -> None:
    check(recipe, servers.with_models(CATALOG, recipe.models), tmp_path)


@pytest.mark.parametrize("recipe", RUN)
def test_a_recipe_runs_on_models_with_other_names(recipe: Recipe, servers: Servers, tmp_path: Path) -> None:
    keys = tuple(map(other_key, recipe.models))
    check(recipe, servers.with_models(renamed(CATALOG), keys), tmp_path)


@pytest.mark.live
@pytest.mark.timeout(600)
@pytest.mark.parametrize("recipe", RUN)
def test_a_recipe_runs_on_lm_studio(recipe: Recipe, tmp_path: Path) -> None:
    """Uses the models that are loaded; a recipe that needs another one says so, and is skipped."""
    if recipe.missing:
        pytest.skip(recipe.missing)
    done = run(recipe, copy_cookbook(tmp_path), host=None, timeout=600)
    if done.stderr.startswith("This recipe needs"):
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
