"""The frames that fake servers send for a prediction, a handle whose instance is already known, and a tool."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest

from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.protocol import prediction
from tests.client.fake import Socket, authenticate, receive, send_together

INFO = {"identifier": "chatty", "modelKey": "chatty"}
END = {
    "type": "success",
    "stats": {"stopReason": "eosFound"},
    "modelInfo": {},
    "loadModelConfig": {},
    "predictionConfig": {},
}


def packet(message: object) -> dict[str, Any]:
    """Return a frame with a packet of the first channel."""
    return {"type": "channelSend", "channelId": 1, "message": message}


def fragment(text: str) -> dict[str, Any]:
    return packet({"type": "fragment", "fragment": {"content": text, "tokensCount": 1, "reasoningType": "none"}})


def loaded_handle(client: Any) -> Any:
    """Return a handle whose instance is already known, so that it loads nothing."""
    handle = client.llm.lazy_model("chatty")
    handle._model.state.instance = Instance("chatty")
    return handle


async def joined(stream: Any) -> str:
    """Return the text of a stream."""
    return "".join([fragment.content async for fragment in stream])


Behavior = Callable[[Socket], Awaitable[None]]


def responds(*first: object, later: Sequence[object] = (), after: asyncio.Event | None = None) -> Behavior:
    """Return a server that responds with frames, which arrive together, and with later ones after an event."""

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        send_together(socket, first)
        if after is not None:
            await after.wait()
            send_together(socket, later)

    return behave


def weather(city: str) -> str:
    """Report the weather."""
    return f"It rains in {city}."


@dataclass(slots=True)
class Notice:
    """An event of a later version, which says something about the request and which no reader knows."""

    kind: ClassVar[Literal["progress"]] = "progress"


def know_notices(monkeypatch: pytest.MonkeyPatch, packet_type: str) -> None:
    """Read packets of a type that does not exist, as if the table of packets had a row for it."""
    monkeypatch.setitem(prediction._READERS, packet_type, lambda _: Notice())
