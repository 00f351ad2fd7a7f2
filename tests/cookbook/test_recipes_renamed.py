"""Every recipe runs on models with other names, so none depends on the keys of the catalog."""

from pathlib import Path

import pytest

from tests.cookbook.recipe_runs import Servers, check_run, parameters, slow
from tests.cookbook.recipes import CATALOG, Recipe, other_key, renamed


def test_all_models_get_other_keys() -> None:
    keys = [entry.key for entry in CATALOG.models]
    others = [entry.key for entry in renamed(CATALOG).models]
    assert others == list(map(other_key, keys))
    assert not set(keys) & set(others)


@slow
@pytest.mark.parametrize("recipe", parameters())
def test_a_recipe_runs_on_models_with_other_names(recipe: Recipe, servers: Servers, tmp_path: Path) -> None:
    keys = tuple(map(other_key, recipe.models))
    check_run(recipe, servers.with_models(renamed(CATALOG), keys), tmp_path)
