"""Rows of the fault table: from loading the model to the first packet, at the end of a response, and between calls.

The last rows have a second host.
"""

import copy
import json
from collections.abc import Callable

from websockets.frames import CloseCode

from lmstudio_integrations import errors
from tests.faults import actions
from tests.faults.cells import Cell
from tests.faults.conversations import THOUGHT
from tests.faults.faults import FAULTS, Phase, at
from tests.faults.model import (
    CLOSED_EARLY,
    CONNECTING,
    IDLE,
    LOADING,
    LOST,
    PROTOCOL,
    QUEUED,
    UNREACHABLE,
    WORKS,
    Outcome,
    Row,
    changes,
    expires,
    moves_after,
    row,
)
from tests.faults.proxy import ALWAYS, Action, ProxiedConnection, forward
from tests.faults.surfaces import CALL, Surface
from tests.faults.wire_items import WireItem, text_frame

# What happens between two calls ------------------------------------------------------------------------------------


def _applied(action: Action, *, ends: bool = True) -> Callable[[Cell], None]:
    """Do something to the open connection, and wait until the client notices."""

    def act(cell: Cell) -> None:
        cell.proxy.apply(action)
        if ends:
            cell.until_noticed()

    return act


def _silent(action: Action) -> Callable[[Cell], None]:
    """Do something to the open connection, and let the client believe that nothing has come for long."""

    def act(cell: Cell) -> None:
        cell.until_ended()  # or what is still on the way would end the silence
        cell.proxy.apply(action)
        cell.pretend_silence()

    return act


async def _without_log_probabilities(connection: ProxiedConnection, item: WireItem) -> None:
    """Request a prediction without log-probabilities in place of this one."""
    message = copy.deepcopy(item.message)
    for layer in message["creationParameter"]["predictionConfigStack"]["layers"]:
        layer["config"]["fields"] = [
            field for field in layer["config"]["fields"] if field["key"] != "llm.prediction.logProbs"
        ]
    await connection.send("client", text_frame("client", json.dumps(message)))


def _with_malformed_log_probabilities(message: actions.Message) -> actions.Message:
    fragment = {"content": "", "tokens": [{"text": "yes", "id": [], "logProb": 1e308}]}
    return {**message, "message": {"type": "fragment", "fragment": fragment}}


def _needs_log_probabilities(surface: Surface) -> bool:
    return surface.kind == "reranker"


def _restart(cell: Cell) -> None:
    cell.proxy.upstream = cell.servers.spare.address
    _applied(actions.reset)(cell)


def _go_away(cell: Cell) -> None:
    cell.proxy.reject_connections()
    _applied(actions.reset)(cell)


async def _die(connection: ProxiedConnection, _item: WireItem) -> None:
    """Close all connections, and accept no other."""
    await connection.proxy._reject_connections()
    await connection.proxy._apply(actions.reset)


def _unload(cell: Cell) -> None:
    cell.servers.main.unload(cell.model)
    cell.proxy.happened.set()


_LOAD = (
    row("load-stalls", LOADING, load_steps=({"fault": "stall"},)),
    row("out-of-memory", Outcome(errors.LMStudioInsufficientResourcesError), load_steps=({"fault": "out_of_memory"},)),
    row("load-fails", Outcome(errors.LMStudioModelLoadError), load_steps=({"error": "Failed to load the model"},)),
    row("engine-crashes-while-loading", Outcome(errors.LMStudioModelCrashedError), load_steps=({"fault": "crash"},)),
    row(
        "engine-exits-while-loading",
        Outcome(errors.LMStudioModelLoadError),
        load_steps=({"fault": "engine_exit"},),
    ),
    row("connection-reset-while-loading", LOST, then_on="new connection"),
    row("connection-dead-while-loading", LOADING, then_on="new connection"),
    row("channel-closed-while-loading", CLOSED_EARLY),
    row("load-result-empty", PROTOCOL),
    row("unknown-packet-while-loading", WORKS),
)

