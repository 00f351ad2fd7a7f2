"""Proxies of the environment, such as those of an office network: which one is used, and which one is to blame."""

import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.transport.connect.addresses import Address
from lmstudio_integrations.client.transport.connect.probe import name_proxy, proxy_of
from lmstudio_integrations.emulator import Emulator
from tests.client.both import make_client
from tests.client.transport.connect.test_tls_and_redirects import listening
from tests.faults.proxy import Injection, ProxiedConnection, Proxy, ProxyThread
from tests.faults.wire_items import WireItem

__all__ = ["make_client"]

REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take this machine's own address for one in the network, and forget the proxies of the developer's machine."""
    monkeypatch.setattr(Address, "is_loopback", False)
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def tunnel_to(thread: ProxyThread, upstream: str) -> Proxy:
    """Return a proxy that leads to one server, whichever it is asked for."""

    async def accept(connection: ProxiedConnection, item: WireItem) -> None:
        assert item.data.startswith(b"CONNECT ")
        await connection.deliver(b"HTTP/1.1 200 Connection established\r\n\r\n")

    return Proxy(thread, upstream, [Injection("request head", accept, 1000)])


@pytest.fixture
def tunnel() -> Iterator[Callable[[str], Proxy]]:
    with ProxyThread() as thread:
        yield partial(tunnel_to, thread)


async def problem_of(client: Any) -> str:
    async with client:
        with pytest.raises(lms.LMStudioUnreachableError) as caught:
            await client.llm.list_loaded()
    return str(caught.value)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "WS_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_a_proxy_that_does_not_respond_is_to_blame(
    make_client: Callable[..., Any], server: Emulator, monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str
) -> None:
    value = f"{scheme}127.0.0.1:9"
    monkeypatch.setenv(variable, value)
    text = await problem_of(make_client(server.address))
    assert f"the proxy {variable}={value} does not lead to it: " in text
    assert text.endswith("; it responds without the proxy: set NO_PROXY=127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with make_client(server.address) as client:
        assert await client.llm.list_loaded() == []


async def test_a_proxy_that_refuses_is_to_blame_and_hosts_without_a_proxy_stay_so(
    make_client: Callable[..., Any], server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "example.com")
    with listening(REFUSAL) as address:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:hush@{address}")
        text = await problem_of(make_client(server.address))
    assert f"HTTP_PROXY=http://**********@{address} does not lead to it: proxy rejected connection: HTTP 403" in text
    assert "set no_proxy=example.com,127.0.0.1" in text
    assert "hush" not in text


async def test_it_is_said_if_the_host_does_not_respond_without_the_proxy_either(
    make_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(REFUSAL) as address:
        monkeypatch.setenv("HTTPS_PROXY", address)
        text = await problem_of(make_client("127.0.0.1:9"))
    assert f"HTTPS_PROXY={address} does not lead to it" in text
    assert "; correct the proxy, or set NO_PROXY=127.0.0.1 if none is needed; without it, nothing listens there" in text


@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_a_host_that_only_a_proxy_reaches_is_reached(
    make_client: Callable[..., Any],
    server: Emulator,
    tunnel: Callable[[str], Proxy],
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
) -> None:
    with tunnel(server.address) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"{scheme}{proxy.address}")
        async with make_client("studio.invalid:1234") as client:
            assert await client.llm.list_loaded() == []


async def test_a_server_that_only_a_proxy_reaches_rejects_a_client_itself(
    make_client: Callable[..., Any], tunnel: Callable[[str], Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n") as address, tunnel(address) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.address)
        async with make_client("studio.invalid:1234") as client:
            with pytest.raises(lms.LMStudioAuthenticationError, match="with status 401"):
                await client.llm.list_loaded()


async def test_a_proxy_that_stays_silent_is_named_with_the_timeout(
    make_client: Callable[..., Any], server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{silent.getsockname()[1]}")
        async with make_client(server.address, connect_timeout=0.01) as client:
            with pytest.raises(
                lms.LMStudioTimeoutError, match=r"through the proxy HTTP_PROXY=127\.0\.0\.1:\d+, does not"
            ):
                await client.llm.list_loaded()


@pytest.mark.parametrize(
    ("variables", "url", "named"),
    [
        (
            {"HTTP_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:1"},
            "ws://gpu.local",
            "the proxy HTTPS_PROXY=http://b:1",
        ),
        ({"HTTP_PROXY": "http://a:1", "http_proxy": "http://b:1"}, "ws://gpu.local", "the proxy http_proxy=http://b:1"),
        ({"HTTP_PROXY": "a:1", "HTTPS_PROXY": "a:1"}, "ws://gpu.local", "the proxy HTTPS_PROXY=a:1"),
        ({"HTTP_PROXY": "http://a:1"}, "wss://gpu.local", None),
        ({"HTTPS_PROXY": "a:1", "WSS_PROXY": "b:1"}, "wss://gpu.local", "the proxy WSS_PROXY=b:1"),
        ({"ALL_PROXY": "http://a:1"}, "ws://gpu.local", None),
        ({"SOCKS_PROXY": "http://a:1"}, "ws://gpu.local", "the proxy SOCKS_PROXY=http://a:1"),
        ({"HTTP_PROXY": "http://a:1", "NO_PROXY": "local"}, "ws://gpu.local", None),
        ({"HTTP_PROXY": "http://a:1", "NO_PROXY": "fd00::20"}, "ws://[fd00::20]:1234", None),
        ({"HTTP_PROXY": ""}, "ws://gpu.local", None),
    ],
)
def test_the_variable_is_named_whose_proxy_is_used(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, named: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxy = proxy_of(Address.parse(url))
    assert (proxy and name_proxy(proxy)) == named


def test_a_proxy_that_no_variable_names_is_that_of_the_system() -> None:
    assert name_proxy("http://user:hush@proxy:8080") == "the system's proxy http://**********@proxy:8080"


def test_this_machine_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("http_proxy", "http://proxy:8080")
    assert proxy_of(Address.parse("localhost")) is None
    assert proxy_of(Address.parse("gpu.local")) == "http://proxy:8080"
