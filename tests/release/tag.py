"""The tag of a release: it names the version of the package, and the changelog describes that version.

Run as a command with the tag; the release workflow does.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from lmstudio_integrations import __version__

ROOT = Path(__file__).parents[2]


def find_problems(tag: str, version: str, changelog: str) -> Iterator[str]:
    """Yield why a version must not be released under a tag."""
    if tag != f"v{version}":
        yield f"the tag is {tag}, and the version of the package is {version}"
    heading = re.compile(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", re.MULTILINE)
    section = heading.search(changelog)
    if section is None:
        yield f"the changelog has no heading `## [{version}] - YYYY-MM-DD`"
    elif not re.match(r"\s*(?!## )\S", changelog[section.end() :]):
        yield f"the changelog describes nothing under {version}"


def main(tag: str) -> None:
    problems = [*find_problems(tag, __version__, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))]
    print(*problems, sep="\n", end="\n" if problems else "")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main(*sys.argv[1:])
