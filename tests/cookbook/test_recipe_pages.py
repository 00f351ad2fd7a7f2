"""The pages of the recipes: their outputs are those of the recipes, and the command writes them."""

import json
import re
from pathlib import Path

import pytest

from tests.cookbook import recipes
from tests.cookbook.recipes import EMBEDDING, RECIPES, TOOLS, VISION, Recipe
from tests.docs.snippets import read
from tools import recipe_pages
from tools.recipe_pages import PRINTED, cells, is_current, note, path_of, printed, render

NOTEBOOK = """\
# %% [markdown]
# # A recipe
#
# Adds numbers.

# %%
print("run 01a1fd91-8e3e-7412-92d1-b0b07a95340c")

# %%
number = 40

# %% [markdown]
# The end.
"""

PROGRAM = '''\
"""Add numbers.

It is simple.
"""

print(40 + 2)
'''


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recipe:
    """A notebook in a folder of its own."""
    monkeypatch.setattr(recipes, "COOKBOOK", tmp_path)
    monkeypatch.setattr(recipe_pages, "PRINTED", tmp_path / "printed")
    monkeypatch.setattr(recipe_pages, "ROOT", tmp_path)
    (tmp_path / "adding.py").write_text(NOTEBOOK, encoding="utf-8")
    return Recipe("adding", models=(TOOLS,))


def test_the_outputs_of_a_recipe_are_what_the_command_wrote() -> None:
    for recipe in RECIPES:
        command = f"run: python -m tools.recipe_pages {recipe.name}"
        assert path_of(recipe).exists(), command
        assert is_current(recipe), command


def test_every_file_of_outputs_is_of_a_recipe_and_has_as_many_as_that_has_cells() -> None:
    assert {*PRINTED.iterdir()} == {path_of(recipe) for recipe in RECIPES}
    for recipe in RECIPES:
        assert len(printed(recipe)) == sum(cell.runs for cell in cells(recipe)), recipe.name


ROW = re.compile(r"^\| \[(.+)\]\(\.\./cookbook/(\w+)\.py\) \| (.+) \|$", re.MULTILINE)
NEEDS = {EMBEDDING: "an embedding model", VISION: "a model with vision"}


def test_the_site_and_the_index_list_every_recipe_by_its_title() -> None:
    rows = {name: (title, needs) for title, name, needs in ROW.findall(read("docs/recipes.md"))}
    assert rows.keys() == {recipe.name for recipe in RECIPES}
    for recipe in RECIPES:
        title, needs = rows[recipe.name]
        assert render(recipe).startswith(f"# {title}\n")
        assert [need for key, need in NEEDS.items() if key in recipe.models and need not in needs] == []
        code = "".join(cell.text for cell in cells(recipe) if cell.runs)
        assert ("a model with tool use" in needs) == ("tools" in code), recipe.name
        assert f": {recipe.page}" in read("mkdocs.yml")


@pytest.mark.slow
def test_what_was_changed_after_the_run_is_noticed(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe_pages.write([recipe])
    assert is_current(recipe)
    path = path_of(recipe)
    content = path.read_text(encoding="utf-8")
    path.write_text(content.replace("run …", "run 1"), encoding="utf-8")
    assert not is_current(recipe)
    path.write_text(content, encoding="utf-8")
    recipe.path.write_text(NOTEBOOK.replace("numbers", "letters"), encoding="utf-8")
    assert not is_current(recipe)
    recipe.path.write_text(NOTEBOOK, encoding="utf-8")
    assert is_current(recipe)
    models = [each for each in recipes.CATALOG.models if each.key != TOOLS]
    monkeypatch.setattr(recipe_pages, "CATALOG", recipes.CATALOG.model_copy(update={"models": tuple(models)}))
    assert not is_current(recipe), "the rules of its model are no longer there"


@pytest.mark.slow
def test_the_page_of_a_notebook_has_its_cells_and_what_they_print(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe_pages.write([recipe])
    assert capsys.readouterr().out == "printed/adding.json\n"
    content = (tmp_path / "printed/adding.json").read_text(encoding="utf-8")
    assert json.loads(content)["outputs"] == [["run …"], []]
    page = render(recipe)
    assert page.startswith("# A recipe\n\nAdds numbers.\n\nThe file is `cookbook/adding.py`; see [how to run")
    assert 'c")\n```\n\n```text\nrun …\n```\n\n```python\nnumber = 40\n```\n\nThe end.\n' in page


@pytest.mark.slow
def test_the_page_of_a_program_has_its_docstring_and_its_sources_and_its_output(recipe: Recipe) -> None:
    program = Recipe(recipe.name, models=recipe.models, program=True, packages=("adder",), files=("page.html",))
    program.path.write_text(PROGRAM, encoding="utf-8")
    program.path.with_name("page.html").write_text("<p>", encoding="utf-8")
    recipe_pages.write([program])
    page = render(program)
    assert page.startswith(f"# Add numbers\n\nIt is simple.\n\n{note(program)}\n\n```python\nprint(40 + 2)\n```\n")
    assert "```python\nprint(40 + 2)\n```\n\n```text\n42\n```\n" in page
    assert "```sh\npip install adder\n```" in page
    assert page.endswith("The file `page.html`:\n\n```html\n<p>\n```\n")


@pytest.mark.slow
@pytest.mark.parametrize("code", ["1 / 0", "import warnings; warnings.warn('old')"])
def test_a_recipe_that_fails_or_warns_is_not_written(recipe: Recipe, code: str) -> None:
    recipe.path.write_text(f"# %% [markdown]\n# # A recipe\n\n# %%\n{code}\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        recipe_pages.write([recipe])
    assert not path_of(recipe).exists()
