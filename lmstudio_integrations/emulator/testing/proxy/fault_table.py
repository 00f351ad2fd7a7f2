"""Every fault that the proxy injects and that ends, by its name. Users and the tests of this package share the table.

`tests/faults/` says what a call of this package comes to under each of them, and
`docs/internals/reliability.md` shows it. `docs/tools/faults.md` lists the names.
"""

from collections.abc import Mapping
from typing import TypeAlias

from websockets.frames import CloseCode

from lmstudio_integrations.emulator.engines.errors import (
    EngineError,
    load_failed,
    model_crashed,
    out_of_memory,
    template_failed,
)
from lmstudio_integrations.emulator.errors import WireError, model_unloaded
from lmstudio_integrations.emulator.testing.proxy.actions import (
    DEAD,
    after,
    before,
    black_hole,
    close,
    corrupt,
    cut,
    delay,
    drip,
    duplicate,
    endless,
    finish,
    fragment,
    frames,
    freeze,
    half_close,
    hold,
    lose,
    mask,
    packet,
    raw,
    replace,
    reset,
    respond,
    stall,
)
from lmstudio_integrations.emulator.testing.proxy.fault import Fault, Kind, Phase, at
from lmstudio_integrations.emulator.testing.proxy.injections import ALWAYS, Action, Injection
from lmstudio_integrations.emulator.testing.proxy.replacements import (
    BINARY,
    INVALID_PARAMETER,
    MEGABYTE,
    NOISE,
    PINGS,
    TERABYTE,
    TRUNCATED,
    WRONG_KEY,
    ended,
    failed,
    http,
    of_unknown_type,
    repeated,
    warning,
    without_content,
)

LATE = 0.5
"""Seconds by which a packet is late."""

REPEATED = 0.1
"""Seconds between two packets of a response that never ends."""

_CRASHED_WITH = 139
"""The exit code of a process that has read memory it must not read."""


def _error(error: WireError) -> Action:
    """Respond with an error of the server."""
    return replace(failed(error.to_dict()))


_ENGINE_FAILED = _error(EngineError("The engine failed", cause="a fault was injected"))
_CRASHED = _error(model_crashed(_CRASHED_WITH))
_NOT_FOUND = respond(http("404 Not Found", "There is nothing here."))
_OVERLOADED = respond(http("503 Service Unavailable", headers="Retry-After: 1\r\n"))
_PORTAL = respond(http("200 OK", "<html>Log in</html>"))
_REDIRECT = respond(http("302 Found", headers="Location: /again\r\n"))
_NO_PASSKEY = replace(lambda _: {"success": False, "error": "Invalid passkey"})
_UNRELATED = before(frames("no JSON", "[1]", '{"type":"channelClose","channelId":1}', b"\xff\xfe"))
_INVALID_PARAMETER = warning(INVALID_PARAMETER)

_Row: TypeAlias = tuple[str, Kind, str, tuple[Injection, ...]]

