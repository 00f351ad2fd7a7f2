"""The socket: frames reach the session in the order in which they were sent, however they were fragmented."""

import json
from collections.abc import Callable
from typing import Any

import lmstudio_integrations as lms
from tests.client.fake import Socket, authenticate, fake_server, receive
from tests.client.prediction_frames import END, fragment, packet


async def test_fragmented_and_whole_messages_keep_their_order(make_client: Callable[..., Any]) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        await receive(socket)
        loaded = packet({"type": "alreadyLoaded", "info": {"identifier": "chatty"}})
        await socket.send(json.dumps(loaded))
        created = await receive(socket)
        for number in range(6):
            text = json.dumps({**fragment(str(number)), "channelId": created["channelId"]})
            await socket.send([text[:9], text[9:]] if number in {2, 4} else text)
        await socket.send(json.dumps({**packet(END), "channelId": created["channelId"]}).encode())  # in a binary frame

    async with fake_server(behave) as address, make_client(address, idle_timeout=5.0) as client:
        model: lms.AsyncLLM = await client.llm.model("chatty")
        result = await model.respond("Hi")
        assert result.content == "012345"
