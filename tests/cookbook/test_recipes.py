"""Every recipe runs, on models that nothing in it names.

On the models of the catalog, the real ones included, `tools.recipe_pages` has run it: its page has the outputs.
"""

import re
import tomllib
from pathlib import Path

import pytest

from tests.cookbook.recipe_runs import Servers, check_run, parameters, patient
from tests.cookbook.recipes import (
    CATALOG,
    COOKBOOK,
    RECIPES,
    Recipe,
    copy_cookbook,
    other_key,
    renamed,
    run,
)
from tests.cookbook.warm_runs import run_warm
from tests.docs.snippets import read

IMPORT = re.compile(r"^(?:from|import) ([\w.]+)", re.MULTILINE)


def test_every_recipe_is_in_the_table() -> None:
    assert {path.stem for path in COOKBOOK.glob("*.py")} == {recipe.name for recipe in RECIPES}


def test_each_package_of_the_cookbook_that_a_recipe_imports_is_in_its_row() -> None:
    group = tomllib.loads(read("pyproject.toml"))["dependency-groups"]["cookbook"]
    packages = [package.partition(">")[0] for package in group]
    for recipe in RECIPES:
        modules = [name for text in recipe.sources.values() for name in IMPORT.findall(text)]
        imported = "".join(f"{re.sub('[._]', '-', module.lower())}-\n" for module in modules)
        needed = {package for package in packages if re.search(f"^{package}-", imported, re.MULTILINE)}
        assert needed <= {*recipe.packages}, recipe.name


@pytest.mark.sampled(3)
@pytest.mark.slow
@patient
@pytest.mark.parametrize("recipe", parameters())
def test_a_recipe_runs(recipe: Recipe, servers: Servers, tmp_path: Path) -> None:
    # A program is run as a user does it; the others also run as notebooks when their pages are written.
    runner = run if recipe.program else run_warm
    server = servers.with_models(renamed(CATALOG), tuple(map(other_key, recipe.models)))
    check_run(recipe, server, tmp_path, runner)


@pytest.mark.live
@pytest.mark.timeout(600)
@pytest.mark.parametrize("recipe", parameters())
def test_a_recipe_runs_on_lm_studio(recipe: Recipe, tmp_path: Path) -> None:
    """Uses the models that are loaded; a recipe that needs another one is skipped."""
    done = run(recipe, copy_cookbook(tmp_path), host=None, timeout=600)
    if done.stderr.startswith("This recipe needs"):
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
