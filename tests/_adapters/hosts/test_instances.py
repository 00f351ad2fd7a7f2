"""One object of an adapter with several instances of a model on each host: how they are named, loaded and used."""

import asyncio
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import (
    LMStudioError,
    LMStudioModelLoadError,
    LMStudioModelNotFoundError,
    LMStudioUnreachableError,
)
from lmstudio_integrations.langchain import ChatLMStudio
from lmstudio_integrations.llama_index import LMStudio
from tests._adapters.hosts.servers import (
    CHAT,
    EMBEDDING,
    addresses,
    call,
    chat_model,
    embedding_model,
    handle_of,
    key_of,
    requests,
    running,
    servers,
)
from tests._adapters.hosts.test_calls import (
    PIXEL,
    SECONDS,
    both_paths,
    every_adapter,
    every_adapter_on_a_path,
    every_language_model_on_a_path,
)
from tests.support.adapters import Adapter
from tests.support.gate import Gate
from tests.support.ports import free_port

SECOND = f"{CHAT}:2"


@pytest.fixture
def server(gate: Gate) -> Iterator[Emulator]:
    with servers((chat_model(aliases=["short"]), embedding_model()), gate=gate) as (emulator,):
        yield emulator
        gate.open()


def load(path: str, model: Any) -> Any:
    return model.load() if path == "sync" else asyncio.run(model.aload())


def identifiers(server: Emulator) -> list[str]:
    return [info.identifier for info in server.loaded()]


# Loads ----------------------------------------------------------------------------------------------------------------


@every_adapter_on_a_path
def test_load_loads_all_instances_and_the_status_shows_each(adapter: Adapter, path: str, server: Emulator) -> None:
    key = key_of(adapter)
    model = adapter.make(model=key, host=server.address, instances=3, ttl=60)
    for _ in range(2):  # the second time, they are found
        load(path, model)
        assert identifiers(server) == [key, f"{key}:2", f"{key}:3"]
    assert {(record.mode, record.key) for record in server.loads} == {("explicit", key)}
    assert {info.ttl_ms for info in server.loaded()} == {60_000}
    statuses = model.hosts()
    assert [(each.host, each.identifier, each.loaded) for each in statuses] == [
        (server.address, identifier, True) for identifier in identifiers(server)
    ]
    assert call(adapter, path, pickle.loads(pickle.dumps(model)), "Hello")
    assert len(server.loads) == 3


@every_language_model_on_a_path
def test_calls_at_once_fill_the_slots_of_all_instances(
    adapter: Adapter, path: str, server: Emulator, gate: Gate
) -> None:
    model = adapter.make(model=CHAT, host=server.address, instances=2)
    load(path, model)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call, adapter, path, model, f"hold {number}") for number in range(4)]
        server.wait_for(lambda: running(server) == 4, SECONDS)
        assert sorted(each.model for each in server.predictions) == [CHAT, CHAT, SECOND, SECOND]
        assert [status.in_flight for status in model.hosts()] == [2, 2]
        gate.open()
        for each in calls:
            assert "Done." in str(each.result(SECONDS))


@every_language_model_on_a_path
def test_without_load_another_instance_is_loaded_when_all_slots_are_taken(
    adapter: Adapter, path: str, server: Emulator, gate: Gate
) -> None:
    model = adapter.make(model=CHAT, host=server.address, instances=2)
    assert call(adapter, path, model, "Hello")
    assert identifiers(server) == [CHAT]
    model.hosts()  # so that its two slots are known
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(call, adapter, path, model, "hold") for _ in range(3)]
        server.wait_for(lambda: SECOND in identifiers(server), SECONDS)
        gate.open()
        for each in calls:
            each.result(SECONDS)


def test_a_batch_fills_the_slots_of_all_instances(server: Emulator, gate: Gate) -> None:
    model = ChatLMStudio(model=CHAT, host=server.address, instances=2).load()
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(model.batch, ["hold"] * 6)
        server.wait_for(lambda: running(server) == 4, SECONDS)
        gate.open()
        assert len(batch.result(SECONDS)) == 6


@every_adapter_on_a_path
def test_each_host_has_all_instances(adapter: Adapter, path: str) -> None:
    models = (chat_model(), embedding_model())
    with servers(models, models) as pair:
        key = key_of(adapter)
        model = adapter.make(model=key, host=addresses(pair), instances=2, unload_on_close=True)
        load(path, model)
        assert [identifiers(server) for server in pair] == [[key, f"{key}:2"]] * 2
        places = [(status.host, status.identifier) for status in model.hosts()]
        assert places == [(host, identifier) for identifier in (key, f"{key}:2") for host in addresses(pair)]
        assert call(adapter, path, model, "Hello")
        pair[0].stop()
        assert call(adapter, path, model, "Hello")
        assert requests(pair[1])
        model.close()
        assert identifiers(pair[1]) == []


