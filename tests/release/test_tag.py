"""The check of the tag."""

import pytest

from lmstudio_integrations import __version__
from tools.release import main, problems_of_tag

CHANGELOG = """\
# Changelog

## [Unreleased]

## [0.2.0] - 2026-12-01

### Added

- A setting.

## [0.1.0] - 2026-11-21

## [0.0.1] - 2026-11-20
"""


def test_the_tag_names_the_version_and_the_changelog_describes_it() -> None:
    assert not list(problems_of_tag("v0.2.0", "0.2.0", CHANGELOG))


@pytest.mark.parametrize("tag", ["0.2.0", "v0.2", "v0.2.1", "v0.2.0rc1"])
def test_another_tag_is_a_problem(tag: str) -> None:
    assert list(problems_of_tag(tag, "0.2.0", CHANGELOG)) == [
        f"the tag is {tag}, and the version of the package is 0.2.0"
    ]


@pytest.mark.parametrize("changelog", ["", "## [0.2.0]\n\n- A setting.\n", "## [0x2.0] - 2026-12-01\n\n- A setting.\n"])
def test_a_version_without_a_dated_heading_is_a_problem(changelog: str) -> None:
    assert list(problems_of_tag("v0.2.0", "0.2.0", changelog)) == [
        "the changelog has no heading `## [0.2.0] - YYYY-MM-DD`"
    ]


@pytest.mark.parametrize("version", ["0.1.0", "0.0.1"])
def test_an_empty_section_is_a_problem(version: str) -> None:
    assert list(problems_of_tag(f"v{version}", version, CHANGELOG)) == [
        f"the changelog describes nothing under {version}"
    ]


def test_the_command_checks_this_checkout(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main("tag", "v0")
    assert ended.value.code == 1
    assert f"the tag is v0, and the version of the package is {__version__}" in capsys.readouterr().out
