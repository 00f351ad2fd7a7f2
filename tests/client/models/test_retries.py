"""When a call is retried: after which errors, how often, and after which pause."""

import gc
import time
from collections.abc import Callable
from typing import Any
from weakref import ref

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.api.base import handle_on_hosts
from lmstudio_integrations.client.models.model import RELOAD_DELAYS, Retries
from lmstudio_integrations.emulator import Emulator
from tests.client.both import make_client
from tests.client.fake import Socket, authenticate, fake_server, receive, send
from tests.client.prediction_frames import END, INFO, fragment, loaded_handle, packet
from tests.support.virtual_time import in_virtual_time

__all__ = ["make_client"]

LOST, UNLOADED = lms.LMStudioConnectionLostError("lost"), lms.LMStudioModelUnloadedError("unloaded")


@pytest.mark.parametrize(
    "error",
    [
        lms.LMStudioUnreachableError("nobody"),
        LOST,
        lms.LMStudioTimeoutError("late", timeout_name="connect_timeout"),
    ],
)
def test_pauses_after_a_failed_connection_are_doubled_up_to_8_seconds(error: lms.LMStudioError) -> None:
    retries = Retries(6)
    assert [retries.next_delay(error) for _ in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, None]


@pytest.mark.parametrize(
    "error",
    [
        lms.LMStudioConnectionLostError("closed here", retryable=False),
        lms.LMStudioTimeoutError("late", timeout_name="idle_timeout"),
        lms.LMStudioServerError("no"),
    ],
)
def test_other_errors_are_not_retried(error: lms.LMStudioError) -> None:
    assert Retries(6).next_delay(error) is None


def test_an_unloaded_model_is_reloaded_three_times_without_any_retries() -> None:
    retries = Retries()
    pauses = [retries.next_delay(UNLOADED) for _ in range(4)]
    assert [pause is not None for pause in pauses] == [True, True, True, False]
    for pause, mean in zip(pauses, RELOAD_DELAYS, strict=False):
        assert pause is not None
        assert mean / 2 <= pause <= mean * 1.5


class Fickle:
    """A server that ends the first predictions in another way than the next ones."""

    def __init__(self, failures: int, *frames: dict[str, Any], closes: bool = True) -> None:
        self.failures = failures
        self.frames = frames
        self.closes = closes
        self.calls = 0

    async def __call__(self, socket: Socket) -> None:
        await authenticate(socket)
        while True:
            opened = await receive(socket)
            if opened["type"] != "channelCreate":
                continue
            if opened["endpoint"] == "getOrLoad":
                await self.respond(socket, opened, packet({"type": "loadSuccess", "info": INFO}))
                continue
            self.calls += 1
            if self.calls > self.failures:
                await self.respond(socket, opened, fragment("ok"), packet(END))
                continue
            await self.respond(socket, opened, *self.frames)
            if self.closes:
                await socket.close()
                return

    @staticmethod
    async def respond(socket: Socket, opened: dict[str, Any], *frames: dict[str, Any]) -> None:
        for frame in frames:
            await send(socket, {**frame, "channelId": opened["channelId"]})


@pytest.mark.parametrize("cuts", [2, 3])
@in_virtual_time
async def test_a_lost_connection_is_retried_while_the_caller_has_seen_nothing(
    cuts: int, make_client: Callable[..., Any]
) -> None:
    server = Fickle(cuts, fragment("seen"))
    async with fake_server(server) as address, make_client(address) as client:
        model, began = loaded_handle(client).with_retries(2), time.monotonic()
        if cuts <= 2:
            assert (await model.respond("Hi")).content == "ok"
        else:
            with pytest.raises(lms.LMStudioConnectionLostError):
                await model.respond("Hi")
        assert 1.5 < time.monotonic() - began < 3
    assert server.calls == 3


@in_virtual_time
async def test_a_model_that_is_always_evicted_is_reloaded_three_times(make_client: Callable[..., Any]) -> None:
    error = {"title": "No model", "displayData": {"code": "generic.noModelMatchingQuery"}}
    server = Fickle(9, {"type": "channelError", "error": error}, closes=False)
    async with fake_server(server) as address, make_client(address) as client:
        with pytest.raises(lms.LMStudioModelUnloadedError) as caught:
            await loaded_handle(client).respond("Hi")
    assert caught.value.retryable
    assert server.calls == 4


@pytest.mark.parametrize("others", [[], pytest.param(["127.0.0.1:1"], marks=pytest.mark.leaf("hosts"))])
@in_virtual_time
async def test_after_a_reload_that_failed_the_model_is_loaded_and_not_used_as_if_it_were_there(
    others: list[str],
) -> None:
    endpoints: list[str] = []
    error = {"title": "No model", "displayData": {"code": "generic.noModelMatchingQuery"}}

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        while True:
            opened = await receive(socket)
            if opened["type"] != "channelCreate":
                await send(socket, {"type": "rpcResult", "callId": opened["callId"], "result": []})
                continue
            endpoints.append(opened["endpoint"])
            match endpoints:
                case ["predict"]:
                    await Fickle.respond(socket, opened, {"type": "channelError", "error": error})
                case ["predict", "getOrLoad"]:
                    await socket.close()
                    return
                case [*_, "getOrLoad"]:
                    await Fickle.respond(socket, opened, packet({"type": "alreadyLoaded", "info": INFO}))
                case _:
                    await Fickle.respond(socket, opened, fragment("ok"), packet(END), {"type": "channelClose"})

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        handles = [loaded_handle(client), *(lms.AsyncClient(other).llm.lazy_model("chatty") for other in others)]
        assert (await handle_on_hosts(handles, 2).respond("Hi")).content == "ok"
    assert endpoints == ["predict", "getOrLoad", "getOrLoad", "predict"]


@pytest.mark.parametrize("call", [lambda handle: handle.tokenize("Hi"), lambda handle: handle.get_info()])
def test_the_error_of_an_operation_is_freed_with_its_last_reference(
    server: Emulator, call: Callable[[Any], Any]
) -> None:
    with lms.Client(server.address) as client:
        handle = client.llm.load_new_instance("chatty")
        handle.unload()
        gc.collect()
        gc.disable()  # it would keep the handle and its client alive until the garbage collector runs
        try:
            try:
                call(handle)
            except lms.LMStudioModelUnloadedError as error:
                freed = ref(error)
            assert freed() is None
        finally:
            gc.enable()
