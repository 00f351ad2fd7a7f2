"""Loaded models: idle TTLs, queues, crashes."""

import asyncio
import threading
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator, ManualClock, ModelEntry
from lmstudio_integrations.emulator.engines.base import LoadRequest
from lmstudio_integrations.emulator.engines.scripted import ScriptedEngine
from lmstudio_integrations.emulator.models.cancel_scope import CancelScope
from lmstudio_integrations.emulator.models.device import Device
from lmstudio_integrations.emulator.models.instance import ModelInstance
from tests.emulator.bare_client import STACK, TIMEOUT, Wire, load_stack, named, prediction_request, wire
from tests.emulator.models.registry_models import CHAT, ENTRIES, OTHER, SLOW, kinds, loaded, predict


def states(server: Emulator) -> list[str]:
    return [each.state for each in server.predictions]


async def test_a_clock_that_is_moved_calls_what_is_due_in_order() -> None:
    clock, called = ManualClock(unix_ms=1000), list[str]()
    clock.call_later(2, lambda: called.append("two"))
    clock.call_later(1, lambda: called.append("one"))
    clock.call_later(1.5, lambda: called.append("cancelled")).cancel()
    clock.call_later(3, lambda: called.append("three"))
    clock.advance(2)
    await asyncio.sleep(0)
    assert called == ["one", "two"]
    assert (clock.now(), clock.unix_ms()) == (2, 3000)


def test_an_idle_model_is_unloaded_and_use_restarts_its_ttl(server: Emulator, me: Wire, clock: ManualClock) -> None:
    me.load(CHAT.key, ttlMs=10_000)
    me.load(OTHER.key)  # which has no time to live
    clock.advance(9)
    me.result("tokenize", {"specifier": named(CHAT.key), "inputString": "x"})
    clock.advance(9)
    info, _ = me.result("listLoaded")
    assert info["lastUsedTime"] == clock.unix_ms() - 9000
    assert kinds(me.get(CHAT.key)) == ["alreadyLoaded"]
    clock.advance(9)
    assert len(me.result("listLoaded")) == 2
    clock.advance(1)
    server.wait_for(lambda: loaded(server) == [OTHER.key], TIMEOUT)


def test_a_model_that_works_does_not_idle(server: Emulator, me: Wire, clock: ManualClock) -> None:
    me.load(CHAT.key, ttlMs=10_000)
    channel = predict(me, "Wait")
    for _ in range(3):
        me.receive()
    with wire(server) as other:
        assert kinds(other.get(CHAT.key)) == ["alreadyLoaded"]
    clock.advance(60)
    me.send(channel, {"type": "cancel"})
    assert [packet["type"] for packet in me.packets(channel)] == ["success"]
    assert loaded(server) == [CHAT.key]
    clock.advance(10)
    server.wait_for(lambda: not server.loaded(), TIMEOUT)


@pytest.mark.parametrize("ttl", [0, 1.5, True])
def test_a_time_to_live_is_a_whole_number_of_milliseconds(me: Wire, ttl: object) -> None:
    me.open("loadModel", {"modelKey": CHAT.key, "ttlMs": ttl, "loadConfigStack": STACK})
    assert me.receive()["kind"] == "channelCreationParameterTypeError"


async def test_slots_are_granted_in_turn_and_never_to_who_has_cancelled() -> None:
    nothing: Any = None
    instance = ModelInstance(
        entry=CHAT,
        device=Device([]),
        identifier=CHAT.key,
        model=nothing,
        info={},
        request=LoadRequest(CHAT.key, "llm", slots=1),
        ttl_ms=None,
        jit=False,
        load=nothing,
        clock=ManualClock(),
    )
    order: list[int] = []

    async def work(number: int) -> None:
        async with instance.use(CancelScope(), "generating"):
            order.append(number)

    async with instance.use(CancelScope(), "generating"):
        tasks = [asyncio.create_task(work(number)) for number in range(4)]
        await asyncio.sleep(0)
        assert instance.state() == {"status": "generating", "queued": 5}
        tasks[1].cancel()
        await asyncio.sleep(0)
    tasks[0].cancel()  # when it was just granted the slot
    await asyncio.wait(tasks)
    assert order == [2, 3]
    assert instance.state() == {"status": "idle", "queued": 0}


