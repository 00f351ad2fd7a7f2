"""A hook of mkdocs that writes the site for language models, as https://llmstxt.org describes it.

Each page has a twin in Markdown: its address with `.md`, which is the path of its source, so that links between pages
hold. `llms.txt` lists the pages in the order of the navigation, and `llms-full.txt` contains them. A page of the
reference has only names of objects in its source, so its twin is made of its HTML.

The first sentence of a page, which `llms.txt` has beside its name, is also the description that search engines show.
"""

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from markdown import Markdown
from markdownify import markdownify
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from pymdownx.snippets import SnippetExtension, SnippetPreprocessor

DIRECTIVE = re.compile(r"^:::", re.MULTILINE)
CODE_BLOCK = re.compile(r"(<pre.*?</pre>)", re.DOTALL)
DECORATION = re.compile(r'<a [^>]*"headerlink".*?</a>|</?(?:a|autoref|span)\b[^>]*>', re.DOTALL)
"""What only a browser needs: permalinks, links to anchors, and colors, which are most of the HTML."""

PLAIN: dict[str, Any] = {"escape_asterisks": False, "escape_misc": False, "escape_underscores": False}
"""Names stay as they are."""

PROSE = re.compile(r"^(?!#|!|\||>|<|[-*] |\*\[|:|~~~|\s|`(?:from|import) )(.+?)(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
SENTENCE = re.compile(r".+?(?:\.(?=\s|\Z)|\Z)", re.DOTALL)
LINK = re.compile(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")

_sections: dict[str, list[Page]] = {}
_twins: dict[str, str] = {}
"""The Markdown of each page by the path of its source."""


def on_nav(nav: Navigation, **_: object) -> None:
    """Keep the pages of each section; one that stands alone is a section."""
    _sections.clear()
    _sections.update((item.title or "", list(_pages(item))) for item in nav)


def _pages(item: Any) -> Iterator[Page]:
    if isinstance(item, Page):
        yield item
    for child in item.children or ():
        yield from _pages(child)


def on_page_content(html: str, page: Page, config: MkDocsConfig, **_: object) -> None:
    """Keep the Markdown of a page, and describe it."""
    source = page.markdown or ""
    name = ""
    if DIRECTIVE.search(source):
        text, name = of_html(html), f"{page.title}: "  # the same class of two frameworks may say the same of itself
    else:
        snippets = SnippetExtension(**config.mdx_configs["pymdownx.snippets"])
        text = "\n".join(SnippetPreprocessor(snippets.getConfigs(), Markdown()).run(source.splitlines()))
    _twins[page.file.src_uri] = text.strip() + "\n"
    page.meta["description"] = escape(name + re.sub(r"[`*]", "", description(text)))


def of_html(html: str) -> str:
    """Return HTML as Markdown."""
    parts = CODE_BLOCK.split(DECORATION.sub("", html))
    dense = "".join(part if part.startswith("<pre") else re.sub(r"\s+", " ", part) for part in parts)
    text = markdownify(dense, heading_style="ATX", code_language="python", **PLAIN)
    return re.sub(r"\n\s*\n(?=\S)", "\n\n", text)


def on_post_build(config: MkDocsConfig) -> None:
    """Write the files."""
    site = Path(config.site_dir)
    lines, texts = [f"# {config.site_name}", "", f"> {config.site_description}"], list[str]()
    for title, pages in _sections.items():
        lines += ["", f"## {title}", ""]
        for page in pages:
            path = page.file.src_uri
            text = _twins[path]
            lines.append(f"- [{page.title}]({path}): {description(text)}")
            texts.append(f"<!-- {path} -->\n\n{text}")
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(text, encoding="utf-8")
    (site / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (site / "llms-full.txt").write_text("\n".join(texts), encoding="utf-8")


def description(text: str) -> str:
    """Return the first sentence of a page, in one line and without links; empty if there is none."""
    prose = PROSE.search(FENCE.sub("", text))
    sentence = SENTENCE.match(LINK.sub(r"\1", prose[1])) if prose else None
    return " ".join(sentence[0].split()).rstrip(":") if sentence else ""
