"""A handle to a model on several hosts: every public method works, whichever host it finds alive."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.hosts.models import hosts_of_model
from lmstudio_integrations.emulator import Emulator
from tests.client.api.test_models import CALLS
from tests.client.conftest import MODELS
from tests.client.public_calls import calls, made_calls

NOBODY = "127.0.0.1:1"

ROWS: dict[str, Callable[[Any, Any], Any]] = {
    name: lambda model, embedder, row=row: row(None, model, embedder)  # type: ignore[misc]  # a default binds the row
    for name, row in CALLS.items()
    if all(call.startswith("model.") for call in made_calls([row], "client", "model", "model"))
}

Make = Callable[[str, str], Any]


@pytest.fixture
def server() -> Iterator[Emulator]:
    """The host that is alive."""
    with Emulator(MODELS) as running:
        yield running


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest, server: Emulator) -> Make:
    """Make a handle to a model on a host that is not there, and on one that is."""
    client_class: Any = lms.Client if request.param == "sync" else lms.AsyncClient

    def handle(kind: str, key: str) -> Any:
        clients = [client_class(host) for host in (NOBODY, server.address)]
        handles = [getattr(client, kind).lazy_model(key, load_policy="explicit") for client in clients]
        return handles[0].on_hosts(handles, 0)

    return handle


async def settle(call: Callable[[], Any]) -> Any:
    """Make a call of either client."""
    result = await asyncio.to_thread(call)
    return await result if inspect.isawaitable(result) else result


def test_every_method_of_a_handle_has_a_row() -> None:
    rows = [lambda model, embedder, row=row: row(model, embedder) for row in ROWS.values()]
    assert {call for call in calls() if call.startswith("model.")} <= made_calls(rows, "model", "model")


@pytest.mark.parametrize("name", ROWS)
async def test_every_method_finds_the_host_that_is_alive(make: Make, name: str) -> None:
    model, embedder = make("llm", "chatty"), make("embedding", "vectors")
    if name.startswith("unload"):
        await settle(lambda: model.respond("Hi"))

    def call() -> Any:
        return ROWS[name](model, embedder)

    await asyncio.wait_for(settle(call), 20)


@pytest.mark.parametrize(
    "change", [lambda handle: handle.with_timeouts(timeout=9), lambda handle: handle.with_retries(1)]
)
async def test_a_handle_with_other_settings_keeps_its_hosts(make: Make, change: Callable[[Any], Any]) -> None:
    handle = change(make("embedding", "vectors"))
    assert [host.host for host in hosts_of_model(handle.model).statuses()] == hosts_named(handle)
    assert len(await settle(lambda: handle.embed(["a"] * 40))) == 40


def hosts_named(handle: Any) -> list[str]:
    first, second = (host.name for host in hosts_of_model(handle.model).hosts)
    assert first == NOBODY
    return [first, second]


async def test_a_model_is_unloaded_on_every_host_that_has_it(make: Make, server: Emulator) -> None:
    model = make("llm", "chatty")
    await settle(lambda: model.respond("Hi"))
    assert server.loaded()
    await settle(model.unload)
    assert not server.loaded()


async def test_an_upload_does_not_make_a_host_one_that_has_the_model(make: Make) -> None:
    model = make("llm", "chatty")
    await settle(lambda: model.prepare_images([b"\x89PNG\r\n\x1a\n"]))
    assert not any(host.loaded for host in hosts_of_model(model.model).statuses())
