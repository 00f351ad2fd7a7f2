"""Rows of the fault table: from loading the model to the first packet, at the end of a response, and between calls.

The last rows have a second host.
"""

import json
from collections.abc import Callable

from websockets.frames import CloseCode

from lmstudio_integrations import errors
from lmstudio_integrations.emulator.proxy.actions import (
    DEAD,
    after,
    before,
    black_hole,
    close,
    delay,
    drop,
    duplicate,
    finish,
    freeze,
    half_close,
    raw_before,
    replace,
    reset,
)
from lmstudio_integrations.emulator.proxy.messages import (
    NOISE,
    PINGS,
    ended,
    of_unknown_type,
    warning,
    without_content,
)
from lmstudio_integrations.emulator.proxy.proxy import Action, Tunnel
from lmstudio_integrations.emulator.proxy.units import Unit
from tests.faults.cells import Cell, close_idle, pretend_silence, until_ended, until_noticed
from tests.faults.model import (
    ALWAYS,
    CLOSED_EARLY,
    CONNECTING,
    IDLE,
    LOADING,
    LOST,
    PROTOCOL,
    QUEUED,
    UNREACHABLE,
    WORKS,
    Fault,
    Outcome,
    Phase,
    at,
    expires,
    moves_after,
)
from tests.faults.surfaces import CALL

# What happens between two calls ------------------------------------------------------------------------------------


def _applied(action: Action, *, ends: bool = True) -> Callable[[Cell], None]:
    """Do something to the open connection, and wait until the client notices."""

    def act(cell: Cell) -> None:
        cell.proxy.apply(action)
        if ends:
            until_noticed(cell.host)

    return act


def _silent(action: Action) -> Callable[[Cell], None]:
    """Do something to the open connection, and let the client believe that nothing has come for long."""

    def act(cell: Cell) -> None:
        until_ended(cell.host)  # or what is still on the way would end the silence
        cell.proxy.apply(action)
        pretend_silence(cell.host)

    return act


async def _restart(tunnel: Tunnel, unit: Unit) -> None:
    tunnel.proxy.upstream = tunnel.proxy.spare
    await reset(tunnel, unit)


def _go_away(cell: Cell) -> None:
    cell.proxy.reject_connections()
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
        "The server does not have enough memory for the model.",
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
        "The connection goes dead: it stays open, but no data passes.",
        Phase.LOAD,
        LOADING,
        inject=at("load packet", DEAD),
        then_on="new connection",
    ),
    Fault(
        "The server closes the channel without a result.",
        Phase.LOAD,
        CLOSED_EARLY,
        inject=at("load result", replace(ended)),
    ),
    Fault(
        "The result does not identify the loaded model.",
        Phase.LOAD,
        PROTOCOL,
        inject=at("load result", replace(without_content)),
    ),
    Fault(
        "A packet has an unknown type.",
        Phase.LOAD,
        WORKS,
        inject=at("load packet", replace(of_unknown_type)),
    ),
)

_FIRST = (
    Fault(
        "The server does not respond to the request, but the connection is alive.",
        Phase.FIRST,
        QUEUED,
        inject=at("request", drop, ALWAYS),
    ),
    Fault(
        "The connection goes dead.",
        Phase.FIRST,
        QUEUED,
        inject=at("request", DEAD),
        then_on="new connection",
    ),
    Fault(
        "The connection goes dead, and `keepalive` detects it before a timeout expires.",
        Phase.FIRST,
        LOST,
        inject=at("request", DEAD),
        keepalive=0.2,
        then_on="new connection",
    ),
    Fault(
        "The connection goes dead from server to client.",
        Phase.FIRST,
        QUEUED,
        inject=at("request", after(black_hole("server"))),
        then_on="new connection",
    ),
    Fault(
        "The connection goes dead from client to server.",
        Phase.FIRST,
        QUEUED,
        inject=at("request", black_hole("client")),
        then_on="new connection",
    ),
    Fault(
        "The host freezes.",
        Phase.FIRST,
        QUEUED,
        inject=at("request", freeze),
        meanwhile=CONNECTING,
        then_on="either connection",
    ),
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
        "The server closes the WebSocket because it restarts (1012).",
        Phase.FIRST,
        LOST,
        inject=at("request", close(CloseCode.SERVICE_RESTART)),
        then_on="new connection",
    ),
    Fault(
        "The server responds with an error.",
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
        "The engine stalls during prompt processing.",
        Phase.FIRST,
        expires("first_token_timeout"),
        QUEUED,
        steps=({"fault": "stall"},),
        embedding_steps=({"fault": "stall"},),
    ),
    Fault(
        "The server does not know the endpoint.",
        Phase.FIRST,
        Outcome(errors.LMStudioUnsupportedError),
        inject=at("request", warning("Received a request for unknown endpoint, endpoint = {endpoint}"), ALWAYS),
        then=Outcome(errors.LMStudioUnsupportedError, note="until the client reconnects"),
    ),
    Fault(
        "The server rejects the parameters of the request.",
        Phase.FIRST,
        PROTOCOL,
        inject=at("request", warning("Received invalid parameter, endpoint = {endpoint}"), ALWAYS),
    ),
    Fault(
        "The first packet is late, but arrives before the timeout.",
        Phase.FIRST,
        WORKS,
        inject=at("first packet", delay(0.05)),
    ),
    Fault(
        "The model's prompt template rejects the messages.",
        Phase.FIRST,
        Outcome(errors.LMStudioPromptTemplateError),
        None,
        steps=({"fault": "template"},),
    ),
    Fault(
        "The server reads a part of a prompt that does not fit, although it must not.",
        Phase.FIRST,
        Outcome(warning=errors.LMStudioTruncationWarning),
        None,
        steps=({"fault": "truncate"}, {"text": "{last}"}),
        window=100,
    ),
)

