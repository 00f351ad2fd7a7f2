"""Every recipe runs, and its own assertions pass."""

import runpy
from pathlib import Path

import pytest

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.catalog import BUNDLED

pytestmark = pytest.mark.filterwarnings(
    "ignore::pydantic.warnings.PydanticDeprecationWarning", "ignore:is_running called from within a step"
)
"""LlamaIndex's agents iterate over all of their attributes, which triggers these warnings of pydantic and workflows."""

COOKBOOK = Path(__file__).parents[2] / "cookbook"
DOCS = COOKBOOK.parent / "docs"
SOURCES = {path.name: path.read_text(encoding="utf-8") for path in sorted(COOKBOOK.glob("*.py"))}
RECIPES = list(SOURCES)
ON_BUNDLED_MODELS = [name for name, source in SOURCES.items() if any(f'"{key}"' in source for key in BUNDLED)]
"""The recipes that run on the bundled models."""


def test_the_index_and_the_site_list_every_recipe() -> None:
    index = (COOKBOOK / "README.md").read_text(encoding="utf-8")
    table = (DOCS / "recipes.md").read_text(encoding="utf-8")
    pages = [path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")]
    assert RECIPES
    assert ON_BUNDLED_MODELS, "without any, the test on real models would be skipped"
    for name in RECIPES:
        assert f"]({name})" in index
        assert f"| `{name}` |" in table
        assert any(f'--8<-- "cookbook/{name}"' in page for page in pages), name


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_on_scripted_models(name: str, scripted: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(COOKBOOK / name), run_name="__main__")
    assert capsys.readouterr().out.strip()
    assert scripted.loaded(), "the recipe reached this server"


@pytest.mark.real_model
@pytest.mark.filterwarnings("ignore:.* was not trained for tool use")
@pytest.mark.parametrize("name", ON_BUNDLED_MODELS)
def test_a_recipe_runs_on_real_models(name: str, real: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(COOKBOOK / name), run_name="__main__")
    assert capsys.readouterr().out.strip()
    assert real.loaded(), "the recipe reached this server"


@pytest.mark.live
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::lmstudio_integrations.errors.LMStudioConfigWarning")
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_on_lm_studio(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Uses the models that the variables in the cookbook's README select."""
    runpy.run_path(str(COOKBOOK / name), run_name="__main__")
    assert capsys.readouterr().out.strip()
