"""A hook of mkdocs that puts the recipes and the other files of `cookbook/` on the site.

Each recipe has a page, to which links to its program lead: in the repository, they lead to the program. A page that
says `cookbook/langchain_tools.py` has the file to download, so that the recipe can be run without a clone. Pages of
recipes may leave out the folder.
"""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

from tests.cookbook.recipes import COOKBOOK, OUTPUTS, RECIPES
from tools.recipe_pages import render

FOLDER = "cookbook/"
LINK = re.compile(r"\]\(((?:\.\./)*)\.\./(cookbook/([\w./-]+))\)")
"""A link to a file of the cookbook, from a page: what leads to `docs`, the path, and its part in the cookbook."""

NAMED = re.compile(r"<code>([\w./-]+)</code>(?!</a>)")


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages of the recipes, and the files; the cookbook's own pages are not part of the site."""
    for recipe in RECIPES:
        files.append(File.generated(config, recipe.page, content=render(recipe)))
    for path in sorted(COOKBOOK.rglob("*")):
        name = path.relative_to(COOKBOOK)
        if path.is_file() and path.suffix != ".md" and not {*name.parts} & {*OUTPUTS}:
            files.append(File.generated(config, FOLDER + name.as_posix(), abs_src_path=str(path)))


def on_page_markdown(markdown: str, **_: object) -> str:
    """Let links lead to the pages of recipes, and to the other files on the site."""
    pages = {recipe.path.name: recipe.page for recipe in RECIPES}
    return LINK.sub(lambda match: f"]({match[1]}{pages.get(match[3], match[2])})", markdown)


def on_page_content(html: str, page: Page, files: Files, **_: object) -> str:
    """Link each file that a page names."""
    folder = FOLDER if page.file.src_uri.startswith("recipes") else ""

    def link(match: re.Match[str]) -> str:
        name = match[1] if match[1].startswith(FOLDER) else folder + match[1]
        file = files.get_file_from_path(name)
        if file is None or not name.startswith(FOLDER):
            return match[0]
        return f'<a href="{get_relative_url(file.url, page.url)}" download>{match[0]}</a>'

    return NAMED.sub(link, html)
