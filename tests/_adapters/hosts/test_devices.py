"""Devices of LM Link in the adapters: the field `device`, and devices of one server as hosts."""

import json
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lmstudio_integrations.client.concurrency.flows import run
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import LMStudioConfigWarning, LMStudioModelNotFoundError, LMStudioValueError
from lmstudio_integrations.langchain import ChatLMStudio
from tests._adapters.hosts.servers import (
    CHAT,
    SECONDS,
    call,
    chat_model,
    embedding_model,
    every_adapter_on_a_path,
    every_language_model_on_a_path,
    key_of,
    known,
    native_model_of,
    running,
)
from tests.support.adapters import ADAPTERS, Adapter
from tests.support.gate import Gate

pytestmark = pytest.mark.leaf("devices")

DEVICES = [{"name": "Studio", "identifier": "device-1"}, {"name": "Laptop", "identifier": "device-2"}]


@pytest.fixture
def server(gate: Gate) -> Iterator[Emulator]:
    catalog = {"model": [chat_model(slots=1), embedding_model()], "device": DEVICES}
    with Emulator(catalog=catalog, engines=gate.engines()) as emulator:
        yield emulator
        gate.open()


def places(server: Emulator) -> list[tuple[str, str | None]]:
    return [(info.identifier, info.device_identifier) for info in server.loaded()]


@every_adapter_on_a_path
def test_an_adapter_uses_the_device_that_it_names(adapter: Adapter, path: str, server: Emulator) -> None:
    key = key_of(adapter)
    server.load(key)
    model = adapter.make(model=key, host=server.address, device="Studio")
    assert call(adapter, path, pickle.loads(pickle.dumps(model)), "Hello")
    assert call(adapter, path, model, "Hello again")
    assert places(server) == [(key, None), (key, "device-1")]
    with pytest.raises(LMStudioModelNotFoundError, match="the device 'Desk' is not linked to this server"):
        call(adapter, path, adapter.make(model=key, host=server.address, device="Desk"), "Hello")


@pytest.mark.leaf("hosts")
def test_a_status_names_the_device(server: Emulator) -> None:
    model = ChatLMStudio(model=CHAT, host=server.address, device="Studio").load()
    (status,) = model.hosts()
    assert (status.host, status.device, status.loaded) == (server.address, "Studio", True)


@pytest.mark.leaf("hosts")
@every_language_model_on_a_path
def test_devices_of_one_server_are_hosts(adapter: Adapter, path: str, server: Emulator, gate: Gate) -> None:
    devices = {"local": None, "Studio": "device-1", "Laptop": "device-2"}
    model = adapter.make(model=CHAT, host=[(server.address, device) for device in devices])
    for device in devices:
        call(adapter, path, adapter.make(model=CHAT, host=server.address, device=device), "Hello")
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(call, adapter, path, model, "hold") for _ in devices]
        server.wait_for(lambda: running(server) == 3, SECONDS)
        statuses = model.hosts()
        assert [(each.host, each.device, each.in_flight) for each in statuses] == [
            (server.address, device, 1) for device in devices
        ]
        gate.open()
        for each in calls:
            assert "Done." in str(each.result(SECONDS))
    assert sorted(places(server), key=str) == sorted(((CHAT, each) for each in devices.values()), key=str)
    run(native_model_of(model).unload())
    assert places(server) == []


@pytest.mark.leaf("hosts")
@pytest.mark.parametrize("path", ["sync", "async"])
def test_a_device_that_goes_away_leaves_its_calls_to_the_others(path: str, server: Emulator) -> None:
    model = ChatLMStudio(model=CHAT, host=[(server.address, "Studio"), (server.address, "Laptop")])
    for _ in range(2):
        call(ADAPTERS["ChatLMStudio"], path, model, "Hello")
    ((_, first),) = places(server)
    lost, other = ("Studio", "Laptop") if first == "device-1" else ("Laptop", "Studio")
    server.disconnect_device(lost)
    call(ADAPTERS["ChatLMStudio"], path, model, "Hello")
    assert places(server) == [(CHAT, "device-2" if first == "device-1" else "device-1")]
    assert {each.device: each.loaded for each in model.hosts()} == {lost: False, other: True}


@pytest.mark.leaf("hosts")
def test_devices_with_different_contexts_are_named_and_the_smallest_counts(server: Emulator) -> None:
    for device, length in (("local", 4096), ("Studio", 2048)):
        ChatLMStudio(model=CHAT, host=server.address, device=device, context_length=length).load()
    model = ChatLMStudio(model=CHAT, host=[(server.address, "local"), (server.address, "Studio")])
    place = server.address
    text = rf"loaded differently: context_length \({place} \(local, chat\): 4096, {place} \(Studio, chat\): 2048\)"
    with pytest.warns(LMStudioConfigWarning, match=text):
        model.load()
    assert dict(model.profile)["max_input_tokens"] == 2048
    assert model.invoke("Hello").response_metadata["context_length"] == 4096
    assert dict(model.profile)["max_input_tokens"] == 2048


BAD_HOSTS: dict[str, tuple[Any, str]] = {
    "the same device twice": (
        [("a:1", "Studio"), ("http://a:1", "Studio")],
        r"hosts 'a:1' and 'http://a:1' are the same server and their device 'Studio' the same; name it once",
    ),
    "three parts": ([("a:1", "Studio", "x")], "a host must be an address, or a pair of an address and a device"),
    "no device": ([("a:1", " ")], "a host must be an address, or a pair of an address and a device"),
    "no address": ([("ftp://a", "Studio")], "ftp"),
}


@pytest.mark.parametrize("case", BAD_HOSTS)
def test_a_host_that_is_no_pair_is_rejected(case: str) -> None:
    host, text = BAD_HOSTS[case]
    with pytest.raises(LMStudioValueError, match=text):
        ChatLMStudio(model=CHAT, host=host)
    model = ChatLMStudio(model=CHAT)
    with pytest.raises(LMStudioValueError, match=text):
        model.host = host


@pytest.mark.leaf("hosts")
def test_a_server_and_a_device_of_it_are_two_hosts() -> None:
    model = ChatLMStudio(model=CHAT, host=["a:1", ("a:1", "Studio")], device="local")
    again = ChatLMStudio.model_validate(json.loads(json.dumps({"model": CHAT, "host": model.host, "device": "local"})))
    for each in (model, again):
        assert [(status.host, status.device) for status in known(each)] == [("a:1", "local"), ("a:1", "Studio")]


@every_adapter_on_a_path
def test_a_model_is_unloaded_on_the_device_that_it_is_used_on(adapter: Adapter, path: str, server: Emulator) -> None:
    key = key_of(adapter)
    server.load(key)
    model = adapter.make(model=key, host=server.address, device="Studio")
    model.unload()
    assert places(server) == [(key, None)]
    assert call(adapter, path, model, "Hello")
    model.unload()
    assert places(server) == [(key, None)]