_ROOM = (
    Row(
        'The connection is reset before another model is evicted for this one (`load_policy="fit"`).',
        Phase.LOAD,
        LOST,
        inject=at("unloadModel request", actions.reset),
        makes_room=True,
        then_on="new connection",
    ),
    Row(
        "The connection is reset when another model was evicted for this one. That is loaded again.",
        Phase.LOAD,
        LOST,
        inject=at("unloadModel first packet", actions.reset),
        makes_room=True,
        then_on="either connection",
    ),
    Row(
        "The server dies when another model was evicted for this one, which the error names.",
        Phase.LOAD,
        LOST,
        inject=at("unloadModel first packet", _die),
        makes_room=True,
        meanwhile=UNREACHABLE,
        then_on="new connection",
    ),
    Row(
        "The server dies while the model loads in place of another, which the error names.",
        Phase.LOAD,
        LOST,
        inject=at("load middle packet", _die),
        makes_room=True,
        meanwhile=UNREACHABLE,
        then_on="new connection",
    ),
    Row(
        "The server does not have enough memory, although another model was evicted. That is loaded again.",
        Phase.LOAD,
        Outcome(errors.LMStudioInsufficientResourcesError),
        inject=at("unloadModel request", forward),  # that it happens
        load_steps=({"fault": "out_of_memory"},),
        makes_room=True,
        permanent=True,
        then=Outcome(errors.LMStudioInsufficientResourcesError),
    ),
)

_FIRST = (
    row("request-unanswered", QUEUED),
    row("connection-dead-before-response", QUEUED, then_on="new connection"),
    row(
        "connection-dead-before-response",
        LOST,
        name="The connection goes dead, and `keepalive` detects it before a timeout expires.",
        keepalive=2.0,
        then_on="new connection",
    ),
    row("connection-reset-before-response", LOST, then_on="new connection"),
    row("server-restarts-before-response", LOST, then_on="new connection"),
    row(
        "engine-fails-before-response",
        Outcome(errors.LMStudioServerError),
        steps=({"error": "It went wrong", "cause": "because"},),
        embedding_steps=({"error": "It went wrong", "cause": "because"},),
    ),
    row(
        "engine-crashes-before-response",
        Outcome(errors.LMStudioModelCrashedError),
        steps=({"fault": "crash"},),
        embedding_steps=({"fault": "crash"},),
    ),
    row(
        "engine-exits-before-response",
        Outcome(errors.LMStudioEngineLostError, note="after three more attempts"),
        None,
        steps=({"fault": "engine_exit"},),
        regenerated=True,
    ),
    row("request-queued-too-long", Outcome(errors.LMStudioServerError)),
    row(
        "engine-stalls-before-response",
        expires("first_token_timeout"),
        QUEUED,
        steps=({"fault": "stall"},),
        embedding_steps=({"fault": "stall"},),
    ),
    Row(
        "The server does not know the endpoint.",
        Phase.FIRST,
        Outcome(errors.LMStudioUnsupportedError),
        inject=at("request", actions.warning(actions.UNKNOWN_ENDPOINT), ALWAYS),
        then=Outcome(errors.LMStudioUnsupportedError, note="until the client reconnects"),
    ),
    row("parameters-rejected", PROTOCOL),
    row("first-packet-late", WORKS),
    row("template-error", Outcome(errors.LMStudioPromptTemplateError), None, steps=({"fault": "template"},)),
    row(
        "template-error",
        Outcome(note="without the thoughts, which are never sent again"),
        None,
        name="The model's prompt template rejects a prompt with earlier thoughts.",
        reranker=None,
        has_thought=True,
    ),
    Row(
        "The server reads a part of a prompt that does not fit, although it must not.",
        Phase.FIRST,
        Outcome(warning=errors.LMStudioTruncationWarning),
        None,
        None,
        steps=({"fault": "truncate"}, {"text": "{last}"}),
        window=100,
    ),
    Row(
        "The server reports no log-probabilities.",
        Phase.FIRST,
        Outcome(errors.LMStudioUnsupportedError),
        inject=at("request", _without_log_probabilities, ALWAYS),
        only=_needs_log_probabilities,
    ),
    Row(
        "The server sends malformed log-probabilities.",
        Phase.FIRST,
        WORKS,
        inject=at("first packet", actions.before(actions.packet(_with_malformed_log_probabilities)), ALWAYS),
        only=_needs_log_probabilities,
    ),
)

