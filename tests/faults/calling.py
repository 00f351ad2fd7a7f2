"""Rows of the fault table: from loading the model to the end of a response, and between two calls."""

from collections.abc import Callable
from typing import Any

from websockets.frames import CloseCode, Frame, Opcode

from lmstudio_integrations import errors
from tests.faults.actions import (
    Message,
    after,
    before,
    black_hole,
    close,
    corrupted,
    cut,
    delay,
    drip,
    drop,
    duplicate,
    finish,
    fragmented,
    half_close,
    hold,
    masked,
    raw_before,
    replace,
    reset,
)
from tests.faults.cells import Cell, until_noticed
from tests.faults.frames import Unit, serialized
from tests.faults.model import (
    ALWAYS,
    CLOSED_EARLY,
    LOST,
    PROTOCOL,
    UNREACHABLE,
    WORKS,
    Fault,
    Outcome,
    Phase,
    Words,
    at,
    changes,
    expires,
)
from tests.faults.proxy import Action, Tunnel

CONNECTING, LOADING, QUEUED, IDLE = map(expires, ("connect_timeout", "load_timeout", "queue_timeout", "idle_timeout"))
DEAD = black_hole("client", "server")

_NOISE: tuple[str | bytes, ...] = (
    "no JSON",
    "[1, 2]",
    b"\xff\xfe",
    '{"type":"keepAliveAck"}',
    '{"type":"unheardOf","channelId":1}',
    '{"type":"channelSend","channelId":999,"message":{"type":"fragment"}}',
    '{"type":"rpcResult","callId":999}',
)
_PINGS = b"".join(serialized("server", Frame(Opcode.PING, str(number).encode())) for number in range(100))
_BINARY = serialized("server", Frame(Opcode.BINARY, b"\x00\x01\x02"))
_ENDLESS = b"\x81\x7f" + (1 << 40).to_bytes(8, "big")


# What is put in the place of frames --------------------------------------------------------------------------------


def _without_content(message: Message) -> Message:
    """Return a packet of the same type without what it is for."""
    if "result" in message:
        return {**message, "result": {}}
    return {**message, "message": {"type": message["message"]["type"]}}


def _ended(message: Message) -> Message:
    return {"type": "channelClose", "channelId": message["channelId"]}


def _failed(error: Any) -> Callable[[Message], Message]:
    def make(message: Message) -> Message:
        if "callId" in message:
            return {"type": "rpcError", "callId": message["callId"], "error": error}
        return {"type": "channelError", "channelId": message["channelId"], "error": error}

    return make


def _unheard_of(message: Message) -> Message:
    return {**message, "message": {"type": "unheardOf", "info": 1}}


def _warning(text: str) -> Action:
    """Answer a request as servers answer what they do not take: with a warning that names the endpoint."""
    return replace(
        lambda message: {
            "type": "communicationWarning",
            "warning": text.format(endpoint=message["endpoint"]),
            "kind": "channelEndpointUnknown",
        }
    )


# What nobody can notice, because frames are not numbered -----------------------------------------------------------


def _twice(words: Words) -> Words:
    return [*words[:3], *words[2:]]


def _lacking(words: Words) -> Words:
    return [*words[:2], *words[3:]]


def _swapped(words: Words) -> Words:
    return [*words[:2], words[3], words[2], *words[4:]]


# What happens between two calls ------------------------------------------------------------------------------------


def _applied(action: Action, *, ends: bool = True) -> Callable[[Cell], None]:
    """Do something to the open connection, and wait until the client notices."""

    def act(cell: Cell) -> None:
        cell.proxy.apply(action)
        if ends:
            until_noticed(cell.host)

    return act


async def _restart(tunnel: Tunnel, unit: Unit) -> None:
    tunnel.proxy.upstream = tunnel.proxy.spare
    await reset(tunnel, unit)


def _go_away(cell: Cell) -> None:
    cell.proxy.refuse()
    _applied(reset)(cell)


