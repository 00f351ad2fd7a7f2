"""What is checked before a release, as commands that print what is wrong and then fail.

`python -m tools.release tag TAG`: the tag names the version of the package, the changelog describes that version, and
the address of the repository is set.
`python -m tools.release contents FOLDER`: the wheel and the sdist in a folder have exactly the files that belong there.

The release workflow runs the first one with nothing installed; `tests/release` has the second among its tests.
"""

import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable, Iterable, Iterator
from email.parser import HeaderParser
from itertools import chain
from pathlib import Path
from zipfile import ZipFile

from lmstudio_integrations import __version__
from tools import ROOT
from tools.address import problems_of_addresses, urls

PACKAGE = "lmstudio_integrations"
STEM = f"{PACKAGE}-{__version__}"
WHEEL = f"{STEM}-py3-none-any.whl"
SDIST = f"{STEM}.tar.gz"

METADATA_VERSION = "2.4"
"""The newest that every tool for publishing accepts. The build backend writes a newer one by default."""


def problems_of_tag(tag: str, version: str, changelog: str) -> Iterator[str]:
    """Yield why a version must not be released under a tag."""
    if tag != f"v{version}":
        yield f"the tag is {tag}, and the version of the package is {version}"
    heading = re.compile(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", re.MULTILINE)
    section = heading.search(changelog)
    if section is None:
        yield f"the changelog has no heading `## [{version}] - YYYY-MM-DD`"
    elif not re.match(r"\s*(?!## )\S", changelog[section.end() :]):
        yield f"the changelog describes nothing under {version}"


def tracked_files() -> set[str]:
    """Return the files of this checkout that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout
    return {name for name in listed.splitlines() if (ROOT / name).exists()}


def expected_in_wheel(tracked: Iterable[str]) -> set[str]:
    package = {name for name in tracked if name.startswith(f"{PACKAGE}/")}
    information = ["METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"]
    return package | {f"{STEM}.dist-info/{name}" for name in information}


def expected_in_sdist(tracked: Iterable[str]) -> set[str]:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    included = tuple(name.removeprefix("/") for name in build["targets"]["sdist"]["include"])
    always = {".gitignore", "LICENSE", "PKG-INFO", "pyproject.toml"}
    return {f"{STEM}/{name}" for name in always.union(each for each in tracked if each.startswith(included))}


def read_wheel(path: Path) -> tuple[set[str], str]:
    """Return the names in a wheel, and its metadata."""
    with ZipFile(path) as archive:
        return set(archive.namelist()), archive.read(f"{STEM}.dist-info/METADATA").decode()


def read_sdist(path: Path) -> tuple[set[str], str]:
    """Return the names in an sdist, and its metadata."""
    with tarfile.open(path) as archive:
        metadata = archive.extractfile(f"{STEM}/PKG-INFO")
        assert metadata, "a file, as the build backend writes it"
        return set(archive.getnames()), metadata.read().decode()


def problems_of_distributions(folder: Path) -> Iterator[str]:
    """Yield what is wrong with the distributions in a folder."""
    names_of_files = {path.name for path in folder.glob("[!.]*")}
    yield from compare(f"{folder}", names_of_files, {WHEEL, SDIST})
    tracked = tracked_files()
    for name, read, expected in ((WHEEL, read_wheel, expected_in_wheel), (SDIST, read_sdist, expected_in_sdist)):
        if name in names_of_files:
            names, metadata = read(folder / name)
            yield from compare(name, names, expected(tracked))
            yield from check_metadata(name, metadata)


def compare(where: str, names: set[str], expected: set[str]) -> Iterator[str]:
    yield from (f"{where}: lacks {name}" for name in sorted(expected - names))
    yield from (f"{where}: should not contain {name}" for name in sorted(names - expected))


def check_metadata(where: str, metadata: str) -> Iterator[str]:
    parsed = HeaderParser().parsestr(metadata)
    if parsed["Metadata-Version"] != METADATA_VERSION:
        yield f"{where}: has metadata version {parsed['Metadata-Version']}, not {METADATA_VERSION}"
    for link in re.findall(r"\]\((?!https?://)([^)]*)\)", str(parsed.get_payload())):
        yield f"{where}: its description has the link {link}, which leads nowhere on the package's page"


def main(check: str, subject: str) -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    problems: dict[str, Callable[[], Iterable[str]]] = {
        "tag": lambda: chain(problems_of_tag(subject, __version__, changelog), problems_of_addresses(urls())),
        "contents": lambda: problems_of_distributions(Path(subject)),
    }
    status = 0
    for problem in problems[check]():
        print(problem)
        status = 1
    sys.exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
