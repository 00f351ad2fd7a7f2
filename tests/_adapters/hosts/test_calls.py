"""One object of an adapter with several hosts: which host each call runs on, on every path of both frameworks."""

import asyncio
import base64
import contextlib
import gc
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any, cast

import pytest
from langchain_core.caches import InMemoryCache
from pydantic import SecretStr

from lmstudio_integrations import Client
from lmstudio_integrations._support import suggestions
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import (
    LMStudioAuthenticationError,
    LMStudioConnectionLostError,
    LMStudioError,
    LMStudioModelNotFoundError,
    LMStudioModelUnloadedError,
    LMStudioServerError,
    LMStudioUnreachableError,
)
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.hosts.servers import (
    CHAT,
    SECONDS,
    addresses,
    both_paths,
    call,
    chat_model,
    embedding_model,
    every_adapter,
    every_adapter_on_a_path,
    every_language_model_on_a_path,
    key_of,
    known,
    requests,
    running,
    servers,
    some_adapters_on_a_path,
    two_servers,
)
from tests.support.adapters import ADAPTERS, LANGUAGE_MODELS, Adapter, covering
from tests.support.gate import Gate
from tests.support.pauses import replace_pauses
from tests.support.ports import free_port
from tests.support.web import PIXEL

TOKENS = ["sk-lm-aaaaaaaa:aaaaaaaaaaaaaaaaaaaa", "sk-lm-bbbbbbbb:bbbbbbbbbbbbbbbbbbbb"]
pytestmark = pytest.mark.leaf("hosts")


@pytest.fixture
def pair(gate: Gate) -> Iterator[list[Emulator]]:
    with two_servers(gate) as emulators:
        yield emulators
        gate.open()


@every_adapter_on_a_path
def test_calls_one_after_the_other_stay_on_the_first_host(adapter: Adapter, path: str, pair: list[Emulator]) -> None:
    model = adapter.make(model=key_of(adapter), host=addresses(pair))
    model.hosts()  # otherwise the first call goes to the host that responds first
    for _ in range(3):
        assert call(adapter, path, model, "Hello")
    assert [requests(server) for server in pair] == [3, 0]


@every_adapter_on_a_path
def test_a_host_that_is_switched_off_is_avoided(adapter: Adapter, path: str, pair: list[Emulator]) -> None:
    off = f"127.0.0.1:{free_port()}"
    model = adapter.make(model=key_of(adapter), host=[off, pair[1].address])
    assert call(adapter, path, model, "Hello")
    first, second = model.hosts()
    assert (first.available, second.available) == (False, True)
    assert "nothing listens there" in first.error
    assert requests(pair[1]) == 1


@some_adapters_on_a_path
def test_the_environment_may_name_several_hosts(
    adapter: Adapter, path: str, pair: list[Emulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMSTUDIO_HOST", f"127.0.0.1:{free_port()}, {pair[1].address}")
    assert call(adapter, path, adapter.make(model=key_of(adapter)), "Hello")
    assert requests(pair[1]) == 1


@every_language_model_on_a_path
def test_calls_at_once_fill_the_slots_of_all_hosts(
    adapter: Adapter, path: str, pair: list[Emulator], gate: Gate
) -> None:
    model = adapter.make(model=CHAT, host=addresses(pair))
    call(adapter, path, model, "Hello")  # so that the hosts are known
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call, adapter, path, model, f"hold {number}") for number in range(4)]
        for server in pair:
            server.wait_for(lambda server=server: running(server) == 2, SECONDS)  # type: ignore[misc]  # bound now
        assert [status.in_flight for status in model.hosts()] == [2, 2]
        gate.open()
        for each in calls:
            assert "Done." in str(each.result(SECONDS))
    assert [status.in_flight for status in model.hosts()] == [0, 0]


