"""What may happen at a point of the conversation, in place of forwarding. Each takes the connection and the unit."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from websockets.frames import Close, CloseCode, Frame, Opcode

from tests.faults.frames import Sender, Unit, serialized, text_frame
from tests.faults.proxy import Action, Link, forward

Message = dict[str, Any]


async def drop(link: Link, unit: Unit) -> None:
    """Lose this unit."""


async def reset(link: Link, unit: Unit) -> None:
    """Break the connection with RST."""
    link.reset()


async def finish(link: Link, unit: Unit) -> None:
    """End the connection with FIN, without the WebSocket's closing handshake."""
    await link.finish()


async def half_close(link: Link, unit: Unit) -> None:
    """Close the server's direction only."""
    link.half_close()


async def duplicate(link: Link, unit: Unit) -> None:
    """Send this unit twice."""
    await forward(link, unit)
    await forward(link, unit)


async def hold(link: Link, unit: Unit) -> None:
    """Send this unit after the next one."""
    link.held[unit.sender] = unit.data


async def freeze(link: Link, unit: Unit) -> None:
    """Stop the whole host: nothing is read or written on any connection, new or old."""
    link.proxy.thawed.clear()


async def drip(link: Link, unit: Unit) -> None:
    """Deliver the server's bytes one by one from here on."""
    link.dripping.add("server")
    await forward(link, unit)


async def fragmented(link: Link, unit: Unit) -> None:
    """Send this message as two frames with a ping between them."""
    frame = _frame(unit)
    middle = len(frame.data) // 2
    parts = (
        Frame(Opcode.TEXT, frame.data[:middle], fin=False),
        Frame(Opcode.PING, b"between"),
        Frame(Opcode.CONT, frame.data[middle:]),
    )
    await link.send(unit.sender, b"".join(serialized(unit.sender, part) for part in parts))


def black_hole(*senders: Sender) -> Action:
    """Lose everything that these sides send from here on; the connection stays open."""

    async def act(link: Link, unit: Unit) -> None:
        link.silent.update(senders)

    return act


def after(action: Action) -> Action:
    """Forward this unit, then do something."""

    async def act(link: Link, unit: Unit) -> None:
        await forward(link, unit)
        await action(link, unit)

    return act


def before(*frames: str | bytes) -> Action:
    """Insert text frames before this unit."""
    return raw_before(b"".join(text_frame("server", frame) for frame in frames))


def raw_before(data: bytes) -> Action:
    """Insert bytes before this unit."""

    async def act(link: Link, unit: Unit) -> None:
        await link.send("server", data)
        await forward(link, unit)

    return act


def cut(then: Action) -> Action:
    """Send half of this unit, then do something."""

    async def act(link: Link, unit: Unit) -> None:
        await link.send(unit.sender, unit.data[: len(unit.data) // 2])
        await then(link, unit)

    return act


def raw(data: bytes) -> Action:
    """Send other bytes in place of this unit."""

    async def act(link: Link, unit: Unit) -> None:
        await link.send("server", data)

    return act


async def masked(link: Link, unit: Unit) -> None:
    """Send this frame masked, as only a client may."""
    await link.send(unit.sender, _frame(unit).serialize(mask=True))


def corrupted(place: int, value: int) -> Action:
    """Change one byte of this unit."""

    async def act(link: Link, unit: Unit) -> None:
        data = bytearray(unit.data)
        data[place] = value
        await link.send(unit.sender, bytes(data))

    return act


def replace(make: Callable[[Message], Message | str | bytes]) -> Action:
    """Send the client another text frame in place of this one; a request is then answered in the server's place."""

    async def act(link: Link, unit: Unit) -> None:
        made = make(unit.message)
        await link.send("server", text_frame("server", json.dumps(made) if isinstance(made, Mapping) else made))

    return act


def close(code: CloseCode, *, and_hang: bool = False) -> Action:
    """Close the WebSocket as a server does: with a close frame, and with FIN once the client has sent its own."""
    data = serialized("server", Frame(Opcode.CLOSE, Close(code, "").serialize()))

    async def act(link: Link, unit: Unit) -> None:
        link.is_closing = not and_hang
        link.silent.add("server")
        await link.send("server", data)

    return act


def delay(seconds: float) -> Action:
    """Deliver this unit later."""

    async def act(link: Link, unit: Unit) -> None:
        await asyncio.sleep(seconds)
        await forward(link, unit)

    return act


def answer(data: bytes) -> Action:
    """Answer in the server's place, and close."""

    async def act(link: Link, unit: Unit) -> None:
        await link.send("server", data)
        await link.finish()

    return act


def _frame(unit: Unit) -> Frame:
    assert unit.frame is not None, "this acts on a frame"
    return unit.frame
