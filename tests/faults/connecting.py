"""Rows of the fault table: until the client is authenticated."""

from websockets.frames import CloseCode

from lmstudio_integrations.emulator.proxy.actions import (
    after,
    before,
    close,
    cut,
    drip,
    drop,
    duplicate,
    finish,
    freeze,
    raw,
    replace,
    reset,
    respond,
)
from lmstudio_integrations.errors import LMStudioAuthenticationError
from tests.faults.model import ALWAYS, CONNECTING, LOST, UNREACHABLE, WORKS, Fault, Outcome, Phase, at


def http(status: str, body: str = "", headers: str = "") -> bytes:
    """Return an HTTP response."""
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


_WRONG_KEY = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: d3Jvbmc=\r\n\r\n"
)

_CONNECT = (
    Fault(
        "Nothing listens on the port.",
        Phase.CONNECT,
        UNREACHABLE,
        listening=False,
        then_on="new connection",
    ),
    Fault(
        "The host accepts the connection and sends nothing.",
        Phase.CONNECT,
        CONNECTING,
        inject=at("accept", freeze),
        meanwhile=CONNECTING,
        then_on="new connection",
    ),
    Fault(
        "The connection is closed as soon as it opens.",
        Phase.CONNECT,
        UNREACHABLE,
        inject=at("accept", finish, ALWAYS),
        then_on="new connection",
    ),
    Fault(
        "The connection is reset as soon as it opens.",
        Phase.CONNECT,
        UNREACHABLE,
        inject=at("accept", reset, ALWAYS),
        then_on="new connection",
    ),
    Fault(
        "Another web server listens on the port.",
        Phase.CONNECT,
        UNREACHABLE,
        inject=at("request head", respond(http("404 Not Found", "There is nothing here.")), ALWAYS),
        then_on="new connection",
    ),
    Fault(
        "A server that does not speak HTTP listens on the port.",
        Phase.CONNECT,
        UNREACHABLE,
        inject=at("accept", respond(b"SSH-2.0-OpenSSH_9.6\r\n"), ALWAYS),
        then_on="new connection",
    ),
)

_TLS = (
    Fault(
        "The client uses TLS (`wss://`), the server does not.",
        Phase.TLS,
        UNREACHABLE,
        inject=at("accept", respond(http("400 Bad Request")), ALWAYS),
        scheme="wss",
        permanent=True,
        then=UNREACHABLE,
    ),
    Fault(
        "The server uses TLS, the client does not (`ws://`).",
        Phase.TLS,
        UNREACHABLE,
        tls=True,
        permanent=True,
        then=UNREACHABLE,
    ),
    Fault(
        "The system does not trust the server's certificate.",
        Phase.TLS,
        UNREACHABLE,
        scheme="wss",
        tls=True,
        trusted=False,
        permanent=True,
        then=UNREACHABLE,
    ),
    Fault(
        "The server does not respond to the TLS handshake.",
        Phase.TLS,
        CONNECTING,
        inject=at("accept", freeze),
        scheme="wss",
        permanent=True,
        then=CONNECTING,
    ),
    Fault(
        "The connection is reset during the TLS handshake.",
        Phase.TLS,
        UNREACHABLE,
        inject=at("accept", reset, ALWAYS),
        scheme="wss",
        permanent=True,
        then=UNREACHABLE,
    ),
)

_UPGRADE = (
    Fault(
        "The server does not respond to the WebSocket handshake.",
        Phase.UPGRADE,
        CONNECTING,
        inject=at("upgrade", drop, ALWAYS),
        then_on="new connection",
    ),
    Fault(
        "LM Studio rejects the WebSocket handshake (403).",
        Phase.UPGRADE,
        UNREACHABLE,
        inject=at("upgrade", respond(http("403 Forbidden")), ALWAYS),
        then_on="new connection",
    ),
    Fault(
        "A gateway reports that the server is unavailable (503).",
        Phase.UPGRADE,
        UNREACHABLE,
        inject=at("request head", respond(http("503 Service Unavailable", headers="Retry-After: 1\r\n")), ALWAYS),
        then_on="new connection",
    ),
    Fault(
        "A captive portal responds with a web page.",
        Phase.UPGRADE,
        UNREACHABLE,
        inject=at("request head", respond(http("200 OK", "<html>Log in</html>")), ALWAYS),
        then_on="new connection",
    ),
    Fault(
        "The WebSocket handshake is redirected in a loop.",
        Phase.UPGRADE,
        UNREACHABLE,
        inject=at("upgrade", respond(http("302 Found", headers="Location: /again\r\n")), ALWAYS),
        then_on="new connection",
    ),
    Fault(
        "The response to the WebSocket handshake has a wrong key.",
        Phase.UPGRADE,
        UNREACHABLE,
        inject=at("response head", raw(_WRONG_KEY), ALWAYS),
        then_on="new connection",
    ),
    Fault(
        "The connection is closed in the middle of the response to the WebSocket handshake.",
        Phase.UPGRADE,
        UNREACHABLE,
        inject=at("response head", cut(finish), ALWAYS),
        then_on="new connection",
    ),
    Fault(
        "The connection is reset in the middle of the response to the WebSocket handshake.",
        Phase.UPGRADE,
        UNREACHABLE,
        inject=at("response head", cut(reset), ALWAYS),
        then_on="new connection",
    ),
    Fault(
        "Everything the server sends arrives byte by byte.",
        Phase.UPGRADE,
        WORKS,
        inject=at("response head", drip),
    ),
)

_AUTHENTICATE = (
    Fault(
        "The server does not respond to the credentials.",
        Phase.AUTHENTICATE,
        CONNECTING,
        inject=at("authentication", drop, ALWAYS),
        then_on="new connection",
    ),
    Fault(
        "The host freezes.",
        Phase.AUTHENTICATE,
        CONNECTING,
        inject=at("credentials", freeze),
        meanwhile=CONNECTING,
        then_on="new connection",
    ),
    Fault(
        "The server rejects the credentials.",
        Phase.AUTHENTICATE,
        Outcome(LMStudioAuthenticationError),
        inject=at("authentication", replace(lambda _: {"success": False, "error": "Invalid passkey"}), ALWAYS),
        then_on="new connection",
    ),
    Fault(
        "The server sends unrelated frames before it accepts the credentials.",
        Phase.AUTHENTICATE,
        WORKS,
        inject=at("authentication", before("no JSON", "[1]", '{"type":"channelClose","channelId":1}', b"\xff\xfe")),
    ),
    Fault(
        "The server accepts the credentials twice.",
        Phase.AUTHENTICATE,
        WORKS,
        inject=at("authentication", duplicate),
    ),
    Fault(
        "The server closes the WebSocket (1011) instead of accepting the credentials.",
        Phase.AUTHENTICATE,
        LOST,
        inject=at("authentication", close(CloseCode.INTERNAL_ERROR)),
        then_on="new connection",
    ),
    Fault(
        "The connection is closed before the server responds to the credentials.",
        Phase.AUTHENTICATE,
        LOST,
        inject=at("authentication", finish),
        then_on="new connection",
    ),
    Fault(
        "The connection is reset before the server responds to the credentials.",
        Phase.AUTHENTICATE,
        LOST,
        inject=at("authentication", reset),
        then_on="new connection",
    ),
    Fault(
        "The server accepts the credentials and closes the connection.",
        Phase.AUTHENTICATE,
        LOST,
        inject=at("authentication", after(finish)),
        then_on="new connection",
    ),
)

ROWS = (*_CONNECT, *_TLS, *_UPGRADE, *_AUTHENTICATE)
