"""Every recipe runs, on scripted models.

On the models of the catalog, the real ones included, `tools.recipe_pages` has run it: its page has the outputs.
"""

import re
import tomllib
from pathlib import Path

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from tests.cookbook.recipe_runs import check_run, parameters, patient
from tests.cookbook.recipes import (
    CATALOG,
    COOKBOOK,
    RECIPES,
    Recipe,
    copy_cookbook,
    run,
)
from tests.cookbook.warm_runs import run_warm
from tests.docs.snippets import read

IMPORT = re.compile(r"^(?:from|import) ([\w.]+)", re.MULTILINE)


def test_every_recipe_is_in_the_table() -> None:
    assert {path.stem for path in COOKBOOK.glob("*.py")} == {recipe.name for recipe in RECIPES}


STRING = re.compile(r'"([^"\n]+)"')


def test_a_recipe_names_the_models_of_its_row_and_no_others() -> None:
    keys = {model.key for model in CATALOG.models}
    for recipe in RECIPES:
        assert {*STRING.findall(recipe.path.read_text(encoding="utf-8"))} & keys == {*recipe.models}, recipe.name


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
def test_a_recipe_runs(recipe: Recipe, recipe_server: Emulator, tmp_path: Path) -> None:
    # A program is run as a user does it; the others also run so when their outputs are written.
    check_run(recipe, recipe_server, tmp_path, run if recipe.program else run_warm)


@pytest.mark.live
@pytest.mark.timeout(600)
@pytest.mark.parametrize("recipe", parameters())
def test_a_recipe_runs_on_lm_studio(recipe: Recipe, tmp_path: Path) -> None:
    """A recipe is skipped if one of its models is not downloaded."""
    with lms.Client() as client:
        missing = {*recipe.models} - {model.model_key for model in client.list_downloaded_models()}
    if missing:
        pytest.skip(f"not downloaded: {', '.join(sorted(missing))}")
    done = run(recipe, copy_cookbook(tmp_path), host=None, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
