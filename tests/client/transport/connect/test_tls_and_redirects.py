"""Redirects and TLS: only the named address receives the credentials, and failures are explained."""

import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.utils import accept_key

import lmstudio_integrations as lms
from lmstudio_integrations.client.transport.connect import probe
from lmstudio_integrations.client.transport.connect.addresses import Address
from lmstudio_integrations.client.transport.connect.discovery import diagnose
from lmstudio_integrations.client.transport.connect.probe import WRONG_PORT
from lmstudio_integrations.emulator import Emulator
from tests.client.conftest import MODELS
from tests.client.fake import Socket, fake_server
from tests.support.certificates import CERTIFICATES
from tests.support.leaks import TOKEN, shown_by, shows_token

PLAIN_ON_TLS = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


@contextlib.contextmanager
def listening(
    response: bytes | Callable[[bytes], bytes],
    context: ssl.SSLContext | None = None,
    *,
    plain: bytes = b"",
    reset: bool = False,
) -> Iterator[str]:
    """Listen in a thread, respond to every request, and close; yields the address.

    Args:
        response: The bytes to send, or what makes them of a request; if empty, requests are not read.
        context: The server's TLS context.
        plain: The bytes to send to clients that do not speak TLS.
        reset: Whether to close with a reset.
    """

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(5)
                with contextlib.suppress(OSError):
                    respond(connection)
                connection.close()

    def respond(connection: socket.socket) -> None:
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif plain and connection.recv(1, socket.MSG_PEEK) != b"\x16":
            connection.recv(65536)
            connection.sendall(plain)
        elif context is not None:
            with context.wrap_socket(connection, server_side=True) as encrypted:
                request = encrypted.recv(65536)
                encrypted.sendall(response(request) if callable(response) else response)
        elif response:
            request = connection.recv(65536)
            connection.sendall(response(request) if callable(response) else response)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(600)