@every_language_model_on_a_path
def test_a_call_of_which_nothing_was_seen_moves_when_its_host_is_lost(
    adapter: Adapter, path: str, pair: list[Emulator], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    replace_pauses(monkeypatch, pauses.append)
    model = adapter.make(model=CHAT, host=addresses(pair))
    model.hosts()
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(call, adapter, path, model, "stall")
        pair[0].wait_for(lambda: running(pair[0]) == 1, SECONDS)
        pair[0].stop()
        gate.open()  # for the second host
        assert "Done." in str(pending.result(SECONDS))
    assert not any(pauses), "the other host is free"
    assert [each.state for each in pair[1].predictions] == ["ended"]
    assert call(adapter, path, model, "Hello")
    assert len(pair[1].predictions) == 2


def test_a_stream_that_has_begun_never_moves(pair: list[Emulator]) -> None:
    model = ChatLMStudio(model=CHAT, host=addresses(pair))
    stream = model.stream("stall")
    assert next(stream).content == "so"
    begun, other = sorted(pair, key=requests, reverse=True)
    begun.stop()
    with pytest.raises(LMStudioConnectionLostError):
        list(stream)
    assert requests(other) == 0


@some_adapters_on_a_path
def test_the_error_names_every_host_and_its_reason(adapter: Adapter, path: str) -> None:
    with servers((chat_model(key="other"),)) as (server,):
        on, off = server.address, f"127.0.0.1:{free_port()}"
        model = adapter.make(model=key_of(adapter), host=[off, on])
        with pytest.raises(LMStudioModelNotFoundError) as caught:
            call(adapter, path, model, "Hello")
    first, *of_hosts = str(caught.value).splitlines()
    of_on, of_off = sorted(of_hosts, key=lambda line: "is not reachable" in line)
    assert first == "all 2 hosts failed:"
    assert of_off.startswith(f"  {off}: LM Studio is not reachable")
    assert "nothing listens there" in of_off
    assert of_on.startswith(f"  {on}: ")


@pytest.mark.parametrize("in_container", [False, True])
def test_what_helps_several_hosts_is_said_once(monkeypatch: pytest.MonkeyPatch, in_container: bool) -> None:
    monkeypatch.setattr(suggestions, "IN_CONTAINER", in_container)
    hosts = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    with pytest.raises(LMStudioUnreachableError) as caught:
        ChatLMStudio(model=CHAT, host=hosts).invoke("Hello")
    _, *of_hosts, remedy = str(caught.value).splitlines()
    assert of_hosts == [
        f"  {host}: LM Studio is not reachable at ws://{host}: nothing listens there (Connection refused)"
        for host in hosts
    ]
    assert remedy.startswith("  suggestion: switch its server on")
    assert remedy.count("this is a container") == in_container


def test_an_error_of_the_request_is_not_repeated_elsewhere(pair: list[Emulator]) -> None:
    model = ChatLMStudio(model=CHAT, host=addresses(pair))
    with pytest.raises(LMStudioServerError, match="context"):
        model.invoke("word " * 50_000)
    assert sum(map(requests, pair)) == 1


@some_adapters_on_a_path
def test_a_host_comes_back_when_it_responds_again(adapter: Adapter, path: str, pair: list[Emulator]) -> None:
    port = free_port()
    model = adapter.make(model=key_of(adapter), host=[f"127.0.0.1:{port}", pair[0].address])
    assert call(adapter, path, model, "Hello")
    assert requests(pair[0]) == 1
    with Emulator((chat_model(preload=True), embedding_model(preload=True)), port=port) as server:
        assert [status.available for status in model.hosts()] == [True, True]
        assert call(adapter, path, model, "Hello")
        assert not requests(server), "a host that has failed comes last among equals"
        pair[0].stop()
        assert call(adapter, path, model, "Hello")
        assert requests(server) == 1


@every_adapter
def test_the_status_of_one_host_is_known_too(adapter: Adapter, pair: list[Emulator]) -> None:
    for model in (key_of(adapter), None):
        (status,) = adapter.make(model=model, host=pair[0].address).hosts()
        assert (status.host, status.available, status.loaded) == (pair[0].address, True, True)
    (status,) = adapter.make(model="absent", host=pair[0].address).hosts()
    assert (status.available, status.loaded, status.downloaded) == (True, False, False)


# Loads ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adapter", "path", "policy"),
    [
        *((each, path, None) for each, path in zip(LANGUAGE_MODELS.values(), cycle(["async", "sync"]), strict=False)),
        (ADAPTERS["ChatLMStudio"], "async", "new_instance"),
    ],
)
def test_when_all_slots_are_taken_the_model_is_loaded_on_another_host(
    adapter: Adapter, path: str, policy: str | None, gate: Gate
) -> None:
    with servers((chat_model(slots=1, preload=policy is None),), (chat_model(slots=1),), gate=gate) as (first, second):
        settings = {} if policy is None else {"load_policy": policy}
        model = adapter.make(model=CHAT, host=addresses([first, second]), **settings)
        if policy is not None:
            call(adapter, path, model, "Hello")
            model.hosts()  # so that its one slot is known
        before = len(first.predictions)
        with ThreadPoolExecutor(3) as pool:
            calls = [pool.submit(call, adapter, path, model, "hold") for _ in range(2)]
            first.wait_for(lambda: len(first.predictions) == before + 2, SECONDS)
            second.wait_for(lambda: bool(second.loaded()), SECONDS)
            assert [status.loaded for status in model.hosts()] == [True, True]
            calls.append(pool.submit(call, adapter, path, model, "hold"))
            second.wait_for(lambda: running(second) == 1, SECONDS)
            gate.open()
            for each in calls:
                each.result(SECONDS)
        assert len(second.loads) == 1


