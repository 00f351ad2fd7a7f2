"""Every fault that the proxy injects and that ends: one list, which users and the tests of this package share.

`proxy.py` injects them. `tests/faults/` says what a call of this package comes to under each of them, and
`docs/internals/reliability.md` shows it. `docs/tools/faults.md` and `lmsi serve --fault list` show the names.
"""

import asyncio
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from types import TracebackType
from typing import Literal, Self, TypeAlias, get_args

from websockets.frames import CloseCode

from lmstudio_integrations._support.suggestions import closest_names
from lmstudio_integrations.emulator.engines.base import (
    EngineError,
    engine_exited,
    engine_exited_while_loading,
    load_failed,
    model_crashed,
    out_of_memory,
    queued_too_long,
    template_failed,
)
from lmstudio_integrations.emulator.errors import WireError, model_unloaded
from lmstudio_integrations.emulator.testing import actions
from lmstudio_integrations.emulator.testing.proxy import ALWAYS, Action, Injection, Proxy, ProxyThread
from lmstudio_integrations.errors import LMStudioValueError

LASTING = 1.0
"""Seconds that a fault lasts for users, unless it happens only once."""

LATE = 0.5
"""Seconds by which a packet is late."""

REPEATED = 0.1
"""Seconds between two packets of a response that never ends."""

_CRASHED_WITH = 139
"""The exit code of a process that has read memory it must not read."""

_POLL_SECONDS = 0.01

_NAME_CUTOFF = 0.7
"""How similar a mistyped name must be, 0 to 1: many consist of the same words."""

