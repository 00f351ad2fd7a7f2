"""The pages of the recipes: `python -m tools.recipe_pages [RECIPE...]` runs recipes and writes `docs/recipes/`.

A recipe runs on the emulator with its models loaded. jupytext reads it as a notebook, nbclient executes that, and
nbconvert writes the page with what was printed and plotted. A program runs as a process; its page shows its docstring,
its source and its output. The lines that check the loaded models are neither run nor shown. A page ends with a comment
that has the digest of the recipe, of the models that it ran with, and of the page itself, so that
`test_recipe_pages.py` notices what was changed and not run again.
"""

import argparse
import ast
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.models.catalog import BUNDLED
from tests.cookbook.recipes import CATALOG, RECIPES, TIMEOUT, Recipe, copy_cookbook, environment, run
from tools import ROOT
from tools.outputs import normalize

PAGES = ROOT / "docs/recipes"
SHOWN = ["image/svg+xml", "image/png", "text/plain"]
"""The forms of an output that a page can show, best first."""

TEMPLATE = Path(__file__).with_name("recipe_page.md.j2")
PACKAGES = ("ipykernel", "jupytext", "nbclient", "nbconvert")
"""What the command needs of the group `cookbook`, besides what the recipes need."""

LANGUAGES = {".py": "python", ".html": "html"}
"""How the files of a program are highlighted."""

DIGEST = re.compile(r"\n<!-- recipe: (\w*)[^>]*-->\n\Z")
COMMENT = "\n<!-- recipe: {}, written by python -m tools.recipe_pages -->\n"

CHECK = re.compile(r'^# %% tags=\["check"\]\n.*?(?=^# %%)', re.MULTILINE | re.DOTALL)
"""The cell in which a recipe checks the loaded models, as the file has to, and a reader need not see."""

SERVE = "Emulator, in the folder `cookbook`: `{}`"
NOTE = (
    "The file is `cookbook/{name}.py`; see [how to run it](../recipes.md#run-a-recipe). "
    "It ran on the emulator, with {models}."
)
WITH = {
    "llm": "the small model `{}`",
    "embedding": "the embedding model `{}`",
    None: "a scripted model in place of `{}`",
}
"""The models by the kind of their weights."""

WIDTH = 84


def page_of(recipe: Recipe) -> Path:
    """Return where the page of a recipe is."""
    return PAGES / f"{recipe.name}.md"


def images_of(recipe: Recipe) -> Path:
    """Return the folder of the images that a recipe plots."""
    return PAGES / f"{recipe.name}_files"


def digest(recipe: Recipe, text: str) -> str:
    """Return the digest of a recipe, of its models in the catalog, and of the text of its page."""
    models = [entry.model_dump(exclude_unset=True) for entry in CATALOG.models if entry.key in recipe.models]
    parts = [list(recipe.sources.items()), models, text]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def with_digest(recipe: Recipe, text: str) -> str:
    """Return a page with the comment."""
    return text + COMMENT.format(digest(recipe, text))


def is_current(recipe: Recipe, page: str) -> bool:
    """Whether a page is what the command wrote for this recipe."""
    return DIGEST.findall(page) == [digest(recipe, DIGEST.sub("", page))]


def note(recipe: Recipe) -> str:
    """Return what follows the introduction: where the outputs are from, what to install, and what to serve."""
    models = [WITH[BUNDLED.get(key)].format(key) for key in recipe.models]
    text = NOTE.format(name=recipe.name, models=" and ".join(models))
    paragraphs = [fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)]
    if recipe.packages:
        paragraphs.append(f"Also needs `pip install {' '.join(recipe.packages)}`.")
    serve = " ".join(("lmsi serve --catalog catalog.toml", *(f"--load {key}" for key in recipe.models)))
    paragraphs.append(SERVE.format(f"python {recipe.emulator}" if recipe.emulator else serve))
    return "\n\n".join(paragraphs)


