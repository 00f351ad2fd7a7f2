"""The failover of one operation over hosts that all fail."""

import asyncio
import math
from types import SimpleNamespace
from typing import Any

import lmstudio_integrations as lms
from lmstudio_integrations.client.concurrency.flows import run
from lmstudio_integrations.client.hosts.host import HostRecord
from lmstudio_integrations.client.hosts.hosts import FailoverOperation, Hosts
from lmstudio_integrations.client.transport.listener import NOBODY
from tests.support.virtual_time import in_virtual_time


@in_virtual_time
async def test_the_total_timeout_begins_again_with_a_retry_and_not_with_another_host() -> None:
    begun: list[float] = []

    def child(started_at: float, _listener: object, **_: bool) -> Any:
        begun.append(started_at)
        return context

    context = SimpleNamespace(
        child=child,
        pause=lambda _: iter(()),
        max_retries=0,
        listener=NOBODY,
        target="a",
        timeouts={},
        started_at=None,
    )
    record = SimpleNamespace(record_error=lambda _error, **_: True, release=lambda _: None)
    model = SimpleNamespace(context=context, state=SimpleNamespace(name="m", key="m"))
    hosts: list[Any] = [SimpleNamespace(address=address, record=record, model=model) for address in "ab"]
    available: Any = SimpleNamespace(
        max_retries=1,
        probe=lambda: iter(()),
        reserve=lambda hosts, excluded, *_: min({*range(len(hosts))} - {*excluded}),
    )
    operation = FailoverOperation(available, hosts)
    for _ in range(3):
        run(operation.next_attempt())
        operation.should_retry(lms.LMStudioConnectionLostError("gone"))
        await asyncio.sleep(10)
    assert [round(each - begun[0]) for each in begun] == [0, 0, 20]


class _HostsOfOneModel(Hosts):
    def compare(self, statuses: object) -> None:
        """Compare nothing: there is no server."""


def test_a_response_that_arrives_while_a_host_is_chosen_counts_for_the_next_choice() -> None:
    model, late = SimpleNamespace(state=SimpleNamespace(policy="get_or_load")), HostRecord(lms.HostStatus(host="b"))

    def status() -> lms.HostStatus:
        late.checked_at = 0.0  # the host responds as soon as it has been read
        return lms.HostStatus(host="b", available=True)

    busy = lms.HostStatus(host="a", available=True, loaded=True, downloaded=True, in_flight=1)
    hosts: list[Any] = [
        SimpleNamespace(status=lambda: busy, record=HostRecord(busy, checked_at=0.0), model=model),
        SimpleNamespace(status=status, record=late, model=model),
    ]
    assert _HostsOfOneModel.__new__(_HostsOfOneModel).reserve(hosts, set(), object()) is None
    late.checked_at = -math.inf
    assert _HostsOfOneModel(hosts).slots == [busy.parallel, 1]