Kind: TypeAlias = Literal["connection", "slow", "malformed", "error"]
KINDS: tuple[Kind, ...] = get_args(Kind)
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

    @property
    def word(self) -> str:
        """The name by which users choose the faults of a phase."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Fault:
    """What can go wrong, and when.

    Attributes:
        name: What and when, in kebab case.
        kind: `connection`, `slow`, `malformed` or `error`.
        phase: When.
        summary: What goes wrong, as a sentence.
        injections: What the proxy does. Without any, it rejects connections.
        is_common: Whether it is in the list; a finer one is chosen by its name only.
    """

    name: str
    kind: Kind
    phase: Phase
    summary: str
    injections: tuple[Injection, ...] = ()
    is_common: bool = True

    @property
    def choices(self) -> set[str]:
        """The words by which users choose it."""
        return {self.name, self.kind, self.phase.word} if self.is_common else {self.name}

    def transient(self) -> tuple[Injection, ...]:
        """Return what the proxy does for a test: it happens once, or lasts a second."""
        return tuple(
            replace(each, seconds=LASTING if each.times == ALWAYS else math.inf) for each in self._injections()
        )

    def recurring(self, probability: float) -> tuple[Injection, ...]:
        """Return what the proxy does for as long as it runs, at each opportunity.

        Args:
            probability: How likely it is at each of them, from 0 to 1.

        Raises:
            LMStudioValueError: If it cannot recur, because the proxy does not see the connections that the system
                rejects.
        """
        if not self.injections:
            raise LMStudioValueError(
                f"the fault {self.name!r} cannot recur while a server runs; choose 'connection-reset-on-connect'"
            )
        return tuple(replace(each, times=ALWAYS, probability=probability) for each in self._injections())

    def _injections(self) -> Iterable[Injection]:
        """Return what the proxy does under its name. A host that freezes is thawed by nobody, so its time is limited."""
        for each in self.injections:
            action = actions.freeze_for(LASTING) if each.action is actions.freeze else each.action
            yield replace(each, action=action, fault=self.name)


def at(point: str, action: Action, times: float = 1) -> tuple[Injection, ...]:
    """Return the injections of a fault that has one."""
    return (Injection(point, action, times),)


# All faults ---------------------------------------------------------------------------------------------------------


def _error(error: WireError) -> Action:
    """Respond with an error of the server."""
    return actions.replace(actions.failed(error.to_dict()))


_ENGINE_FAILED = _error(EngineError("The engine failed", cause="a fault was injected"))
_CRASHED = _error(model_crashed(_CRASHED_WITH))
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
    Fault("connection-closed-mid-handshake", "connection", Phase.UPGRADE, "The connection is closed in the middle of the response to the WebSocket handshake.", at("response head", actions.cut(actions.finish), ALWAYS), is_common=False),
    Fault("authentication-unanswered", "slow", Phase.AUTHENTICATE, "The server does not respond to the credentials.", at("authentication", actions.lose, ALWAYS)),
    Fault("authentication-rejected", "error", Phase.AUTHENTICATE, "The server rejects the credentials.", at("authentication", _NO_PASSKEY, ALWAYS)),
    Fault("connection-reset-in-authentication", "connection", Phase.AUTHENTICATE, "The connection is reset before the server responds to the credentials.", at("authentication", actions.reset)),
    Fault("unrelated-frames-in-authentication", "malformed", Phase.AUTHENTICATE, "The server sends unrelated frames before it accepts the credentials.", at("authentication", _UNRELATED), is_common=False),
    Fault("connection-closed-after-authentication", "connection", Phase.AUTHENTICATE, "The server accepts the credentials and closes the connection.", at("authentication", actions.after(actions.finish)), is_common=False),
    Fault("load-stalls", "slow", Phase.LOAD, "Loading makes no progress.", at("load middle packet", actions.stall)),
    Fault("out-of-memory", "error", Phase.LOAD, "The server does not have enough memory for the model.", at("load request", _error(out_of_memory()), ALWAYS)),
    Fault("load-fails", "error", Phase.LOAD, "The server cannot load the model.", at("load request", _error(load_failed("a fault was injected")))),
    Fault("engine-crashes-while-loading", "error", Phase.LOAD, "The engine crashes.", at("load middle packet", _CRASHED)),
    Fault("engine-exits-while-loading", "error", Phase.LOAD, "The engine, which is a process of its own, ends.", at("load middle packet", _error(engine_exited_while_loading())), is_common=False),
    Fault("connection-reset-while-loading", "connection", Phase.LOAD, "The connection is reset.", at("load middle packet", actions.reset)),
    Fault("connection-dead-while-loading", "slow", Phase.LOAD, "The connection goes dead: it stays open, but no data passes.", at("load middle packet", actions.go_dead), is_common=False),
    Fault("channel-closed-while-loading", "malformed", Phase.LOAD, "The server closes the channel without a result.", at("load last packet", actions.replace(actions.ended)), is_common=False),
    Fault("load-result-empty", "malformed", Phase.LOAD, "The result does not identify the loaded model.", at("load last packet", actions.replace(actions.without_content)), is_common=False),
    Fault("unknown-packet-while-loading", "malformed", Phase.LOAD, "A packet has an unknown type.", at("load middle packet", actions.replace(actions.of_unknown_type)), is_common=False),
    Fault("request-unanswered", "slow", Phase.FIRST, "The server does not respond to the request, but the connection is alive.", at("request", actions.lose, ALWAYS)),
    Fault("connection-dead-before-response", "slow", Phase.FIRST, "The connection goes dead.", at("request", actions.go_dead)),
    Fault("connection-reset-before-response", "connection", Phase.FIRST, "The connection is reset.", at("request", actions.reset)),
    Fault("server-restarts-before-response", "connection", Phase.FIRST, "The server closes the WebSocket because it restarts (1012).", at("request", actions.close(CloseCode.SERVICE_RESTART))),
    Fault("engine-fails-before-response", "error", Phase.FIRST, "The server responds with an error.", at("request", _ENGINE_FAILED)),
    Fault("engine-crashes-before-response", "error", Phase.FIRST, "The engine crashes.", at("request", _CRASHED)),
    Fault("engine-exits-before-response", "error", Phase.FIRST, "The engine, which is a process of its own, has ended.", at("request", _error(engine_exited(generating=False))), is_common=False),
    Fault("request-queued-too-long", "error", Phase.FIRST, "The request has waited too long for a slot of the engine.", at("request", _error(queued_too_long()))),
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
    Fault("frame-too-short", "slow", Phase.MIDDLE, "A frame announces more bytes than arrive.", at("middle packet", actions.before(actions.raw(actions.MEGABYTE))), is_common=False),
    Fault("frame-too-large", "malformed", Phase.MIDDLE, "A frame announces more bytes than `max_message_bytes`.", at("middle packet", actions.before(actions.raw(actions.TERABYTE))), is_common=False),
    Fault("connection-half-closed-mid-response", "connection", Phase.MIDDLE, "The server closes its side of the connection (half-close).", at("middle packet", actions.half_close), is_common=False),
    Fault("connection-closed-mid-frame", "connection", Phase.MIDDLE, "The connection is closed inside a frame.", at("middle packet", actions.cut(actions.finish)), is_common=False),
    Fault("websocket-closed-tcp-open-mid-response", "connection", Phase.MIDDLE, "The server closes the WebSocket, but not the TCP connection.", at("middle packet", actions.close(CloseCode.GOING_AWAY, and_hang=True)), is_common=False),
    Fault("invalid-opcode-mid-response", "malformed", Phase.MIDDLE, "A frame has an invalid opcode.", at("middle packet", actions.corrupt(0, 0x83)), is_common=False),
    Fault("message-fragmented-mid-response", "malformed", Phase.MIDDLE, "A message is split into two frames, with a ping between them.", at("middle packet", actions.fragment), is_common=False),
    Fault("malformed-error-mid-response", "malformed", Phase.MIDDLE, "The server ends the response with a malformed error.", at("middle packet", actions.replace(actions.failed(5))), is_common=False),
    Fault("channel-closed-mid-response", "malformed", Phase.MIDDLE, "The server closes the channel without a last packet.", at("middle packet", actions.replace(actions.ended)), is_common=False),
    Fault("packet-empty-mid-response", "malformed", Phase.MIDDLE, "A packet lacks its content.", at("middle packet", actions.replace(actions.without_content)), is_common=False),
    Fault("no-json-mid-response", "malformed", Phase.MIDDLE, "A frame is not JSON.", at("middle packet", actions.replace(lambda _: "no JSON")), is_common=False),
    Fault("invalid-utf8-mid-response", "malformed", Phase.MIDDLE, "A frame is not valid UTF-8.", at("middle packet", actions.corrupt(-1, 0xFF)), is_common=False),
    Fault("frame-lost-mid-response", "malformed", Phase.MIDDLE, "A frame is lost.", at("middle packet", actions.lose), is_common=False),
    Fault("frame-twice-mid-response", "malformed", Phase.MIDDLE, "A frame arrives twice.", at("middle packet", actions.duplicate), is_common=False),
    Fault("meaningless-frames-mid-response", "malformed", Phase.MIDDLE, "The server sends meaningless frames.", at("middle packet", actions.before(actions.frames(*actions.NOISE))), is_common=False),
    Fault("last-packet-lost", "malformed", Phase.LAST, "The last packet is lost.", at("last packet", actions.lose)),
    Fault("connection-dead-before-last-packet", "slow", Phase.LAST, "The connection goes dead before the last packet.", at("last packet", actions.go_dead)),
    Fault("response-endless", "slow", Phase.LAST, "The model repeats itself, and the response never ends.", at("last packet", actions.endless(actions.repeated, REPEATED))),
    Fault("connection-closed-after-response", "connection", Phase.LAST, "The connection is closed after the last packet.", at("last packet", actions.after(actions.finish))),
    Fault("channel-close-lost", "malformed", Phase.LAST, "The close of the channel is lost.", at("end", actions.lose), is_common=False),
    Fault("last-packet-twice", "malformed", Phase.LAST, "The last packet arrives twice.", at("last packet", actions.duplicate), is_common=False),
)
# fmt: on

FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in _FAULTS}
"""Every fault, by its name: the common ones, and variants of them that a client should survive as well."""

PHASES = tuple(dict.fromkeys(fault.phase.word for fault in FAULTS.values()))

# Which faults users mean --------------------------------------------------------------------------------------------


def choose_faults(choices: Sequence[str]) -> list[Fault]:
    """Return the faults of kinds, phases and names; without a choice, those of all kinds. A finer one needs its name.

    Raises:
        LMStudioValueError: If a choice is none of them.
    """
    for choice in choices:
        if choice not in {*KINDS, *PHASES, *FAULTS}:
            groups = f"there are the kinds {', '.join(KINDS)}, and the phases {', '.join(PHASES)}; "
            raise _unknown(choice, [*KINDS, *PHASES, *FAULTS], groups)
    names = {*choices} or {*KINDS}
    return [fault for fault in FAULTS.values() if names & fault.choices]


def find_fault(name: str) -> Fault:
    """Return the fault of a name.

    Raises:
        LMStudioValueError: If there is none.
    """
    if name not in FAULTS:
        raise _unknown(name, FAULTS)
    return FAULTS[name]


def read_injections(text: str) -> tuple[Injection, ...]:
    """Return what `NAME[:PROBABILITY]` injects.

    Raises:
        LMStudioValueError: If a part of it is invalid.
    """
    name, colon, number = text.partition(":")
    try:
        probability = float(number) if colon else 1.0
    except ValueError:
        probability = 0.0
    if not 0 < probability <= 1:
        raise LMStudioValueError(
            f"the probability {number!r} in {text!r} is not a number above 0 and up to 1; write 0.1, for example"
        )
    return find_fault(name).recurring(probability)


def _unknown(name: str, names: Iterable[str], groups: str = "") -> LMStudioValueError:
    nearest = closest_names(name, names, cutoff=_NAME_CUTOFF)
    remedy = f"did you mean {nearest[0]!r}?" if nearest else f"{groups}`lmsi serve --fault list` lists the faults"
    return LMStudioValueError(f"unknown fault {name!r}; {remedy}")


# One fault for one test ---------------------------------------------------------------------------------------------


class FaultProxy:
    """A proxy in front of a server in which one fault happens, to test what a program does about it.

    The fault is transient: it happens once, or lasts for a second, so that a program can recover from it. A context
    manager: inside the block the proxy listens, on a thread of its own.

    ```python
    from lmstudio_integrations.emulator import Emulator, FaultProxy
    from lmstudio_integrations.langchain import ChatLMStudio

    with (
        Emulator(["my-model"]) as server,
        FaultProxy(server.address, "connection-reset-mid-response") as proxy,
    ):
        model = ChatLMStudio(
            model="my-model", host=proxy.address, max_retries=1
        )
        print(model.invoke("Hello!").text)
    ```

    Args:
        upstream: `host:port` of the server: an emulator, or LM Studio.
        fault: The name of the fault; the default, `None`, only forwards. `FAULTS` has all names.
        limit: Seconds after which all connections are closed, so that a program that waits forever ends. There is no
            limit by default.

    Raises:
        LMStudioValueError: If no fault has this name.
    """

    def __init__(self, upstream: str, fault: str | None = None, *, limit: float | None = None) -> None:
        self.fault: Fault | None = None if fault is None else find_fault(fault)
        self.limit: float = math.inf if limit is None else limit
        self.has_expired: bool = False
        """Whether `limit` has passed."""
        self._thread = ProxyThread()
        self._proxy = Proxy(
            self._thread,
            upstream,
            () if self.fault is None else self.fault.transient(),
            is_rejecting=self.fault is not None and not self.fault.injections,
        )
        self._timers = [threading.Timer(LASTING, self._proxy.heal)] if self._proxy.is_rejecting else []
        self._timers += [] if limit is None else [threading.Timer(limit, self._expire)]

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
        From this call on, `limit` has no effect.
        """
        self._cancel_timers()
        return self._thread.run(self._running_after(timeout, lambda: False))

    def __enter__(self) -> Self:
        self._thread.__enter__()
        self._proxy.__enter__()
        for timer in self._timers:
            timer.daemon = True
            timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cancel_timers()
        self._proxy.close()
        self._thread.__exit__(kind, error, trace)

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
            timer.join()

    def _expire(self) -> None:
        self.has_expired = True
        self._proxy.close()

    async def _running_after(self, seconds: float, is_over: Callable[[], bool]) -> list[str]:
        """Return the predictions that run when none does, something is over, or the time is."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            running = [each for connection in self._proxy.connections for each in connection.tracker.predictions]
            if not running or is_over() or asyncio.get_running_loop().time() >= deadline:
                return running
            await asyncio.sleep(_POLL_SECONDS)
