"""A hook of mkdocs that ranks whole folders in the search: solutions before guides, and internals last."""

from mkdocs.structure.pages import Page

BOOSTS = {
    "troubleshooting/": 6,
    "get-started.md": 2,
    "guides/": 2,
    "langchain/": 2,
    "llama-index/": 2,
    "protocol.md": 0.05,
    "internals/": 0.05,
    "internals/decisions/": 0.001,  # even where the words are in a title, which counts a thousand times
}
"""The factor of each page by how its path begins, of which the last one counts; 1 for others."""


def on_page_markdown(_markdown: str, page: Page, **_: object) -> None:
    """Set the factor, as front matter of the page would."""
    for start, boost in BOOSTS.items():
        if page.file.src_uri.startswith(start):
            page.meta["search"] = {"boost": boost}
