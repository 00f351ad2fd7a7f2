"""Rows of the fault table: in the middle of a response."""

from websockets.frames import CloseCode

from lmstudio_integrations import errors
from tests.faults.actions import (
    DEAD,
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
    freeze,
    half_close,
    hold,
    masked,
    raw_before,
    replace,
    reset,
)
from tests.faults.messages import BINARY, ENDLESS, NOISE, PINGS, ended, failed, without_content
from tests.faults.model import (
    CLOSED_EARLY,
    CONNECTING,
    IDLE,
    LOST,
    PROTOCOL,
    QUEUED,
    WORKS,
    Fault,
    Outcome,
    Phase,
    Words,
    at,
    changes,
    expires,
)

# What nobody can notice, because frames are not numbered -----------------------------------------------------------


def _twice(words: Words) -> Words:
    return [*words[:3], *words[2:]]


def _lacking(words: Words) -> Words:
    return [*words[:2], *words[3:]]


def _swapped(words: Words) -> Words:
    return [*words[:2], words[3], words[2], *words[4:]]


_MIDDLE_CONNECTION = (
    Fault(
        "The connection goes dead.",
        Phase.MIDDLE,
        IDLE,
        QUEUED,
        inject=at("middle packet", DEAD),
        then_on="new connection",
    ),
    Fault(
        "The connection goes dead, and `keepalive` notices before a timeout expires.",
        Phase.MIDDLE,
        LOST,
        inject=at("middle packet", DEAD),
        keepalive=0.2,
        then_on="new connection",
    ),
    Fault(
        "The way from the server to the client goes dead.",
        Phase.MIDDLE,
        IDLE,
        QUEUED,
        inject=at("middle packet", black_hole("server")),
        then_on="new connection",
    ),
    Fault(
        "The host freezes.",
        Phase.MIDDLE,
        IDLE,
        QUEUED,
        inject=at("middle packet", freeze),
        meanwhile=CONNECTING,
        then_on="either connection",
    ),
    Fault(
        "The connection goes dead inside a frame.",
        Phase.MIDDLE,
        IDLE,
        QUEUED,
        inject=at("middle packet", cut(DEAD)),
        then_on="new connection",
    ),
    Fault(
        "A frame announces more bytes than ever come.",
        Phase.MIDDLE,
        IDLE,
        QUEUED,
        inject=at("middle packet", raw_before(ENDLESS)),
        then_on="new connection",
    ),
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
        "A TLS connection is reset.",
        Phase.MIDDLE,
        LOST,
        inject=at("middle packet", reset),
        scheme="wss",
        tls=True,
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
        "The server closes the WebSocket, but not the connection below it.",
        Phase.MIDDLE,
        LOST,
        inject=at("middle packet", close(CloseCode.GOING_AWAY, and_hang=True)),
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
    Fault("The server sends a hundred pings.", Phase.MIDDLE, WORKS, inject=at("middle packet", raw_before(PINGS))),
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
        Outcome(errors.LMStudioModelUnloadedError, note="after three more attempts unless it is a stream"),
        None,
        steps=({"text": "{last}"}, {"error": "Gone", "code": "generic.specificModelUnloaded"}),
        regenerated=True,
    ),
    Fault(
        "The server ends the response with an error.",
        Phase.MIDDLE,
        Outcome(errors.LMStudioServerError),
        inject=at("middle packet", replace(failed({"title": "It went wrong"}))),
    ),
    Fault(
        "The server ends the response with an error that has no form.",
        Phase.MIDDLE,
        Outcome(errors.LMStudioServerError),
        inject=at("middle packet", replace(failed(5))),
    ),
    Fault(
        "The server ends the channel without a last packet.",
        Phase.MIDDLE,
        CLOSED_EARLY,
        None,
        inject=at("middle packet", replace(ended)),
    ),
    Fault(
        "A packet lacks what it is for.",
        Phase.MIDDLE,
        PROTOCOL,
        inject=at("middle packet", replace(without_content)),
    ),
    Fault(
        "A packet is no object.",
        Phase.MIDDLE,
        PROTOCOL,
        None,
        inject=at("middle packet", replace(lambda message: {**message, "message": 5})),
    ),
    Fault(
        "A frame is not JSON.",
        Phase.MIDDLE,
        PROTOCOL,
        inject=at("middle packet", replace(lambda _: "no JSON")),
    ),
    Fault(
        "A byte of a frame is wrong, so that it is not UTF-8.",
        Phase.MIDDLE,
        PROTOCOL,
        inject=at("middle packet", corrupted(-1, 0xFF)),
    ),
    Fault(
        "A frame is lost.",
        Phase.MIDDLE,
        changes("the response lacks what was in the frame", _lacking),
        QUEUED,
        inject=at("middle packet", drop),
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
        inject=at("middle packet", before(*NOISE)),
    ),
    Fault("The server sends a binary frame.", Phase.MIDDLE, PROTOCOL, inject=at("middle packet", raw_before(BINARY))),
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
        PROTOCOL,
        None,
        steps=({"text": "{last}"}, {"fault": "corrupt", "packet": 5}),
    ),
)


ROWS = (*_MIDDLE_CONNECTION, *_MIDDLE_PACKETS)
