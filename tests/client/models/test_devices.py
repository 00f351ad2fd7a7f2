"""Devices of LM Link: where a model is loaded, looked up, estimated and unloaded."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from tests.faults.actions import Message, replace
from tests.faults.proxy import ALWAYS, Injection, Proxy, ProxyThread
from tests.support.virtual_time import in_virtual_time, serving

pytestmark = pytest.mark.leaf("devices")

STUDIO = {"name": "Studio", "identifier": "device-1", "memory_gib": 64}
CATALOG = {
    "model": [
        {"key": "chatty"},
        {"key": "vectors", "kind": "embedding", "embedding_length": 8},
        {"key": "far", "downloaded": False},
    ],
    "device": [STUDIO, {"name": "Laptop", "identifier": "device-2", "models": ["chatty"]}],
}


@pytest.fixture
async def server() -> AsyncIterator[Emulator]:
    with Emulator(catalog=CATALOG) as running:
        yield running


def instances(server: Emulator) -> list[tuple[str, str | None]]:
    return [(info.identifier, info.device_identifier) for info in server.loaded()]


DEVICES = {"local": None, "Studio": "device-1", "device-2": "device-2"}


@pytest.mark.leaf
@pytest.mark.parametrize(
    ("device", "policy"),
    [
        ("local", "get_or_load"),
        ("Studio", "get_or_load"),
        ("local", "explicit"),
        ("device-2", "explicit"),
        ("Studio", "fit"),
        ("Studio", "new_instance"),
    ],
)
async def test_a_model_is_loaded_and_used_on_the_device_of_the_handle(
    client: Any, server: Emulator, device: str, policy: Any
) -> None:
    for other in {"local", "device-1", "device-2"} - {device, DEVICES[device]}:
        await client.llm.model("chatty", device=other, load_policy="explicit")
    model = client.llm.lazy_model("chatty", device=device, load_policy=policy)
    result = await model.respond("Hi")
    assert result.model_info.device_identifier == DEVICES[device]
    assert await model.count_tokens("a b") == 2
    assert (await model.get_info()).device_identifier == DEVICES[device]
    assert sorted(instances(server), key=str) == sorted((("chatty", each) for each in {*DEVICES.values()}), key=str)
    await model.unload()
    assert {each for _, each in instances(server)} == {*DEVICES.values()} - {DEVICES[device]}


async def test_without_a_device_the_server_chooses(client: Any, server: Emulator) -> None:
    assert (await (await client.llm.model("chatty")).get_info()).device_identifier is None
    assert (await (await client.llm.model("far")).get_info()).device_identifier == "device-1"


async def test_unloading_a_handle_spares_an_instance_of_the_same_name_on_the_preferred_device() -> None:
    catalog = {**CATALOG, "device": [{**STUDIO, "preferred": True}]}
    with Emulator(catalog=catalog) as server, lms.Client(server.address) as client:
        here = client.llm.model("chatty", device="local")
        client.llm.model("chatty", device="Studio")
        (listed,) = [each for each in client.llm.list_loaded() if each.get_info().device_identifier is None]
        assert listed.respond("Hi").model_info.device_identifier is None
        here.unload()
        assert instances(server) == [("chatty", "device-1")]


@pytest.mark.leaf
async def test_an_instance_is_unloaded_on_its_device_although_the_server_prefers_another() -> None:
    with Emulator(catalog={**CATALOG, "device": [{**STUDIO, "preferred": True}]}) as server:
        server.load("chatty", identifier="chatty")  # on the preferred device
        with lms.Client(server.address) as client:
            model = client.llm.model("chatty", device="local", load_policy="explicit")
            model.unload_if_loaded_here()
            assert instances(server) == [("chatty", "device-1")]
            assert client.llm.model("chatty", load_policy="fit").get_info().device_identifier is None


CALLS: dict[str, Callable[[Any, str], Awaitable[Any]]] = {
    "model": lambda client, device: client.llm.model("chatty", device=device),
    "require_loaded": lambda client, device: client.llm.model("chatty", device=device, load_policy="require_loaded"),
    "load_new_instance": lambda client, device: client.llm.load_new_instance("chatty", device=device),
    "any model": lambda client, device: client.llm.model(device=device),
    "unload": lambda client, device: client.llm.unload("chatty", device=device),
    "get_model_info": lambda client, device: client.llm.get_model_info("chatty", device=device),
    "estimate_usage": lambda client, device: client.llm.estimate_usage("chatty", device=device),
    "plan": lambda client, device: client.plan(["chatty"], device=device),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_device_that_is_not_connected_is_an_error_that_names_the_others(
    client: Any, server: Emulator, name: str
) -> None:
    server.disconnect_device("Laptop")
    for device, problem in (("Desk", "is not linked to this server"), ("Laptop", "is not connected")):
        with pytest.raises(lms.LMStudioModelNotFoundError) as caught:
            await CALLS[name](client, device)
        assert str(caught.value) == f"the device {device!r} {problem}; connected: 'local', 'Studio'"
    with pytest.raises(lms.LMStudioValueError, match="device"):
        await CALLS[name](client, " ")


@pytest.mark.parametrize("name", ["require_loaded", "any model", "unload", "get_model_info", "estimate_usage"])
async def test_each_call_means_the_device_that_it_names(client: Any, server: Emulator, name: str) -> None:
    server.load("chatty", identifier="chatty")
    await client.llm.model("chatty", device="Studio", load_policy="explicit")
    result = await CALLS[name](client, "Studio")
    if name in {"require_loaded", "any model"}:
        assert (await result.get_info()).device_identifier == "device-1"
    if name == "get_model_info":
        assert result.device_identifier == "device-1"
    if name == "unload":
        assert instances(server) == [("chatty", None)]
    if name == "estimate_usage":
        with pytest.raises(lms.LMStudioModelNotFoundError):
            await client.embedding.estimate_usage("vectors", device="Laptop")


async def test_a_device_that_goes_away_takes_its_instances_with_it(client: Any, server: Emulator) -> None:
    model = await client.llm.model("chatty", device="Studio", load_policy="explicit")
    server.disconnect_device("Studio")
    with pytest.raises(lms.LMStudioModelNotFoundError, match="'Studio' is not connected"):
        await model.respond("Hi")
    server.connect_device("Studio")
    assert (await model.respond("Hi")).model_info.device_identifier == "device-1"


async def test_the_server_itself_has_names_too(client: Any, server: Emulator) -> None:
    status = await client.link_status()
    assert [(each.device_name, each.is_connected) for each in status.peers] == [("Studio", True), ("Laptop", True)]
    for own in (status.device_name, status.device_identifier):
        await client.llm.model("chatty", device=own)
    assert instances(server) == [("chatty", None)]


PEERS = [("1", "Studio", "connected"), ("2", "Studio", "connected"), ("Studio 3", "Desk", "connected")]
PEERS += [("4", "Studio 3", "connected"), ("5", "Laptop", "disconnected"), ("6", "Laptop", "connected")]


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("Studio", r"several devices are named 'Studio'; name an identifier: '1', '2'"),
        ("Studio 3", "Studio 3"),
        ("2", "2"),
        ("Laptop", "6"),
    ],
)
def test_an_identifier_comes_before_a_name_and_a_connected_device_before_others(device: str, expected: str) -> None:
    peers = [{"deviceIdentifier": one, "deviceName": name, "status": status} for one, name, status in PEERS]
    status = lms.LinkStatus.from_dict({"status": "online", "peers": peers})
    if expected in {one for one, _, _ in PEERS}:
        assert status.identifier_of(device) == expected
    else:
        with pytest.raises(lms.LMStudioModelNotFoundError, match=expected):
            status.identifier_of(device)


async def test_a_reference_to_an_instance_needs_no_device(client: Any, server: Emulator) -> None:
    info = await (await client.llm.model("chatty")).get_info()
    reference = {"type": "instanceReference", "instanceReference": info.instance_reference}
    with pytest.raises(lms.LMStudioValueError, match="leave out device='Studio'"):
        await client.llm.get_model_info(reference, device="Studio")


@pytest.mark.parametrize(("device", "length"), [("local", 1024), ("Studio", 2048)])
async def test_settings_are_compared_with_those_of_the_instance_on_the_device(
    client: Any, server: Emulator, device: str, length: int
) -> None:
    for each, seed in (("local", 1024), ("Studio", 2048)):
        await client.llm.model("chatty", device=each, config={"seed": seed, "contextLength": seed})
    same = {"seed": length, "contextLength": length}
    await client.llm.model("chatty", device=device, config=same, on_config_mismatch="raise")
    with pytest.raises(lms.LMStudioConfigMismatchError, match=f"seed: requested .* actual .*{length}"):
        await client.llm.model("chatty", device=device, config={"seed": 1}, on_config_mismatch="raise")
    handles = [await client.llm.model("chatty", device=each) for each in ("local", "Studio")]
    listed = await client.llm.list_loaded()
    assert [[one == other for other in listed] for one in handles] == [[True, False], [False, True]]


async def test_any_model_is_one_of_the_own_machine(client: Any, server: Emulator) -> None:
    await client.llm.model("far")
    with pytest.raises(lms.LMStudioModelNotFoundError, match="'far' is loaded elsewhere, on 'Studio': name that model"):
        await client.llm.model()
    assert (await client.llm.model("far", load_policy="require_loaded")).identifier == "far"
    assert (await client.llm.model(device="Studio")).identifier == "far"
    await client.llm.model("chatty")
    assert (await client.llm.model()).identifier == "chatty"


def without_links(message: Message) -> Message:
    return {**message, "result": {"status": "offline", "issues": [], "peers": [], "deviceIdentifier": None}}


@pytest.mark.parametrize(("link", "device"), [((), "device-1"), ((without_links,), None)])
def test_any_model_is_one_elsewhere_only_if_its_device_is_preferred(
    link: tuple[Callable[[Message], Message], ...], device: str | None
) -> None:
    """A server may list models of a cloud, which is no linked device, before those of its own machine."""
    faults = [Injection("lmLinkStatus first packet", replace(each), ALWAYS) for each in link]
    with (
        Emulator(catalog={**CATALOG, "device": [{**STUDIO, "preferred": True}]}) as server,
        ProxyThread() as thread,
        Proxy(thread, server.address, faults) as proxy,
        lms.Client(proxy.address) as client,
    ):
        for each in ("local", "Studio"):
            with lms.Client(server.address) as other:
                other.llm.model("chatty", device=each)
        assert client.llm.model().get_info().device_identifier == device


@in_virtual_time
async def test_a_call_waits_for_one_of_a_handle_that_names_the_same_instance_otherwise() -> None:
    model = {"key": "m", "slots": 1, "tokens_per_second": 5, "rules": [{"then": [{"text": "on and " * 40}]}]}
    async with serving(Emulator([model])) as address, lms.AsyncClient(address, queue_timeout=8) as client:
        running = asyncio.ensure_future(client.llm.lazy_model("m", device="local").respond("Hi"))
        await asyncio.sleep(1)
        assert (await client.llm.lazy_model("m").respond("Hi")).content
        assert (await running).content