# fmt: off
_COMMON: Mapping[Phase, tuple[_Row, ...]] = {
    Phase.CONNECT: (
        ("connection-refused", "connection", "Nothing listens on the port.", ()),
        ("host-silent", "slow", "The host accepts the connection and sends nothing.", at("accept", freeze)),
        ("connection-reset-on-connect", "connection", "The connection is reset as soon as it opens.", at("accept", reset, ALWAYS)),
        ("other-web-server", "malformed", "Another web server listens on the port.", at("request head", _NOT_FOUND, ALWAYS)),
    ),
    Phase.UPGRADE: (
        ("handshake-unanswered", "slow", "The server does not respond to the WebSocket handshake.", at("upgrade", lose, ALWAYS)),
        ("handshake-rejected", "error", "LM Studio rejects the WebSocket handshake (403).", at("upgrade", respond(http("403 Forbidden")), ALWAYS)),
        ("gateway-unavailable", "error", "A gateway reports that the server is unavailable (503).", at("request head", _OVERLOADED, ALWAYS)),
        ("captive-portal", "malformed", "A captive portal responds with a web page.", at("request head", _PORTAL, ALWAYS)),
    ),
    Phase.AUTHENTICATE: (
        ("authentication-unanswered", "slow", "The server does not respond to the credentials.", at("authentication", lose, ALWAYS)),
        ("authentication-rejected", "error", "The server rejects the credentials.", at("authentication", _NO_PASSKEY, ALWAYS)),
        ("connection-reset-in-authentication", "connection", "The connection is reset before the server responds to the credentials.", at("authentication", reset)),
    ),
    Phase.LOAD: (
        ("load-stalls", "slow", "Loading makes no progress.", at("load packet", stall)),
        ("out-of-memory", "error", "The server does not have enough memory for the model.", at("load request", _error(out_of_memory()), ALWAYS)),
        ("load-fails", "error", "The server cannot load the model.", at("load request", _error(load_failed("a fault was injected")))),
        ("engine-crashes-while-loading", "error", "The engine crashes.", at("load packet", _CRASHED)),
        ("connection-reset-while-loading", "connection", "The connection is reset.", at("load packet", reset)),
    ),
    Phase.FIRST: (
        ("request-unanswered", "slow", "The server does not respond to the request, but the connection is alive.", at("request", lose, ALWAYS)),
        ("connection-dead-before-response", "slow", "The connection goes dead.", at("request", DEAD)),
        ("connection-reset-before-response", "connection", "The connection is reset.", at("request", reset)),
        ("server-restarts-before-response", "connection", "The server closes the WebSocket because it restarts (1012).", at("request", close(CloseCode.SERVICE_RESTART))),
        ("engine-fails-before-response", "error", "The server responds with an error.", at("request", _ENGINE_FAILED)),
        ("engine-crashes-before-response", "error", "The engine crashes.", at("request", _CRASHED)),
        ("engine-stalls-before-response", "slow", "The engine stalls during prompt processing.", at("first packet", stall)),
        ("parameters-rejected", "error", "The server rejects the parameters of the request.", at("request", _INVALID_PARAMETER, ALWAYS)),
        ("first-packet-late", "slow", "The first packet is late, but arrives before the timeout.", at("first packet", delay(LATE))),
        ("template-error", "error", "The model's prompt template rejects the messages.", at("request", _error(template_failed("a fault was injected")))),
    ),
    Phase.MIDDLE: (
        ("connection-dead-mid-response", "slow", "The connection goes dead.", at("middle packet", DEAD)),
        ("host-freezes-mid-response", "slow", "The host freezes.", at("middle packet", freeze)),
        ("connection-reset-mid-response", "connection", "The connection is reset.", at("middle packet", reset)),
        ("connection-closed-mid-response", "connection", "The connection is closed.", at("middle packet", finish)),
        ("server-shuts-down-mid-response", "connection", "The server closes the WebSocket because it shuts down (1001).", at("middle packet", close(CloseCode.GOING_AWAY))),
        ("byte-by-byte-mid-response", "slow", "The response arrives byte by byte.", at("middle packet", drip)),
        ("packet-late-mid-response", "slow", "A packet is late, but arrives before the timeout.", at("middle packet", delay(LATE))),
        ("engine-stalls-mid-response", "slow", "The engine stalls.", at("middle packet", stall)),
        ("engine-crashes-mid-response", "error", "The engine crashes.", at("middle packet", _CRASHED)),
        ("model-unloaded-mid-response", "error", "Another program unloads the model.", at("middle packet", _error(model_unloaded()))),
        ("engine-fails-mid-response", "error", "The server ends the response with an error.", at("middle packet", _ENGINE_FAILED)),
        ("unknown-packet-mid-response", "malformed", "A packet has an unknown type.", at("middle packet", before(packet(of_unknown_type)))),
        ("truncated-json-mid-response", "malformed", "The server sends truncated JSON, then the rest of the response.", at("middle packet", before(frames(TRUNCATED)))),
    ),
    Phase.LAST: (
        ("last-packet-lost", "malformed", "The last packet is lost.", at("last packet", lose)),
        ("connection-dead-before-last-packet", "slow", "The connection goes dead before the last packet.", at("last packet", DEAD)),
        ("response-endless", "slow", "The model repeats itself, and the response never ends.", at("last packet", endless(repeated, REPEATED))),
        ("connection-closed-after-response", "connection", "The connection is closed after the last packet.", at("last packet", after(finish))),
    ),
}
"""What users look for: the list of the faults."""

