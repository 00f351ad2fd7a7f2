"""The way of one operation over hosts that all fail."""

from types import SimpleNamespace
from typing import Any

import pytest

from lmstudio_integrations.client.hosts.route import Route
from lmstudio_integrations.client.transport.flows import run
from lmstudio_integrations.errors import LMStudioConnectionLostError


def test_the_total_timeout_begins_again_with_a_retry_and_not_with_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    begun: list[float] = []
    dispatcher: Any = SimpleNamespace(for_operation=lambda *, started_at: begun.append(started_at))
    dispatcher.movable = lambda: dispatcher
    hosts: list[Any] = [SimpleNamespace(dispatcher=dispatcher, binding=None) for _ in range(2)]
    for host in hosts:
        host.record = SimpleNamespace(record_failure=lambda _error: None)
    pool: Any = SimpleNamespace(
        max_retries=1,
        surveyed=lambda _make_waiter: iter(()),
        claim=lambda hosts, excluded, _token: (min(set(range(len(hosts))) - excluded), None),
    )
    route = Route(pool, hosts)
    for _ in range(3):
        run(route.next())
        route.delay_after(LMStudioConnectionLostError("gone"))
        now[0] += 10
    assert begun == [0, 0, 20]
