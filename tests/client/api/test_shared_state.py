"""What threads share is right whichever thread runs when, with and without the GIL.

A moment between two steps is forced where a race could not be provoked under the GIL: a key whose hash, or a lock whose
acquisition, lets another thread run. Everything else is hammered, which finds something only without the GIL.
"""

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations._adapters.request_model import Runtime
from lmstudio_integrations._support import environment
from lmstudio_integrations._support.threads import BoundedCache
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.client.concurrency.mailboxes import ThreadMailbox
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.emulator import EmbeddingRecord, Emulator
from lmstudio_integrations.emulator.models.request_log import Records
from tests.client.fake import context_of
from tests.support.threads import together

THREADS, TIMES = 4, 300


@pytest.fixture(autouse=True)
def frequent_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


# Forced moments -------------------------------------------------------------------------------------------------------


class Interrupting:
    """A key that calls a function when it is hashed for the second time: between a check and what depends on it."""

    def __init__(self, text: str, then: Callable[[], object]) -> None:
        self.text, self._then, self._calls = text, then, 0

    def __hash__(self) -> int:
        self._calls += 1
        if self._calls == 2:
            self._then()
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return self.text == getattr(other, "text", other)


def test_two_threads_that_warn_of_one_setting_warn_once() -> None:
    runtime = Runtime()
    with warnings.catch_warnings(record=True, action="always") as given:
        runtime.warn_once(Interrupting("setting", lambda: runtime.warn_once("setting", "odd")), "odd")
        runtime.warn_once("setting", "odd")
    assert len(given) == 1


def test_two_threads_that_ask_for_a_context_window_share_it() -> None:
    windows = pytest.importorskip("lmstudio_integrations.llama_index._settings")
    windows.window_of(Interrupting("model", lambda: windows.advertise("model", 9000, is_known=True)))
    windows.advertise("model", 8000, is_known=True)
    with pytest.warns(lms.LMStudioConfigWarning, match="already got 9000"):
        windows.record("model", 4096)


def test_a_cache_may_be_emptied_while_it_makes_room() -> None:
    class Size(int):
        def __le__(self, other: int) -> bool:
            is_full = int(self) <= other
            cache.pop_all()
            return is_full

    cache: BoundedCache[int, int] = BoundedCache(Size(1))
    cache.put(1, 1)
    cache.put(2, 2)
    assert cache.values() == [2]


def test_a_server_may_start_while_another_one_is_looked_up() -> None:
    class Port(int):
        def __eq__(self, other: object) -> bool:
            environment.allow("other", 2)
            return False

        __hash__ = int.__hash__

    port = Port(1)
    environment.allow("host", port)
    environment.block()
    try:
        assert environment.is_blocked("host", 3, is_loopback=True)
    finally:
        environment.unblock()
        environment.disallow("host", port)
        environment.disallow("other", 2)


class Noticed:
    """A lock that says when somebody else wants it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.is_wanted = threading.Event()
        self.owner = threading.get_ident()

    def __enter__(self) -> None:
        if threading.get_ident() != self.owner:
            self.is_wanted.set()
        self.lock.acquire()

    def __exit__(self, *_details: object) -> None:
        self.lock.release()


@pytest.mark.leaf("plugins")
def test_sessions_that_another_thread_begins_to_open_are_not_closed(
    server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmstudio_integrations.client.plugins.sessions import PluginSessions, ToolCallbacks, _Opening, spec_of

    with lms.Client(server.address) as client, ThreadPoolExecutor(1) as pool:
        context = context_of(client)
        opening = context.shared(_Opening)
        noticed = Noticed()
        monkeypatch.setattr(opening, "lock", noticed)
        sessions = PluginSessions(context, [spec_of("acme/none", None)], ToolCallbacks())
        others: list[Future[Any]] = []
        is_in_use = PluginSessions.is_in_use

        def begin() -> Flow[Any]:
            flow = sessions.start(Operation(context))
            next(flow)
            return flow

        def read(self: PluginSessions) -> bool:
            in_use = bool(is_in_use.__get__(self))
            if not in_use and not others:
                others.append(pool.submit(begin))
                assert noticed.is_wanted.wait(600)
            return in_use

        flow = begin()
        monkeypatch.setattr(PluginSessions, "is_in_use", property(read))
        flow.close()
        other = others[0].result(600)
        assert sessions._sessions[0]._is_open
        other.close()


# Hammered -------------------------------------------------------------------------------------------------------------


def test_threads_that_make_the_first_call_share_a_thread_and_a_connection(server: Emulator) -> None:
    for _ in range(5):
        with lms.Client(server.address) as client:
            found = together(THREADS, lambda _number, client=client: (client.llm.list_loaded(), IOThread.current())[1])  # type: ignore[misc]
            assert set(found) == {IOThread.current()}


def test_io_threads_start_once_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        monkeypatch.setattr(IOThread, "_current", None)
        (io,) = set(together(THREADS, lambda _number: IOThread.current()))
        io.end()
        io.thread.join(600)
        assert io.stopped
        io.submit(lambda: None)  # does nothing


def test_everything_that_is_put_into_a_mailbox_is_read_in_order() -> None:
    io = IOThread.current()

    def read(_number: int) -> list[int]:
        mailbox = ThreadMailbox(io)
        for number in range(TIMES):
            io.submit(mailbox.put, number)
        io.submit(mailbox.finish, None)
        received: list[int] = []
        while batch := mailbox.wait():
            received += batch
        return received

    assert together(THREADS, read) == [list(range(TIMES))] * THREADS


@pytest.mark.leaf("hosts")
def test_a_slot_of_a_host_belongs_to_one_call() -> None:
    from lmstudio_integrations.client.hosts.host import HostRecord

    record = HostRecord(lms.HostStatus(host="a"))

    def call(_number: int) -> None:
        for _ in range(TIMES):
            token = object()
            if record.reserve(token, 2):
                assert list(record.calls.copy().values()).count(token) == 1
                record.release(token)

    together(THREADS, call)
    assert record.calls == {}


def test_what_is_read_of_the_log_is_a_copy() -> None:
    log: Records[EmbeddingRecord] = Records(50, lambda: None)

    def write_or_read(number: int) -> None:
        for step in range(TIMES):
            if number == 0:
                log.add(EmbeddingRecord(model="m", client="c", text=f"{step:04}"))
            else:
                read = [each.text for each in log.all]
                assert read == sorted(read)

    together(THREADS, write_or_read)


@pytest.mark.leaf("planning")
def test_what_is_read_of_evictions_is_a_copy() -> None:
    from lmstudio_integrations.client.models.seen_memory import SeenMemory

    seen = SeenMemory()

    def write_or_read(number: int) -> None:
        for _ in range(TIMES):
            if number == 0:
                seen.evictions.append(lms.Eviction(identifier="a", model_key="a", evicted_for="b", at=0.0))
            else:
                assert len(seen.evictions.copy()) <= TIMES

    together(THREADS, write_or_read)


def test_the_values_of_a_cache_are_made_once() -> None:
    cache: BoundedCache[int, object] = BoundedCache(8)

    def get(_number: int) -> list[object]:
        return [cache.get_or_make(key, object) for key in range(8) for _ in range(20)]

    first, *others = together(THREADS, get)
    assert all(found == first for found in others)

    together(THREADS, lambda number: [cache.put(number * TIMES + each, each) for each in range(TIMES)])
    cache.put(-1, 0)
    assert len(cache.values()) == 8