def _unload(cell: Cell) -> None:
    cell.servers.main.unload(cell.model)
    cell.proxy.happened.set()


_LOAD = (
    Fault(
        "Loading makes no progress.",
        Phase.LOAD,
        LOADING,
        load_steps=({"fault": "stall"},),
    ),
    Fault(
        "The server has not enough memory for the model.",
        Phase.LOAD,
        Outcome(errors.LMStudioInsufficientResourcesError),
        load_steps=({"fault": "out_of_memory"},),
    ),
    Fault(
        "The server cannot load the model.",
        Phase.LOAD,
        Outcome(errors.LMStudioModelLoadError),
        load_steps=({"error": "Failed to load the model"},),
    ),
    Fault(
        "The engine crashes.",
        Phase.LOAD,
        Outcome(errors.LMStudioModelCrashedError),
        load_steps=({"fault": "crash"},),
    ),
    Fault(
        "The connection is reset.",
        Phase.LOAD,
        LOST,
        inject=at("load packet", reset),
        then_on="new connection",
    ),
    Fault(
        "The server ends the channel without saying what was loaded.",
        Phase.LOAD,
        CLOSED_EARLY,
        inject=at("load result", replace(_ended)),
    ),
    Fault(
        "The server does not say what was loaded.",
        Phase.LOAD,
        PROTOCOL,
        inject=at("load result", replace(_without_content)),
    ),
    Fault(
        "A packet is of a type that the client does not know.",
        Phase.LOAD,
        WORKS,
        inject=at("load packet", replace(_unheard_of)),
    ),
)

_FIRST = (
    Fault(
        "The connection is reset.",
        Phase.FIRST,
        LOST,
        inject=at("request", reset),
        then_on="new connection",
    ),
    Fault(
        "The connection is closed.",
        Phase.FIRST,
        LOST,
        inject=at("request", finish),
        then_on="new connection",
    ),
    Fault(
        "The server closes the WebSocket, because it restarts (1012).",
        Phase.FIRST,
        LOST,
        inject=at("request", close(CloseCode.SERVICE_RESTART)),
        then_on="new connection",
    ),
    Fault(
        "The server answers with an error.",
        Phase.FIRST,
        Outcome(errors.LMStudioServerError),
        steps=({"error": "It went wrong", "cause": "because"},),
        embedding_steps=({"error": "It went wrong", "cause": "because"},),
    ),
    Fault(
        "The engine crashes.",
        Phase.FIRST,
        Outcome(errors.LMStudioModelCrashedError),
        steps=({"fault": "crash"},),
        embedding_steps=({"fault": "crash"},),
    ),
    Fault(
        "The server does not know the endpoint.",
        Phase.FIRST,
        Outcome(errors.LMStudioUnsupportedError),
        inject=at("request", _warning("Received a request for unknown endpoint, endpoint = {endpoint}"), ALWAYS),
        then=Outcome(errors.LMStudioUnsupportedError, note="until the connection is renewed"),
    ),
    Fault(
        "The server does not take the parameters of the request.",
        Phase.FIRST,
        PROTOCOL,
        inject=at("request", _warning("Received invalid parameter, endpoint = {endpoint}"), ALWAYS),
    ),
    Fault(
        "The first packet comes late, but in time.",
        Phase.FIRST,
        WORKS,
        inject=at("first packet", delay(0.05)),
    ),
)

