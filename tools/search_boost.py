"""A hook of mkdocs that keeps what only contributors read out of the search, and ranks recipes after guides."""

from mkdocs.structure.pages import Page

CONTRIBUTORS = ("protocol.md", "internals/")
"""The pages that no user meets, in the tabs or in the search: links in CONTRIBUTING.md lead there."""

RECIPES = "recipes/"


def on_page_markdown(_markdown: str, page: Page, **_: object) -> None:
    """Set what front matter of the page would."""
    path = page.file.src_uri
    if path.startswith(CONTRIBUTORS):
        page.meta["search"] = {"exclude": True}
    elif path.startswith(RECIPES):
        page.meta["search"] = {"boost": 0.5}
