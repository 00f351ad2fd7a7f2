"""Which browser is used, and what happens without one."""

import sys
from pathlib import Path

import pytest

from tests.browser.conftest import NO_BROWSER, PROGRAMS, REQUIRED, find_executable, reject


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which programs are found."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_browser_of_this_machine_is_used(programs: Path, name: str) -> None:
    assert find_executable("/nowhere") is None
    (programs / name).touch(mode=0o700)
    assert find_executable("/nowhere") == str(programs / name)


def test_the_browser_of_playwright_comes_first(programs: Path) -> None:
    for name in ("own", *PROGRAMS):
        (programs / name).touch(mode=0o700)
    assert find_executable(str(programs / "own")) == str(programs / "own")


def test_without_a_browser_the_reason_names_the_command_that_installs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium") as skipped:
        reject()
    assert skipped.value.msg == NO_BROWSER


def test_where_a_browser_is_required_its_absence_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        reject()