def test_a_model_that_must_be_loaded_is_loaded_nowhere(gate: Gate) -> None:
    with servers((chat_model(slots=1, preload=True),), (chat_model(slots=1),), gate=gate) as (first, second):
        model = ChatLMStudio(model=CHAT, host=addresses([first, second]), load_policy="require_loaded")
        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(model.invoke, "hold") for _ in range(2)]
            first.wait_for(lambda: len(first.predictions) == 2, SECONDS)
            gate.open()
            for each in calls:
                each.result(SECONDS)
        assert not second.loads


@some_adapters_on_a_path
def test_a_model_that_is_loaded_nowhere_is_loaded_where_it_is_downloaded(adapter: Adapter, path: str) -> None:
    with servers((chat_model(key="other"),), (chat_model(), embedding_model())) as (first, second):
        assert call(adapter, path, adapter.make(model=key_of(adapter), host=addresses([first, second])), "Hello")
        assert not first.loads
        assert len(second.loads) == 1


def test_a_host_whose_load_failed_is_avoided_and_the_call_moves(gate: Gate) -> None:
    broken = chat_model(rules=[{"when": {"load": True}, "then": [{"fault": "out_of_memory"}]}])
    with servers((broken,), (chat_model(),)) as (first, second):
        model = ChatLMStudio(model=CHAT, host=addresses([first, second]))
        assert model.invoke("Hello").response_metadata["host"] == second.address
        assert model.invoke("Hello").response_metadata["host"] == second.address
        assert len(first.loads) == 1


# What is the same on all hosts ----------------------------------------------------------------------------------------


def test_each_host_gets_its_own_token() -> None:
    models = (chat_model(preload=True),)
    with (
        Emulator(models, tokens=TOKENS[:1]) as first,
        Emulator(models, tokens=TOKENS[1:]) as second,
    ):
        hosts = addresses([first, second])
        model = ChatLMStudio(model=CHAT, host=hosts, api_token=cast("Any", dict(zip(hosts, TOKENS, strict=True))))
        assert [status.error for status in model.hosts()] == [None, None]
        assert model.invoke("Hello").content
        both = ChatLMStudio(model=CHAT, host=hosts, api_token=SecretStr(TOKENS[1]))
        assert both.invoke("Hello").response_metadata["host"] == second.address
        assert [status.available for status in both.hosts()] == [False, True]
        assert [status.available for status in known(model)] == [True, True]
        with pytest.raises(LMStudioAuthenticationError):
            ChatLMStudio(model=CHAT, host=first.address, api_token=SecretStr(TOKENS[1])).invoke("Hello")


WRONG: dict[str, dict[str, Any]] = {
    "must name at least one server": {"host": []},
    "are the same server": {"host": ["a:1", "ws://a:1"]},
    "is not an address": {"host": ["a:1", "b:1:2"]},
    "several hosts need a model": {"host": ["a:1", "b:1"], "model": None},
    "'c:1'": {"host": ["a:1", "b:1"], "api_token": {"c:1": "x"}},
    "must be a string": {"host": ["a:1", "b:1"], "api_token": {"a:1": 7}},
    "must hold no credentials": {"host": ["user:secret@a:1", "b:1"]},
}
"""Settings by the error."""


