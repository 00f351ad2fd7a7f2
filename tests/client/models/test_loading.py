"""Loads on a server that misbehaves, and the client's caches of names and instances."""

import asyncio
import contextlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from types import FrameType
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

import lmstudio_integrations as lms
from lmstudio_integrations.client.concurrency.flows import Flow, run
from lmstudio_integrations.client.models.admission import SingleFlight
from lmstudio_integrations.client.transport.operation import Operation
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.client.both import make_client
from tests.client.fake import Socket, authenticate, context_of, fake_server, receive, send, send_together, wait_until
from tests.support.virtual_time import in_virtual_time

__all__ = ["make_client"]

INFO = {"identifier": "m", "modelKey": "m", "path": "maker/m", "instanceReference": "r1", "contextLength": 8}
FULL_INFO = {**INFO, "format": "gguf", "displayName": "M", "sizeBytes": 1, "maxContextLength": 8}
NO_MEMORY = {"title": "Model loading was stopped due to insufficient system resources"}


class Server:
    """Responds to calls and channels as the test specifies, on every socket."""

    def __init__(self, responses: dict[str, Iterable[list[dict[str, Any]]]]) -> None:
        self.responses = {name: iter(each) for name, each in responses.items()}
        self.parameters: list[tuple[str, Any]] = []

    async def __call__(self, socket: Socket) -> None:
        await authenticate(socket)
        with contextlib.suppress(ConnectionClosed):
            await self._serve(socket)

    async def _serve(self, socket: Socket) -> None:
        while True:
            frame = await receive(socket)
            if "endpoint" not in frame:
                continue
            self.parameters.append((frame["endpoint"], frame.get("creationParameter")))
            ids: dict[str, Any] = {name: frame[name] for name in ("callId", "channelId") if name in frame}
            for response in next(self.responses[frame["endpoint"]]):
                await send(socket, {**response, **ids})


def result(value: object) -> dict[str, Any]:
    return {"type": "rpcResult", "result": value}


def packet(message: object) -> dict[str, Any]:
    return {"type": "channelSend", "message": message}


def failed(kind: str, error: object) -> dict[str, Any]:
    return {"type": kind, "error": error}


CLOSE: dict[str, Any] = {"type": "channelClose"}
LOADED = [packet({"type": "success", "info": INFO}), CLOSE]


@pytest.mark.leaf("planning")
async def test_a_load_without_memory_fails_as_such_even_if_nothing_can_be_listed() -> None:
    server = Server(
        {
            "loadModel": [[failed("channelError", NO_MEMORY)]],
            "listDownloadedModels": [[failed("rpcError", {"title": "no list today"})]],
        }
    )
    async with fake_server(server) as address, lms.AsyncClient(address) as client:
        with pytest.raises(lms.LMStudioInsufficientResourcesError, match="insufficient system resources"):
            await client.llm.load_new_instance("n")
    assert [name for name, _ in server.parameters] == ["loadModel", "listDownloadedModels"]


FUZZY = {**INFO, "identifier": "fuzzy"}
TAKEN = failed("channelError", {"title": 'Model with identifier "fuzzy" already exists'})
FUZZY_LOADED = [packet({"type": "success", "info": FUZZY}), CLOSE]


@pytest.mark.parametrize(
    ("listed", "loads"),
    [
        ([[], []], [FUZZY_LOADED]),
        ([[], [], [FUZZY], [], [FUZZY]], [[TAKEN]]),
        ([[], [], [], [], []], [[TAKEN], FUZZY_LOADED]),
    ],
    ids=["loaded here", "loaded by another program", "loaded here, after another program failed to"],
)
@in_virtual_time
async def test_a_name_that_the_list_of_models_does_not_have_is_the_identifier(
    listed: list[list[Any]], loads: list[list[dict[str, Any]]], make_client: Callable[..., Any]
) -> None:
    """Also where another program loads it between a look at the loaded models and the load."""
    server = Server(
        {
            "listLoaded": [[result(infos)] for infos in listed],
            "listDownloadedModels": [[result([])]] * 3,
            "loadModel": loads,
        }
    )
    async with fake_server(server) as address, make_client(address) as client:
        model = await client.llm.model("fuzzy", load_policy="explicit", ttl=float("inf"))
    assert model.identifier == "fuzzy"
    made = [(each["modelKey"], each["identifier"]) for name, each in server.parameters if name == "loadModel"]
    assert made == [("fuzzy", "fuzzy")] * len(loads)


