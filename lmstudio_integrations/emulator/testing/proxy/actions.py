"""What may happen at a point of the conversation, in place of forwarding. Each takes the connection and the item."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from websockets.frames import Close, CloseCode, Frame, Opcode

from lmstudio_integrations.emulator.testing.proxy.injections import Action
from lmstudio_integrations.emulator.testing.proxy.proxy import ProxiedConnection, forward
from lmstudio_integrations.emulator.testing.proxy.wire_items import TEXTS, Sender, WireItem, serialize, text_frame

Message = dict[str, Any]


class Breakable(Protocol):
    """A connection to a client that can be broken: one that the proxy forwards, or the emulator's own."""

    def reset(self) -> None:
        """Send RST."""

    def half_close(self) -> None:
        """Send FIN, and go on reading."""

    async def deliver(self, data: bytes) -> None:
        """Send bytes to the client."""


Break = Callable[[Breakable, WireItem], Awaitable[None]]
"""What needs no proxy: it is done to the connection, and says nothing of the item."""


async def lose(connection: ProxiedConnection, item: WireItem) -> None:
    connection.tracker.forget(item.message)


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


async def reset(connection: Breakable, _item: WireItem) -> None:
    """Break the connection with RST."""
    connection.reset()


async def finish(connection: ProxiedConnection, _item: WireItem) -> None:
    """End the connection with FIN, without the WebSocket's closing handshake."""
    await connection.finish()


async def half_close(connection: Breakable, _item: WireItem) -> None:
    """Close the server's direction only."""
    connection.half_close()


async def duplicate(connection: ProxiedConnection, item: WireItem) -> None:
    """Send this item twice."""
    await forward(connection, item)
    await forward(connection, item)


async def hold(connection: ProxiedConnection, item: WireItem) -> None:
    """Send this item after the next one."""
    connection.deferred[item.sender] = item.data


async def freeze(connection: ProxiedConnection, _item: WireItem) -> None:
    """Stop the whole host: nothing is read or written on any connection, new or old."""
    connection.proxy.thawed.clear()


def freeze_for(seconds: float) -> Action:
    """Stop the whole host for a time."""

    async def act(connection: ProxiedConnection, item: WireItem) -> None:
        await freeze(connection, item)
        asyncio.get_running_loop().call_later(seconds, connection.proxy.thawed.set)

    return act


async def drip(connection: ProxiedConnection, item: WireItem) -> None:
    """Deliver the server's bytes one by one from here on."""
    connection.dripping.add("server")
    await forward(connection, item)


async def fragment(connection: ProxiedConnection, item: WireItem) -> None:
    """Send this message as two frames with a ping between them."""
    frame = _frame(item)
    middle = len(frame.data) // 2
    parts = (
        Frame(Opcode.TEXT, frame.data[:middle], fin=False),
        Frame(Opcode.PING, b"between"),
        Frame(Opcode.CONT, frame.data[middle:]),
    )
    await connection.send(item.sender, b"".join(serialize(item.sender, part) for part in parts))


def black_hole(*senders: Sender) -> Action:
    """Lose everything that these sides send from here on; the connection stays open."""

    async def act(connection: ProxiedConnection, item: WireItem) -> None:
        connection.silent.update(senders)
        await forward(connection, item)  # unless it is lost as well

    return act


DEAD = black_hole("client", "server")
"""The connection stays open, and nothing passes any more."""


def before(action: Break) -> Action:
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


def raw(data: bytes) -> Break:
    """Send bytes."""

    async def act(connection: Breakable, _item: WireItem) -> None:
        await connection.deliver(data)

    return act


def frames(*texts: str | bytes) -> Break:
    """Send text frames."""
    return raw(b"".join(text_frame("server", text) for text in texts))


def packet(make: Callable[[Message], Message]) -> Break:
    """Send a packet of the same channel."""

    async def act(connection: Breakable, item: WireItem) -> None:
        await connection.deliver(text_frame("server", json.dumps(make(item.message))))

    return act


def cut(then: Action) -> Action:
    """Send half of this item, then do something."""

    async def act(connection: ProxiedConnection, item: WireItem) -> None:
        await connection.send(item.sender, item.data[: len(item.data) // 2])
        await then(connection, item)

    return act


async def mask(connection: ProxiedConnection, item: WireItem) -> None:
    """Send this frame masked, as only a client may."""
    await connection.send(item.sender, _frame(item).serialize(mask=True))


def corrupt(place: int, value: int) -> Action:
    """Change one byte of this item."""

    async def act(connection: ProxiedConnection, item: WireItem) -> None:
        data = bytearray(item.data)
        data[place] = value
        await connection.send(item.sender, bytes(data))

    return act


def replace(make: Callable[[Message], Message | str | bytes]) -> Action:
    """Send the client another text frame in place of this one; a request then gets its response from the proxy."""

    async def act(connection: ProxiedConnection, item: WireItem) -> None:
        connection.tracker.forget(item.message)
        frame = make(item.message)
        text = json.dumps(frame) if isinstance(frame, Mapping) else frame
        await connection.send("server", text_frame("server", text))

    return act


def close(code: CloseCode, *, and_hang: bool = False) -> Action:
    """Close the WebSocket as a server does: with a close frame, and with FIN once the client has sent its own."""
    data = serialize("server", Frame(Opcode.CLOSE, Close(code, "").serialize()))

    async def act(connection: ProxiedConnection, _item: WireItem) -> None:
        connection.is_closing = not and_hang
        connection.silent.add("client")  # its close frame replies to this one, and is none of its own
        await connection.send("server", data, is_last=True)

    return act


def delay(seconds: float) -> Action:
    """Deliver this item later."""

    async def act(connection: ProxiedConnection, item: WireItem) -> None:
        await asyncio.sleep(seconds)
        await forward(connection, item)

    return act


def respond(data: bytes) -> Action:
    """Respond in the server's place, and close."""

    async def act(connection: ProxiedConnection, _item: WireItem) -> None:
        await connection.send("server", data)
        await connection.finish()

    return act


def _frame(item: WireItem) -> Frame:
    assert item.frame is not None, "this acts on a frame"
    return item.frame
