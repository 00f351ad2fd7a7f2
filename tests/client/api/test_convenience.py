"""The default client, and the functions that use it."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations._support.environment import HOST_VARIABLE
from lmstudio_integrations.client.api.official import own_default_client, reset_default_client
from lmstudio_integrations.emulator import Emulator
from tests.support.web import PIXEL

TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"
LOADED, OTHER = "llama-3.2-1b-instruct", "qwen/qwen3-4b-2507"


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A server with one of its models loaded; only the environment names its address."""
    models: list[Any] = [
        {"key": LOADED, "preload": True},
        {"key": OTHER},
        {"key": "vectors", "kind": "embedding", "embedding_length": 16},
        {"key": "judge", "kind": "decision"},
    ]
    reset_default_client()
    with Emulator(models, auto_evict=False) as running:
        monkeypatch.setenv(HOST_VARIABLE, running.address)
        yield running
    reset_default_client()


def test_the_functions_do_what_the_default_client_does(server: Emulator) -> None:
    assert lms.llm().identifier == lms.llm(LOADED).identifier == LOADED
    assert str(lms.llm(OTHER, ttl=3600).respond("Hi"))
    assert len(lms.embedding_model("vectors", ttl=60).embed("Hello")) == 16
    assert {info.identifier: info.ttl_ms for info in server.loaded()} == {
        LOADED: None,
        OTHER: 3_600_000,
        "vectors": 60_000,
    }
    assert lms.list_loaded_models() == [lms.llm(LOADED), lms.llm(OTHER), lms.embedding_model("vectors")]
    assert [model.model_key for model in lms.list_downloaded_models("llm")] == [LOADED, OTHER]
    assert lms.prepare_image(PIXEL).size_bytes == len(PIXEL)


@pytest.mark.leaf("decisions")
@pytest.mark.usefixtures("server")
def test_the_default_client_has_decision_models() -> None:
    answers = lms.decision_model("judge", ttl=60).decide("Hi", {"greets": lms.Noul(instructions="Hi?")}).answers
    assert answers["greets"].type == "noul"
    assert lms.decision_model().identifier == "judge"


def test_the_default_client_may_be_configured_before_its_first_use_only(server: Emulator) -> None:
    lms.configure_default_client(server.address)
    assert lms.get_default_client().api_host == server.address
    assert lms.llm(LOADED).identifier == LOADED
    for host in ("elsewhere", server.address):
        for change in (lms.configure_default_client, lms.get_default_client):
            with pytest.raises(lms.LMStudioClientError, match=f"the default client already uses {server.address}"):
                change(host)


@pytest.fixture
def as_before() -> Iterator[None]:
    """Leave the timeout of sync clients as it was."""
    yield
    lms.set_sync_api_timeout(60.0)


@pytest.mark.usefixtures("as_before")
def test_the_time_that_sync_clients_wait_can_be_set_for_all_of_them(server: Emulator) -> None:
    assert lms.get_sync_api_timeout() == 60.0
    client = lms.Client()
    lms.set_sync_api_timeout(0)
    assert lms.get_sync_api_timeout() == 0
    with pytest.raises(lms.LMStudioTimeoutError, match="idle_timeout expired") as caught:
        client.list_loaded_models()
    assert caught.value.timeout_name == "idle_timeout"
    assert [model.identifier for model in lms.Client(idle_timeout=600).list_loaded_models()] == [LOADED]
    assert [model.identifier for model in asyncio.run(lms.AsyncClient().list_loaded_models())] == [LOADED]
    lms.set_sync_api_timeout(None)
    assert lms.get_sync_api_timeout() is None
    assert [model.identifier for model in client.list_loaded_models()] == [LOADED]


def test_a_token_is_not_for_another_host_of_the_default_client(server: Emulator) -> None:
    with Emulator(["m"], tokens=[TOKEN]) as strict:
        lms.configure_default_client(server.address, TOKEN)
        with pytest.raises(lms.LMStudioAuthenticationError, match="no API token was sent"):
            lms.get_default_client(strict.address).list_downloaded_models()
        reset_default_client()
        lms.configure_default_client(strict.address, TOKEN)
        assert lms.get_default_client(f"ws://{strict.address}").list_downloaded_models()
    reset_default_client()
    lms.configure_default_client(api_token=TOKEN)
    assert lms.get_default_client().llm.lazy_model("m")._model.context.target.token == TOKEN
    reset_default_client()
    lms.configure_default_client(api_token=TOKEN)
    assert lms.get_default_client(server.address).llm.lazy_model("m")._model.context.target.token is None


def test_a_block_may_have_a_default_client_of_its_own(monkeypatch: pytest.MonkeyPatch, server: Emulator) -> None:
    lms.configure_default_client(server.address, "sk-lm-abcdefgh:0123456789abcdefghij")
    before = lms.get_default_client()
    with Emulator(["other"], load=["other"]) as other:
        monkeypatch.setenv(HOST_VARIABLE, other.address)
        with own_default_client():
            assert lms.llm().identifier == "other"
            inside = lms.get_default_client()
        monkeypatch.setenv(HOST_VARIABLE, server.address)
    assert inside is not before is lms.get_default_client()
    assert lms.llm().identifier == LOADED
    with pytest.raises(lms.LMStudioClientClosedError):
        inside.llm.model()
    reset_default_client()
    lms.configure_default_client(server.address, TOKEN)
    before = lms.get_default_client()
    with Emulator(["other"], tokens=[TOKEN]) as other:
        monkeypatch.setenv(HOST_VARIABLE, other.address)
        with own_default_client(), pytest.raises(lms.LMStudioAuthenticationError, match="no API token was sent"):
            lms.list_downloaded_models()
    with own_default_client():  # never used
        pass
    assert lms.get_default_client() is before
