"""What may happen at a point of the conversation, in place of forwarding. Each takes the connection and the unit."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from websockets.frames import Close, CloseCode, Frame, Opcode

from lmstudio_integrations.emulator.proxy.proxy import Action, ProxiedConnection, forward
from lmstudio_integrations.emulator.proxy.units import TEXTS, Sender, Unit, serialized, text_frame

Message = dict[str, Any]


async def drop(connection: ProxiedConnection, unit: Unit) -> None:
    """Lose this unit."""
    connection.conversation.forget(unit.message)


async def stall(connection: ProxiedConnection, unit: Unit) -> None:
    """Let the server send nothing more on this channel, but the progress of its prompt, until it is cancelled."""
    await connection.stall(unit)


def endless(make: Callable[[Message], Message], seconds: float) -> Action:
    """In place of the end of this prediction, send a packet again and again, until it is cancelled."""

    async def act(connection: ProxiedConnection, unit: Unit) -> None:
        await connection.stall(unit)
        if unit.endpoint in TEXTS:  # what else ends has no such packets
            data = text_frame("server", json.dumps(make(unit.message)))
            connection.repeat(data, seconds, unit.message["channelId"])

    return act


async def reset(connection: ProxiedConnection, _unit: Unit) -> None:
    """Break the connection with RST."""
    connection.reset()


async def finish(connection: ProxiedConnection, _unit: Unit) -> None:
    """End the connection with FIN, without the WebSocket's closing handshake."""
    await connection.finish()


async def half_close(connection: ProxiedConnection, _unit: Unit) -> None:
    """Close the server's direction only."""
    connection.half_close()


async def duplicate(connection: ProxiedConnection, unit: Unit) -> None:
    """Send this unit twice."""
    await forward(connection, unit)
    await forward(connection, unit)


async def hold(connection: ProxiedConnection, unit: Unit) -> None:
    """Send this unit after the next one."""
    connection.held[unit.sender] = unit.data


async def freeze(connection: ProxiedConnection, _unit: Unit) -> None:
    """Stop the whole host: nothing is read or written on any connection, new or old."""
    connection.proxy.thawed.clear()


def freeze_for(seconds: float) -> Action:
    """Stop the whole host for a time."""

    async def act(connection: ProxiedConnection, unit: Unit) -> None:
        await freeze(connection, unit)
        asyncio.get_running_loop().call_later(seconds, connection.proxy.thawed.set)

    return act


async def drip(connection: ProxiedConnection, unit: Unit) -> None:
    """Deliver the server's bytes one by one from here on."""
    connection.dripping.add("server")
    await forward(connection, unit)


async def fragmented(connection: ProxiedConnection, unit: Unit) -> None:
    """Send this message as two frames with a ping between them."""
    frame = _frame(unit)
    middle = len(frame.data) // 2
    parts = (
        Frame(Opcode.TEXT, frame.data[:middle], fin=False),
        Frame(Opcode.PING, b"between"),
        Frame(Opcode.CONT, frame.data[middle:]),
    )
    await connection.send(unit.sender, b"".join(serialized(unit.sender, part) for part in parts))


def black_hole(*senders: Sender) -> Action:
    """Lose everything that these sides send from here on; the connection stays open."""

    async def act(connection: ProxiedConnection, unit: Unit) -> None:
        connection.silent.update(senders)
        await forward(connection, unit)  # unless it is lost as well

    return act


DEAD = black_hole("client", "server")
"""The connection stays open, and nothing passes any more."""


def after(action: Action) -> Action:
    """Forward this unit, then do something."""

    async def act(connection: ProxiedConnection, unit: Unit) -> None:
        await forward(connection, unit)
        await action(connection, unit)

    return act


def before(*frames: str | bytes) -> Action:
    """Insert text frames before this unit."""
    return raw_before(b"".join(text_frame("server", frame) for frame in frames))


def insert(make: Callable[[Message], Message]) -> Action:
    """Send another packet of the same channel before this one."""

    async def act(connection: ProxiedConnection, unit: Unit) -> None:
        await connection.send("server", text_frame("server", json.dumps(make(unit.message))))
        await forward(connection, unit)

    return act


def raw_before(data: bytes) -> Action:
    """Insert bytes before this unit."""

    async def act(connection: ProxiedConnection, unit: Unit) -> None:
        await connection.send("server", data)
        await forward(connection, unit)

    return act


def cut(then: Action) -> Action:
    """Send half of this unit, then do something."""

    async def act(connection: ProxiedConnection, unit: Unit) -> None:
        await connection.send(unit.sender, unit.data[: len(unit.data) // 2])
        await then(connection, unit)

    return act


def raw(data: bytes) -> Action:
    """Send other bytes in place of this unit."""

    async def act(connection: ProxiedConnection, _unit: Unit) -> None:
        await connection.send("server", data)

    return act


async def masked(connection: ProxiedConnection, unit: Unit) -> None:
    """Send this frame masked, as only a client may."""
    await connection.send(unit.sender, _frame(unit).serialize(mask=True))


def corrupted(place: int, value: int) -> Action:
    """Change one byte of this unit."""

    async def act(connection: ProxiedConnection, unit: Unit) -> None:
        data = bytearray(unit.data)
        data[place] = value
        await connection.send(unit.sender, bytes(data))

    return act


def replace(make: Callable[[Message], Message | str | bytes]) -> Action:
    """Send the client another text frame in place of this one; a request then gets its response from the proxy."""

    async def act(connection: ProxiedConnection, unit: Unit) -> None:
        connection.conversation.forget(unit.message)
        made = make(unit.message)
        await connection.send("server", text_frame("server", json.dumps(made) if isinstance(made, Mapping) else made))

    return act


def close(code: CloseCode, *, and_hang: bool = False) -> Action:
    """Close the WebSocket as a server does: with a close frame, and with FIN once the client has sent its own."""
    data = serialized("server", Frame(Opcode.CLOSE, Close(code, "").serialize()))

    async def act(connection: ProxiedConnection, _unit: Unit) -> None:
        connection.is_closing = not and_hang
        connection.silent.add("client")  # its close frame replies to this one, and is none of its own
        await connection.send("server", data, is_last=True)

    return act


def delay(seconds: float) -> Action:
    """Deliver this unit later."""

    async def act(connection: ProxiedConnection, unit: Unit) -> None:
        await asyncio.sleep(seconds)
        await forward(connection, unit)

    return act


def respond(data: bytes) -> Action:
    """Respond in the server's place, and close."""

    async def act(connection: ProxiedConnection, _unit: Unit) -> None:
        await connection.send("server", data)
        await connection.finish()

    return act


def _frame(unit: Unit) -> Frame:
    assert unit.frame is not None, "this acts on a frame"
    return unit.frame
