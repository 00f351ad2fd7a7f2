"""The pages of the recipes, and the command that runs recipes: `python -m tools.recipe_pages [RECIPE...]`.

A page is the text of a recipe with what its cells printed. It exists only in the site, for which `cookbook_files.py`
makes it. The command runs a recipe on the emulator and writes what it printed to `cookbook/printed/`, with the digest
of the recipe, of the models that it ran with, and of the outputs, so that `test_recipe_pages.py` notices what was
changed and not run again.

The text of a recipe is in percent format: `# %%` begins a cell. A program runs as a whole; its page shows its
docstring, its source and its output.
"""

import argparse
import ast
import hashlib
import json
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TypedDict

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.models.catalog import BUNDLED
from tests.cookbook.recipes import CATALOG, COOKBOOK, RECIPES, Recipe, copy_cookbook, run
from tools import ROOT, outputs

PRINTED = COOKBOOK / "printed"
CELL = re.compile(r"^# %%(.*)\n", re.MULTILINE)
COMMENT = re.compile(r"^# ?", re.MULTILINE)
DOCSTRING = re.compile(r'\A""".*?"""\s*', re.DOTALL)

LANGUAGES = {".py": "python", ".html": "html"}
"""How the files of a program are highlighted."""

NOTE = (
    "The file is `cookbook/{name}.py`; see [how to run it](../recipes.md#run-a-recipe). "
    "The outputs are from the emulator, with {models}."
)
PACKAGES = "Besides the extra `all`, it needs:\n\n```sh\npip install {}\n```"
WITH = {
    "llm": "the small model `{}`",
    "embedding": "the embedding model `{}`",
    None: "a scripted model in place of `{}`",
}
"""The models by the kind of their weights."""

WIDTH = 84


@dataclass(frozen=True, slots=True)
class Cell:
    """A part of a page.

    Attributes:
        text: Markdown, or code.
        language: That of the code; none for Markdown.
        runs: Whether it is code that prints something when the recipe runs.
    """

    text: str
    language: str = ""
    runs: bool = False


def cells(recipe: Recipe) -> list[Cell]:
    """Return the parts of the page of a recipe, in their order."""
    source, *others = recipe.sources.values()
    if recipe.program:
        title, _, prose = (ast.get_docstring(ast.parse(source)) or "").partition("\n")
        files = zip(recipe.files, others, strict=True)
        return [
            Cell(f"# {title.rstrip('.')}\n{prose}"),
            Cell(DOCSTRING.sub("", source), "python", runs=True),
            *(part for name, text in files for part in (Cell(f"The file `{name}`:"), code_of(name, text))),
        ]
    _, *parts = CELL.split(source)
    return [
        Cell(COMMENT.sub("", text)) if "[markdown]" in marker else Cell(text, "python", runs=True)
        for marker, text in zip(parts[::2], parts[1::2], strict=True)
    ]


def code_of(name: str, text: str) -> Cell:
    """Return another file of a program."""
    return Cell(text, LANGUAGES[Path(name).suffix])


def note(recipe: Recipe) -> str:
    """Return what follows the introduction: where the outputs are from, and what to install."""
    models = [WITH[BUNDLED.get(key)].format(key) for key in recipe.models]
    text = NOTE.format(name=recipe.name, models=" and ".join(models))
    lines = fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n\n".join([lines, PACKAGES.format(" ".join(recipe.packages))] if recipe.packages else [lines])


def fenced(language: str, text: str) -> str:
    """Return a code block."""
    fence = "````" if "```" in text else "```"
    return f"{fence}{language}\n{text.strip(chr(10))}\n{fence}"


def render(recipe: Recipe) -> str:
    """Return the page of a recipe."""
    remaining = iter(printed(recipe))
    first, *rest = cells(recipe)
    blocks = [first.text.strip("\n"), note(recipe)]
    for cell in rest:
        blocks.append(fenced(cell.language, cell.text) if cell.language else cell.text.strip("\n"))
        output = next(remaining) if cell.runs else ""
        if output:
            blocks.append(fenced("text", output))
    return "\n\n".join(blocks) + "\n"


# What the recipes print -----------------------------------------------------------------------------------------------


class Printed(TypedDict):
    """The file with what a recipe printed: a digest, and for each cell its lines."""

    digest: str
    outputs: list[list[str]]


def path_of(recipe: Recipe) -> Path:
    """Return the file with what a recipe printed."""
    return PRINTED / f"{recipe.name}.json"


def printed(recipe: Recipe) -> list[str]:
    """Return what the cells of a recipe printed."""
    return ["".join(f"{line}\n" for line in lines) for lines in load(recipe)["outputs"]]


def load(recipe: Recipe) -> Printed:
    """Return the file with what a recipe printed."""
    content: Printed = json.loads(path_of(recipe).read_text(encoding="utf-8"))
    return content


def digest(recipe: Recipe, texts: Iterable[str]) -> str:
    """Return the digest of a recipe, of its models in the catalog, and of what it printed."""
    models = [entry.model_dump(exclude_unset=True) for entry in CATALOG.models if entry.key in recipe.models]
    parts = [list(recipe.sources.items()), models, list(texts)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def is_current(recipe: Recipe) -> bool:
    """Whether the outputs are those that the command wrote for this recipe."""
    return load(recipe)["digest"] == digest(recipe, printed(recipe))


def execute(recipe: Recipe) -> list[str]:
    """Run a recipe on a server of its own, in a copy of the cookbook; return what its cells print.

    Raises:
        SystemExit: If a cell fails, or something is written to stderr, for example a warning.
    """
    with tempfile.TemporaryDirectory() as parent, Emulator(catalog=CATALOG) as server:
        folder = copy_cookbook(Path(parent))
        if not recipe.program:
            code = [cell.text for cell in cells(recipe) if cell.runs]
            return outputs.run_in(folder, code, server.address)
        done = run(recipe, folder, server.address)
        if done.returncode or done.stderr:
            raise SystemExit(done.stderr)
        return [done.stdout]


def write(recipes: Iterable[Recipe]) -> None:
    """Run recipes and write what they print."""
    for recipe in recipes:
        texts = [outputs.normalize(text) for text in execute(recipe)]
        content = Printed(digest=digest(recipe, texts), outputs=[text.splitlines() for text in texts])
        path_of(recipe).parent.mkdir(exist_ok=True)
        path_of(recipe).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path_of(recipe).relative_to(ROOT))


if __name__ == "__main__":
    names = {recipe.name: recipe for recipe in RECIPES}
    parser = argparse.ArgumentParser(description="Run recipes and write what they print.")
    parser.add_argument("recipes", nargs="*", choices=[*names, []], metavar="RECIPE")
    write([names[name] for name in parser.parse_args().recipes] or RECIPES)
