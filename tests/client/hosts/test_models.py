"""A handle to a model on several hosts: every public method works, whichever host it finds alive."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.api.base import handle_on_hosts
from lmstudio_integrations.client.concurrency.flows import arun
from lmstudio_integrations.client.embeddings import EmbeddingRequest
from lmstudio_integrations.client.hosts.models import hosts_of
from lmstudio_integrations.client.models.admission import ConcurrencyLimiter
from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.client.conftest import MODELS
from tests.client.public_calls import CALLS, made_calls
from tests.support.embedding import embed_texts
from tests.support.telemetry import Telemetry, attributes_of, telemetry

__all__ = ["telemetry"]

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


@pytest.fixture
def make(server: Emulator) -> Make:
    """Make a handle to a model on a host that is not there, and on one that is."""

    def handle(kind: str, key: str) -> Any:
        clients = [lms.AsyncClient(host) for host in (NOBODY, server.address)]
        handles = [getattr(client, kind).lazy_model(key, load_policy="explicit") for client in clients]
        return handle_on_hosts(handles, 0)

    return handle


@pytest.mark.parametrize("name", ROWS)
async def test_every_method_finds_the_host_that_is_alive(make: Make, name: str) -> None:
    model, embedder = make("llm", "chatty"), make("embedding", "vectors")
    if name.startswith("unload"):
        await arun(model._model.load())
    await ROWS[name](model, embedder)


@pytest.mark.parametrize(
    "change", [lambda handle: handle.with_timeouts(total_timeout=9), lambda handle: handle.with_retries(1)]
)
async def test_a_handle_with_other_settings_keeps_its_hosts(make: Make, change: Callable[[Any], Any]) -> None:
    handle = change(make("embedding", "vectors"))
    assert [host.host for host in hosts_of(handle._model).statuses()] == hosts_named(handle)
    assert len(await handle.embed(["a"] * 40)) == 40


def has_ended(host: Emulator) -> bool:
    return host.predictions[0].state != "running"


def hosts_named(handle: Any) -> list[str]:
    first, second = (host.name for host in hosts_of(handle._model).hosts)
    assert first == NOBODY
    return [first, second]


@pytest.mark.parametrize("name", ["unload", "unload_if_loaded_here"])
async def test_a_model_is_unloaded_on_every_host_that_has_it(make: Make, server: Emulator, name: str) -> None:
    model = make("llm", "chatty")
    await model.respond("Hi")
    assert server.loaded()
    first = hosts_of(model._model).hosts[0]  # what it had when it went away
    first.record.found, first.model.state.loaded_here = replace(first.record.found, loaded=True), "reference"
    with pytest.raises(lms.LMStudioUnreachableError):
        await getattr(model, name)()
    assert not server.loaded()


async def test_batches_wait_for_one_load_of_a_new_instance() -> None:
    model = ModelEntry(key="vectors", kind="embedding", embedding_length=4)
    with Emulator([model]) as first, Emulator([model]) as second:
        clients = [lms.AsyncClient(host.address) for host in (first, second)]
        handles = [client.embedding.lazy_model("vectors", load_policy="new_instance") for client in clients]
        request = EmbeddingRequest(["a"] * 70, "pass", "chunk_size")
        assert len(await embed_texts(handle_on_hosts(handles, 0), request)) == 70
        assert len([*first.loads, *second.loads]) <= 2


async def test_texts_are_checked_before_they_are_sent(make: Make) -> None:
    texts: Any = ["a", b"b"]
    with pytest.raises(lms.LMStudioValueError, match="input must be a string or a list of strings"):
        await embed_texts(make("embedding", "vectors"), EmbeddingRequest(texts, "pass", "chunk_size"))


async def test_an_upload_does_not_make_a_host_one_that_has_the_model(make: Make) -> None:
    model = make("llm", "chatty")
    await model.prepare_images([b"\x89PNG\r\n\x1a\n"])
    assert not any(host.loaded for host in hosts_of(model._model).statuses())


async def test_a_limit_of_calls_holds_for_each_host(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []
    acquire = ConcurrencyLimiter.acquire

    def record(self: ConcurrencyLimiter, context: Any, model: Any, max_concurrency: int) -> Any:
        limits.append(max_concurrency)
        return acquire(self, context, model, max_concurrency)

    monkeypatch.setattr(ConcurrencyLimiter, "acquire", record)
    embedder = make("embedding", "vectors")
    request = EmbeddingRequest(["a"], "pass", "chunk_size")
    await embed_texts(embedder, request, max_concurrency=4)
    assert limits == [8]


@pytest.mark.parametrize("texts", ["a", ["a"] * 40])
async def test_the_span_of_an_embedding_names_its_model(make: Make, telemetry: Telemetry, texts: Any) -> None:
    embedder = make("embedding", "vectors")
    await embedder.embed(texts)
    span = telemetry.span("embeddings vectors")
    assert attributes_of(span)["gen_ai.response.model"] == "vectors"


async def test_a_call_that_fails_after_a_callback_gives_its_slot_back() -> None:
    rules = [{"then": [{"text": "on and on " * 1000}]}]
    model = {"key": "m", "kind": "llm", "engine": "scripted", "tokens_per_second": 50, "preload": True, "rules": rules}
    with Emulator([model]) as first, Emulator([model]) as second:
        handles = [lms.AsyncClient(host.address).llm.lazy_model("m") for host in (first, second)]
        handle = handle_on_hosts(handles, 0)

        def unload(_fragment: object) -> None:
            for host in (first, second):
                if host.predictions and host.loaded():
                    host.unload("m")
                    host.wait_for(partial(has_ended, host))

        with pytest.raises(lms.LMStudioModelUnloadedError) as caught:
            await handle.respond("Hi", on_prediction_fragment=unload)
        assert not caught.value.retryable
        assert [status.in_flight for status in hosts_of(handle._model).statuses()] == [0, 0]