def test_only_what_was_loaded_here_is_unloaded(server: Emulator) -> None:
    server.load(CHAT)
    with ChatLMStudio(model=CHAT, host=server.address, instances=2, unload_on_close=True) as model:
        model.load()
        assert identifiers(server) == [CHAT, SECOND]
    assert identifiers(server) == [CHAT]


@pytest.mark.parametrize("gone", [[SECOND], [CHAT, SECOND]], ids=["one", "all"])
@pytest.mark.parametrize("is_used", [False, True])
def test_an_instance_that_others_have_unloaded_is_not_loaded_to_unload_it(
    server: Emulator, gone: list[str], is_used: bool
) -> None:
    loading = ChatLMStudio(model=CHAT, host=server.address, instances=2)
    model = loading.load() if is_used else ChatLMStudio(model=CHAT, host=server.address, instances=2)
    if not is_used:
        for identifier in (CHAT, SECOND):
            server.load(CHAT, identifier=identifier)
        model.hosts()
    for identifier in gone:
        server.unload(identifier)
    handle_of(model).unload()
    assert identifiers(server) == []
    assert len(server.loads) == 2


def test_an_instance_for_which_there_is_no_memory_is_left_out() -> None:
    with Emulator(
        [chat_model(rules=[{"when": {"load": True, "round": 2}, "then": [{"fault": "out_of_memory"}]}])]
    ) as server:
        model = ChatLMStudio(model=CHAT, host=server.address, instances=2)
        with pytest.raises(LMStudioError, match=r"several instances are loaded explicitly; set a smaller number"):
            model.load()
        assert [status.loaded for status in model.hosts()] == [True, False]
        model.batch(["Hello"] * 2)
        assert {each.model for each in server.predictions} == {CHAT}
        model.load()
        assert identifiers(server) == [CHAT, SECOND]


def test_a_host_that_cannot_load_the_instances_is_left_out() -> None:
    full = [{"when": {"load": True}, "then": [{"fault": "out_of_memory"}]}]
    with servers((chat_model(rules=full),), (chat_model(),)) as pair:
        model = ChatLMStudio(model=CHAT, host=addresses(pair), instances=2).load()
        assert [identifiers(server) for server in pair] == [[], [CHAT, SECOND]]
        assert "Hello" in model.invoke("Hello").text


def test_a_load_that_failed_is_tried_again_by_the_next_one() -> None:
    once = [{"when": {"load": True, "round": 2}, "then": [{"fault": "out_of_memory"}]}]
    with servers((chat_model(rules=once),)) as (server,):
        model = ChatLMStudio(model=CHAT, host=server.address, instances=2)
        with pytest.raises(LMStudioError):
            model.load()
        model.load()
        assert identifiers(server) == [CHAT, SECOND]


# Which instance -------------------------------------------------------------------------------------------------------


@every_language_model_on_a_path
def test_an_instance_is_never_taken_for_another_one(adapter: Adapter, path: str, server: Emulator) -> None:
    server.load(CHAT, identifier="mine")
    server.load(CHAT, identifier=SECOND)
    model = adapter.make(model=CHAT, host=server.address, instances=2)
    load(path, model)
    assert identifiers(server) == ["mine", SECOND, CHAT]
    call(adapter, path, model, "Hello")
    (used,) = {each.model for each in server.predictions}
    server.unload(used)  # its key now matches the other one
    for _ in range(2):
        call(adapter, path, model, "Hello")
    assert used in identifiers(server)
    assert {each.model for each in server.predictions} <= {CHAT, SECOND}
    assert len(server.loads) == 4


def test_other_names_of_a_model_mean_the_same_instances(server: Emulator) -> None:
    for name in (CHAT, CHAT.upper(), f"scripted/{CHAT}"):
        ChatLMStudio(model=name, host=server.address, instances=2).load()
        assert identifiers(server) == [CHAT, SECOND], name


def test_a_name_that_no_list_has_is_the_identifier_of_the_instances(server: Emulator) -> None:
    for _ in range(2):
        ChatLMStudio(model="short", host=server.address, instances=2).load()
        assert identifiers(server)[0] == "short"
        assert len(identifiers(server)) == 2


def test_the_first_instance_may_have_another_identifier(server: Emulator) -> None:
    server.load(CHAT, identifier="mine")
    ChatLMStudio(model="mine", host=server.address, instances=2).load()
    assert identifiers(server) == ["mine", SECOND]


