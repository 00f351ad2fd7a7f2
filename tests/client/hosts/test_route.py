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
    record = SimpleNamespace(record_failure=lambda _error: None)
    hosts: list[Any] = [SimpleNamespace(address=address, record=record) for address in "ab"]
    available: Any = SimpleNamespace(
        max_retries=1,
        probed=lambda: iter(()),
        reserve=lambda hosts, excluded, _call, _outline: (min(set(range(len(hosts))) - excluded), None),
    )
    route = Route(available, hosts)
    begun: list[float | None] = []
    for _ in range(3):
        run(route.next())
        begun.append(route.started_at)
        route.delay_after(LMStudioConnectionLostError("gone"))
        now[0] += 10
    assert begun == [0, 0, 20]
