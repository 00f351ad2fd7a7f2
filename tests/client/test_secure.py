"""Who gets the credentials: only the address that was named. And what is said when TLS cannot be had."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client import _opening
from lmstudio_integrations.client._address import Address
from lmstudio_integrations.client._probe import first_greeting
from lmstudio_integrations.emulator import Emulator
from tests.client.conftest import MODELS
from tests.client.fake import Socket, fake_server
from tests.leaks import TOKEN, shown_by, shows_token

HERE = Path(__file__).parent
PLAIN_ON_TLS = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


@contextlib.asynccontextmanager
async def listening(answer: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Listen, and send an answer to every request; yields the address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def certified(name: str) -> ssl.SSLContext:
    """Return the server's side of TLS, with a certificate of the tests."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(HERE / name)
    return context


def trusting(name: str) -> ssl.SSLContext:
    """Return the client's side of TLS, where a certificate is trusted if it is valid."""
    return ssl.create_default_context(cafile=HERE / name)


def redirect(location: str, status: str = "302 Found") -> bytes:
    return f"HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


async def unreachable(client: Any) -> lms.LMStudioUnreachableError:
    """Return the error of a call that reaches nobody."""
    async with client:
        with pytest.raises(lms.LMStudioUnreachableError) as caught:
            await client.llm.list_loaded()
    return caught.value


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"])
async def test_a_redirect_gets_no_credentials(make_client: Callable[..., Any], status: str) -> None:
    with Emulator(MODELS, tokens=[TOKEN]) as server:
        async with listening(redirect(f"ws://{server.address}/llm", status)) as address:
            error = await unreachable(make_client(address, TOKEN, headers={"Authorization": f"Bearer {TOKEN}"}))
        assert not server.connections
        assert f"it redirects to ws://{server.address}/llm; set host to that address" in str(error)
    assert not shows_token(shown_by(error))


async def test_a_redirect_to_another_path_is_shown_whole(make_client: Callable[..., Any]) -> None:
    async with listening(redirect("/elsewhere/")) as address:
        assert f"it redirects to ws://{address}/elsewhere/;" in str(await unreachable(make_client(address)))


async def test_a_redirect_to_what_is_no_address_is_shown_as_it_came(make_client: Callable[..., Any]) -> None:
    async with listening(redirect("http://[oops/")) as address:
        assert "it redirects to http://[oops/;" in str(await unreachable(make_client(address)))


async def test_a_redirect_without_an_address_is_just_another_server(make_client: Callable[..., Any]) -> None:
    async with listening(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n") as address:
        assert "something else listens there" in str(await unreachable(make_client(address)))


async def test_a_redirected_greeting_finds_nobody() -> None:
    with Emulator(MODELS) as server:
        target = f"{server.address}/lmstudio-greeting"
        async with listening(redirect(f"http://me:secret@{target}")) as address:
            found, tried = await first_greeting([Address.parse(address)])
    assert found is None
    assert f"it redirects to http://**********@{target}; set host" in tried[0]


async def test_the_password_of_a_proxy_is_not_shown(
    make_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def greeted(*_: object) -> None:
        return None

    for name in ("http_proxy", "https_proxy", "socks_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"ftp://user:{TOKEN[15:]}@proxy:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr(_opening, "diagnose", greeted)
    error = await unreachable(make_client("192.0.2.1:9"))
    assert "proxy" in str(error)
    assert not shows_token(shown_by(error))


async def test_tls_to_a_plain_server_is_reported(make_client: Callable[..., Any]) -> None:
    with Emulator(MODELS) as server:
        error = await unreachable(make_client(f"wss://{server.address}"))
    assert "the server speaks plain http; use ws:// in place of wss://" in str(error)


@pytest.mark.parametrize(("answer", "detected"), [(PLAIN_ON_TLS, True), (b"220 mail ready\r\n\r\n", False)])
async def test_no_tls_to_a_server_of_tls_is_reported(
    make_client: Callable[..., Any], answer: bytes, detected: bool
) -> None:
    async with listening(answer, certified("localhost.pem")) as address:
        error = await unreachable(make_client(address))
    assert ("the server speaks TLS; use wss:// in place of ws://" in str(error)) is detected


async def test_a_proxy_that_asks_for_tls_in_plain_http_is_reported(
    make_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some servers of TLS answer plain requests, in plain HTTP, that they want TLS."""
    async with listening(PLAIN_ON_TLS) as plain, listening(PLAIN_ON_TLS, certified("localhost.pem")) as secure:
        connect, ports = asyncio.open_connection, {True: secure.rpartition(":")[2], False: plain.rpartition(":")[2]}

        async def one_server(host: str, _port: int, ssl: object) -> Any:
            return await connect(host, int(ports[ssl is not None]), ssl=ssl)

        monkeypatch.setattr(asyncio, "open_connection", one_server)
        assert "the server speaks TLS; use wss://" in str(await unreachable(make_client(plain)))


async def test_tls_to_a_server_that_speaks_neither_says_why_it_failed(make_client: Callable[..., Any]) -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        error = await unreachable(make_client(f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    assert "TLS failed (" in str(error)
    assert "TLS failed ()" not in str(error)
    assert "plain" not in str(error)


@pytest.mark.parametrize(
    ("certificate", "context", "expected"),
    [
        ("localhost.pem", None, "certificate is not trusted; pass an ssl_context that trusts it"),
        ("expired.pem", trusting("expired.pem"), "certificate has expired; renew it"),
        ("elsewhere.pem", trusting("elsewhere.pem"), "certificate is for another"),
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_what_is_wrong_with_a_certificate_is_reported(
    make_client: Callable[..., Any], certificate: str, context: ssl.SSLContext | None, expected: str, host: str
) -> None:
    async def behave(_: Socket) -> None:
        pytest.fail("nobody may come in")

    async with fake_server(behave, certified(certificate)) as address:
        error = await unreachable(make_client(f"wss://{host}:{address.rpartition(':')[2]}", TOKEN, ssl_context=context))
    assert f"TLS failed: the server's {expected}" in str(error)
    assert "ssl_context" in str(error)
