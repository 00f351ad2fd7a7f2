"""What may happen at a point of the conversation, in place of forwarding. Each takes the connection and the item."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from websockets.frames import Close, CloseCode, Frame, Opcode

from tests.faults.proxy import Action, ProxiedConnection, forward
from tests.faults.wire_items import TEXTS, WireItem, serialize, text_frame

Message = dict[str, Any]


# The connection -----------------------------------------------------------------------------------------------------


async def reset(connection: ProxiedConnection, _item: WireItem) -> None:
    """Break the connection with RST."""
    connection.reset()


async def finish(connection: ProxiedConnection, _item: WireItem) -> None:
    """End the connection with FIN, without the WebSocket's closing handshake."""
    await connection.finish()


async def half_close(connection: ProxiedConnection, _item: WireItem) -> None:
    """Close the server's direction only."""
    connection.half_close()


def close(code: CloseCode, *, and_hang: bool = False) -> Action:
    """Close the WebSocket as a server does: with a close frame, and with FIN once the client has sent its own."""
    data = serialize("server", Frame(Opcode.CLOSE, Close(code, "").serialize()))

    async def act(connection: ProxiedConnection, _item: WireItem) -> None:
        connection.is_closing = not and_hang
        connection.silent.add("client")  # its close frame replies to this one, and is none of its own
        await connection.send("server", data, is_last=True)

    return act


async def freeze(connection: ProxiedConnection, _item: WireItem) -> None:
    """Stop the whole host: nothing is read or written on any connection, new or old."""
    connection.proxy.thawed.clear()


def freeze_for(seconds: float) -> Action:
    """Stop the whole host for a time."""

    async def act(connection: ProxiedConnection, item: WireItem) -> None:
        await freeze(connection, item)
        asyncio.get_running_loop().call_later(seconds, connection.proxy.thawed.set)

    return act


async def go_dead(connection: ProxiedConnection, _item: WireItem) -> None:
    """Let the connection stay open, and nothing pass any more."""
    connection.silent |= {"client", "server"}


async def drip(connection: ProxiedConnection, item: WireItem) -> None:
    """Deliver the server's bytes one by one from here on."""
    connection.dripping.add("server")
    await forward(connection, item)


# When and whether the item passes -----------------------------------------------------------------------------------


async def lose(connection: ProxiedConnection, item: WireItem) -> None:
    connection.tracker.forget(item.message)


def delay(seconds: float) -> Action:
    """Deliver this item later."""

    async def act(connection: ProxiedConnection, item: WireItem) -> None:
        await asyncio.sleep(seconds)
        await forward(connection, item)

    return act


def before(action: Action) -> Action:
    """Do something, then forward this item."""

    async def act(connection: ProxiedConnection, item: WireItem) -> None:
        await action(connection, item)
        await forward(connection, item)

    return act


def after(action: Action) -> Action:
    """Forward this item, then do something."""

    async def act(connection: ProxiedConnection, item: WireItem) -> None:
        await forward(connection, item)
        await action(connection, item)

    return act


def cut(then: Action) -> Action:
    """Send half of this item, then do something."""

    async def act(connection: ProxiedConnection, item: WireItem) -> None:
        await connection.send(item.sender, item.data[: len(item.data) // 2])
        await then(connection, item)

    return act


async def stall(connection: ProxiedConnection, item: WireItem) -> None:
    """Let the server send nothing more on this channel, but the progress of its prompt, until it is cancelled."""
    await connection.stall(item)


def endless(make: Callable[[Message], Message], seconds: float) -> Action:
    """In place of the end of this prediction, send a packet again and again, until it is cancelled."""

    async def act(connection: ProxiedConnection, item: WireItem) -> None:
        await connection.stall(item)
        if item.endpoint in TEXTS:  # what else ends has no such packets
            data = text_frame("server", json.dumps(make(item.message)))
            connection.repeat(data, seconds, item.message["channelId"])

    return act


# What the client gets in its place ----------------------------------------------------------------------------------


def deliver(make: Callable[[WireItem], bytes]) -> Action:
    """Send the client bytes that are made of this item."""

    async def act(connection: ProxiedConnection, item: WireItem) -> None:
        await connection.deliver(make(item))

    return act


def raw(data: bytes) -> Action:
    """Send bytes."""
    return deliver(lambda _: data)


def frames(*texts: str | bytes) -> Action:
    """Send text frames."""
    return raw(b"".join(text_frame("server", text) for text in texts))


def packet(make: Callable[[Message], Message]) -> Action:
    """Send a packet of the same channel."""
    return deliver(lambda item: text_frame("server", json.dumps(make(item.message))))


def replace(make: Callable[[Message], Message | str]) -> Action:
    """Send the client another text frame in place of this one; a request then gets its response from the proxy."""

    async def act(connection: ProxiedConnection, item: WireItem) -> None:
        connection.tracker.forget(item.message)
        made = make(item.message)
        await connection.deliver(text_frame("server", made if isinstance(made, str) else json.dumps(made)))

    return act


def respond(data: bytes) -> Action:
    """Respond in the server's place, and close."""

    async def act(connection: ProxiedConnection, _item: WireItem) -> None:
        await connection.deliver(data)
        await connection.finish()

    return act


duplicate: Action = deliver(lambda item: item.data * 2)
"""Send this item twice."""


@deliver
def fragment(item: WireItem) -> bytes:
    """Send this message as two frames with a ping between them."""
    assert item.frame is not None, "this acts on a frame"
    data = item.frame.data
    middle = len(data) // 2
    parts = (
        Frame(Opcode.TEXT, data[:middle], fin=False),
        Frame(Opcode.PING, b"between"),
        Frame(Opcode.CONT, data[middle:]),
    )
    return b"".join(serialize("server", part) for part in parts)


def corrupt(place: int, value: int) -> Action:
    """Change one byte of this item."""

    def change(item: WireItem) -> bytes:
        data = bytearray(item.data)
        data[place] = value
        return bytes(data)

    return deliver(change)


# What that may be ---------------------------------------------------------------------------------------------------

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

MEGABYTE, TERABYTE = (b"\x81\x7f" + (1 << bits).to_bytes(8, "big") for bits in (20, 40))
"""The heads of text frames of these sizes."""

INVALID_PARAMETER = {
    "rpcCall": ("Received invalid parameter for rpcCall, endpointName = {endpoint}", "rpcParameterTypeError"),
    "channelCreate": (
        "Received invalid creationParameter for channel, endpointName = {endpoint}",
        "channelCreationParameterTypeError",
    ),
}
"""What a server says of the parameters of a request (docs/protocol.md#invalid-input)."""

UNKNOWN_ENDPOINT = {
    "rpcCall": ("Received rpcCall for unknown endpoint, endpoint = {endpoint}", "rpcEndpointUnknown"),
    "channelCreate": ("Received channelCreate for unknown endpoint, endpoint = {endpoint}", "channelEndpointUnknown"),
}
"""What it says of an endpoint that it does not know."""


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
