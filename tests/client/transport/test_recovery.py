"""A server freezes, with all its sockets, and recovers: nothing is lost, and nothing comes twice or to another call."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.transport.connections import PING_TIMEOUT, QUIET
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.client.fake import Socket, fake_server, respond_to_calls
from tests.support.virtual_time import freeze, in_virtual_time, serving

RULES: Any = [{"then": [{"text": "One two "}, {"wait": 3}, {"text": "three four. You said {last}"}]}]
RECOVERY = 5.0
"""Seconds for which the server freezes: the ping of a call that follows a silence has no reply by then."""


def response_to(text: str) -> str:
    return f"One two three four. You said {text}"


def emulator() -> Emulator:
    return Emulator([ModelEntry(key="chat", rules=RULES, tokens_per_second=2, preload=True)])


@pytest.mark.parametrize("frozen_for", [1.0, RECOVERY, 20.0])
@in_virtual_time
async def test_a_stream_gets_each_fragment_once_after_its_server_froze(frozen_for: float) -> None:
    async def text_of(said: str) -> str:
        parts = []
        async with client.llm.lazy_model("chat").respond_stream(said) as stream:
            async for fragment in stream:
                parts.append(fragment.content)
                started.set()
            assert stream.result().content == "".join(parts)
        return "".join(parts)

    started = asyncio.Event()
    async with serving(emulator()) as address, lms.AsyncClient(address, keepalive=2) as client:
        streams = [asyncio.ensure_future(text_of(said)) for said in ("this", "that")]
        await started.wait()
        freeze(address, frozen_for)
        assert await asyncio.gather(*streams) == [response_to("this"), response_to("that")]


@in_virtual_time
async def test_what_comes_late_for_a_closed_stream_reaches_no_other_call() -> None:
    async with serving(emulator()) as address, lms.AsyncClient(address, keepalive=2) as client:
        model = client.llm.lazy_model("chat")
        async with model.respond_stream("this") as stream:
            await anext(stream)
            freeze(address, RECOVERY)
        assert (await model.respond("that")).content == response_to("that")


@in_virtual_time
async def test_no_call_that_was_held_back_is_lost_when_its_server_recovers() -> None:
    async with serving(emulator()) as address, lms.AsyncClient(address, connect_timeout=20) as client:
        model = client.llm.lazy_model("chat")
        await model.count_tokens("a")
        await asyncio.sleep(QUIET + 1)
        freeze(address, RECOVERY)
        await check_held_back([model.count_tokens("a " * number) for number in range(1, 7)])


@pytest.mark.parametrize("is_broken", [False, True])
@in_virtual_time
async def test_no_call_that_was_held_back_is_lost_with_its_socket(*, is_broken: bool) -> None:
    """Another socket takes the calls, because the first one is silent or broken."""
    sockets: list[Socket] = []

    async def behave(socket: Socket) -> None:
        sockets.append(socket)
        await respond_to_calls(socket)

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        assert await client.llm.list_loaded() == []
        sockets[0].transport.pause_reading()
        await asyncio.sleep(QUIET + 1)
        if is_broken:
            asyncio.get_running_loop().call_later(PING_TIMEOUT / 2, sockets[0].transport.abort)
        await check_held_back([client.llm.list_loaded() for _ in range(6)])
    assert len(sockets) == 2


async def check_held_back(calls: list[Awaitable[Any]]) -> None:
    """Make calls that are held back; cancel some, also the first and the last, and check that the others succeed."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(PING_TIMEOUT / 4)
    for task in (tasks[0], tasks[3], tasks[-1]):
        task.cancel()
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    failed = [number for number, result in enumerate(results) if isinstance(result, BaseException)]
    assert failed == [0, 3, len(tasks) - 1]
    assert all(isinstance(results[number], asyncio.CancelledError) for number in failed)
