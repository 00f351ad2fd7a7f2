"""Links each page of the reference with the files that its entries come from: `python -m tools.reference_sources`.

A line `::: name` of a page is filled in on the site only. Whoever reads the page in a clone finds there a line with the
files, above the first entry; as a hook of mkdocs, this module leaves that line out of the site.
"""

import re
from collections.abc import Iterator
from os.path import relpath
from pathlib import Path

import griffe
from mkdocs.structure.pages import Page

from tools import ROOT

PACKAGE = "lmstudio_integrations"
ENTRY = re.compile(r"^::: (\S+)$", re.MULTILINE)
LINE = re.compile(r"^Source: .* <!-- hidden -->\n\n", re.MULTILINE)


def pages() -> Iterator[Path]:
    """Yield the pages with entries."""
    for path in sorted(ROOT.glob("docs/reference/**/*.md")):
        if ENTRY.search(path.read_text(encoding="utf-8")):
            yield path


def with_sources(page: Path, text: str, package: griffe.Object | griffe.Alias) -> str:
    """Return the text of a page with the line above its first entry."""
    text = LINE.sub("", text)
    entries = [package[name.removeprefix(f"{PACKAGE}.")] for name in ENTRY.findall(text)]
    files = dict.fromkeys(path for entry in entries for path in _files_of(entry))
    links = ", ".join(f"[`{path.as_posix()}`]({_link(page, path)})" for path in files)
    start = ENTRY.search(text)
    assert start, "a page with entries"
    line = f"Source: {links} <!-- hidden -->\n\n"
    return text[: start.start()] + line + text[start.start() :]


def _files_of(entry: griffe.Object | griffe.Alias) -> Iterator[Path]:
    """Yield the files of an object and of the fields that it has or inherits, from the folder of the package."""
    members = entry.all_members.items() if entry.is_class else ()
    fields = [each for name, each in members if each.is_attribute and not name.startswith("_")]
    for each in (entry, *fields):
        if isinstance(each.filepath, Path) and each.filepath.is_relative_to(ROOT / PACKAGE):
            yield each.filepath.relative_to(ROOT / PACKAGE)


def _link(page: Path, path: Path) -> str:
    return Path(relpath(ROOT / PACKAGE / path, page.parent)).as_posix()


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Leave the line out of the site."""
    return LINE.sub("", markdown) if page.file.src_uri.startswith("reference/") else markdown


def main() -> None:
    package = griffe.load(PACKAGE)
    for path in pages():
        path.write_text(with_sources(path, path.read_text(encoding="utf-8"), package), encoding="utf-8")


if __name__ == "__main__":
    main()
