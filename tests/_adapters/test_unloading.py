"""Adapters whose model is unloaded under them, and adapters that unload it; both frameworks, sync and async."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from langchain_core.exceptions import ModelAPIError, ModelError

from lmstudio_integrations import (
    LMStudioEngineLostError,
    LMStudioModelNotFoundError,
    LMStudioModelUnloadedError,
    LMStudioProtocolError,
    LMStudioValueError,
)
from lmstudio_integrations.client.models import model
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.ways import said
from tests.faults.actions import replace
from tests.faults.proxy import Injection, Proxy, ProxyThread
from tests.support.adapters import ADAPTERS, DECIDES, EMBEDDING_MODELS, LANGUAGE_MODELS, covering
from tests.support.gate import AT_THE_GATE, Gate

SLOWLY: dict[str, Any] = {"when": {}, "then": [{"text": "so "}, AT_THE_GATE, {"text": "slow"}]}
MODELS = (
    ModelEntry(key="chatty", rules=(DECIDES, SLOWLY)),
    ModelEntry(key="vectors", kind="embedding", embedding_length=8),
)


def _key(name: str) -> str:
    return "vectors" if name in EMBEDDING_MODELS else "chatty"


@pytest.fixture
def server(gate: Gate) -> Iterator[Emulator]:
    """A scripted server."""
    with Emulator(MODELS, engines=gate.engines()) as running:
        yield running


WAYS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "ChatLMStudio.ainvoke": (ChatLMStudio, lambda llm: llm.ainvoke("Hi")),
    "ChatLMStudio.abatch": (ChatLMStudio, lambda llm: llm.abatch(["Hi"])),
    "LMStudioLLM.ainvoke": (LMStudioLLM, lambda llm: llm.ainvoke("Hi")),
    "LMStudio.chat": (LMStudio, lambda llm: asyncio.to_thread(llm.chat, said("Hi"))),
    "LMStudio.acomplete": (LMStudio, lambda llm: llm.acomplete("Hi")),
}


@pytest.mark.parametrize(("name", "identifier"), covering(ADAPTERS, ["odd", "\0"]))
def test_an_odd_identifier_in_one_reply_to_a_load_breaks_no_later_call(name: str, identifier: str) -> None:
    adapter = ADAPTERS[name]

    def odd(message: dict[str, Any]) -> dict[str, Any]:
        packet = message["message"]
        return {**message, "message": {**packet, "info": {**packet["info"], "identifier": identifier}}}

    models = [ModelEntry(key="chatty", rules=(DECIDES,)), MODELS[1]]
    with Emulator(models) as server, ProxyThread() as thread:
        with Proxy(thread, server.address, [Injection("load last packet", replace(odd))]) as proxy:
            model = adapter.make(model=_key(name), host=proxy.address)
            with nullcontext() if identifier == "odd" else pytest.raises(LMStudioProtocolError, match="identifier"):
                adapter.call(model, "Hi")
            for _ in range(2):
                assert adapter.call(model, "Hi") is not None
        assert [info.identifier for info in server.loaded()] == [_key(name)]
        assert len(server.loads) == 1


async def _unloaded_while_generating(server: Emulator, gate: Gate, call: Awaitable[Any]) -> Any:
    running = asyncio.ensure_future(call)
    await asyncio.to_thread(server.wait_for, lambda: any(record.fragments for record in server.predictions))
    server.unload("chatty")
    gate.open()
    return await running


@pytest.mark.parametrize("name", WAYS)
async def test_without_a_name_another_loaded_model_responds_after_the_first_was_unloaded(name: str) -> None:
    make, call = WAYS[name]
    with Emulator([ModelEntry(key="first"), ModelEntry(key="second")], load=["first"]) as server:
        llm = make(host=server.address)
        await call(llm)
        server.unload("first")
        with pytest.raises(LMStudioModelNotFoundError, match="name a model, which is then loaded on first use"):
            await call(llm)
        server.load("second")
        await call(llm)
        assert [record.model for record in server.predictions] == ["first", "second"]


@pytest.mark.parametrize("name", EMBEDDING_MODELS)
async def test_without_a_name_no_vectors_come_from_another_model(name: str) -> None:
    adapter = EMBEDDING_MODELS[name]
    models = [ModelEntry(key=key, kind="embedding") for key in ("first", "second")]
    with Emulator(models, load=["first"]) as server:
        embeddings = adapter.make(host=server.address)
        await adapter.acall(embeddings, "Hi")
        server.unload("first")
        server.load("second")
        with pytest.raises(LMStudioModelUnloadedError, match="'first' was unloaded"):
            await adapter.acall(embeddings, "Hi")
        server.load("first")
        await adapter.acall(embeddings, "Hi")


@pytest.mark.parametrize("name", WAYS)
async def test_a_response_whose_progress_was_reported_is_not_retried(server: Emulator, gate: Gate, name: str) -> None:
    make, call = WAYS[name]
    llm = make(model="chatty", host=server.address, on_prompt_progress=lambda _progress: None)
    with pytest.raises(LMStudioModelUnloadedError, match="'chatty' was unloaded") as caught:
        await _unloaded_while_generating(server, gate, call(llm))
    assert len(server.predictions) == 1
    assert not isinstance(caught.value, ModelError) or caught.value.is_retryable  # by whoever has shown the progress


@pytest.mark.parametrize(
    ("name", "mode"), [*((n, "explicit") for n in EMBEDDING_MODELS), *((n, "just_in_time") for n in LANGUAGE_MODELS)]
)
def test_embedding_models_are_loaded_explicitly_and_language_models_just_in_time(
    server: Emulator, gate: Gate, name: str, mode: str
) -> None:
    gate.open()
    adapter = ADAPTERS[name]
    with adapter.make(model=_key(name), host=server.address) as model:
        adapter.call(model, "Hi")
    assert [(load.mode, load.state) for load in server.loads] == [(mode, "loaded")]


DEAD = "Engine protocol predict request failed: fetch failed"


@pytest.mark.parametrize(
    ("steps", "policy", "attempts"),
    [
        ([{"error": DEAD}], "get_or_load", 4),
        ([{"error": DEAD}], "require_loaded", 1),
        ([{"text": "so "}, {"error": "terminated"}], "get_or_load", 4),
    ],
)
@pytest.mark.parametrize("name", WAYS)
async def test_a_model_whose_engine_has_died_is_asked_for_again_where_nothing_was_delivered(
    monkeypatch: pytest.MonkeyPatch, name: str, steps: list[dict[str, Any]], policy: str, attempts: int
) -> None:
    monkeypatch.setattr(model, "RELOAD_DELAYS", (0.0, 0.0, 0.0))
    make, call = WAYS[name]
    with Emulator([ModelEntry(key="chatty", rules=({"then": steps},))], load=["chatty"]) as server:
        with pytest.raises(LMStudioEngineLostError, match="restart LM Studio or update its runtimes") as caught:
            await call(make(model="chatty", host=server.address, load_policy=policy))
        assert len(server.predictions) == attempts
    assert caught.value.retryable is (policy != "require_loaded")
    assert isinstance(caught.value, ModelAPIError) is (make is not LMStudio)


POLICIES = ["explicit", "get_or_load", "new_instance"]


@pytest.mark.parametrize("aclose", [False, True])
@pytest.mark.parametrize(("name", "policy"), covering(ADAPTERS, POLICIES))
async def test_closing_unloads_what_the_object_loaded(
    server: Emulator, gate: Gate, name: str, aclose: bool, policy: str
) -> None:
    gate.open()
    adapter = ADAPTERS[name]
    key = _key(name)
    model = adapter.make(model=key, host=server.address, load_policy=policy, unload_on_close=True)
    for _ in range(2):
        await asyncio.to_thread(adapter.call, model, "Hi")
        assert len(server.loaded()) == 1
        if aclose:
            await model.aclose()
        else:
            await asyncio.to_thread(model.close)
        assert server.loaded() == []


@pytest.mark.parametrize("policy", POLICIES)
def test_closing_unloads_a_model_although_the_callback_of_its_load_failed(
    server: Emulator, gate: Gate, policy: str
) -> None:
    def fail_at_the_end(progress: float) -> None:
        if progress == 1.0:
            raise KeyError("the bar is full")

    gate.open()
    given: dict[str, Any] = {"load_policy": policy, "on_load_progress": fail_at_the_end, "unload_on_close": True}
    model = LMStudioEmbeddings(model="vectors", host=server.address, **given)
    with model, pytest.raises(KeyError, match="bar is full"):
        model.embed_query("Hi")
    assert server.loaded() == []


@pytest.mark.parametrize("name", ADAPTERS)
def test_closing_unloads_no_model_that_was_already_loaded(server: Emulator, gate: Gate, name: str) -> None:
    gate.open()
    adapter = ADAPTERS[name]
    key = _key(name)
    server.load(key)
    with adapter.make(model=key, host=server.address, unload_on_close=True) as model:
        adapter.call(model, "Hi")
    with adapter.make(model=key, host=server.address, unload_on_close=True, load_policy="explicit") as model:
        adapter.call(model, "Hi")
    assert len(server.loaded()) == 1


@pytest.mark.parametrize("aclose", [False, True])
async def test_closing_closes_the_connections_although_the_unload_is_interrupted(
    server: Emulator, aclose: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    model = LMStudioEmbeddings(model="vectors", host=server.address, unload_on_close=True)
    await model.aembed_query("Hi")
    assert server.connections
    monkeypatch.setattr("lmstudio_integrations.client.transport.connections.LINGER", 0.0)
    monkeypatch.setattr("lmstudio_integrations.client.models.model.Model.unload_if_loaded_here", interrupt)
    with pytest.raises(KeyboardInterrupt):
        await model.aclose() if aclose else model.close()
    await asyncio.to_thread(server.wait_for, lambda: not server.connections)


async def test_a_model_that_cannot_be_unloaded_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with Emulator(MODELS) as server:
        model = LMStudioEmbeddings(model="vectors", host=server.address, unload_on_close=True)
        await model.aembed_query("Hi")
        other = LMStudioEmbeddings(
            model="vectors", host=server.address, load_policy="new_instance", unload_on_close=True
        )
        other.embed_query("Hi")
    other.close()
    await model.aclose()
    assert caplog.text.count("could not be unloaded") == 2


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_what_concerns_the_object_alone_is_no_argument_of_a_call(server: Emulator, name: str) -> None:
    adapter = ADAPTERS[name]
    llm = adapter.make(model="chatty", host=server.address)
    with pytest.raises(LMStudioValueError, match="unload_on_close"):
        adapter.call(llm, "Hi", unload_on_close=True)


# Unloading at once ----------------------------------------------------------------------------------------------------


async def _unload(model: Any, *, is_async: bool) -> None:
    await (model.aunload() if is_async else asyncio.to_thread(model.unload))


CASES = [
    pytest.param(name, policy, marks=pytest.mark.leaf if policy == "fit" else ())
    for name, policy in covering(ADAPTERS, [*POLICIES, "fit", "require_loaded"])
]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("name", "policy"), CASES)
async def test_an_object_unloads_its_model_whoever_loaded_it(
    server: Emulator, gate: Gate, name: str, policy: str, is_async: bool
) -> None:
    gate.open()
    adapter, key = ADAPTERS[name], _key(name)
    model = adapter.make(model=key, host=server.address, load_policy=policy)
    await _unload(model, is_async=is_async)  # nothing is loaded
    server.load(key)
    for _ in range(2):
        await asyncio.to_thread(adapter.call, model, "Hi")
        await _unload(model, is_async=is_async)
        left = server.loaded()
        assert [info.identifier for info in left] == ([key] if policy == "new_instance" else [])
        if policy == "require_loaded":
            server.load(key)
    assert {load.mode for load in server.loads} <= {"explicit", "just_in_time"}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_object_that_has_not_called_yet_unloads_the_model_that_it_names(server: Emulator, name: str) -> None:
    adapter, key = ADAPTERS[name], _key(name)
    server.load(key)
    adapter.make(host=server.address).unload()
    assert len(server.loaded()) == 1, "which one it would use is not known"
    adapter.make(model=key, host=server.address).unload()
    assert server.loaded() == []


@pytest.mark.parametrize("name", ADAPTERS)
def test_without_a_name_the_model_of_the_last_call_is_unloaded(server: Emulator, gate: Gate, name: str) -> None:
    gate.open()
    adapter, key = ADAPTERS[name], _key(name)
    server.load(key)
    server.load(key, identifier="other")
    model = adapter.make(host=server.address)
    adapter.call(model, "Hi")
    model.unload()
    assert len(server.loaded()) == 1


def test_an_unload_fails_if_the_server_does() -> None:
    with Emulator(MODELS) as server:
        model = ChatLMStudio(model="chatty", host=server.address)
    with pytest.raises(ModelError):
        model.unload()