def certified(name: str) -> ssl.SSLContext:
    """Return a TLS context of a server, with one of the test certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / name)
    return context


def trusting(name: str) -> ssl.SSLContext:
    """Return a TLS context of a client that trusts the test certificates that are valid."""
    return ssl.create_default_context(cafile=CERTIFICATES / name)


def redirect(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


async def unreachable(client: Any) -> lms.LMStudioUnreachableError:
    """Return the error of a call that cannot connect."""
    async with client:
        with pytest.raises(lms.LMStudioUnreachableError) as caught:
            await client.llm.list_loaded()
    return caught.value


async def test_a_path_that_the_server_does_not_have_is_named_under_an_authority_of_its_own() -> None:
    def respond(request: bytes) -> bytes:
        if request.startswith(b"GET /lmstudio-greeting "):
            return b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"lmstudio":true}'
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"

    with listening(respond, certified("localhost.pem")) as address:
        port = address.rpartition(":")[2]
        url = f"wss://localhost:{port}/lms"
        error = await unreachable(lms.AsyncClient(url, ssl_context=trusting("localhost.pem")))
    assert f"LM Studio is at wss://localhost:{port}, without '/lms': set host to that" in str(error)


@pytest.mark.parametrize(
    ("headers", "sent"), [({}, f"lmstudio-integrations/{lms.__version__}"), ({"user-agent": "mine"}, "mine")]
)
async def test_each_request_says_which_package_and_version_makes_it(headers: dict[str, str], sent: str) -> None:
    """A handshake, and the question whether LM Studio is there, to which no headers of a user are sent."""
    agents: dict[bytes, list[bytes]] = {}

    def respond(request: bytes) -> bytes:
        if request.startswith(b"GET "):  # and not an attempt at TLS
            agents[request.split()[1]] = re.findall(rb"(?im)^user-agent: (.*)\r$", request)
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"

    with listening(respond) as address:
        await unreachable(lms.AsyncClient(address, headers=headers))
    greeting = agents.pop(b"/lmstudio-greeting")
    assert greeting == [f"lmstudio-integrations/{lms.__version__}".encode()]
    assert agents == {b"/llm": [sent.encode()]}


async def test_a_redirect_gets_no_credentials() -> None:
    with Emulator(MODELS, tokens=[TOKEN]) as server:
        with listening(redirect(f"ws://{server.address}/llm")) as address:
            error = await unreachable(lms.AsyncClient(address, TOKEN, headers={"Authorization": f"Bearer {TOKEN}"}))
        assert not server.connections
        assert f"it redirects to ws://{server.address}/llm; set host to that address" in str(error)
    assert not shows_token(shown_by(error))


@pytest.mark.parametrize(
    ("response", "shown"),
    [
        (redirect("/elsewhere/"), "it redirects to ws://{address}/elsewhere/;"),
        (redirect("http://[oops/"), "it redirects to http://[oops/;"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n", "something else listens there"),
    ],
)
async def test_where_a_redirect_leads_is_shown(response: bytes, shown: str) -> None:
    with listening(response) as address:
        assert shown.format(address=address) in str(await unreachable(lms.AsyncClient(address)))


async def test_a_redirected_greeting_finds_nobody() -> None:
    with Emulator(MODELS) as server:
        target = f"{server.address}/lmstudio-greeting"
        with listening(redirect(f"http://me:secret@{target}")) as address:
            finding = await probe.probe(Address.parse(address))
    assert finding is not None
    assert f"it redirects to http://**********@{target}; set host" in finding.reason


async def test_tls_to_a_plain_server_is_reported() -> None:
    with Emulator(MODELS) as server:
        error = await unreachable(lms.AsyncClient(f"wss://{server.address}"))
    assert "the server speaks plain http; use ws:// in place of wss://" in str(error)


@pytest.mark.parametrize(("response", "detected"), [(PLAIN_ON_TLS, True), (b"220 mail ready\r\n\r\n", False)])
async def test_a_plain_connection_to_a_tls_server_is_reported(response: bytes, detected: bool) -> None:
    with listening(response, certified("localhost.pem")) as address:
        error = await unreachable(lms.AsyncClient(address))
    assert ("the server speaks TLS; use wss:// in place of ws://" in str(error)) is detected


async def test_a_proxy_that_requires_tls_in_plain_http_is_reported() -> None:
    """Some TLS servers respond to plain requests with an HTTP error that demands TLS."""
    with listening(PLAIN_ON_TLS, certified("localhost.pem"), plain=PLAIN_ON_TLS) as address:
        assert "the server speaks TLS; use wss://" in str(await unreachable(lms.AsyncClient(address)))


async def test_tls_to_a_server_that_speaks_neither_names_the_cause() -> None:
    with listening(b"") as address:
        error = await unreachable(lms.AsyncClient(f"wss://{address}"))
    assert "TLS failed (" in str(error)
    assert "TLS failed ()" not in str(error)
    assert "plain" not in str(error)


GREETING = b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"lmstudio": true}'


async def test_a_server_that_greets_and_rejects_the_handshake_is_reported() -> None:
    with listening(GREETING) as address:
        error = await unreachable(lms.AsyncClient(address))
    assert "LM Studio is there, but rejected the WebSocket /llm: server rejected WebSocket connection" in str(error)


def opening(*namespaces: str, status: str) -> Callable[[bytes], bytes]:
    """Return what responds like an LM Studio that opens some namespaces, and rejects the others with a status."""

    def respond(request: bytes) -> bytes:
        path, key = request.split()[1].decode(), re.search(rb"Sec-WebSocket-Key: (.+?)\r", request)
        if key is None:
            return GREETING
        if path.removeprefix("/") not in namespaces:
            return f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
        switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        return f"{switch}Sec-WebSocket-Accept: {accept_key(key[1].decode())}\r\n\r\n".encode()

    return respond


@pytest.mark.parametrize("token", [None, TOKEN])
async def test_a_handshake_that_is_rejected_for_want_of_credentials_is_an_authentication_error(
    token: str | None,
) -> None:
    with listening(opening(status="401 Unauthorized")) as address:
        async with lms.AsyncClient(address, token) as client:
            with pytest.raises(lms.LMStudioAuthenticationError, match="rejected this client with status 401") as caught:
                await client.llm.list_loaded()
            with pytest.raises(lms.LMStudioAuthenticationError):
                await client.embedding.list_loaded()
    assert ("no API token was sent" if token is None else "does not accept the API token") in str(caught.value)
    assert "is not reachable" not in str(caught.value)
    assert not shows_token(shown_by(caught.value))


async def test_a_server_that_has_no_namespace_at_all_is_not_reachable() -> None:
    with listening(opening(status="404 Not Found")) as address:
        assert "rejected the WebSocket /llm" in str(await unreachable(lms.AsyncClient(address)))


@pytest.mark.parametrize("status", ["401 Unauthorized", "404 Not Found"])
@pytest.mark.parametrize(
    ("namespace", "update"),
    [
        ("embedding", "update LM Studio"),
        pytest.param("decision", "update LM Studio to 0.4.26 or later", marks=pytest.mark.leaf),
    ],
)
async def test_a_namespace_that_is_rejected_where_others_are_opened_is_one_that_the_server_lacks(
    namespace: str, update: str, status: str
) -> None:
    with listening(opening("llm", status=status)) as address:
        async with lms.AsyncClient(address, TOKEN) as client:
            with pytest.raises(lms.LMStudioUnsupportedError) as caught:
                await getattr(client, namespace).model("any")
    assert (
        f"LM Studio at ws://{address} does not have the WebSocket /{namespace} (status {status[:3]}); {update}"
        in str(caught.value)
    )


@pytest.mark.parametrize(
    ("response", "expected"),
    [(b"220 mail ready\r\n\r\n", "does not speak HTTP"), (PLAIN_ON_TLS, "something else listens there")],
)
async def test_another_server_without_tls_is_not_mistaken_for_one_with_tls(response: bytes, expected: str) -> None:
    with listening(response) as address:
        assert expected in str(await diagnose(Address.parse(address)))


async def test_a_reply_that_is_not_http_may_be_an_alert_of_tls() -> None:
    with listening(b"\x15\x03\x03\x00\x02\x02F") as address:
        finding = await probe.probe(Address.parse(address))
    assert finding is not None
    assert finding.wrong_scheme


async def test_a_connection_that_is_cut_is_reported() -> None:
    with listening(b"", reset=True) as address:
        reason = await diagnose(Address.parse(address))
        assert reason == f"the connection was cut; {WRONG_PORT}"


@pytest.mark.parametrize(
    ("certificate", "context", "expected"),
    [
        ("localhost.pem", None, "certificate is not trusted; pass an ssl_context that trusts it"),
        ("expired.pem", trusting("expired.pem"), "certificate has expired; renew it"),
        ("elsewhere.pem", trusting("elsewhere.pem"), "certificate is for another"),
    ],
)
async def test_what_is_wrong_with_a_certificate_is_reported(
    certificate: str, context: ssl.SSLContext | None, expected: str
) -> None:
    async def behave(_: Socket) -> None:
        pytest.fail("nobody may come in")

    async with fake_server(behave, certified(certificate)) as address:
        error = await unreachable(lms.AsyncClient(f"wss://{address}", TOKEN, ssl_context=context))
    assert f"TLS failed: the server's {expected}" in str(error)
    assert "ssl_context" in str(error)
