"""Rows of the fault table: in the middle of a response."""

from lmstudio_integrations import errors
from tests.faults.faults import Phase
from tests.faults.model import (
    CLOSED_EARLY,
    CONNECTING,
    IDLE,
    LOST,
    PROTOCOL,
    QUEUED,
    WORKS,
    Outcome,
    Row,
    Words,
    changes,
    expires,
    row,
)

# What nobody can notice, because frames are not numbered -----------------------------------------------------------


def _twice(words: Words) -> Words:
    return [*words[:3], *words[2:]]


def _lacking(words: Words) -> Words:
    return [*words[:2], *words[3:]]


_MIDDLE_CONNECTION = (
    row("connection-dead-mid-response", IDLE, QUEUED, then_on="new connection"),
    row(
        "connection-dead-mid-response",
        LOST,
        name="The connection goes dead, and `keepalive` detects it before a timeout expires.",
        keepalive=2.0,
        then_on="new connection",
    ),
    row("host-freezes-mid-response", IDLE, QUEUED, meanwhile=CONNECTING, then_on="either connection"),
    row("frame-too-short", IDLE, QUEUED, then_on="new connection"),
    row("frame-too-large", PROTOCOL, then_on="new connection"),
    row("connection-reset-mid-response", LOST, then_on="new connection"),
    row("connection-closed-mid-response", LOST, then_on="new connection"),
    row("connection-half-closed-mid-response", LOST, then_on="new connection"),
    row("connection-closed-mid-frame", LOST, then_on="new connection"),
    row(
        "connection-reset-mid-response",
        LOST,
        name="A TLS connection is reset.",
        scheme="wss",
        tls=True,
        then_on="new connection",
    ),
    row("server-shuts-down-mid-response", LOST, then_on="new connection"),
    row("websocket-closed-tcp-open-mid-response", LOST, then_on="new connection"),
    row("invalid-opcode-mid-response", LOST, then_on="new connection"),
    row("byte-by-byte-mid-response", WORKS),
    row("packet-late-mid-response", WORKS),
    row("message-fragmented-mid-response", WORKS),
)

_MIDDLE_PACKETS = (
    row("engine-stalls-mid-response", IDLE, None, steps=({"text": "{last}"}, {"fault": "stall", "packet": 5})),
    Row(
        "Packets keep arriving until the `total_timeout` expires.",
        Phase.MIDDLE,
        expires("total_timeout"),
        steps=({"text": "{last}"}, *({"wait": 0.05}, {"text": " more"}) * 200),
        embedding_steps=({"wait": 10},),
    ),
    row(
        "engine-crashes-mid-response",
        Outcome(errors.LMStudioModelCrashedError),
        None,
        steps=({"text": "{last}"}, {"fault": "crash", "packet": 5}),
    ),
    row(
        "engine-exits-mid-response",
        Outcome(errors.LMStudioEngineLostError, note="after three more attempts, except streams"),
        None,
        steps=({"text": "{last}"}, {"fault": "engine_exit", "packet": 5}),
        regenerated=True,
    ),
    row(
        "model-unloaded-mid-response",
        Outcome(errors.LMStudioModelUnloadedError, note="after three more attempts, except streams"),
        None,
        steps=({"text": "{last}"}, {"error": "Gone", "code": "generic.specificModelUnloaded"}),
        regenerated=True,
    ),
    row("engine-fails-mid-response", Outcome(errors.LMStudioServerError)),
    row("malformed-error-mid-response", Outcome(errors.LMStudioServerError)),
    row("channel-closed-mid-response", CLOSED_EARLY, None),
    row("packet-empty-mid-response", PROTOCOL),
    row("no-json-mid-response", PROTOCOL),
    row("invalid-utf8-mid-response", PROTOCOL),
    row("frame-lost-mid-response", changes("the response lacks the content of the frame", _lacking), QUEUED),
    row("frame-twice-mid-response", changes("the response has the content of the frame twice", _twice), WORKS),
    row("meaningless-frames-mid-response", WORKS),
    row(
        "unknown-packet-mid-response", WORKS, None, steps=({"text": "{last}"}, {"fault": "unknown_packet", "packet": 5})
    ),
    row("truncated-json-mid-response", PROTOCOL, None, steps=({"text": "{last}"}, {"fault": "corrupt", "packet": 5})),
)


ROWS = (*_MIDDLE_CONNECTION, *_MIDDLE_PACKETS)