_LAST = (
    Fault(
        "The last packet is lost.",
        Phase.LAST,
        CLOSED_EARLY,
        QUEUED,
        inject=at("last packet", drop),
    ),
    Fault(
        "The connection goes dead before the last packet.",
        Phase.LAST,
        IDLE,
        QUEUED,
        inject=at("last packet", DEAD),
        then_on="new connection",
    ),
    Fault(
        "The close of the channel is lost.",
        Phase.LAST,
        WORKS,
        None,
        inject=at("end", drop),
    ),
    Fault("The last packet arrives twice.", Phase.LAST, WORKS, inject=at("last packet", duplicate)),
    Fault("The close of the channel arrives twice.", Phase.LAST, WORKS, None, inject=at("end", duplicate)),
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
    Fault(
        "The server responds to a prompt that does not fit with an empty stream.",
        Phase.LAST,
        Outcome(errors.LMStudioContextOverflowError),
        None,
        steps=({"fault": "empty"},),
        window=100,
    ),
    Fault(
        "The server leaves a tool call in the text of the response (`rescue_tool_calls`).",
        Phase.LAST,
        Outcome(note="with the tool call, and logs a warning", logged="read 1 tool call that the server left"),
        None,
        steps=({"text": f"{{last}}<tool_call>{json.dumps(CALL)}</tool_call>"},),
        tool_choice="auto",
    ),
    Fault(
        "The server ignores that a tool call is required (`required_tool_fallback`).",
        Phase.LAST,
        Outcome(note="with a tool call after the text, and logs a warning", logged="a required tool call did not come"),
        None,
        tool_choice="required",
    ),
)

_IDLE = (
    Fault(
        "The client closes an idle connection, and the server never accepts its identity again.",
        Phase.IDLE,
        WORKS,
        between=close_idle,
        then_on="new connection",
    ),
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
        "The server closes its side of the connection (half-close).",
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
        "The server restarts, with no model loaded.",
        Phase.IDLE,
        WORKS,
        between=_applied(_restart),
        then_on="new connection",
    ),
    Fault("The model is unloaded.", Phase.IDLE, WORKS, between=_unload),
    Fault(
        "The server shuts down.",
        Phase.IDLE,
        UNREACHABLE,
        between=_go_away,
        then_on="new connection",
    ),
    Fault(
        "The connection goes dead.",
        Phase.IDLE,
        QUEUED,
        between=_applied(DEAD, ends=False),
        then_on="new connection",
    ),
    Fault(
        "The connection goes dead, and the next call follows seconds of silence.",
        Phase.IDLE,
        WORKS,
        between=_silent(DEAD),
        then_on="new connection",
    ),
    Fault(
        "The host freezes.",
        Phase.IDLE,
        QUEUED,
        between=_applied(freeze, ends=False),
        meanwhile=CONNECTING,
        then_on="either connection",
    ),
    Fault(
        "The host freezes, and the next call follows seconds of silence.",
        Phase.IDLE,
        CONNECTING,
        between=_silent(freeze),
        meanwhile=CONNECTING,
        then_on="either connection",
    ),
    Fault(
        "The server sends meaningless frames.",
        Phase.IDLE,
        WORKS,
        between=_applied(before(*NOISE), ends=False),
    ),
    Fault("The server sends a hundred pings.", Phase.IDLE, WORKS, between=_applied(raw_before(PINGS), ends=False)),
)

_HOSTS = (
    Fault(
        "The first host accepts the request and never responds to it.",
        Phase.HOSTS,
        moves_after("queue_timeout"),
        inject=at("request", drop, ALWAYS),
        regenerated=True,
        then_on="other host",
    ),
    Fault(
        "The engine of the first host stalls during prompt processing.",
        Phase.HOSTS,
        moves_after("first_token_timeout"),
        moves_after("queue_timeout"),
        steps=({"fault": "stall"},),
        embedding_steps=({"fault": "stall"},),
        regenerated=True,
        then_on="other host",
    ),
)

ROWS = (*_LOAD, *_FIRST, *_LAST, *_IDLE, *_HOSTS)
