"""Every recipe runs on models with other names, so none depends on the keys of the catalog."""

from pathlib import Path

import pytest

from tests.cookbook.recipe_runs import Servers, check_run, parameters, patient
from tests.cookbook.recipes import CATALOG, Recipe, other_key, renamed
from tests.cookbook.warm_runs import run_warm


def test_all_models_get_other_keys() -> None:
    keys = [entry.key for entry in CATALOG.models]
    others = [entry.key for entry in renamed(CATALOG).models]
    assert others == list(map(other_key, keys))
    assert not set(keys) & set(others)


@pytest.mark.slow
@patient
@pytest.mark.parametrize(
    "source", ["raise SystemExit('a failure')", "import warnings\nwarnings.warn('a failure', stacklevel=1)"]
)
def test_a_recipe_that_fails_or_warns_is_noticed_in_a_warm_process(source: str, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(f"print('begun')\n{source}\n", encoding="utf-8")
    done = run_warm(Recipe("failing"), tmp_path, "localhost:1")
    assert done.returncode == 1
    assert done.stdout == "begun\n"
    assert "a failure\n" in done.stderr


@pytest.mark.sampled(3)
@pytest.mark.slow
@patient
@pytest.mark.parametrize("recipe", parameters())
def test_a_recipe_runs_on_models_with_other_names(recipe: Recipe, servers: Servers, tmp_path: Path) -> None:
    keys = tuple(map(other_key, recipe.models))
    check_run(recipe, servers.with_models(renamed(recipe.catalog), keys), tmp_path, run_warm)
