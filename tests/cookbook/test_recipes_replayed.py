"""A recipe that is recorded on the models of the catalog, the real ones included, prints the same when it is replayed.

All recipes take two minutes: `EVERY_RECIPE=1 pytest -m "" tests/cookbook/test_recipes_replayed.py`.
"""

import os
import re
import tempfile
from pathlib import Path

import pytest

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.testing.cassettes.recorder import Recording
from tests.cookbook.recipe_runs import Servers, parameters, patient
from tests.cookbook.recipes import RECIPES, Recipe, copy_cookbook, run
from tests.cookbook.warm_runs import run_warm
from tools.outputs import normalize

SAMPLE = {
    "deep_agent",
    "langchain_extraction",
    "langchain_images",
    "langchain_lm_studio_tools",
    "langchain_reasoning",
    "langchain_reranking",
    "langchain_retrieval",
    "langchain_sql",
    "langchain_streaming",
    "langchain_tools",
    "langgraph_memory",
    "llama_index_agent",
}
"""One of each kind."""

DIFFERENT = {"langchain_classification": "it makes the requests again that run when five have ended"}
"""Recipes that do not do the same twice, and why."""

IN_ANY_ORDER = {"langchain_agent": "it prints the results of tools that run at once, in the order in which they end"}
"""Recipes whose lines may change places from run to run, and why."""

CHOSEN = SAMPLE if "EVERY_RECIPE" not in os.environ else {recipe.name for recipe in RECIPES} - DIFFERENT.keys()

FOLDER = re.compile(rf"\bFOLDER\b|{re.escape(tempfile.gettempdir())}/\w+")
"""A temporary folder, which is new in each run: a recipe replaces its own, and not that of the recording."""


def printed(recipe: Recipe, output: str) -> list[str]:
    """Return the lines of an output without timings, identifiers and temporary folders."""
    lines = FOLDER.sub("FOLDER", normalize(output)).splitlines()
    return sorted(lines) if recipe.name in IN_ANY_ORDER else lines


@pytest.mark.sampled(1)
@pytest.mark.slow
@patient
@pytest.mark.parametrize("recipe", [row for row in parameters() if row.id in CHOSEN])
def test_a_recipe_prints_the_same_when_it_is_replayed(recipe: Recipe, servers: Servers, tmp_path: Path) -> None:
    runner = run if recipe.program else run_warm
    server, cassette = servers.with_models(recipe.catalog, recipe.models), tmp_path / "cassette"
    with Recording(cassette, server.address) as recording:
        live = runner(recipe, copy_cookbook(tmp_path / "live"), recording.address)
    with Emulator.replay(cassette) as replay:
        replayed = runner(recipe, copy_cookbook(tmp_path / "replayed"), replay.address)
        assert replay.unmatched == ()
    assert recording.requests
    assert (live.returncode, live.stderr) == (0, "")
    assert (replayed.returncode, replayed.stderr) == (0, "")
    assert printed(recipe, replayed.stdout) == printed(recipe, live.stdout)
