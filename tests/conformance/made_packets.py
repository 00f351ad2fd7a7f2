"""What the faults of the proxy send in the place of a server's frames, to be checked by the schemas of the SDK."""

import asyncio
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import AsyncMock, MagicMock, patch

from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

sys.path.append(str(Path(__file__).parents[2]))  # at the end, because the package under test is the installed one

from tests.faults.faults import FAULTS
from tests.faults.proxy import Action
from tests.faults.wire_items import WireItem, text_frame

FRAGMENT = {
    "type": "fragment",
    "fragment": {
        "content": "a",
        "tokensCount": 1,
        "containsDrafted": False,
        "reasoningType": "none",
        "isStructural": False,
    },
}
PROGRESS = {"type": "progress", "progress": 0.5}
SUCCESS = {"type": "success"}

CHANNELS = {
    ("llm", "predict"): (FRAGMENT, SUCCESS),
    ("llm", "completeRawText"): (FRAGMENT, SUCCESS),
    ("llm", "loadModel"): (PROGRESS, SUCCESS),
    ("llm", "getOrLoad"): (PROGRESS, SUCCESS),
    ("plugins", "generateWithGenerator"): (FRAGMENT, SUCCESS),
}
"""Some channels, each with a packet and the last packet; what else these have does not matter to a fault."""
CALLS = (("llm", "tokenize"), ("embedding", "embedString"))


class Made(NamedTuple):
    """A frame that a fault has made.

    Attributes:
        fault: Its name.
        is_malformed: Whether the table says that what it sends is no valid message.
        namespace: That of the request which it belongs to.
        endpoint: That of the request which it belongs to; empty if it belongs to none.
        frame: The frame.
    """

    fault: str
    is_malformed: bool
    namespace: str
    endpoint: str
    frame: Any


def made() -> list[Made]:
    """Return the frames that all faults make, at each point of a conversation at which they can happen."""
    with patch("asyncio.sleep", AsyncMock()):
        return asyncio.run(_made())


async def _made() -> list[Made]:
    connection = MagicMock(**{name: AsyncMock() for name in ("send", "stall", "finish")})
    connection.deliver = partial(connection.send, "server")
    return [
        Made(fault.name, fault.kind == "malformed", namespace, endpoint, frame)
        for fault in FAULTS.values()
        for injection in fault.injections
        for namespace, endpoint, item in _items(injection.point)
        for frame in await _sent(connection, injection.action, item)
        if frame != item.message
    ]


def _items(point: str) -> Iterator[tuple[str, str, WireItem]]:
    """Return what may pass at a point: frames, and nothing where the connection is not that far."""
    if point == "authentication":
        yield "llm", "", _item({"success": True})
    elif point in {"accept", "request head", "upgrade", "response head", "credentials"}:
        yield "llm", "", WireItem("server", b"")
    else:
        for (namespace, endpoint), (packet, last) in CHANNELS.items():
            frame = {"type": "channelSend", "channelId": 1, "message": last if point.startswith("last") else packet}
            if point.endswith("request"):
                frame = {"type": "channelCreate", "channelId": 1, "endpoint": endpoint, "creationParameter": {}}
            elif point == "end":
                frame = {"type": "channelClose", "channelId": 1}
            yield namespace, endpoint, _item(frame, endpoint)
        for namespace, endpoint in CALLS:
            frame = {"type": "rpcResult", "callId": 1, "result": {}}
            if point.endswith("request"):
                frame = {"type": "rpcCall", "callId": 1, "endpoint": endpoint, "parameter": {}}
            yield namespace, endpoint, _item(frame, endpoint)


def _item(message: dict[str, Any], endpoint: str = "") -> WireItem:
    text = json.dumps(message)
    return WireItem(
        "server", text_frame("server", text), frozenset(), Frame(Opcode.TEXT, text.encode()), message, endpoint
    )


async def _sent(connection: Any, action: Action, item: WireItem) -> list[Any]:
    """Return the frames that an action sends to the client; what is no frame, or no JSON, as text."""
    connection.reset_mock()
    connection.dripping, connection.silent = set(), set()
    await action(connection, item)
    sent = [call.args[1] for call in connection.send.await_args_list] + [
        call.args[0] for call in connection.repeat.mock_calls
    ]
    return [frame for data in sent for frame in _frames(data)]


def _frames(data: bytes) -> Iterator[Any]:
    stream = StreamReader()
    stream.feed_data(data)
    stream.feed_eof()
    try:
        while data[:1] != b"H" and not _run(stream.at_eof()):
            frame: Frame = _run(Frame.parse(stream.read_exact, mask=False))
            if frame.opcode is Opcode.TEXT:
                yield json.loads(bytes(frame.data))
    except EOFError:
        return  # the connection breaks inside a frame
    except (ValueError, ProtocolError) as error:
        yield f"no frame: {error}"


def _run(parser: Any) -> Any:
    """Return the result of a parser that has all its data."""
    try:
        next(parser)
    except StopIteration as end:
        return end.value
    raise EOFError("more data is needed")