_FINER: Mapping[Phase, tuple[_Row, ...]] = {
    Phase.CONNECT: (
        ("connection-closed-on-connect", "connection", "The connection is closed as soon as it opens.", at("accept", finish, ALWAYS)),
        ("no-http", "malformed", "A server that does not speak HTTP listens on the port.", at("accept", respond(b"SSH-2.0-OpenSSH_9.6\r\n"), ALWAYS)),
    ),
    Phase.UPGRADE: (
        ("redirect-loop", "malformed", "The WebSocket handshake is redirected in a loop.", at("upgrade", _REDIRECT, ALWAYS)),
        ("wrong-handshake-key", "malformed", "The response to the WebSocket handshake has a wrong key.", at("response head", raw(WRONG_KEY), ALWAYS)),
        ("connection-closed-mid-handshake", "connection", "The connection is closed in the middle of the response to the WebSocket handshake.", at("response head", cut(finish), ALWAYS)),
        ("connection-reset-mid-handshake", "connection", "The connection is reset in the middle of the response to the WebSocket handshake.", at("response head", cut(reset), ALWAYS)),
        ("byte-by-byte-from-handshake", "slow", "Everything the server sends arrives byte by byte.", at("response head", drip)),
    ),
    Phase.AUTHENTICATE: (
        ("host-freezes-in-authentication", "slow", "The host freezes.", at("credentials", freeze)),
        ("unrelated-frames-in-authentication", "malformed", "The server sends unrelated frames before it accepts the credentials.", at("authentication", _UNRELATED)),
        ("authentication-twice", "malformed", "The server accepts the credentials twice.", at("authentication", duplicate)),
        ("websocket-closed-in-authentication", "connection", "The server closes the WebSocket (1011) instead of accepting the credentials.", at("authentication", close(CloseCode.INTERNAL_ERROR))),
        ("connection-closed-in-authentication", "connection", "The connection is closed before the server responds to the credentials.", at("authentication", finish)),
        ("connection-closed-after-authentication", "connection", "The server accepts the credentials and closes the connection.", at("authentication", after(finish))),
    ),
    Phase.LOAD: (
        ("connection-dead-while-loading", "slow", "The connection goes dead: it stays open, but no data passes.", at("load packet", DEAD)),
        ("channel-closed-while-loading", "malformed", "The server closes the channel without a result.", at("load result", replace(ended))),
        ("load-result-empty", "malformed", "The result does not identify the loaded model.", at("load result", replace(without_content))),
        ("unknown-packet-while-loading", "malformed", "A packet has an unknown type.", at("load packet", replace(of_unknown_type))),
    ),
    Phase.FIRST: (
        ("connection-dead-to-client-before-response", "slow", "The connection goes dead from server to client.", at("request", black_hole("server"))),
        ("connection-dead-to-server-before-response", "slow", "The connection goes dead from client to server.", at("request", black_hole("client"))),
        ("host-freezes-before-response", "slow", "The host freezes.", at("request", freeze)),
        ("connection-closed-before-response", "connection", "The connection is closed.", at("request", finish)),
    ),
    Phase.MIDDLE: (
        ("connection-dead-to-client-mid-response", "slow", "The connection goes dead from server to client.", at("middle packet", black_hole("server"))),
        ("connection-dead-mid-frame", "slow", "The connection goes dead inside a frame.", at("middle packet", cut(DEAD))),
        ("frame-too-short", "slow", "A frame announces more bytes than arrive.", at("middle packet", before(raw(MEGABYTE)))),
        ("frame-too-large", "malformed", "A frame announces more bytes than `max_message_bytes`.", at("middle packet", before(raw(TERABYTE)))),
        ("connection-half-closed-mid-response", "connection", "The server closes its side of the connection (half-close).", at("middle packet", half_close)),
        ("connection-reset-mid-frame", "connection", "The connection is reset inside a frame.", at("middle packet", cut(reset))),
        ("connection-closed-mid-frame", "connection", "The connection is closed inside a frame.", at("middle packet", cut(finish))),
        ("websocket-closed-mid-response", "connection", "The server closes the WebSocket because of an internal error (1011).", at("middle packet", close(CloseCode.INTERNAL_ERROR))),
        ("websocket-closed-tcp-open-mid-response", "connection", "The server closes the WebSocket, but not the TCP connection.", at("middle packet", close(CloseCode.GOING_AWAY, and_hang=True))),
        ("invalid-opcode-mid-response", "malformed", "A frame has an invalid opcode.", at("middle packet", corrupt(0, 0x83))),
        ("masked-frame-mid-response", "malformed", "The server masks a frame, which only clients may do.", at("middle packet", mask)),
        ("message-fragmented-mid-response", "malformed", "A message is split into two frames, with a ping between them.", at("middle packet", fragment)),
        ("pings-mid-response", "malformed", "The server sends a hundred pings.", at("middle packet", before(raw(PINGS)))),
        ("malformed-error-mid-response", "malformed", "The server ends the response with a malformed error.", at("middle packet", replace(failed(5)))),
        ("channel-closed-mid-response", "malformed", "The server closes the channel without a last packet.", at("middle packet", replace(ended))),
        ("packet-empty-mid-response", "malformed", "A packet lacks its content.", at("middle packet", replace(without_content))),
        ("packet-no-object-mid-response", "malformed", "A packet is not an object.", at("middle packet", replace(lambda message: {**message, "message": 5}))),
        ("no-json-mid-response", "malformed", "A frame is not JSON.", at("middle packet", replace(lambda _: "no JSON"))),
        ("invalid-utf8-mid-response", "malformed", "A frame is not valid UTF-8.", at("middle packet", corrupt(-1, 0xFF))),
        ("frame-lost-mid-response", "malformed", "A frame is lost.", at("middle packet", lose)),
        ("frame-twice-mid-response", "malformed", "A frame arrives twice.", at("middle packet", duplicate)),
        ("frames-swapped-mid-response", "malformed", "Two frames arrive in the wrong order.", at("middle packet", hold)),
        ("meaningless-frames-mid-response", "malformed", "The server sends meaningless frames.", at("middle packet", before(frames(*NOISE)))),
        ("binary-frame-mid-response", "malformed", "The server sends a binary frame.", at("middle packet", before(raw(BINARY)))),
    ),
    Phase.LAST: (
        ("engine-stalls-before-last-packet", "slow", "The engine stalls before the last packet.", at("last packet", stall)),
        ("channel-close-lost", "malformed", "The close of the channel is lost.", at("end", lose)),
        ("last-packet-twice", "malformed", "The last packet arrives twice.", at("last packet", duplicate)),
        ("channel-close-twice", "malformed", "The close of the channel arrives twice.", at("end", duplicate)),
        ("websocket-closed-after-response", "connection", "The server closes the WebSocket after the last packet.", at("last packet", after(close(CloseCode.GOING_AWAY)))),
    ),
}
"""Variants of them that a client should survive as well. They are chosen by name only."""
# fmt: on

FAULTS: Mapping[str, Fault] = {
    name: Fault(name, kind, phase, summary, injections, is_common=table is _COMMON)
    for phase in Phase
    for table in (_COMMON, _FINER)
    for name, kind, summary, injections in table.get(phase, ())
}
"""Every fault, by its name."""