def test_an_identifier_that_another_model_has_is_an_error(server: Emulator) -> None:
    server.load(EMBEDDING, identifier=SECOND)
    with pytest.raises(LMStudioModelLoadError, match=f"'{SECOND}' cannot be loaded explicitly.*'{EMBEDDING}'"):
        ChatLMStudio(model=CHAT, host=server.address, instances=2).load()


@pytest.mark.parametrize("make", [ChatLMStudio, LMStudio])
def test_instances_that_must_be_loaded_are_not_loaded(make: Any, server: Emulator, gate: Gate) -> None:
    server.load(CHAT, identifier=SECOND)
    model = make(model=CHAT, host=server.address, instances=3, load_policy="require_loaded")
    assert [status.loaded for status in model.hosts()] == [False, True, False]
    for _ in range(2):
        model.complete("Hello") if make is LMStudio else model.invoke("Hello")
    assert {each.model for each in server.predictions} == {SECOND}
    with pytest.raises(LMStudioModelNotFoundError, match=f"no instance '{CHAT}' is loaded"):
        model.load()
    assert identifiers(server) == [SECOND]


@both_paths
def test_a_conversation_stays_on_its_instance(path: str, server: Emulator) -> None:
    model = ChatLMStudio(model=CHAT, host=server.address, instances=2).load()
    turns: dict[str, list[Any]] = {name: [("user", f"I am {name}.")] for name in ("Ann", "Bob", "Cid", "Dan")}
    for _ in range(3):
        for name in sorted(turns, reverse=len(turns["Ann"]) > 1):
            invoke = model.invoke if path == "sync" else lambda messages: asyncio.run(model.ainvoke(messages))
            turns[name] += [invoke(turns[name]), ("user", "And then?")]
    used: dict[str, set[str]] = {name: set() for name in turns}
    for each in server.predictions:
        used[each.messages[0]["content"].removeprefix("I am ").rstrip(".")].add(each.model)
    assert all(len(places) == 1 for places in used.values())
    assert sorted(place for places in used.values() for place in places) == [CHAT, CHAT, SECOND, SECOND]


def test_instances_with_other_settings_are_a_warning(server: Emulator) -> None:
    ChatLMStudio(model=CHAT, host=server.address, context_length=1024).load()
    server.load(CHAT, identifier=SECOND)
    model = ChatLMStudio(model=CHAT, host=server.address, instances=2)
    host = server.address
    listed = rf"context_length \({host} \({CHAT}\): 1024, {host} \({SECOND}\): 4096\)"
    with pytest.warns(UserWarning, match=f"loaded differently: {listed}"):
        model.load()
    assert model.profile.get("max_input_tokens") == 1024


def test_a_file_that_was_uploaded_may_be_used_by_all_instances_of_its_host(server: Emulator) -> None:
    image = {"type": "image", "base64": PIXEL, "mime_type": "image/png"}
    model = ChatLMStudio(model=CHAT, host=server.address, instances=2).load()
    model.invoke([{"role": "user", "content": [image]}])
    assert len(server.predictions[0].images) == 1


# Errors ---------------------------------------------------------------------------------------------------------------


@every_adapter_on_a_path
def test_a_host_that_does_not_respond_fails_once_for_all_its_instances(adapter: Adapter, path: str) -> None:
    off = f"127.0.0.1:{free_port()}"
    model = adapter.make(model=key_of(adapter), host=off, instances=3)
    with pytest.raises(LMStudioUnreachableError) as caught:
        call(adapter, path, model, "Hello")
    assert str(caught.value).count(off) == 1
    assert [status.available for status in model.hosts()] == [False] * 3
    two = adapter.make(model=key_of(adapter), host=[off, "127.0.0.1:9"], instances=3)
    with pytest.raises(LMStudioUnreachableError, match="all 2 hosts failed"):
        call(adapter, path, two, "Hello")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"instances": 0}, "instances=0: "),
        ({"instances": True}, "instances=True: "),
        ({"instances": 2.5}, "instances=2.5: "),
        ({"instances": "many"}, "instances='many': "),
        ({"instances": 2, "model": None}, "instances=2 needs a model"),
        ({"instances": 2, "load_policy": "new_instance"}, "does not go with load_policy='new_instance'"),
    ],
)
@every_adapter
def test_what_cannot_work_is_one_error(adapter: Adapter, settings: dict[str, Any], text: str) -> None:
    fields = {"model": key_of(adapter), "host": "localhost:9"}
    if adapter.takes_settings:
        with pytest.raises(ValueError, match=text):
            getattr(adapter.make(**fields), adapter.method)("Hello", **settings)
    with pytest.raises(ValueError, match="instances" if "=2 " not in text else text):
        call(adapter, "sync", adapter.make(**{**fields, **settings}), "Hello")
