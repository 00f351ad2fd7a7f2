"""Every recipe runs, on models that nothing in it names; one of each kind prints the same when it is replayed.

On the models of the catalog, the real ones included, `tools.recipe_pages` has run it: its page has the outputs.
"""

import re
import tempfile
import tomllib
from pathlib import Path

import pytest

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.testing.recorder import Recording
from tests.cookbook.recipe_runs import Servers, check_run, parameters, patient
from tests.cookbook.recipes import (
    CATALOG,
    COOKBOOK,
    RECIPES,
    Recipe,
    copy_cookbook,
    other_key,
    recipe_of,
    renamed,
    run,
)
from tests.cookbook.warm_runs import run_warm
from tests.docs.snippets import read
from tools.outputs import normalize

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


def test_all_models_get_other_keys() -> None:
    keys = [entry.key for entry in CATALOG.models]
    others = [entry.key for entry in renamed(CATALOG).models]
    assert others == list(map(other_key, keys))
    assert not set(keys) & set(others)


@pytest.mark.sampled(5)
@pytest.mark.slow
@patient
@pytest.mark.parametrize("recipe", parameters())
def test_a_recipe_runs(recipe: Recipe, servers: Servers, tmp_path: Path) -> None:
    # A program is run as a user does it; the others also run as notebooks when their pages are written.
    runner = run if recipe.program else run_warm
    server = servers.with_models(renamed(CATALOG), tuple(map(other_key, recipe.models)))
    check_run(recipe, server, tmp_path, runner)


REPLAYED = {"langchain_images", "langchain_lm_studio_tools", "langchain_retrieval", "langchain_streaming"}
"""One recipe of each kind of request."""

FOLDER = re.compile(rf"\bFOLDER\b|{re.escape(tempfile.gettempdir())}/\w+")
"""A temporary folder, which is new in each run: a recipe replaces its own, and not that of the recording."""


@pytest.mark.sampled(1)
@pytest.mark.slow
@patient
@pytest.mark.parametrize("recipe", [row for row in parameters() if row.id in REPLAYED])
def test_a_recipe_prints_the_same_when_it_is_replayed(recipe: Recipe, servers: Servers, tmp_path: Path) -> None:
    server, cassette = servers.with_models(CATALOG, recipe.models), tmp_path / "cassette"
    with Recording(cassette, server.address) as recording:
        live = run_warm(recipe, copy_cookbook(tmp_path / "live"), recording.address)
    with Emulator.replay(cassette) as replay:
        replayed = run_warm(recipe, copy_cookbook(tmp_path / "replayed"), replay.address)
        assert replay.unmatched == ()
    assert recording.requests
    assert [(done.returncode, done.stderr) for done in (live, replayed)] == [(0, "")] * 2
    printed, expected = (FOLDER.sub("FOLDER", normalize(done.stdout)) for done in (replayed, live))
    assert printed == expected


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


@pytest.mark.slow
@patient
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("langchain_images", "This recipe needs vision; your models with it: none.\n"),
        ("langchain_reasoning", "This recipe needs reasoning; your models: acme/plain.\n"),
        ("langchain_cascade", "This recipe needs two language models; loaded: acme/plain.\n"),
        ("langchain_sql", "The model did not run SQL; take a larger model.\n"),
        ("langchain_mcp", "The model did not look up ferries; take a larger model.\n"),
        (
            "langchain_lm_studio_tools",
            'This recipe needs mcp/files: Cannot find a plugin with the identifier "mcp/files".\n',
        ),
        (
            "llama_index_lm_studio_tools",
            'This recipe needs mcp/files: Cannot find a plugin with the identifier "mcp/files".\n',
        ),
    ],
)
def test_a_recipe_says_in_one_sentence_what_the_loaded_model_lacks(name: str, sentence: str, tmp_path: Path) -> None:
    recipe = recipe_of(name)
    if recipe.missing:
        pytest.skip(recipe.missing)
    with Emulator([ModelEntry(key="acme/plain", vision=False)], load=["acme/plain"]) as server:
        done = run_warm(recipe, copy_cookbook(tmp_path), server.address)
    assert done.returncode == 1
    assert done.stderr == sentence


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
