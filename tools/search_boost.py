"""A hook of mkdocs that keeps what only contributors read out of the search, and ranks guides before other pages."""

from mkdocs.structure.pages import Page

CONTRIBUTORS = ("protocol.md", "internals/")
"""The pages that no user meets, in the tabs or in the search: links in CONTRIBUTING.md lead there."""

BOOSTS = {"recipes/": 0.3, "reference/": 0.2}
"""How much the pages of a folder count beside guides; a name that only the reference has is found all the same."""


def on_page_markdown(_markdown: str, page: Page, **_: object) -> None:
    """Set what front matter of the page would."""
    path = page.file.src_uri
    if path.startswith(CONTRIBUTORS):
        page.meta["search"] = {"exclude": True}
    for folder, boost in BOOSTS.items():
        if path.startswith(folder):
            page.meta["search"] = {"boost": boost}