@in_virtual_time
async def test_waiting_for_another_program_ends_with_the_load_timeout(make_client: Callable[..., Any]) -> None:
    none_loaded, taken = repeat([result([])]), repeat([TAKEN])
    server = Server({"listLoaded": none_loaded, "listDownloadedModels": none_loaded, "loadModel": taken})
    async with fake_server(server) as address, make_client(address, load_timeout=20) as client:
        with pytest.raises(lms.LMStudioTimeoutError, match="reserved the identifier 'fuzzy'") as caught:
            await client.llm.model("fuzzy", load_policy="explicit")
    assert caught.value.timeout_name == "load_timeout"


@in_virtual_time
async def test_waiting_for_a_load_of_another_caller_ends_with_the_timeout(make_client: Callable[..., Any]) -> None:
    none_loaded = repeat([result([])])
    server = Server({"listLoaded": none_loaded, "listDownloadedModels": none_loaded, "loadModel": [[]]})
    async with fake_server(server) as address, make_client(address) as client:
        first = asyncio.ensure_future(client.llm.model("stuck", load_policy="explicit"))
        await asyncio.sleep(1)
        async with make_client(address, total_timeout=20) as hasty:
            with pytest.raises(lms.LMStudioTimeoutError, match="another call that loads the model") as caught:
                await hasty.llm.model("stuck", load_policy="explicit")
        assert caught.value.timeout_name == "total_timeout"
        first.cancel()
        await asyncio.wait([first])


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A scripted server."""
    with Emulator([ModelEntry(key="chatty")]) as running:
        yield running


def test_work_that_a_parent_process_had_begun_is_done_again_after_a_fork(server: Emulator) -> None:
    class Lost:
        is_lost = True

    lost: Any = SingleFlight(Lost())  # type: ignore[arg-type]
    running_loads: Any = {"key": lost}

    def work() -> Flow[str]:
        assert running_loads["key"] is not lost
        return "done"
        yield

    with lms.Client(server.address) as client:
        assert (
            run(SingleFlight.run(Operation(context_of(client)), running_loads, "key", work(), errors=Exception))
            == "done"
        )
    assert running_loads == {}


def test_an_interrupt_before_or_during_work_leaves_nothing_behind_that_nobody_does(server: Emulator) -> None:
    running_loads: Any = {}

    def work() -> Flow[None]:
        return
        yield

    share: Any = SingleFlight.run
    lines, first = inspect.getsourcelines(share)
    body = range(first, first + next(number for number, line in enumerate(lines) if "finally:" in line))
    reached: list[int] = []

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code is not share.__func__.__code__:
            return None
        if event == "line" and frame.f_lineno in body and frame.f_lineno not in reached:
            reached.append(frame.f_lineno)
            raise KeyboardInterrupt
        return trace

    previous = sys.gettrace()
    with lms.Client(server.address) as client:
        for _ in body:
            operation = Operation(context_of(client))
            sys.settrace(trace)
            try:
                run(share(operation, running_loads, "key", work(), errors=Exception))
                break
            except KeyboardInterrupt:
                assert running_loads == {}
            finally:
                sys.settrace(previous)
    assert len(reached) > 5


class _UncopyableError(Exception):
    def __init__(self, text: str, *, code: int) -> None:
        super().__init__(text)
        self.code = code


async def test_an_error_that_cannot_be_copied_reaches_every_waiting_call(server: Emulator) -> None:
    async with lms.AsyncClient(server.address) as client:

        def fail(_progress: float) -> None:
            raise _UncopyableError("no more progress", code=7)

        handle = client.llm.lazy_model("chatty", load_policy="new_instance", on_load_progress=fail)
        errors = await asyncio.gather(*(handle.respond("Hi") for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in errors] == [_UncopyableError] * 3


def test_a_callback_that_uses_the_model_it_loads_is_an_error_instead_of_a_deadlock(server: Emulator) -> None:
    with lms.Client(server.address) as client:
        handle = client.llm.lazy_model(
            "chatty", load_policy="new_instance", on_load_progress=lambda _: handle.count_tokens("Hi")
        )
        with pytest.raises(lms.LMStudioRuntimeError, match="is loading 'chatty', so this call would wait forever"):
            handle.count_tokens("Hi")


async def test_a_model_without_a_path_or_key_matches_no_name() -> None:
    nameless = {"identifier": "other", "path": "maker/other", "instanceReference": "r1", "contextLength": 8}
    server = Server(
        {
            "listLoaded": [[result([nameless])], [result([nameless])]],
            "listDownloadedModels": [[result([{"modelKey": "none", "path": "maker/none", "type": "llm"}])]],
            "loadModel": [LOADED],
        }
    )
    async with fake_server(server) as address, lms.AsyncClient(address) as client:
        assert (await client.llm.model("none", load_policy="explicit")).identifier == "m"


# After the success ----------------------------------------------------------------------------------------------------


class _CallbackError(Exception):
    pass


def _fail_at_the_end(progress: float) -> None:
    if progress == 1.0:
        raise _CallbackError


def _fail(_progress: float) -> None:
    raise _CallbackError


@pytest.mark.filterwarnings("error::lmstudio_integrations.LMStudioConfigWarning")
@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"on_load_progress": _fail_at_the_end}, _CallbackError),
        ({"config": {"contextLength": 2**30}}, lms.LMStudioConfigWarning),
    ],
    ids=["callback", "warning"],
)
@pytest.mark.parametrize("policy", ["get_or_load", "explicit", "new_instance"])
async def test_an_instance_is_owned_although_its_load_ends_in_an_error(
    client: Any, server: Emulator, policy: Any, settings: dict[str, Any], error: type[Exception]
) -> None:
    handle = client.llm.lazy_model("chatty", load_policy=policy, **settings)
    with pytest.raises(error):
        await handle.count_tokens("Hi")
    assert len(server.loaded()) == (0 if policy == "new_instance" else 1)
    await handle.unload_if_loaded_here()
    assert server.loaded() == []


async def test_the_context_length_is_that_of_the_instance_and_not_of_its_config() -> None:
    config = [[result({"fields": [{"key": "llm.load.contextLength", "value": 32768}]})]]
    loaded = [packet({"type": "success", "info": {**FULL_INFO, "contextLength": 208_384}}), CLOSE]
    server = Server({"loadModel": [loaded], "getLoadConfig": config})
    async with fake_server(server) as address, lms.AsyncClient(address) as client:
        with pytest.warns(lms.LMStudioConfigWarning, match="requested 32768, actual 208384"):
            await client.llm.load_new_instance("m", config={"contextLength": 32768})


async def test_a_new_instance_whose_config_cannot_be_read_is_unloaded() -> None:
    server = Server(
        {
            "loadModel": [LOADED],
            "getLoadConfig": [[failed("rpcError", {"title": "no config today"})]],
            "unloadModel": [[failed("rpcError", {"title": "no unloads today"})], [result(None)]],
            "listLoaded": [[result([FULL_INFO])]],
        }
    )
    async with fake_server(server) as address, lms.AsyncClient(address) as client:
        handle = client.llm.lazy_model("m", load_policy="new_instance", config={"contextLength": 8})
        with pytest.raises(lms.LMStudioServerError, match="no config today"):
            await handle.count_tokens("Hi")
        assert [name for name, _ in server.parameters] == ["loadModel", "getLoadConfig", "unloadModel"]
        await handle.unload()
    assert [name for name, _ in server.parameters[3:]] == ["listLoaded", "unloadModel"]


async def test_a_new_instance_of_a_cancelled_call_is_unloaded() -> None:
    server = Server({"loadModel": [LOADED], "getLoadConfig": [[]], "unloadModel": [[]]})

    def received() -> list[str]:
        return [name for name, _ in server.parameters]

    async with fake_server(server) as address, lms.AsyncClient(address) as client:
        loading = asyncio.create_task(client.llm.load_new_instance("m", config={"contextLength": 8}))
        await wait_until(lambda: "getLoadConfig" in received())
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        await wait_until(lambda: "unloadModel" in received())


async def test_a_callback_that_fails_does_not_hide_a_success_of_the_same_batch() -> None:
    unloaded: list[Any] = []

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        load = await receive(socket)
        frames = [packet({"type": "startLoading"}), *LOADED]
        send_together(socket, [{**frame, "channelId": load["channelId"]} for frame in frames])
        unload = await asyncio.wait_for(receive(socket), 600)
        unloaded.append((unload["endpoint"], unload["parameter"]))
        await send(socket, {**result(None), "callId": unload["callId"]})

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        with pytest.raises(_CallbackError):
            await client.llm.load_new_instance("m", on_load_progress=_fail)
    assert unloaded == [("unloadModel", {"identifier": "m"})]


async def test_an_eviction_is_recorded_although_its_load_fails() -> None:
    evicting = packet({"type": "unloadingOtherJITModel", "info": INFO})
    server = Server(
        {
            "getOrLoad": [
                [packet({"type": "loadSuccess", "info": INFO}), CLOSE],
                [evicting, failed("channelError", NO_MEMORY)],
            ]
        }
    )
    async with fake_server(server) as address, lms.AsyncClient(address) as client:
        await client.llm.model("m")
        with (
            pytest.warns(lms.LMStudioEvictionWarning, match="loading 'n' evicted 'm'"),
            pytest.raises(lms.LMStudioInsufficientResourcesError),
        ):
            await client.llm.model("n")