def test_requests_that_wait_for_a_crashed_model_fail_with_the_crash() -> None:
    go_on = threading.Event()

    async def wait(seconds: float) -> None:
        if seconds:
            await asyncio.to_thread(go_on.wait, TIMEOUT)

    crashing = {"when": {"last": "^Crash"}, "then": [{"wait": 1.0}, {"fault": "crash"}]}
    entry = ModelEntry(key="m", slots=1, rules=(crashing,))
    engines = {"scripted": ScriptedEngine(wait)}
    with Emulator([entry], load=["m"], engines=engines) as server, wire(server) as me, wire(server) as other:
        running = me.open("predict", prediction_request("m", "Crash"))
        server.wait_for(lambda: states(server) == ["running"], TIMEOUT)
        waiting = other.open("predict", prediction_request("m"))
        server.wait_for(lambda: states(server) == ["running", "queued"], TIMEOUT)
        go_on.set()
        assert "crashed" in list(me.packets(running))[-1]["error"]["title"]
        assert "crashed" in list(other.packets(waiting))[-1]["error"]["title"]
        assert [each.stop_reason for each in server.predictions] == ["error", "error"]


def test_a_request_without_a_slot_waits_and_can_be_cancelled(server: Emulator, me: Wire) -> None:
    me.load(CHAT.key, loadConfigStack=load_stack(numParallelSessions=2))
    specifier = {"specifier": named(CHAT.key), "throwIfNotFound": True}
    assert me.result("getInstanceProcessingState", specifier) == {"status": "idle", "queued": 0}
    with wire(server) as other:
        channels = [predict(other, "Wait"), predict(other, "Before"), predict(other, "Hello")]
        server.wait_for(lambda: states(server) == ["running", "running", "queued"], TIMEOUT)
        server.wait_for(lambda: server.predictions[0].fragments > 0, TIMEOUT)
        assert me.result("getInstanceProcessingState", specifier) == {"status": "generating", "queued": 3}
        other.send(channels[2], {"type": "cancel"})
        server.wait_for(lambda: states(server)[2] == "ended", TIMEOUT)
        assert server.predictions[2].stop_reason == "userStopped"
        assert server.predictions[2].fragments == 0


def test_requests_get_slots_in_their_order_and_a_queue_ends_with_its_model(server: Emulator, me: Wire) -> None:
    me.load(CHAT.key, loadConfigStack=load_stack(numParallelSessions=1))
    with wire(server, client="guest:one") as one, wire(server, client="guest:other") as other:
        first = predict(one, "Wait")
        server.wait_for(lambda: states(server) == ["running"], TIMEOUT)
        predict(other, "Wait")
        server.wait_for(lambda: len(server.predictions) == 2, TIMEOUT)
        predict(one, "Wait")
        server.wait_for(lambda: len(server.predictions) == 3, TIMEOUT)
        one.send(first, {"type": "cancel"})
        server.wait_for(lambda: states(server) == ["ended", "running", "queued"], TIMEOUT)
        server.unload(CHAT.key)
        assert [each.stop_reason for each in server.predictions[1:]] == ["modelUnloaded", "modelUnloaded"]


@pytest.mark.parametrize(("endpoint", "member"), [("loadModel", "modelKey"), ("getOrLoad", "identifier")])
def test_the_server_stops_during_a_stalled_load(endpoint: str, member: str) -> None:
    with Emulator(ENTRIES) as server, wire(server) as me:
        me.open(endpoint, {member: SLOW.key, "loadConfigStack": STACK})
        me.receive()
        server.stop()