@pytest.mark.parametrize(("name", "text"), [*covering(ADAPTERS, WRONG)])
def test_a_wrong_list_of_hosts_is_one_error(name: str, text: str) -> None:
    adapter = ADAPTERS[name]
    with pytest.raises(ValueError, match=text) as caught:
        call(adapter, "sync", adapter.make(**{"model": key_of(adapter), **WRONG[text]}), "Hello")
    assert "secret" not in str(caught.value)


IMAGE = [
    {
        "role": "user",
        "content": [{"type": "image", "base64": base64.b64encode(PIXEL).decode(), "mime_type": "image/png"}],
    }
]


def test_an_image_is_uploaded_to_the_host_that_responds(pair: list[Emulator]) -> None:
    off = f"127.0.0.1:{free_port()}"
    model = ChatLMStudio(model=CHAT, host=[off, pair[1].address])
    assert model.invoke(IMAGE).response_metadata["host"] == pair[1].address
    assert len(pair[1].predictions[0].images) == 1


def test_a_file_that_was_uploaded_pins_its_host(pair: list[Emulator]) -> None:
    with Client(pair[1].address) as client:
        handle = client.prepare_image(PIXEL)
        model = ChatLMStudio(model=CHAT, host=addresses(pair))
        message = {"role": "user", "content": [{"type": "text", "text": "What is this?"}, handle.to_dict()]}
        assert model.invoke([message]).response_metadata["host"] == pair[1].address


def test_the_context_window_is_the_smallest_of_the_loaded_instances() -> None:
    models = [(chat_model(preload=True, context_length=length),) for length in (4096, 2048)]
    with servers(*models) as pair:
        settings: dict[str, Any] = {"model": CHAT, "host": addresses(pair), "on_config_mismatch": "ignore"}
        chat, llm = ChatLMStudio(**settings).load(), LMStudio(**settings).load()
        assert (dict(chat.profile)["max_input_tokens"], llm.metadata.context_window) == (2048, 2048)
        assert chat.invoke("Hello").response_metadata["context_length"] == 4096
        llm.complete("Hello")
        assert (dict(chat.profile)["max_input_tokens"], llm.metadata.context_window) == (2048, 2048)


@some_adapters_on_a_path
def test_different_files_on_the_hosts_are_a_warning(adapter: Adapter, path: str) -> None:
    models = [
        (chat_model(preload=True, quantization=bits), embedding_model(preload=True, quantization=bits))
        for bits in (("Q4_K_M", 4), ("Q8_0", 8))
    ]
    with servers(*models) as pair:
        model = adapter.make(model=key_of(adapter), host=addresses(pair))
        model.hosts()
        with pytest.warns(UserWarning, match="loaded differently: quantization"):
            call(adapter, path, model, "Hello")
        call(adapter, path, model, "Hello")  # a second warning would be an error
        strict = adapter.make(model=key_of(adapter), host=addresses(pair), on_config_mismatch="raise")
        strict.hosts()
        with pytest.raises(LMStudioError, match="Q8_0"):
            call(adapter, path, strict, "Hello")
        call(adapter, path, adapter.make(model=key_of(adapter), host=addresses(pair), on_config_mismatch="ignore"), "x")


def test_a_cache_has_the_response_whatever_the_order_of_the_hosts(pair: list[Emulator]) -> None:
    first, second = addresses(pair)
    cache = InMemoryCache()
    for hosts in ([first, second], [f"http://{second}/v1", first], f"{second},{first}", [first, second]):
        ChatLMStudio(model=CHAT, host=hosts, cache=cache).invoke("Hello")
    assert sum(map(requests, pair)) == 1
    ChatLMStudio(model=CHAT, host=first, cache=cache).invoke("Hello")
    assert sum(map(requests, pair)) == 2


# Slots ----------------------------------------------------------------------------------------------------------------


@both_paths
def test_a_batch_runs_as_many_calls_at_once_as_all_hosts(path: str, pair: list[Emulator], gate: Gate) -> None:
    model = ChatLMStudio(model=CHAT, host=addresses(pair))
    model.hosts()
    with ThreadPoolExecutor(1) as pool:
        texts = [f"hold {number}" for number in range(10)]
        batch = pool.submit(model.batch, texts) if path == "sync" else pool.submit(asyncio.run, model.abatch(texts))
        for server in pair:
            server.wait_for(lambda server=server: running(server) == 2, SECONDS)  # type: ignore[misc]  # bound now
        assert [len(server.predictions) for server in pair] == [2, 2]
        gate.open()
        found = Counter(each.response_metadata["host"] for each in batch.result(SECONDS))
    assert sum(found.values()) == 10
    assert set(found) == set(addresses(pair))


