"""The faults that a proxy injects and that end, by their names, and a proxy in which one of them happens.

The table of `tests/faults/` says what a call of the package comes to under each of them. The official SDK's schemas
check what they send.
"""

import asyncio
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import TracebackType
from typing import Literal, Self, TypeAlias

from websockets.frames import CloseCode

from lmstudio_integrations.emulator.engines.base import (
    EngineError,
    engine_exited,
    engine_exited_while_loading,
    insufficient_resources,
    load_failed,
    model_crashed,
    template_failed,
)
from lmstudio_integrations.emulator.errors import WireError, model_unloaded
from tests.faults import actions
from tests.faults.proxy import ALWAYS, Action, Injection, Proxy, ProxyThread

LASTING = 1.0
"""Seconds that a fault lasts for an application, unless it happens only once."""

LATE = 0.5
"""Seconds by which a packet is late."""

REPEATED = 0.1
"""Seconds between two packets of a response that never ends."""

_CRASHED_WITH = 139
"""The exit code of a process that has read memory it must not read."""

_POLL_SECONDS = 0.01

Kind: TypeAlias = Literal["connection", "slow", "malformed", "error"]
"""The connection breaks; nothing comes, or it comes late; what comes is no valid message; the server says no."""

# What a fault is ----------------------------------------------------------------------------------------------------


class Phase(Enum):
    """When it goes wrong; the headings of the page on reliability."""

    CONNECT = "While connecting"
    TLS = "During the TLS handshake"
    UPGRADE = "During the WebSocket handshake"
    AUTHENTICATE = "During authentication"
    LOAD = "While the model loads"
    FIRST = "Before the first packet"
    MIDDLE = "In the middle of a response"
    LAST = "At the end of a response"
    IDLE = "Between two calls"
    STOP = "When the caller stops a stream"
    HOSTS = "With a second host"


@dataclass(frozen=True, slots=True)
class Fault:
    """What can go wrong, and when.

    Attributes:
        name: What and when, in kebab case.
        kind: `connection`, `slow`, `malformed` or `error`.
        phase: When.
        summary: What goes wrong, as a sentence.
        injections: What the proxy does. Without any, it rejects connections.
    """

    name: str
    kind: Kind
    phase: Phase
    summary: str
    injections: tuple[Injection, ...] = ()

    def transient(self) -> tuple[Injection, ...]:
        """Return what the proxy does for an application: it happens once, or lasts a second."""
        return tuple(
            replace(
                each,
                # Nobody thaws a host that freezes.
                action=actions.freeze_for(LASTING) if each.action is actions.freeze else each.action,
                seconds=LASTING if each.times == ALWAYS else math.inf,
            )
            for each in self.injections
        )


def at(point: str, action: Action, times: float = 1) -> tuple[Injection, ...]:
    """Return the injections of a fault that has one."""
    return (Injection(point, action, times),)


# All faults ---------------------------------------------------------------------------------------------------------


def _error(error: WireError) -> Action:
    """Respond with an error of the server."""
    return actions.replace(actions.failed(error.to_dict()))


_ENGINE_FAILED = _error(EngineError("The engine failed", cause="a fault was injected"))
_CRASHED = _error(model_crashed(_CRASHED_WITH))
_QUEUED_TOO_LONG = _error(EngineError("Engine protocol predict stream returned an error: {code:500 ...}"))
_NOT_FOUND = actions.respond(actions.http("404 Not Found", "There is nothing here."))
_OVERLOADED = actions.respond(actions.http("503 Service Unavailable", headers="Retry-After: 1\r\n"))
_PORTAL = actions.respond(actions.http("200 OK", "<html>Log in</html>"))
_NO_PASSKEY = actions.replace(lambda _: {"success": False, "error": "Invalid passkey"})
_UNRELATED = actions.before(actions.frames("no JSON", "[1]", '{"type":"channelClose","channelId":1}', b"\xff\xfe"))
_INVALID_PARAMETER = actions.warning(actions.INVALID_PARAMETER)