_LAST = (
    row("last-packet-lost", CLOSED_EARLY, QUEUED),
    row("connection-dead-before-last-packet", IDLE, QUEUED, then_on="new connection"),
    row("response-endless", expires("total_timeout"), QUEUED),
    row("channel-close-lost", WORKS, None),
    row("last-packet-twice", WORKS),
    # A reranker has more texts to score after the first last packet.
    row("connection-closed-after-response", WORKS, reranker=None, then_on="new connection", noticed=True),
    Row(
        "The server responds to a prompt that does not fit with an empty stream.",
        Phase.LAST,
        Outcome(errors.LMStudioContextOverflowError),
        None,
        None,
        steps=({"fault": "empty"},),
        window=100,
    ),
    Row(
        "A thought is cut off by `max_tokens`.",
        Phase.LAST,
        changes("the response is the thought so far, which the next call does not send", lambda _words: []),
        None,
        None,
        steps=({"reasoning": THOUGHT},),
        max_tokens=3,
    ),
    Row(
        "The server leaves a tool call in the text of the response (`rescue_tool_calls`).",
        Phase.LAST,
        Outcome(note="with the tool call, and logs a warning", logged="read 1 tool call that the server left"),
        None,
        None,
        steps=({"text": f"{{last}}<tool_call>{json.dumps(CALL)}</tool_call>"},),
        tool_choice="auto",
    ),
    Row(
        "The server ignores that a tool call is required (`required_tool_fallback`).",
        Phase.LAST,
        Outcome(note="with a tool call after the text, and logs a warning", logged="a required tool call did not come"),
        None,
        None,
        tool_choice="required",
    ),
)

_IDLE = (
    Row(
        "The client closes an idle connection, and the server never accepts its identity again.",
        Phase.IDLE,
        WORKS,
        between=Cell.close_idle,
        then_on="new connection",
    ),
    Row(
        "The server closes the WebSocket.",
        Phase.IDLE,
        WORKS,
        between=_applied(actions.close(CloseCode.GOING_AWAY)),
        then_on="new connection",
    ),
    Row(
        "The connection is closed.",
        Phase.IDLE,
        WORKS,
        between=_applied(actions.finish),
        then_on="new connection",
    ),
    Row(
        "The server closes its side of the connection (half-close).",
        Phase.IDLE,
        WORKS,
        between=_applied(actions.half_close),
        then_on="new connection",
    ),
    Row(
        "The connection is reset.",
        Phase.IDLE,
        WORKS,
        between=_applied(actions.reset),
        then_on="new connection",
    ),
    Row(
        "The server restarts, with no model loaded.",
        Phase.IDLE,
        WORKS,
        between=_restart,
        then_on="new connection",
    ),
    Row("The model is unloaded.", Phase.IDLE, WORKS, between=_unload),
    Row(
        "The server shuts down.",
        Phase.IDLE,
        UNREACHABLE,
        between=_go_away,
        then_on="new connection",
    ),
    Row(
        "The connection goes dead.",
        Phase.IDLE,
        QUEUED,
        reranker=IDLE,  # it first asks for the model's info, which waits in no queue
        between=_applied(actions.go_dead, ends=False),
        then_on="new connection",
    ),
    Row(
        "The connection goes dead, and the next call follows seconds of silence.",
        Phase.IDLE,
        WORKS,
        between=_silent(actions.go_dead),
        then_on="new connection",
    ),
    Row(
        "The host freezes.",
        Phase.IDLE,
        QUEUED,
        reranker=IDLE,
        between=_applied(actions.freeze, ends=False),
        meanwhile=CONNECTING,
        then_on="either connection",
    ),
    Row(
        "The host freezes, and the next call follows seconds of silence.",
        Phase.IDLE,
        CONNECTING,
        between=_silent(actions.freeze),
        meanwhile=CONNECTING,
        then_on="either connection",
    ),
    Row(
        "The server sends meaningless frames.",
        Phase.IDLE,
        WORKS,
        between=_applied(actions.before(actions.frames(*actions.NOISE)), ends=False),
    ),
    Row(
        "The server sends a hundred pings.",
        Phase.IDLE,
        WORKS,
        between=_applied(actions.before(actions.raw(actions.PINGS)), ends=False),
    ),
)

_HOSTS = (
    Row(
        "The first host accepts the request and never responds to it.",
        Phase.HOSTS,
        moves_after("queue_timeout"),
        inject=FAULTS["request-unanswered"].injections,
        regenerated=True,
        then_on="other host",
    ),
    Row(
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

ROWS = (*_LOAD, *_ROOM, *_FIRST, *_LAST, *_IDLE, *_HOSTS)
