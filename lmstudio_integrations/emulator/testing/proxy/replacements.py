"""What the proxy sends in the place of frames, or between them."""

from collections.abc import Callable, Mapping
from typing import Any

from websockets.frames import Frame, Opcode

from lmstudio_integrations.emulator.testing.proxy.actions import Message, replace
from lmstudio_integrations.emulator.testing.proxy.injections import Action
from lmstudio_integrations.emulator.testing.proxy.wire_items import serialize

NOISE: tuple[str | bytes, ...] = (
    "[1, 2]",
    '{"type":"keepAliveAck"}',
    '{"type":"unheardOf","channelId":1}',
    '{"type":"channelSend","channelId":999999999,"message":{"type":"fragment"}}',
    '{"type":"rpcResult","callId":999999999}',
)
"""Frames that a client must skip."""

TRUNCATED = '{"type":"channelSend",'
"""The beginning of a frame."""

PINGS = b"".join(serialize("server", Frame(Opcode.PING, str(number).encode())) for number in range(100))
"""A hundred pings."""

BINARY = serialize("server", Frame(Opcode.BINARY, b"\x00\x01\x02"))
MEGABYTE, TERABYTE = (b"\x81\x7f" + (1 << bits).to_bytes(8, "big") for bits in (20, 40))
"""The heads of text frames of these sizes."""

WRONG_KEY = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: d3Jvbmc=\r\n\r\n"
)
"""The head of a response to a WebSocket handshake that another client made."""


INVALID_PARAMETER = {
    "rpcCall": ("Received invalid parameter for rpcCall, endpointName = {endpoint}", "rpcParameterTypeError"),
    "channelCreate": (
        "Received invalid creationParameter for channel, endpointName = {endpoint}",
        "channelCreationParameterTypeError",
    ),
}
"""What a server says of the parameters of a request (docs/protocol.md#invalid-input)."""


def http(status: str, body: str = "", headers: str = "") -> bytes:
    """Return an HTTP response."""
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


def without_content(message: Message) -> Message:
    """Return a packet of the same type without what it is for."""
    if "result" in message:
        return {**message, "result": {}}
    return {**message, "message": {"type": message["message"]["type"]}}


def repeated(message: Message) -> Message:
    """Return one more fragment of a response."""
    fragment = {
        "content": " again",
        "tokensCount": 1,
        "containsDrafted": False,
        "reasoningType": "none",
        "isStructural": False,
    }
    return {**message, "message": {"type": "fragment", "fragment": fragment}}


def ended(message: Message) -> Message:
    """Return the end of the channel, or a reply to a call that has no result."""
    if "callId" in message:
        return {"type": "rpcResult", "callId": message["callId"]}
    return {"type": "channelClose", "channelId": message["channelId"]}


def failed(error: Any) -> Callable[[Message], Message]:
    """Return what makes the error that ends a channel or a call."""

    def make(message: Message) -> Message:
        if "callId" in message:
            return {"type": "rpcError", "callId": message["callId"], "error": error}
        return {"type": "channelError", "channelId": message["channelId"], "error": error}

    return make


def of_unknown_type(message: Message) -> Message:
    """Return a packet of a type that does not exist."""
    return {**message, "message": {"type": "unheardOf", "info": 1}}


def warning(about: Mapping[str, tuple[str, str]]) -> Action:
    """Answer a request as servers answer what they do not take: with a warning that names the endpoint.

    Args:
        about: The text and the kind of the warning, by the frame of the request.
    """

    def make(message: Message) -> Message:
        text, kind = about[message["type"]]
        return {"type": "communicationWarning", "warning": text.format(endpoint=message["endpoint"]), "kind": kind}

    return replace(make)