# fmt: off
_FAULTS = (
    Fault("connection-refused", "connection", Phase.CONNECT, "Nothing listens on the port."),
    Fault("host-silent", "slow", Phase.CONNECT, "The host accepts the connection and sends nothing.", at("accept", actions.freeze)),
    Fault("connection-reset-on-connect", "connection", Phase.CONNECT, "The connection is reset as soon as it opens.", at("accept", actions.reset, ALWAYS)),
    Fault("other-web-server", "malformed", Phase.CONNECT, "Another web server listens on the port.", at("request head", _NOT_FOUND, ALWAYS)),
    Fault("handshake-unanswered", "slow", Phase.UPGRADE, "The server does not respond to the WebSocket handshake.", at("upgrade", actions.lose, ALWAYS)),
    Fault("handshake-rejected", "error", Phase.UPGRADE, "LM Studio rejects the WebSocket handshake (403).", at("upgrade", actions.respond(actions.http("403 Forbidden")), ALWAYS)),
    Fault("gateway-unavailable", "error", Phase.UPGRADE, "A gateway reports that the server is unavailable (503).", at("request head", _OVERLOADED, ALWAYS)),
    Fault("captive-portal", "malformed", Phase.UPGRADE, "A captive portal responds with a web page.", at("request head", _PORTAL, ALWAYS)),
    Fault("connection-closed-mid-handshake", "connection", Phase.UPGRADE, "The connection is closed in the middle of the response to the WebSocket handshake.", at("response head", actions.cut(actions.finish), ALWAYS)),
    Fault("authentication-unanswered", "slow", Phase.AUTHENTICATE, "The server does not respond to the credentials.", at("authentication", actions.lose, ALWAYS)),
    Fault("authentication-rejected", "error", Phase.AUTHENTICATE, "The server rejects the credentials.", at("authentication", _NO_PASSKEY, ALWAYS)),
    Fault("connection-reset-in-authentication", "connection", Phase.AUTHENTICATE, "The connection is reset before the server responds to the credentials.", at("authentication", actions.reset)),
    Fault("unrelated-frames-in-authentication", "malformed", Phase.AUTHENTICATE, "The server sends unrelated frames before it accepts the credentials.", at("authentication", _UNRELATED)),
    Fault("connection-closed-after-authentication", "connection", Phase.AUTHENTICATE, "The server accepts the credentials and closes the connection.", at("authentication", actions.after(actions.finish))),
    Fault("load-stalls", "slow", Phase.LOAD, "Loading makes no progress.", at("load middle packet", actions.stall)),
    Fault("out-of-memory", "error", Phase.LOAD, "The server does not have enough memory for the model.", at("load request", _error(insufficient_resources(48)), ALWAYS)),
    Fault("load-fails", "error", Phase.LOAD, "The server cannot load the model.", at("load request", _error(load_failed("a fault was injected")))),
    Fault("engine-crashes-while-loading", "error", Phase.LOAD, "The engine crashes.", at("load middle packet", _CRASHED)),
    Fault("engine-exits-while-loading", "error", Phase.LOAD, "The engine, which is a process of its own, ends.", at("load middle packet", _error(engine_exited_while_loading()))),
    Fault("connection-reset-while-loading", "connection", Phase.LOAD, "The connection is reset.", at("load middle packet", actions.reset)),
    Fault("connection-dead-while-loading", "slow", Phase.LOAD, "The connection goes dead: it stays open, but no data passes.", at("load middle packet", actions.go_dead)),
    Fault("channel-closed-while-loading", "malformed", Phase.LOAD, "The server closes the channel without a result.", at("load last packet", actions.replace(actions.ended))),
    Fault("load-result-empty", "malformed", Phase.LOAD, "The result does not identify the loaded model.", at("load last packet", actions.replace(actions.without_content))),
    Fault("unknown-packet-while-loading", "malformed", Phase.LOAD, "A packet has an unknown type.", at("load middle packet", actions.replace(actions.of_unknown_type))),
    Fault("request-unanswered", "slow", Phase.FIRST, "The server does not respond to the request, but the connection is alive.", at("request", actions.lose, ALWAYS)),
    Fault("connection-dead-before-response", "slow", Phase.FIRST, "The connection goes dead.", at("request", actions.go_dead)),
    Fault("connection-reset-before-response", "connection", Phase.FIRST, "The connection is reset.", at("request", actions.reset)),
    Fault("server-restarts-before-response", "connection", Phase.FIRST, "The server closes the WebSocket because it restarts (1012).", at("request", actions.close(CloseCode.SERVICE_RESTART))),
    Fault("engine-fails-before-response", "error", Phase.FIRST, "The server responds with an error.", at("request", _ENGINE_FAILED)),
    Fault("engine-crashes-before-response", "error", Phase.FIRST, "The engine crashes.", at("request", _CRASHED)),
    Fault("engine-exits-before-response", "error", Phase.FIRST, "The engine, which is a process of its own, has ended.", at("request", _error(engine_exited(generating=False)))),
    Fault("request-queued-too-long", "error", Phase.FIRST, "The request has waited too long for a slot of the engine.", at("request", _QUEUED_TOO_LONG)),
    Fault("engine-stalls-before-response", "slow", Phase.FIRST, "The engine stalls during prompt processing.", at("first packet", actions.stall)),
    Fault("parameters-rejected", "error", Phase.FIRST, "The server rejects the parameters of the request.", at("request", _INVALID_PARAMETER, ALWAYS)),
    Fault("first-packet-late", "slow", Phase.FIRST, "The first packet is late, but arrives before the timeout.", at("first packet", actions.delay(LATE))),
    Fault("template-error", "error", Phase.FIRST, "The model's prompt template rejects the messages.", at("request", _error(template_failed("a fault was injected")))),
    Fault("connection-dead-mid-response", "slow", Phase.MIDDLE, "The connection goes dead.", at("middle packet", actions.go_dead)),
    Fault("host-freezes-mid-response", "slow", Phase.MIDDLE, "The host freezes.", at("middle packet", actions.freeze)),
    Fault("connection-reset-mid-response", "connection", Phase.MIDDLE, "The connection is reset.", at("middle packet", actions.reset)),
    Fault("connection-closed-mid-response", "connection", Phase.MIDDLE, "The connection is closed.", at("middle packet", actions.finish)),
    Fault("server-shuts-down-mid-response", "connection", Phase.MIDDLE, "The server closes the WebSocket because it shuts down (1001).", at("middle packet", actions.close(CloseCode.GOING_AWAY))),
    Fault("byte-by-byte-mid-response", "slow", Phase.MIDDLE, "The response arrives byte by byte.", at("middle packet", actions.drip)),
    Fault("packet-late-mid-response", "slow", Phase.MIDDLE, "A packet is late, but arrives before the timeout.", at("middle packet", actions.delay(LATE))),
    Fault("engine-stalls-mid-response", "slow", Phase.MIDDLE, "The engine stalls.", at("middle packet", actions.stall)),
    Fault("engine-crashes-mid-response", "error", Phase.MIDDLE, "The engine crashes.", at("middle packet", _CRASHED)),
    Fault("engine-exits-mid-response", "error", Phase.MIDDLE, "The engine, which is a process of its own, ends.", at("middle packet", _error(engine_exited(generating=True)))),
    Fault("model-unloaded-mid-response", "error", Phase.MIDDLE, "Another program unloads the model.", at("middle packet", _error(model_unloaded()))),
    Fault("engine-fails-mid-response", "error", Phase.MIDDLE, "The server ends the response with an error.", at("middle packet", _ENGINE_FAILED)),
    Fault("unknown-packet-mid-response", "malformed", Phase.MIDDLE, "A packet has an unknown type.", at("middle packet", actions.before(actions.packet(actions.of_unknown_type)))),
    Fault("truncated-json-mid-response", "malformed", Phase.MIDDLE, "The server sends truncated JSON, then the rest of the response.", at("middle packet", actions.before(actions.frames(actions.TRUNCATED)))),
    Fault("frame-too-short", "slow", Phase.MIDDLE, "A frame announces more bytes than arrive.", at("middle packet", actions.before(actions.raw(actions.MEGABYTE)))),
    Fault("frame-too-large", "malformed", Phase.MIDDLE, "A frame announces more bytes than `max_message_bytes`.", at("middle packet", actions.before(actions.raw(actions.TERABYTE)))),
    Fault("connection-half-closed-mid-response", "connection", Phase.MIDDLE, "The server closes its side of the connection (half-close).", at("middle packet", actions.half_close)),
    Fault("connection-closed-mid-frame", "connection", Phase.MIDDLE, "The connection is closed inside a frame.", at("middle packet", actions.cut(actions.finish))),
    Fault("websocket-closed-tcp-open-mid-response", "connection", Phase.MIDDLE, "The server closes the WebSocket, but not the TCP connection.", at("middle packet", actions.close(CloseCode.GOING_AWAY, and_hang=True))),
    Fault("invalid-opcode-mid-response", "malformed", Phase.MIDDLE, "A frame has an invalid opcode.", at("middle packet", actions.corrupt(0, 0x83))),
    Fault("message-fragmented-mid-response", "malformed", Phase.MIDDLE, "A message is split into two frames, with a ping between them.", at("middle packet", actions.fragment)),
    Fault("malformed-error-mid-response", "malformed", Phase.MIDDLE, "The server ends the response with a malformed error.", at("middle packet", actions.replace(actions.failed(5)))),
    Fault("channel-closed-mid-response", "malformed", Phase.MIDDLE, "The server closes the channel without a last packet.", at("middle packet", actions.replace(actions.ended))),
    Fault("packet-empty-mid-response", "malformed", Phase.MIDDLE, "A packet lacks its content.", at("middle packet", actions.replace(actions.without_content))),
    Fault("no-json-mid-response", "malformed", Phase.MIDDLE, "A frame is not JSON.", at("middle packet", actions.replace(lambda _: "no JSON"))),
    Fault("invalid-utf8-mid-response", "malformed", Phase.MIDDLE, "A frame is not valid UTF-8.", at("middle packet", actions.corrupt(-1, 0xFF))),
    Fault("frame-lost-mid-response", "malformed", Phase.MIDDLE, "A frame is lost.", at("middle packet", actions.lose)),
    Fault("frame-twice-mid-response", "malformed", Phase.MIDDLE, "A frame arrives twice.", at("middle packet", actions.duplicate)),
    Fault("meaningless-frames-mid-response", "malformed", Phase.MIDDLE, "The server sends meaningless frames.", at("middle packet", actions.before(actions.frames(*actions.NOISE)))),
    Fault("last-packet-lost", "malformed", Phase.LAST, "The last packet is lost.", at("last packet", actions.lose)),
    Fault("connection-dead-before-last-packet", "slow", Phase.LAST, "The connection goes dead before the last packet.", at("last packet", actions.go_dead)),
    Fault("response-endless", "slow", Phase.LAST, "The model repeats itself, and the response never ends.", at("last packet", actions.endless(actions.repeated, REPEATED))),
    Fault("connection-closed-after-response", "connection", Phase.LAST, "The connection is closed after the last packet.", at("last packet", actions.after(actions.finish))),
    Fault("channel-close-lost", "malformed", Phase.LAST, "The close of the channel is lost.", at("end", actions.lose)),
    Fault("last-packet-twice", "malformed", Phase.LAST, "The last packet arrives twice.", at("last packet", actions.duplicate)),
)
# fmt: on

FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in _FAULTS}
"""Every fault, by its name."""

# One fault for one test ---------------------------------------------------------------------------------------------


class FaultProxy:
    """A proxy in front of a server in which one fault happens: once, or for a second. A context manager.

    Args:
        upstream: `host:port` of the server.
        fault: The name of the fault; the default, `None`, only forwards.
    """

    def __init__(self, upstream: str, fault: str | None = None) -> None:
        found = None if fault is None else FAULTS[fault]
        self._thread = ProxyThread()
        self._proxy = Proxy(
            self._thread,
            upstream,
            () if found is None else found.transient(),
            is_rejecting=found is not None and not found.injections,
        )
        self._healing = threading.Timer(LASTING, self._proxy.heal)

    @property
    def address(self) -> str:
        """`host:port` for the program under test."""
        return self._proxy.address

    def has_happened(self, timeout: float = 1.0) -> bool:
        """Return whether the fault has happened. Waits for it while predictions run, at most `timeout` seconds."""
        self._thread.run(self._running_after(timeout, self._proxy.happened.is_set))
        return self._proxy.happened.is_set()

    def unfinished(self, timeout: float = 2.0) -> list[str]:
        """Return the predictions that still run after `timeout` seconds, and that nobody has cancelled.

        LM Studio goes on with such a prediction until its end, and the model is busy. Returns at once if there is none.
        """
        return self._thread.run(self._running_after(timeout, lambda: False))

    def __enter__(self) -> Self:
        self._thread.__enter__()
        self._proxy.__enter__()
        if self._proxy.is_rejecting:
            self._healing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._healing.is_alive():
            self._healing.cancel()
            self._healing.join()
        self._proxy.close()
        self._thread.__exit__(kind, error, trace)

    async def _running_after(self, seconds: float, is_over: Callable[[], bool]) -> list[str]:
        """Return the predictions that run when none does, something is over, or the time is."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            running = [each for connection in self._proxy.connections for each in connection.tracker.predictions]
            if not running or is_over() or asyncio.get_running_loop().time() >= deadline:
                return running
            await asyncio.sleep(_POLL_SECONDS)
