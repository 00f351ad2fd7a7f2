"""Connecting: addresses, tokens, lost connections and reconnecting."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.transport.connect.addresses import Address, Credentials, Target
from lmstudio_integrations.emulator import Emulator
from tests.client.conftest import MODELS

TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _drain(stream: AsyncIterator[Any]) -> None:
    async for _item in stream:
        pass


@contextlib.contextmanager
def _another_server(response: bytes | None) -> Iterator[str]:
    """Listen like a server that is not LM Studio: send one response to every request, or stay silent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        opened: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    opened.append(connection)
                    if response is not None:
                        connection.recv(65536)
                        connection.sendall(response)
                        connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        for connection in opened:
            connection.close()
    thread.join(600)


async def test_an_unreachable_server_is_named_in_the_error(make_client: Callable[..., Any]) -> None:
    address = f"127.0.0.1:{_free_port()}"
    async with make_client(address) as client:
        for _ in range(2):  # the failure leaves the client usable
            with pytest.raises(lms.LMStudioUnreachableError, match=f"{address}: nothing listens there") as caught:
                await client.llm.model("chatty")
            assert caught.value.tried


async def test_a_client_works_once_its_server_has_come_up(make_client: Callable[..., Any]) -> None:
    port = _free_port()
    async with make_client(f"127.0.0.1:{port}") as client:
        with pytest.raises(lms.LMStudioUnreachableError):
            await client.llm.model("chatty")
        with Emulator(MODELS, port=port):
            assert (await client.llm.model("chatty")).identifier == "chatty"


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"lmstudio":"yes"}',
        b"220 mail ready\r\n",
    ],
)
async def test_another_server_at_the_port_is_recognized(make_client: Callable[..., Any], response: bytes) -> None:
    with _another_server(response) as address:
        async with make_client(address) as client:
            with pytest.raises(lms.LMStudioUnreachableError, match="something"):
                await client.llm.model("chatty")


async def test_a_silent_server_runs_into_the_connect_timeout(make_client: Callable[..., Any]) -> None:
    with _another_server(None) as address:
        async with make_client(address, connect_timeout=0.2) as client:
            with pytest.raises(lms.LMStudioTimeoutError, match="connect_timeout") as caught:
                await client.llm.model("chatty")
    assert caught.value.timeout_name == "connect_timeout"
    assert isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize("host", ["{}", "http://{}/v1", " {} "])
async def test_an_address_may_be_written_in_many_ways(
    make_client: Callable[..., Any], server: Emulator, host: str
) -> None:
    async with make_client(host.format(server.address)) as client:
        assert (await client.llm.model("chatty")).identifier == "chatty"


@pytest.mark.parametrize("host", ["ftp://host", "host:port", "host:99999", "ws://user:secret@host", "ws://h?x=1", "//"])
def test_an_invalid_address_is_rejected_in_the_constructor(host: str) -> None:
    with pytest.raises(lms.LMStudioValueError, match="host") as caught:
        lms.Client(host)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host", Address("host", 1234)),
        ("https://host", Address("host", 443, tls=True)),
        ("wss://host/lms/", Address("host", 443, tls=True, prefix="/lms")),
        ("[::1]:99", Address("::1", 99)),
        ("[::1]", Address("::1", 1234)),
        ("http://host", Address("host", 1234)),
        ("http://host:80/api/v0", Address("host", 80)),
        ("host:80,", Address("host", 80)),
    ],
)
def test_addresses_are_read(text: str, expected: Address) -> None:
    assert Address.parse(text) == expected


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("::1", "is not an address; write an IPv6 address in brackets, such as [::1]:1234"),
        ("::1:1234", "is not an address; write an IPv6 address in brackets, such as [::1]:1234"),
        ("http://::1:1234/v1", "is not an address; write an IPv6 address in brackets, such as [::1]:1234"),
        ("fd00::20", "is not an address; write an IPv6 address in brackets, such as [::1]:1234"),
        (" ", "is not an address; write host:port, or a ws:// or wss:// URL"),
        ("b:1:2", "is not an address: its port is no number from 1 to 65535; write host:port"),
        ("gpu:http", "is not an address: its port is no number from 1 to 65535; write host:port"),
    ],
)
@pytest.mark.parametrize("source", ["host", "LMSTUDIO_HOST"])
def test_the_error_of_a_bad_host_names_where_it_is_from(
    monkeypatch: pytest.MonkeyPatch, host: str, problem: str, source: str
) -> None:
    monkeypatch.setenv("LMSTUDIO_HOST", host if source != "host" else "studio:1")
    with pytest.raises(lms.LMStudioValueError) as caught:
        lms.Client(host if source == "host" else None)
    assert str(caught.value) == f"{source} {host!r} {problem}"


