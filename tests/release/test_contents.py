"""The check of the distributions, with planted faults; `test_installation.py` checks real ones."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from tools import release
from tools.release import PACKAGE, SDIST, STEM, WHEEL, main, problems_of_distributions

Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Write distributions of a package of two files, without some files and with others."""
    monkeypatch.setattr(release, "tracked_files", lambda: {f"{PACKAGE}/a.py", f"{PACKAGE}/py.typed", "tests/a.py"})

    def write(
        *, without: str = "", added: str = "", metadata_version: str = "2.4", description: str = "A description."
    ) -> Path:
        metadata = f"Metadata-Version: {metadata_version}\nName: {PACKAGE}\n\n{description}\n".encode()
        tracked = release.tracked_files()
        with ZipFile(tmp_path / WHEEL, "w") as wheel:
            for name in sorted((release.expected_in_wheel(tracked) | {added}) - {without, ""}):
                wheel.writestr(name, metadata)
        with tarfile.open(tmp_path / SDIST, "w:gz") as sdist:
            for name in sorted(release.expected_in_sdist(tracked) | {f"{STEM}/{added}"} - {f"{STEM}/"}):
                information = tarfile.TarInfo(name)
                information.size = len(metadata)
                if name != f"{STEM}/{without}":
                    sdist.addfile(information, io.BytesIO(metadata))
        return tmp_path

    return write


def test_distributions_with_exactly_the_expected_files_have_no_problems(build: Build) -> None:
    assert not list(problems_of_distributions(build()))


@pytest.mark.parametrize("name", [f"{PACKAGE}/py.typed", f"{STEM}.dist-info/licenses/LICENSE", "LICENSE", "tests/a.py"])
def test_a_file_that_is_missing_is_named(build: Build, name: str) -> None:
    problems = list(problems_of_distributions(build(without=name)))
    is_of_wheel = name.startswith((PACKAGE, STEM))
    assert (f"{WHEEL}: lacks {name}" in problems) == is_of_wheel
    assert is_of_wheel or problems == [f"{SDIST}: lacks {STEM}/{name}"]


@pytest.mark.parametrize("name", ["tests/test_a.py", f"{PACKAGE}/__pycache__/a.pyc", ".env"])
def test_a_file_that_does_not_belong_there_is_named(build: Build, name: str) -> None:
    assert list(problems_of_distributions(build(added=name))) == [
        f"{WHEEL}: should not contain {name}",
        f"{SDIST}: should not contain {STEM}/{name}",
    ]


def test_metadata_that_tools_for_publishing_may_not_know_are_a_problem(build: Build) -> None:
    assert list(problems_of_distributions(build(metadata_version="2.5"))) == [
        f"{name}: has metadata version 2.5, not 2.4" for name in (WHEEL, SDIST)
    ]


def test_a_link_that_only_works_in_the_repository_is_a_problem(build: Build) -> None:
    folder = build(description="![A demo](docs/demo.svg), [there](https://a.org/b)")
    assert list(problems_of_distributions(folder)) == [
        f"{name}: its description has the link docs/demo.svg, which leads nowhere on the package's page"
        for name in (WHEEL, SDIST)
    ]


def test_a_missing_and_an_additional_distribution_are_problems(build: Build) -> None:
    folder = build()
    (folder / WHEEL).rename(folder / f"{PACKAGE}-0.0.1-py3-none-any.whl")
    assert list(problems_of_distributions(folder)) == [
        f"{folder}: lacks {WHEEL}",
        f"{folder}: should not contain {PACKAGE}-0.0.1-py3-none-any.whl",
    ]


def test_the_command_prints_the_problems_and_fails(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main("contents", str(build()))
    assert (ended.value.code, capsys.readouterr().out) == (0, "")
    with pytest.raises(SystemExit) as ended:
        main("contents", str(build(without="LICENSE")))
    assert (ended.value.code, capsys.readouterr().out) == (1, f"{SDIST}: lacks {STEM}/LICENSE\n")
