"""Rows of the fault table: in the middle of a response."""

from websockets.frames import CloseCode

from lmstudio_integrations import errors
from lmstudio_integrations.emulator.proxy.actions import (
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
from lmstudio_integrations.emulator.proxy.messages import (
    BINARY,
    MEGABYTE,
    NOISE,
    PINGS,
    TERABYTE,
    ended,
    failed,
    without_content,
)
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
        "The connection goes dead, and `keepalive` detects it before a timeout expires.",
        Phase.MIDDLE,
        LOST,
        inject=at("middle packet", DEAD),
        keepalive=0.2,
        then_on="new connection",
    ),
    Fault(
        "The connection goes dead from server to client.",
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
        "A frame announces more bytes than arrive.",
        Phase.MIDDLE,
        IDLE,
        QUEUED,
        inject=at("middle packet", raw_before(MEGABYTE)),
        then_on="new connection",
    ),
    Fault(
        "A frame announces more bytes than `max_message_bytes`.",
        Phase.MIDDLE,
        PROTOCOL,
        inject=at("middle packet", raw_before(TERABYTE)),
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
        "The server closes its side of the connection (half-close).",
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
        "The server closes the WebSocket because it shuts down (1001).",
        Phase.MIDDLE,
        LOST,
        inject=at("middle packet", close(CloseCode.GOING_AWAY)),
        then_on="new connection",
    ),
    Fault(
        "The server closes the WebSocket because of an internal error (1011).",
        Phase.MIDDLE,
        LOST,
        inject=at("middle packet", close(CloseCode.INTERNAL_ERROR)),
        then_on="new connection",
    ),
    Fault(
        "The server closes the WebSocket, but not the TCP connection.",
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
        "The server closes its side of the connection and continues to read.",
        Phase.MIDDLE,
        LOST,
        None,
        steps=({"text": "{last}"}, {"fault": "half_close", "packet": 5}),
        then_on="new connection",
    ),
    Fault(
        "A frame has an invalid opcode.",
        Phase.MIDDLE,
        LOST,
        inject=at("middle packet", corrupted(0, 0x83)),
        then_on="new connection",
    ),
    Fault(
        "The server masks a frame, which only clients may do.",
        Phase.MIDDLE,
        LOST,
        inject=at("middle packet", masked),
        then_on="new connection",
    ),
    Fault("The response arrives byte by byte.", Phase.MIDDLE, WORKS, inject=at("middle packet", drip)),
    Fault(
        "A packet is late, but arrives before the timeout.",
        Phase.MIDDLE,
        WORKS,
        inject=at("middle packet", delay(0.05)),
    ),
    Fault(
        "A message is split into two frames, with a ping between them.",
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
        "Packets keep arriving until the total `timeout` expires.",
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
        "Another program unloads the model.",
        Phase.MIDDLE,
        Outcome(errors.LMStudioModelUnloadedError, note="after three more attempts, except streams"),
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
        "The server ends the response with a malformed error.",
        Phase.MIDDLE,
        Outcome(errors.LMStudioServerError),
        inject=at("middle packet", replace(failed(5))),
    ),
    Fault(
        "The server closes the channel without a last packet.",
        Phase.MIDDLE,
        CLOSED_EARLY,
        None,
        inject=at("middle packet", replace(ended)),
    ),
    Fault(
        "A packet lacks its content.",
        Phase.MIDDLE,
        PROTOCOL,
        inject=at("middle packet", replace(without_content)),
    ),
    Fault(
        "A packet is not an object.",
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
        "A frame is not valid UTF-8.",
        Phase.MIDDLE,
        PROTOCOL,
        inject=at("middle packet", corrupted(-1, 0xFF)),
    ),
    Fault(
        "A frame is lost.",
        Phase.MIDDLE,
        changes("the response lacks the content of the frame", _lacking),
        QUEUED,
        inject=at("middle packet", drop),
    ),
    Fault(
        "A frame arrives twice.",
        Phase.MIDDLE,
        changes("the response has the content of the frame twice", _twice),
        WORKS,
        inject=at("middle packet", duplicate),
    ),
    Fault(
        "Two frames arrive in the wrong order.",
        Phase.MIDDLE,
        changes("the response has their content in that order", _swapped),
        WORKS,
        inject=at("middle packet", hold),
    ),
    Fault(
        "The server sends meaningless frames.",
        Phase.MIDDLE,
        WORKS,
        inject=at("middle packet", before(*NOISE)),
    ),
    Fault("The server sends a binary frame.", Phase.MIDDLE, PROTOCOL, inject=at("middle packet", raw_before(BINARY))),
    Fault(
        "A packet has an unknown type.",
        Phase.MIDDLE,
        WORKS,
        None,
        steps=({"text": "{last}"}, {"fault": "unknown_packet", "packet": 5}),
    ),
    Fault(
        "The server sends truncated JSON, then the rest of the response.",
        Phase.MIDDLE,
        PROTOCOL,
        None,
        steps=({"text": "{last}"}, {"fault": "corrupt", "packet": 5}),
    ),
)


ROWS = (*_MIDDLE_CONNECTION, *_MIDDLE_PACKETS)