@pytest.mark.parametrize("client", [lms.Client, lms.AsyncClient])
@pytest.mark.parametrize("hosts", ["a:1234, b:1234", ["a:1234", "b:1234"], ("a:1234", "b:1234")])
def test_several_hosts_are_an_error_with_the_remedy(client: Callable[..., object], hosts: object) -> None:
    with pytest.raises(lms.LMStudioValueError) as caught:
        client(hosts)
    assert str(caught.value) == (
        "host 'a:1234, b:1234' names several servers, and a client has one; name one of them as host, or give them all "
        "to an adapter, such as ChatLMStudio(host=[…])"
    )


def test_several_hosts_of_the_environment_are_an_error_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTUDIO_HOST", "a:1234,b:1234")
    with pytest.raises(lms.LMStudioValueError, match=r"^LMSTUDIO_HOST 'a:1234,b:1234' names several servers"):
        lms.Client()
    assert lms.Client("a:1234").api_host == "a:1234"


@pytest.mark.parametrize("host", [["a:1234"], [], 1234, {"a:1234": "b"}])
def test_a_host_that_is_no_string_is_an_error(host: Any) -> None:
    with pytest.raises(lms.LMStudioValueError, match="must be a string, such as host:port"):
        Address.parse(host)


@pytest.mark.parametrize("hosts", [f"{TOKEN}@a,b", "http://user:secret@a,b", ["http://user:secret@a", "b"]])
def test_the_error_about_several_hosts_shows_no_secret(hosts: Any) -> None:
    with pytest.raises(lms.LMStudioValueError, match=r"pass (it|the token) as api_token") as caught:
        lms.Client(hosts)
    assert TOKEN not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_ipv6_address_is_bracketed_in_its_url() -> None:
    assert Address.parse("[::1]:99").url("llm") == "ws://[::1]:99/llm"