def execute(source: str, folder: Path, host: str) -> Any:
    """Execute the source of a notebook in a folder; return it with its outputs.

    Raises:
        SystemExit: If a cell fails, or something is written to stderr, for example a warning.
    """
    import jupytext
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = jupytext.reads(source, fmt="py:percent")
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],  # it warns that its ports on this machine are not encrypted
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        client.execute(env=environment(host))
    except CellExecutionError as error:
        raise SystemExit(str(error)) from None
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    errors = "".join(output.text for output in outputs if output.get("name") == "stderr")
    if errors:
        raise SystemExit(errors)
    return notebook


def without_check(source: str) -> str:
    """Return the source of a recipe as its page shows and runs it."""
    return CHECK.sub("", source)


def run_program(recipe: Recipe, folder: Path, host: str) -> Any:
    """Run a program; return a notebook with its docstring, its source and its output.

    Raises:
        SystemExit: If it fails, or writes to stderr.
    """
    source, *others = recipe.sources.values()
    source = without_check(source).replace("# %%\n", "")
    (folder / recipe.path.name).write_text(source, encoding="utf-8")
    done = run(recipe, folder, host)
    if done.returncode or done.stderr:
        raise SystemExit(done.stderr)
    from nbformat import v4

    title, _, prose = (ast.get_docstring(ast.parse(source)) or "").partition("\n")
    cells = [
        v4.new_markdown_cell(f"# {title.rstrip('.')}\n{prose}"),
        v4.new_code_cell(
            re.sub(r'\A""".*?"""\s*', "", source, flags=re.DOTALL),
            outputs=[v4.new_output("stream", name="stdout", text=done.stdout)],
        ),
    ]
    for name, text in zip(recipe.files, others, strict=True):
        language = LANGUAGES[Path(name).suffix]
        cells += [v4.new_markdown_cell(f"The file `{name}`:"), v4.new_code_cell(text, metadata={"language": language})]
    return v4.new_notebook(cells=cells)


def convert(recipe: Recipe, notebook: Any) -> tuple[str, Mapping[str, bytes]]:
    """Return the page of an executed notebook, and its images by file name."""
    from nbconvert import MarkdownExporter
    from nbformat import v4
    from traitlets.config import Config

    notebook.cells.insert(1, v4.new_markdown_cell(note(recipe)))
    title = notebook.cells[0].source.partition("\n")[0].removeprefix("# ")
    config = Config(NbConvertBase={"display_data_priority": SHOWN})
    exporter = MarkdownExporter(config=config, template_file=str(TEMPLATE))
    exporter.register_filter("normalized", normalize)
    resources: dict[str, Any] = {
        "title": title,
        "unique_key": recipe.name,
        "output_files_dir": images_of(recipe).name,
    }
    text, resources = exporter.from_notebook_node(notebook, resources)
    images: Mapping[str, bytes] = resources.get("outputs", {})
    return text.strip() + "\n", images


def render(recipe: Recipe) -> tuple[str, Mapping[str, bytes]]:
    """Run a recipe on a server of its own; return its page and its images."""
    with tempfile.TemporaryDirectory() as parent, Emulator(catalog=CATALOG, load=recipe.models) as server:
        folder = copy_cookbook(Path(parent))
        if recipe.program:
            notebook = run_program(recipe, folder, server.address)
        else:
            notebook = execute(without_check(recipe.path.read_text(encoding="utf-8")), folder, server.address)
    return convert(recipe, notebook)


def write(recipes: Iterable[Recipe]) -> None:
    """Run recipes and write their pages."""
    for recipe in recipes:
        text, images = render(recipe)
        shutil.rmtree(images_of(recipe), ignore_errors=True)
        for name, data in images.items():
            path = PAGES / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        PAGES.mkdir(exist_ok=True)
        page_of(recipe).write_text(with_digest(recipe, text), encoding="utf-8")
        print(page_of(recipe).relative_to(ROOT))


if __name__ == "__main__":
    names = {recipe.name: recipe for recipe in RECIPES}
    parser = argparse.ArgumentParser(description="Run recipes and write their pages.")
    parser.add_argument("recipes", nargs="*", choices=[*names, []], metavar="RECIPE")
    write([names[name] for name in parser.parse_args().recipes] or RECIPES)
