"""The pages of the recipes: every recipe has one, its outputs are those of the recipe, and the command writes them."""

import re
from pathlib import Path

import pytest

from tests.cookbook import recipes
from tests.cookbook.recipes import EMBEDDING, RECIPES, TOOLS, VISION, Recipe
from tests.docs.snippets import read
from tools import recipe_pages
from tools.recipe_pages import DIGEST, PAGES, images_of, is_current, note, page_of, with_digest

MISSING = Recipe("pages", packages=recipe_pages.PACKAGES).missing
needs_jupyter = pytest.mark.skipif(bool(MISSING), reason=MISSING)

NOTEBOOK = """\
# %% [markdown]
# # A recipe
#
# Adds numbers.

# %%
print("run 01a1fd91-8e3e-7412-92d1-b0b07a95340c")

# %%
from IPython.display import SVG, display

display(SVG('<svg xmlns="http://www.w3.org/2000/svg"></svg>'))

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
    """A notebook in a folder of its own, whose page is not in `docs/`."""
    folder = tmp_path / "cookbook"
    folder.mkdir()
    monkeypatch.setattr(recipes, "COOKBOOK", folder)
    monkeypatch.setattr(recipe_pages, "PAGES", tmp_path / "docs")
    monkeypatch.setattr(recipe_pages, "ROOT", tmp_path)
    (folder / "adding.py").write_text(NOTEBOOK, encoding="utf-8")
    return Recipe("adding", models=(TOOLS,))


def test_a_page_is_what_the_command_wrote() -> None:
    for recipe in RECIPES:
        command = f"run: python -m tools.recipe_pages {recipe.name}"
        assert page_of(recipe).exists(), command
        page = page_of(recipe).read_text(encoding="utf-8")
        assert is_current(recipe, page), command
        assert note(recipe) in page, command


def test_every_page_and_every_image_is_of_a_recipe() -> None:
    expected = {page_of(recipe) for recipe in RECIPES}
    assert set(PAGES.glob("*.md")) == expected
    assert {path for path in PAGES.iterdir() if path.is_dir()} <= {images_of(recipe) for recipe in RECIPES}
    images = [path.relative_to(PAGES).as_posix() for path in PAGES.glob("*/*")]
    shown = "".join(path.read_text(encoding="utf-8") for path in expected)
    assert [name for name in images if f"]({name})" not in shown] == []


ROW = re.compile(r"^\| \[(.+)\]\(recipes/(\w+)\.md\) \| (.+) \| `(\w+)\.py` \|$", re.MULTILINE)
NEEDS = {EMBEDDING: "an embedding model", TOOLS: "a model with", VISION: "a model with vision"}


def test_the_site_and_the_index_list_every_recipe_by_its_title() -> None:
    rows = {name: (title, needs, file) for title, name, needs, file in ROW.findall(read("docs/recipes.md"))}
    assert rows.keys() == {recipe.name for recipe in RECIPES}
    for recipe in RECIPES:
        title, needs, file = rows[recipe.name]
        assert file == recipe.name
        assert page_of(recipe).read_text(encoding="utf-8").startswith(f"# {title}\n")
        assert [need for key, need in NEEDS.items() if key in recipe.models and need not in needs] == []
        assert f"]({recipe.name}.py)" in read("cookbook/README.md")
        assert f": recipes/{recipe.name}.md" in read("mkdocs.yml")


def test_what_was_changed_after_the_run_is_noticed(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    page = with_digest(recipe, "# A recipe\n")
    assert is_current(recipe, page)
    assert not is_current(recipe, "# A recipe\n")
    assert not is_current(recipe, page.replace("A recipe", "Another recipe"))
    recipe.path.write_text(NOTEBOOK.replace("numbers", "letters"), encoding="utf-8")
    assert not is_current(recipe, page)
    recipe.path.write_text(NOTEBOOK, encoding="utf-8")
    assert is_current(recipe, page)
    monkeypatch.setattr(recipe_pages, "CATALOG", recipes.renamed(recipes.CATALOG))
    assert not is_current(recipe, page), "the rules of its model are no longer there"


@pytest.mark.slow
@needs_jupyter
def test_the_command_writes_a_notebook_with_its_outputs_and_images(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe_pages.write([recipe])
    page = page_of(recipe).read_text(encoding="utf-8")
    assert page.startswith("# A recipe\n\nAdds numbers.\n\nThe file is `cookbook/adding.py`; see [how to run")
    assert 'c")\n```\n\n```text\nrun …\n```\n\n```python\nfrom IPython' in page
    assert "![A recipe: what the recipe plots](adding_files/adding_3_0.svg)\n\nThe end.\n\n<!-- recipe: " in page
    assert (images_of(recipe) / "adding_3_0.svg").read_bytes().startswith(b"<svg")
    assert is_current(recipe, page)
    assert capsys.readouterr().out == "docs/adding.md\n"
    (tmp_path / "docs/adding_files/old.svg").touch()
    recipe_pages.write([recipe])
    assert [path.name for path in images_of(recipe).iterdir()] == ["adding_3_0.svg"]


@pytest.mark.slow
@needs_jupyter
def test_the_page_of_a_program_has_its_docstring_and_its_sources_and_its_output(recipe: Recipe) -> None:
    program = Recipe(recipe.name, models=recipe.models, program=True, files=("page.html",))
    program.path.write_text(PROGRAM, encoding="utf-8")
    program.path.with_name("page.html").write_text("<p>", encoding="utf-8")
    recipe_pages.write([program])
    page = DIGEST.sub("", page_of(program).read_text(encoding="utf-8"))
    assert page.startswith("# Add numbers\n\nIt is simple.\n\nThe file is")
    assert "```python\nprint(40 + 2)\n```\n\n```text\n42\n```\n" in page
    assert page.endswith("The file `page.html`:\n\n```html\n<p>\n```\n")