async def test_the_environment_names_the_host(
    make_client: Callable[..., Any], server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMSTUDIO_HOST", server.address)
    async with make_client(None) as client:
        assert (await client.llm.model("chatty")).identifier == "chatty"


async def test_without_a_host_the_default_ports_are_tried(
    make_client: Callable[..., Any], server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LMSTUDIO_HOST", raising=False)
    candidates = (Address("127.0.0.1", _free_port()), Address("127.0.0.1", server.port))
    monkeypatch.setattr("lmstudio_integrations.client.transport.connect.discovery.local_candidates", lambda: candidates)
    async with make_client() as client:
        assert (await client.llm.model("chatty")).identifier == "chatty"
    monkeypatch.setattr(
        "lmstudio_integrations.client.transport.connect.discovery.local_candidates", lambda: candidates[:1]
    )
    async with make_client(api_token=TOKEN) as client:
        with pytest.raises(lms.LMStudioUnreachableError, match="no LM Studio found on this machine"):
            await client.llm.model("chatty")


async def test_a_local_server_is_discovered(
    make_client: Callable[..., Any], server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(server.address)
    assert await client.is_valid_api_host(server.address)
    monkeypatch.setattr(
        "lmstudio_integrations.client.transport.connect.discovery.local_candidates",
        lambda: (Address("127.0.0.1", server.port),),
    )
    assert await client.find_default_local_api_host() == server.address
    monkeypatch.setattr("lmstudio_integrations.client.transport.connect.discovery.local_candidates", lambda: ())
    assert await client.find_default_local_api_host() is None


async def test_a_valid_token_authenticates_and_a_wrong_one_does_not(make_client: Callable[..., Any]) -> None:
    with Emulator(MODELS, tokens=[TOKEN]) as server:
        async with make_client(server.address, TOKEN) as client:
            assert (await client.llm.model("chatty")).identifier == "chatty"
        for token in (None, TOKEN[:-1] + "x"):
            async with make_client(server.address, token) as client:
                with pytest.raises(lms.LMStudioAuthenticationError, match="rejected") as caught:
                    await client.llm.model("chatty")
                assert TOKEN[-8:-1] not in str(caught.value)


@pytest.mark.parametrize("name", ["LM_API_TOKEN", "LMSTUDIO_API_TOKEN"])
async def test_the_environment_names_the_token(
    make_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, TOKEN)
    with Emulator(MODELS, tokens=[TOKEN]) as server:
        async with make_client(server.address) as client:
            assert (await client.llm.model("chatty")).identifier == "chatty"


async def test_a_malformed_token_is_reported_without_showing_it(
    make_client: Callable[..., Any], server: Emulator
) -> None:
    async with make_client(server.address, "sk-lm-secret") as client:
        with pytest.raises(lms.LMStudioAuthenticationError, match="given as api_token is malformed") as caught:
            await client.llm.model("chatty")
    assert "secret" not in str(caught.value)


def test_secrets_are_in_no_repr() -> None:
    client = lms.Client("127.0.0.1:1", TOKEN)
    shown = repr(client) + repr(Target.of("h", TOKEN, {"Authorization": TOKEN})) + repr(Credentials.from_token(TOKEN))
    assert "0123456789" not in shown
    assert "abcdefgh" not in shown


async def test_secrets_are_in_no_log_record(make_client: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "websockets")
    caplog.set_level("DEBUG", "lmstudio_integrations")
    with Emulator(MODELS, tokens=[TOKEN]) as server:
        async with make_client(server.address, TOKEN, headers={"X-Secret": "hush"}) as client:
            assert (await client.llm.model("chatty")).identifier == "chatty"
    assert "0123456789" not in caplog.text
    assert "hush" not in caplog.text


def test_a_token_in_the_place_of_the_host_is_not_shown() -> None:
    with pytest.raises(lms.LMStudioValueError, match="pass it as api_token") as caught:
        lms.Client(TOKEN)
    assert "0123456789" not in str(caught.value)


async def test_a_token_in_clear_text_to_another_machine_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    client = lms.AsyncClient("192.0.2.1:9", TOKEN, connect_timeout=0.05)
    with pytest.raises((lms.LMStudioTimeoutError, lms.LMStudioUnreachableError)):
        await client.llm.model("chatty")
    assert "unencrypted" in caplog.text
    assert TOKEN not in caplog.text


async def test_a_lost_connection_fails_waiting_calls_and_the_next_call_reconnects(
    make_client: Callable[..., Any],
) -> None:
    port = _free_port()
    async with make_client(f"127.0.0.1:{port}") as client:
        with Emulator(MODELS, port=port):
            model = await client.llm.model("chatty")
            stream = aiter(model.respond_stream("for ever"))
            await anext(stream)
        with pytest.raises((lms.LMStudioConnectionLostError, lms.LMStudioServerError)):
            await _drain(stream)
        with Emulator(MODELS, port=port):
            assert str(await model.respond("hello"))


async def test_a_socket_that_breaks_in_mid_stream_is_a_lost_connection(client: Any) -> None:
    model = await client.llm.model("chatty")
    with pytest.raises(lms.LMStudioConnectionLostError, match="lost") as caught:
        await model.respond("drop")
    assert caught.value.__cause__ is not None
    assert str(await model.respond("hello"))


@pytest.mark.parametrize("clock", ["idle_timeout", "timeout", "connect_timeout"])
def test_an_invalid_timeout_is_rejected(clock: str) -> None:
    with pytest.raises(lms.LMStudioValueError, match=clock):
        lms.Client(None, None, **{clock: -1})  # type: ignore[arg-type]  # one of the timeouts
    with pytest.raises(lms.LMStudioValueError, match="did you mean 'idle_timeout'"):
        lms.Client(idle_timeuot=1)  # type: ignore[call-arg]  # what is tested


async def test_clients_with_the_same_credentials_share_their_sockets(server: Emulator) -> None:
    first, second = lms.AsyncClient(server.address), lms.Client(server.address)
    await first.llm.model("chatty")
    await asyncio.to_thread(second.llm.model, "chatty")
    assert len(server.connections) == 1
    await first.aclose()
    second.close()


async def test_an_idle_connection_closes_after_its_last_client(
    server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmstudio_integrations.client.transport.connections.LINGER", 0.0)
    async with lms.AsyncClient(server.address) as client:
        await client.llm.model("chatty")
        assert len(server.connections) == 1
    await asyncio.to_thread(server.wait_for, lambda: not server.connections)


async def test_an_adapters_connection_closes_when_it_has_been_idle(server: Emulator) -> None:
    client = lms.AsyncClient(server.address, keep_idle=0.1)
    model = await client.llm.model("chatty")
    await asyncio.to_thread(server.wait_for, lambda: not server.connections)
    assert str(await model.respond("hello"))


PLACEHOLDERS = ["lm-studio", "not-needed", "EMPTY", "ollama", "sk-proj-0123456789"]
"""What programs for OpenAI's API have as a key where none is needed."""


@pytest.mark.parametrize("name", [None, "LM_API_TOKEN", "LMSTUDIO_API_TOKEN"])
@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
async def test_a_key_that_is_no_token_of_lm_studio_means_no_token(
    make_client: Callable[..., Any],
    server: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    placeholder: str,
    name: str | None,
) -> None:
    if name:
        monkeypatch.setenv(name, placeholder)
    given = () if name else (placeholder,)
    async with make_client(server.address, *given) as client:
        assert (await client.llm.model("chatty")).identifier == "chatty"
    with Emulator(MODELS, tokens=[TOKEN]) as strict:
        async with make_client(strict.address, *given) as client:
            with pytest.raises(lms.LMStudioAuthenticationError, match=r"none of LM Studio's .*leave it out") as caught:
                await client.llm.model("chatty")
    assert (f"in {name}" if name else "given as api_token") in str(caught.value)
    assert placeholder not in str(caught.value).replace("LM_API_TOKEN", "")


async def test_a_key_that_is_no_token_does_not_replace_the_token_of_the_environment(
    make_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LM_API_TOKEN", TOKEN)
    with Emulator(MODELS, tokens=[TOKEN]) as server:
        async with make_client(server.address, "not-needed") as client:
            assert (await client.llm.model("chatty")).identifier == "chatty"
