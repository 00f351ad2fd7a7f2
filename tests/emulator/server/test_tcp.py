"""Both that listen, the server and the proxy, disconnect everybody when they close."""

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator
from tests.emulator.bare_client import TIMEOUT
from tests.faults.proxy import Proxy, ProxyThread, _bind

Close = Callable[[], Coroutine[Any, Any, None]]
Run = Callable[[Coroutine[Any, Any, socket.socket]], socket.socket]


@contextmanager
def _server() -> Iterator[tuple[int, Close, Run]]:
    with Emulator(["a-model"]) as server:
        yield server.port, server._started.server.close, server._call


@contextmanager
def _proxy() -> Iterator[tuple[int, Close, Run]]:
    with Emulator(["a-model"]) as server, ProxyThread() as thread, Proxy(thread, server.address) as proxy:
        yield proxy.port, proxy._close, thread.run


@pytest.mark.parametrize("listening", [_server, _proxy])
@pytest.mark.parametrize("turns", range(6))
def test_a_client_that_connects_some_turns_before_the_end_is_disconnected(
    listening: Callable[[], Any], turns: int
) -> None:
    with listening() as (port, close, run):

        async def connect_and_close() -> socket.socket:
            client = socket.create_connection(("127.0.0.1", port))
            for _ in range(turns):
                await asyncio.sleep(0)
            await asyncio.wait_for(close(), TIMEOUT)
            return client

        with run(connect_and_close()) as client:
            client.settimeout(TIMEOUT)
            try:
                received = client.recv(1)
            except ConnectionError:
                received = b""
    assert received == b""


def test_no_second_server_can_have_the_port_of_a_proxy_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    for system, reuses in (("linux", True), ("win32", False)):
        monkeypatch.setattr(sys, "platform", system)
        with _bind(0) as listener:
            assert bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) is reuses
