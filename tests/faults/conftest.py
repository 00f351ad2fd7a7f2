"""Fixtures of the fault matrix: the proxy's thread, and pauses before a retry that take no time."""

import asyncio
from collections.abc import Iterator

import pytest

from lmstudio_integrations._adapters import retry
from tests.faults.cells import pause_of_this_thread
from tests.faults.proxy import ProxyThread


@pytest.fixture(scope="session")
def proxies() -> Iterator[ProxyThread]:
    """The thread on which all proxies run."""
    with ProxyThread() as thread:
        yield thread


@pytest.fixture(autouse=True)
def _no_time_passes_before_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    async def apause(_seconds: float) -> None:
        pause_of_this_thread()
        await asyncio.sleep(0)

    monkeypatch.setattr(retry, "sleep", lambda _seconds: pause_of_this_thread())
    monkeypatch.setattr(retry, "asleep", apause)
