"""The failover of one operation over hosts that all fail."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from lmstudio_integrations.client.hosts.failover import Failover
from lmstudio_integrations.client.hosts.host import HostRecord
from lmstudio_integrations.client.hosts.hosts import Hosts
from lmstudio_integrations.client.transport.flows import run
from lmstudio_integrations.errors import LMStudioConnectionLostError
from lmstudio_integrations.protocol.prompt_fingerprint import PromptFingerprint
from lmstudio_integrations.types.hosts import HostStatus


def test_the_total_timeout_begins_again_with_a_retry_and_not_with_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    record = SimpleNamespace(record_failure=lambda _error: None)
    hosts: list[Any] = [SimpleNamespace(address=address, record=record) for address in "ab"]
    available: Any = SimpleNamespace(
        max_retries=1,
        probe=lambda: iter(()),
        reserve=lambda hosts, excluded, _call, _fingerprint: (min(set(range(len(hosts))) - excluded), None),
    )
    failover = Failover(available, hosts)
    begun: list[float | None] = []
    for _ in range(3):
        run(failover.next_host())
        begun.append(failover.started_at)
        failover.delay_after(LMStudioConnectionLostError("gone"))
        now[0] += 10
    assert begun == [0, 0, 20]


def test_a_call_waits_for_its_conversation_while_another_host_is_still_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hosts, "compare", lambda *_: None)
    fingerprint, model = PromptFingerprint((0, 1)), SimpleNamespace(state=SimpleNamespace(policy="get_or_load"))
    statuses = [
        HostStatus(host="a", available=True, loaded=True),
        HostStatus(host="b", available=True, loaded=True, in_flight=1, call_seconds=1.0),
        HostStatus(host="c", available=True),
    ]
    hosts: list[Any] = [
        SimpleNamespace(status=lambda status=status: status, record=HostRecord(checked_at=0.0), model=model)
        for status in statuses
    ]
    hosts[2].record.checked_at = -math.inf
    monkeypatch.setattr(hosts[1].record.prompt_index, "seconds_saved", lambda _: 2.0)
    reserved = Hosts.__new__(Hosts).reserve(hosts, set(), object(), fingerprint)
    assert reserved is not None
    assert reserved[0] == 1


def test_a_response_that_arrives_while_a_host_is_chosen_counts_for_the_next_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Hosts, "compare", lambda *_: None)
    model, late = SimpleNamespace(state=SimpleNamespace(policy="get_or_load")), HostRecord()

    def status() -> HostStatus:
        late.checked_at = 0.0  # the host responds as soon as it has been read
        return HostStatus(host="b", available=True)

    busy = HostStatus(host="a", available=True, loaded=True, downloaded=True, in_flight=1)
    hosts: list[Any] = [
        SimpleNamespace(status=lambda: busy, record=HostRecord(checked_at=0.0), model=model),
        SimpleNamespace(status=status, record=late, model=model),
    ]
    assert Hosts.__new__(Hosts).reserve(hosts, set(), object()) is None
    late.checked_at = -math.inf
    assert Hosts(hosts).slots == [busy.parallel, 1]