_MIDDLE_CONNECTION = (
    Fault(
        "The connection is reset.",
        Phase.MIDDLE,
        LOST,
        inject=at("middle packet", reset),
        then_on="new connection",
    ),
    Fault(
        "The connection is closed.",
        Phase.MIDDLE,
        LOST,
        inject=at("middle packet", finish),
        then_on="new connection",
    ),
    Fault(
        "The server closes its direction of the connection.",
        Phase.MIDDLE,
        LOST,
        inject=at("middle packet", half_close),
        then_on="new connection",
    ),
    Fault(
        "The connection is reset inside a frame.",
        Phase.MIDDLE,
        LOST,
        inject=at("middle packet", cut(reset)),
        then_on="new connection",
    ),
    Fault(
        "The connection is closed inside a frame.",
        Phase.MIDDLE,
        LOST,
        inject=at("middle packet", cut(finish)),
        then_on="new connection",
    ),
    Fault(
        "The server closes the WebSocket, because it goes away (1001).",
        Phase.MIDDLE,
        LOST,
        inject=at("middle packet", close(CloseCode.GOING_AWAY)),
        then_on="new connection",
    ),
    Fault(
        "The server closes the WebSocket, because it failed (1011).",
        Phase.MIDDLE,
        LOST,
        inject=at("middle packet", close(CloseCode.INTERNAL_ERROR)),
        then_on="new connection",
    ),
    Fault(
        "The server drops the connection.",
        Phase.MIDDLE,
        LOST,
        None,
        steps=({"text": "{last}"}, {"fault": "drop", "packet": 5}),
        then_on="new connection",
    ),
    Fault(
        "The server goes on reading, but has closed its own direction.",
        Phase.MIDDLE,
        LOST,
        None,
        steps=({"text": "{last}"}, {"fault": "half_close", "packet": 5}),
        then_on="new connection",
    ),
    Fault(
        "The bytes of a frame have another order than WebSocket prescribes (an opcode that does not exist).",
        Phase.MIDDLE,
        LOST,
        inject=at("middle packet", corrupted(0, 0x83)),
        then_on="new connection",
    ),
    Fault(
        "The server masks a frame, which only clients do.",
        Phase.MIDDLE,
        LOST,
        inject=at("middle packet", masked),
        then_on="new connection",
    ),
    Fault("Bytes arrive one by one.", Phase.MIDDLE, WORKS, inject=at("middle packet", drip)),
    Fault("A packet comes late, but in time.", Phase.MIDDLE, WORKS, inject=at("middle packet", delay(0.05))),
    Fault(
        "A message comes in two frames, with a ping between them.",
        Phase.MIDDLE,
        WORKS,
        inject=at("middle packet", fragmented),
    ),
    Fault("The server sends a hundred pings.", Phase.MIDDLE, WORKS, inject=at("middle packet", raw_before(_PINGS))),
)

_MIDDLE_PACKETS = (
    Fault(
        "The engine stalls.",
        Phase.MIDDLE,
        IDLE,
        None,
        steps=({"text": "{last}"}, {"fault": "stall", "packet": 5}),
    ),
    Fault(
        "Packets go on and on, longer than the call may take in all.",
        Phase.MIDDLE,
        expires("timeout"),
        steps=({"text": "{last}"}, *({"wait": 0.05}, {"text": " more"}) * 200),
        embedding_steps=({"wait": 10},),
    ),
    Fault(
        "The engine fails.",
        Phase.MIDDLE,
        Outcome(errors.LMStudioServerError),
        None,
        steps=({"text": "{last}"}, {"error": "It went wrong"}),
    ),
    Fault(
        "The engine crashes.",
        Phase.MIDDLE,
        Outcome(errors.LMStudioModelCrashedError),
        None,
        steps=({"text": "{last}"}, {"fault": "crash", "packet": 5}),
    ),
    Fault(
        "The model is unloaded by somebody else.",
        Phase.MIDDLE,
        Outcome(errors.LMStudioModelUnloadedError),
        None,
        steps=({"text": "{last}"}, {"error": "Gone", "code": "generic.specificModelUnloaded"}),
    ),
    Fault(
        "The server ends the response with an error.",
        Phase.MIDDLE,
        Outcome(errors.LMStudioServerError),
        inject=at("middle packet", replace(_failed({"title": "It went wrong"}))),
    ),
    Fault(
        "The server ends the response with an error that has no form.",
        Phase.MIDDLE,
        Outcome(errors.LMStudioServerError),
        inject=at("middle packet", replace(_failed(5))),
    ),
    Fault(
        "The server ends the channel without a last packet.",
        Phase.MIDDLE,
        CLOSED_EARLY,
        None,
        inject=at("middle packet", replace(_ended)),
    ),
    Fault(
        "A frame comes twice.",
        Phase.MIDDLE,
        changes("the response has what was in the frame twice", _twice),
        WORKS,
        inject=at("middle packet", duplicate),
    ),
    Fault(
        "Two frames come in the wrong order.",
        Phase.MIDDLE,
        changes("the response has their contents in that order", _swapped),
        WORKS,
        inject=at("middle packet", hold),
    ),
    Fault(
        "The server sends frames that mean nothing.",
        Phase.MIDDLE,
        WORKS,
        inject=at("middle packet", before(*_NOISE)),
    ),
    Fault("The server sends a binary frame.", Phase.MIDDLE, WORKS, inject=at("middle packet", raw_before(_BINARY))),
    Fault(
        "A packet is of a type that the client does not know.",
        Phase.MIDDLE,
        WORKS,
        None,
        steps=({"text": "{last}"}, {"fault": "unknown_packet", "packet": 5}),
    ),
    Fault(
        "The server sends half a frame of JSON, and then the rest of the response.",
        Phase.MIDDLE,
        WORKS,
        None,
        steps=({"text": "{last}"}, {"fault": "corrupt", "packet": 5}),
    ),
)

