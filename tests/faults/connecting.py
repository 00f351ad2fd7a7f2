"""Rows of the fault table: until the client is authenticated."""

from lmstudio_integrations.errors import LMStudioAuthenticationError
from tests.faults import actions
from tests.faults.faults import Phase, at
from tests.faults.model import CONNECTING, LOST, UNREACHABLE, WORKS, Outcome, Row, row
from tests.faults.proxy import ALWAYS

_CONNECT = (
    row("connection-refused", UNREACHABLE, then_on="new connection"),
    row("host-silent", CONNECTING, meanwhile=CONNECTING, then_on="new connection"),
    row("connection-reset-on-connect", UNREACHABLE, then_on="new connection"),
    row("other-web-server", UNREACHABLE, then_on="new connection"),
)

_TLS = (
    Row(
        "The client uses TLS (`wss://`), the server does not.",
        Phase.TLS,
        UNREACHABLE,
        inject=at("accept", actions.respond(actions.http("400 Bad Request")), ALWAYS),
        scheme="wss",
        permanent=True,
        then=UNREACHABLE,
    ),
    Row(
        "The server uses TLS, the client does not (`ws://`).",
        Phase.TLS,
        UNREACHABLE,
        tls=True,
        permanent=True,
        then=UNREACHABLE,
    ),
    Row(
        "The system does not trust the server's certificate.",
        Phase.TLS,
        UNREACHABLE,
        scheme="wss",
        tls=True,
        trusted=False,
        permanent=True,
        then=UNREACHABLE,
    ),
    Row(
        "The server does not respond to the TLS handshake.",
        Phase.TLS,
        CONNECTING,
        inject=at("accept", actions.freeze),
        scheme="wss",
        permanent=True,
        then=CONNECTING,
    ),
    Row(
        "The connection is reset during the TLS handshake.",
        Phase.TLS,
        UNREACHABLE,
        inject=at("accept", actions.reset, ALWAYS),
        scheme="wss",
        permanent=True,
        then=UNREACHABLE,
    ),
)

_UPGRADE = (
    row("handshake-unanswered", CONNECTING, then_on="new connection"),
    row("handshake-rejected", UNREACHABLE, then_on="new connection"),
    row("gateway-unavailable", UNREACHABLE, then_on="new connection"),
    row("captive-portal", UNREACHABLE, then_on="new connection"),
    row("connection-closed-mid-handshake", UNREACHABLE, then_on="new connection"),
)

_AUTHENTICATE = (
    row("authentication-unanswered", CONNECTING, then_on="new connection"),
    row("authentication-rejected", Outcome(LMStudioAuthenticationError), then_on="new connection"),
    row("unrelated-frames-in-authentication", WORKS),
    row("connection-reset-in-authentication", LOST, then_on="new connection"),
    row("connection-closed-after-authentication", LOST, then_on="new connection"),
)

ROWS = (*_CONNECT, *_TLS, *_UPGRADE, *_AUTHENTICATE)
