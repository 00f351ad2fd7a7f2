"""Fixtures of the fault matrix: the proxy's thread, and pauses before a retry that take no time."""

from collections.abc import Iterator

import pytest

from tests.faults.cells import pause_of_this_cell
from tests.faults.stage import Threads
from tests.support.pauses import replace_pauses


@pytest.fixture(scope="session")
def proxies() -> Iterator[Threads]:
    """The thread on which all proxies run."""
    with Threads() as thread:
        yield thread


@pytest.fixture(autouse=True)
def _no_time_passes_before_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_pauses(monkeypatch, lambda _seconds: pause_of_this_cell())
