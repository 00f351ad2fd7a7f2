"""Sets the addresses of the repository and of its site: `python -m tools.address SOURCE SITE`.

`[project.urls]` in `pyproject.toml` says what they are; the other files that contain them are rewritten with it.
"""

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tools import ROOT

FILES = (
    "pyproject.toml",
    "mkdocs.yml",
    "README.md",
    ".github/ISSUE_TEMPLATE/config.yml",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / ".github/listings").rglob("*.md")),
)
"""The files that contain an address."""

PLACEHOLDER = "not-yet-public.example.org"
"""The host of both addresses until there is a repository that everybody can read; nobody can have this domain."""


def urls(root: Path = ROOT) -> dict[str, str]:
    """Return the links of the project, by their names."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {name: str(url) for name, url in project["urls"].items()}


def problems_of_addresses(urls: Mapping[str, str]) -> Iterator[str]:
    """Yield why a version must not be released with these links."""
    if any(PLACEHOLDER in url for url in urls.values()):
        yield "the address of the repository is a placeholder; set it with `python -m tools.address SOURCE SITE`"


def set_addresses(source: str, site: str, root: Path = ROOT) -> None:
    """Replace both addresses wherever they are."""
    old = urls(root)
    new = {old["Source"]: source.rstrip("/"), old["Documentation"]: site.rstrip("/") + "/"}
    either = re.compile("|".join(re.escape(address) for address in new))
    for name in FILES:
        path = root / name
        path.write_text(either.sub(lambda match: new[match[0]], path.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> None:
    _, source, site = sys.argv
    set_addresses(source, site)


if __name__ == "__main__":
    main()