def test_closing_a_stream_frees_its_slot(pair: list[Emulator]) -> None:
    model = ChatLMStudio(model=CHAT, host=addresses(pair))
    model.hosts()
    with contextlib.closing(cast("Generator[Any]", model.stream("stall"))) as stream:
        next(stream)
        assert model.hosts()[0].in_flight == 1
    assert model.hosts()[0].in_flight == 0


def test_a_stream_whose_second_prediction_fails_frees_its_slot() -> None:
    no_grammar = {"when": {"structured": True}, "then": [{"error": "no such grammar"}]}
    rules = (no_grammar, {"when": {"last": "Hello"}, "then": [{"text": "Sunny."}]})
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    models = (chat_model(preload=True, rules=rules),)
    with servers(models, models) as emulators:
        model = ChatLMStudio(model=CHAT, host=addresses(emulators))
        model.hosts()
        counts = list[list[int]]()
        for _ in model.bind_tools([tool], tool_choice="any").stream("Hello"):
            counts.append([status.in_flight for status in known(model)])
        assert sum(map(requests, emulators)) == 2
    assert counts[0] == [1, 0]
    assert counts[-1] == [0, 0]


@pytest.mark.parametrize(
    "stream",
    [
        lambda host: ChatLMStudio(model=CHAT, host=host).stream("Hello"),
        lambda host: LMStudio(model=CHAT, host=host).stream_complete("Hello"),
    ],
    ids=["LangChain", "LlamaIndex"],
)
def test_a_stream_that_fails_in_its_last_batch_frees_its_slot(stream: Callable[[Any], Iterator[Any]]) -> None:
    slow = {"tokens_per_second": 50, "rules": ({"then": [{"text": "on and on " * 1000}]},)}
    models = (chat_model(preload=True, **slow),)
    with servers(models, models) as emulators:
        model = ChatLMStudio(model=CHAT, host=addresses(emulators))
        model.hosts()
        reading = stream(addresses(emulators))
        next(reading)
        server, (prediction,) = emulators[0], emulators[0].predictions
        server.wait_for(lambda: server.predictions[0].fragments > prediction.fragments + 10)
        server.unload(CHAT)
        server.wait_for(lambda: not running(server))
        with pytest.raises(LMStudioModelUnloadedError):
            list(reading)
        assert [status.in_flight for status in known(model)] == [0, 0]


@pytest.mark.slow
def test_a_stream_that_is_collected_frees_its_slot(pair: list[Emulator]) -> None:
    llm = LMStudio(model=CHAT, host=addresses(pair))
    llm.hosts()
    stream = llm.stream_complete("stall")
    next(stream)
    assert llm.hosts()[0].in_flight == 1
    del stream
    gc.collect()
    assert llm.hosts()[0].in_flight == 0


async def test_a_cancelled_task_frees_its_slot(pair: list[Emulator]) -> None:
    model = ChatLMStudio(model=CHAT, host=addresses(pair))
    await model.ahosts()
    task = asyncio.create_task(model.ainvoke("hold"))
    await asyncio.to_thread(pair[0].wait_for, lambda: running(pair[0]) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [status.in_flight for status in await model.ahosts()] == [0, 0]


@every_adapter_on_a_path
def test_a_model_is_unloaded_on_each_host_and_loaded_again(adapter: Adapter, path: str, pair: list[Emulator]) -> None:
    first, second = pair
    second.unload(key_of(adapter))
    model = adapter.make(model=key_of(adapter), host=addresses(pair))
    for _ in range(2):
        asyncio.run(model.aunload()) if path == "async" else model.unload()
        assert not [info for server in pair for info in server.loaded() if info.identifier == key_of(adapter)]
    assert [status.loaded for status in known(model)] == [False, False]
    assert call(adapter, path, model, "Hello")
    assert [len(server.loads) for server in pair] == [3, 2], "two each at the beginning"
    first.stop()
    with pytest.raises(LMStudioError):
        model.unload()
    assert key_of(adapter) not in [info.identifier for info in second.loaded()]