_LAST = (
    Fault(
        "The end of the channel is lost.",
        Phase.LAST,
        WORKS,
        None,
        inject=at("end", drop),
    ),
    Fault("The last packet comes twice.", Phase.LAST, WORKS, inject=at("last packet", duplicate)),
    Fault("The end of the channel comes twice.", Phase.LAST, WORKS, None, inject=at("end", duplicate)),
    Fault(
        "The connection is closed after the last packet.",
        Phase.LAST,
        WORKS,
        inject=at("last packet", after(finish)),
        then_on="new connection",
        noticed=True,
    ),
    Fault(
        "The server closes the WebSocket after the last packet.",
        Phase.LAST,
        WORKS,
        inject=at("last packet", after(close(CloseCode.GOING_AWAY))),
        then_on="new connection",
        noticed=True,
    ),
)

_IDLE = (
    Fault(
        "The server closes the WebSocket.",
        Phase.IDLE,
        WORKS,
        between=_applied(close(CloseCode.GOING_AWAY)),
        then_on="new connection",
    ),
    Fault(
        "The connection is closed.",
        Phase.IDLE,
        WORKS,
        between=_applied(finish),
        then_on="new connection",
    ),
    Fault(
        "The server closes its direction of the connection.",
        Phase.IDLE,
        WORKS,
        between=_applied(half_close),
        then_on="new connection",
    ),
    Fault(
        "The connection is reset.",
        Phase.IDLE,
        WORKS,
        between=_applied(reset),
        then_on="new connection",
    ),
    Fault(
        "The server restarts, and has no model loaded.",
        Phase.IDLE,
        WORKS,
        between=_applied(_restart),
        then_on="new connection",
    ),
    Fault("The model is unloaded.", Phase.IDLE, WORKS, between=_unload),
    Fault(
        "The server goes away.",
        Phase.IDLE,
        UNREACHABLE,
        between=_go_away,
        retried=True,
        then_on="new connection",
    ),
    Fault(
        "The server sends frames that mean nothing.",
        Phase.IDLE,
        WORKS,
        between=_applied(before(*_NOISE), ends=False),
    ),
    Fault("The server sends a hundred pings.", Phase.IDLE, WORKS, between=_applied(raw_before(_PINGS), ends=False)),
)

ROWS = (*_LOAD, *_FIRST, *_MIDDLE_CONNECTION, *_MIDDLE_PACKETS, *_LAST, *_IDLE)
