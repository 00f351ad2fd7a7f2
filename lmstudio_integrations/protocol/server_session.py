"""The server's side of one connection, without I/O (docs/protocol.md#server-rules).

The mirror of `session.py`: frames in, events out; replies in, frames out. Invalid input gets a warning, five at most,
and never an error (docs/protocol.md#invalid-input). Used by the emulator's connections.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypeIs

from lmstudio_integrations._support.text import dumps
from lmstudio_integrations._support.typeguards import SAFE_INTEGER, is_object
from lmstudio_integrations.protocol import envelope
from lmstudio_integrations.protocol.endpoints import Channel, Endpoint, Rpc

logger: logging.Logger = logging.getLogger(__name__)

Authenticate = Callable[[str, str], str | None]
"""Receives identifier and passkey; returns why the client is rejected, or `None`."""

MAX_CREDENTIAL_LENGTH = 256
"""Characters of an identifier or passkey (docs/protocol.md#first-frame)."""

MAX_DEPTH = 200
"""Nesting limit of a frame. pydantic_core's parser has the same limit, so only frames that it rejects are checked."""

MAX_LISTED_ERRORS = 20
"""Errors in a parameter that a warning lists. If there are more, it has only their number."""

MAX_WARNING_LENGTH = 4096
"""Characters of a warning, sent or logged; the rest is cut off."""


class _RequestFrame(NamedTuple):
    """The frame that starts a call or a channel.

    Attributes:
        endpoint_type: Class of the endpoints that this frame may name.
        id_key: The key of the id.
        parameter_key: The key of the parameter.
        warning_subject: What warnings call it.
        invalid_parameter_kind: The kind of the warning about an invalid parameter.
    """

    endpoint_type: type[Rpc | Channel]
    id_key: str
    parameter_key: str
    warning_subject: str
    invalid_parameter_kind: str


_REQUEST_FRAMES = {
    "rpcCall": _RequestFrame(Rpc, "callId", "parameter", "rpcCall", "rpcParameterTypeError"),
    "channelCreate": _RequestFrame(
        Channel, "channelId", "creationParameter", "channel", "channelCreationParameterTypeError"
    ),
}

_UNKNOWN_ENDPOINT_KINDS = {
    "rpcCall": "rpcEndpointUnknown",
    "channelCreate": "channelEndpointUnknown",
    "signalSubscribe": "signalEndpointUnknown",
    "writableSignalSubscribe": "writableSignalEndpointUnknown",
}
"""The kind of the warning about an unknown endpoint, by the frame that names it."""

_JSON_TYPES = {
    type(None): "null",
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}
"""What warnings call a value: the reference server's names."""


@dataclass(frozen=True, slots=True)
class CallReceived:
    """A call that must be answered exactly once, by `reply` or `reject` (docs/protocol.md#rpc)."""

    endpoint: Rpc
    call_id: int
    parameter: Any


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """A channel that must be ended exactly once, by `close` or `fail` (docs/protocol.md#channels)."""

    endpoint: Channel
    channel_id: int
    parameter: Any


@dataclass(frozen=True, slots=True)
class PacketReceived:
    """A packet from the client on an open channel, of a type that the channel accepts."""

    channel_id: int
    packet: Mapping[str, Any]


Event = CallReceived | ChannelOpened | PacketReceived


class ServerSession:
    """State of one connection.

    Args:
        endpoints: Served endpoints by name.
        authenticate: Accepts or rejects the client.
    """

    def __init__(self, endpoints: Mapping[str, Endpoint], authenticate: Authenticate) -> None:
        self._endpoints = endpoints
        self._authenticate = authenticate
        self._outbox: list[str] = []
        self.pending_size: int = 0
        """The number of characters that `data_to_send` would return."""
        self._channels: dict[int, Channel] = {}
        self._warnings = 0
        self._warnings_received = 0
        self.client: str | None = None
        """The client's identifier, once it is authenticated."""
        self.rejected: bool = False
        """Whether the client was rejected; the connection must then be closed."""

    def data_to_send(self) -> list[str]:
        """Return the frames that are due, once."""
        outbox, self._outbox = self._outbox, []
        self.pending_size = 0
        return outbox

    def receive(self, data: str | bytes) -> Event | None:
        """Receive one frame; return the event that it causes, or `None`."""
        frame = self._read(data)
        if frame is None:
            return None
        if self.client is None:
            # Until the client is accepted, every frame counts as authentication (docs/protocol.md#first-frame).
            self._on_auth(frame)
            return None
        match frame.get("type"):
            case "rpcCall" | "channelCreate" as frame_type:
                return self._on_request(frame_type, frame)
            case "channelSend":
                return self._on_packet(frame)
            case "signalSubscribe" | "writableSignalSubscribe" as frame_type:
                # No endpoint of the protocol is a signal (docs/protocol.md#signals).
                if isinstance(frame.get("endpoint"), str) and _is_id(frame.get("subscribeId")):
                    self._warn_unknown(frame_type, frame["endpoint"])
            case "keepAlive":
                self._enqueue(envelope.KEEP_ALIVE_ACK)  # in reply only (docs/protocol.md#keep-alive)
            case "communicationWarning":
                self._on_warning(frame)
            case _:
                pass  # unknown types are dropped without a reply (docs/protocol.md#unreadable-frames)
        return None

    def _read(self, data: str | bytes) -> dict[str, Any] | None:
        try:
            return envelope.parse(data, max_depth=MAX_DEPTH)[0]
        except envelope.NestingError:
            # Before authentication, the only reply is its result (docs/protocol.md#authentication-result).
            if self.client is not None:
                self._reject_deep(envelope.members_before_nested(data))
            return None

    def _reject_deep(self, members: Mapping[str, Any]) -> None:
        """Fail a request that is nested too deeply, if its id is known: nothing else would end the wait for its reply.

        JavaScript reads any depth, so the reference server has no such limit.
        """
        kind = members.get("type")
        request = _REQUEST_FRAMES.get(str(kind))
        request_id = None if request is None else members.get(request.id_key)
        if not _is_id(request_id) or (kind == "channelCreate" and request_id in self._channels):
            self.warn(f"Received a frame that is nested more than {MAX_DEPTH} levels deep", "unknown")
            return
        title = f"The request is nested more than {MAX_DEPTH} levels deep"
        frame_of = envelope.rpc_error if kind == "rpcCall" else envelope.channel_error
        self._enqueue(frame_of(request_id, dumps({"title": title, "rootTitle": title})))

    def reject_unauthenticated(self) -> None:
        """Reject a client that has not authenticated in time, with the reference server's error text."""
        if self.client is None and not self.rejected:
            self._reject_client("Authentication timed out")

    def reply(self, call_id: int, result: Any = None) -> None:
        """Reply to a call. `None` is a void result, which also means "not found" (docs/protocol.md#rule-omit-void)."""
        self._enqueue(envelope.rpc_result(call_id, None if result is None else dumps(result)))

    def reject(self, call_id: int, error: Mapping[str, Any]) -> None:
        """Reply to a call with an error."""
        self._enqueue(envelope.rpc_error(call_id, dumps(error)))

    def send(self, channel_id: int, packet: Mapping[str, Any]) -> None:
        """Send a packet, unless the channel has ended while its handler still ran."""
        if channel_id in self._channels:
            self._enqueue(envelope.channel_send(channel_id, dumps(packet)))

    def close(self, channel_id: int) -> None:
        """End a channel normally, unless it has ended."""
        if self._channels.pop(channel_id, None):
            self._enqueue(envelope.channel_close(channel_id))

    def fail(self, channel_id: int, error: Mapping[str, Any]) -> None:
        """End a channel with an error, unless it has ended."""
        if self._channels.pop(channel_id, None):
            self._enqueue(envelope.channel_error(channel_id, dumps(error)))

    def warn(self, text: str, kind: str) -> None:
        """Send a warning, unless `MAX_WARNINGS` were already sent (docs/protocol.md#warnings)."""
        if self._warnings < envelope.MAX_WARNINGS:
            self._warnings += 1
            self._enqueue(envelope.warning(text[:MAX_WARNING_LENGTH], kind))

    def _enqueue(self, frame: str) -> None:
        self._outbox.append(frame)
        self.pending_size += len(frame)

    def _on_auth(self, frame: Mapping[str, Any]) -> None:
        identifier, passkey = frame.get("clientIdentifier"), frame.get("clientPasskey")
        are_valid = all(isinstance(each, str) and len(each) <= MAX_CREDENTIAL_LENGTH for each in (identifier, passkey))
        if frame.get("authVersion") != envelope.AUTH_VERSION or not are_valid:
            # Ignored, not rejected: the client may try again (docs/protocol.md#authentication-rules).
            return
        error = self._authenticate(str(identifier), str(passkey))
        if error is None:
            self.client = str(identifier)
            self._enqueue('{"success":true}')  # docs/protocol.md#authentication-result
        else:
            self._reject_client(f"Failed to validate client: {error}")

    def _reject_client(self, error: str) -> None:
        self.rejected = True
        self._enqueue(dumps({"success": False, "error": error}))

    def _on_warning(self, frame: Mapping[str, Any]) -> None:
        """Log a warning from the client, up to the number that a side may send, so that it cannot fill the log."""
        self._warnings_received += 1
        if self._warnings_received <= envelope.MAX_WARNINGS:
            logger.warning("warning from the client: %s", ascii(str(frame.get("warning"))[:MAX_WARNING_LENGTH]))

    def _on_request(self, frame_type: str, frame: Mapping[str, Any]) -> CallReceived | ChannelOpened | None:
        request = _REQUEST_FRAMES[frame_type]
        name, request_id = frame.get("endpoint"), frame.get(request.id_key)
        if not isinstance(name, str) or not _is_id(request_id):
            return None  # no reply could reach its caller (docs/protocol.md#unreadable-frames)
        # In the order of the reference server: endpoint, id, parameter.
        endpoint = self._endpoints.get(name)
        if not isinstance(endpoint, request.endpoint_type):
            # A warning and no error: the official tests assert it (docs/protocol.md#invalid-input).
            self._warn_unknown(frame_type, name)
            return None
        if isinstance(endpoint, Channel) and request_id in self._channels:
            # Calls have a table of their own: one with this id may be open (docs/protocol.md#rule-two-id-tables).
            self.warn(
                f"Received channelCreate for already open channel, channelId = {request_id}", "channelAlreadyOpen"
            )
            return None
        try:
            parameter = _validate(endpoint, frame, request.parameter_key)
        except ValueError as error:
            # The wording is part of the protocol: clients find the endpoint in it (docs/protocol.md#invalid-input).
            text = f"Received invalid {request.parameter_key} for {request.warning_subject}, endpointName = {name}"
            self.warn(f"{text}, {request.parameter_key} = {error}", request.invalid_parameter_kind)
            return None
        if isinstance(endpoint, Rpc):
            return CallReceived(endpoint, request_id, parameter)
        self._channels[request_id] = endpoint
        return ChannelOpened(endpoint, request_id, parameter)

    def _on_packet(self, frame: Mapping[str, Any]) -> PacketReceived | None:
        channel_id, packet = frame.get("channelId"), frame.get("message")
        if not _is_id(channel_id):
            return None
        endpoint = self._channels.get(channel_id)
        if endpoint is None:
            # Also for a cancel that crosses the end of its channel: the id is gone (docs/protocol.md#channels).
            self.warn(f"Received channelSend for unknown channel, channelId = {channel_id}", "channelUnknown")
        elif not _is_packet(packet, endpoint.accepted):
            # The channel stays open (docs/protocol.md#invalid-input).
            self.warn(f"Received invalid message for channel {endpoint.name}", "channelMessageTypeError")
        else:
            return PacketReceived(channel_id, packet)
        return None

    def _warn_unknown(self, frame_type: str, name: str) -> None:
        self.warn(f"Received {frame_type} for unknown endpoint, endpoint = {name}", _UNKNOWN_ENDPOINT_KINDS[frame_type])


def _is_id(value: object) -> TypeIs[int]:
    # Exact in JavaScript; and in Python, true is 1, but in JSON it is no id.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < SAFE_INTEGER


def _is_packet(value: object, accepted: Mapping[str, Any]) -> TypeIs[dict[str, Any]]:
    """Whether a client may send a packet on a channel."""
    kind = value.get("type") if is_object(value) else None
    if not isinstance(kind, str) or kind not in accepted:
        return False
    try:
        return accepted[kind] is None or bool(_validator(accepted[kind]).validate_python(value))
    except ValidationError:
        return False


@cache
def _validator(parameter: Any) -> TypeAdapter[Any]:
    return TypeAdapter(parameter)


def _validate(endpoint: Endpoint, frame: Mapping[str, Any], key: str) -> Any:
    """Return the parameter of a request.

    Raises:
        ValueError: If it does not fit, or if the endpoint has none.
    """
    if isinstance(endpoint, Rpc) and endpoint.is_optional and key not in frame:
        return None
    parameter: Any = endpoint.parameter
    if parameter is None:
        if key in frame:  # null is not void (docs/protocol.md#serialization)
            raise ValueError(f"Expected void, received {_JSON_TYPES[type(frame[key])]}")
        return None
    try:
        return _validator(parameter).validate_python(frame.get(key), by_alias=True, by_name=False)
    except ValidationError as error:
        raise ValueError(_list_errors(error)) from error


def _list_errors(error: ValidationError) -> str:
    if error.error_count() > MAX_LISTED_ERRORS:  # listing them takes far more memory than the parameter itself
        return f"{error.error_count()} errors"
    problems = error.errors(include_url=False)
    return "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems)
