"""Features that LM Studio's documentation promises and no other file of these tests covers."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.transport import discovery
from lmstudio_integrations.client.transport.addresses import Address
from lmstudio_integrations.emulator import Emulator, Preset
from lmstudio_integrations.emulator.catalog import Catalog, ModelEntry
from tests.client.fake import Socket, authenticate, fake_server, receive, send


async def test_a_local_server_is_discovered(
    make_client: Callable[..., Any], server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(server.address)
    assert await client.is_valid_api_host(server.address)
    monkeypatch.setattr(discovery, "local_candidates", lambda: (Address("127.0.0.1", server.port),))
    assert await client.find_default_local_api_host() == server.address
    monkeypatch.setattr(discovery, "local_candidates", lambda: ())
    assert await client.find_default_local_api_host() is None


async def test_a_preset_sets_what_the_call_does_not(make_client: Callable[..., Any]) -> None:
    brief = Preset(identifier="brief", fields={"llm.prediction.maxPredictedTokens": {"checked": True, "value": 2}})
    models = (ModelEntry(key="chatty", rules=({"then": [{"text": "one two three four"}]},)),)
    with Emulator(catalog=Catalog(models=models, presets=(brief,))) as server:
        async with make_client(server.address) as client:
            model = await client.llm.model("chatty")
            assert (await model.respond("Hi", preset="brief")).stats.predicted_tokens_count == 2
            longer = await model.respond("Hi", preset="brief", config={"maxTokens": 3})
            assert longer.stats.predicted_tokens_count == 3


async def test_a_draft_model_is_sent_and_its_stats_are_returned(make_client: Callable[..., Any]) -> None:
    requests: list[dict[str, Any]] = []
    stats = {"stopReason": "eosFound", "usedDraftModelKey": "small", "acceptedDraftTokensCount": 5}
    end = {"type": "success", "stats": stats, "modelInfo": {}, "loadModelConfig": {}, "predictionConfig": {}}

    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        requests.append(await receive(socket))
        await send(socket, {"type": "channelSend", "channelId": 1, "message": end})

    async with fake_server(behave) as address, make_client(address) as client:
        model = client.llm.lazy_model("large")
        model.binding.identifier = "large"
        result = await model.respond("Hi", config={"draftModel": "small"})
    (layer,) = requests[0]["creationParameter"]["predictionConfigStack"]["layers"]
    assert {"key": "llm.prediction.speculativeDecoding.draftModel", "value": "small"} in layer["config"]["fields"]
    assert result.stats.accepted_draft_tokens_count == 5


async def test_an_asyncio_timeout_stops_the_server_too(server: Emulator) -> None:
    async with lms.AsyncClient(server.address) as client:
        model = await client.llm.model("chatty")
        stream = model.respond_stream("for ever")
        await anext(stream)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.wait_for_result(), 0.05)
    server.wait_for(lambda: server.predictions[-1].stop_reason == "userStopped")


async def test_the_tokens_of_a_chat_are_compared_with_the_context_length(client: Any) -> None:
    model = await client.llm.load_new_instance("chatty", config={"contextLength": 100})
    short, long = await model.get_context_use("Hi"), await model.get_context_use("word " * 200)
    assert (short.limit, short.fits, long.fits) == (100, True, False)
    assert 0 < short.used < 100 < long.used


async def test_the_server_reports_its_version_processing_state_memory_estimates_and_models(client: Any) -> None:
    model = await client.llm.model("chatty")
    assert (await client.system.get_version()).version
    state = await model.get_processing_state()
    assert (state.status, state.queued) == ("idle", 0)
    estimate = await client.llm.estimate_usage("chatty", config={"contextLength": 100})
    assert estimate.passes_guardrails
    assert {each.model_key for each in await client.system.list_downloaded_models()} == {"chatty", "other", "vectors"}


async def test_a_downloaded_model_can_be_loaded_from_its_entry(client: Any, server: Emulator) -> None:
    entry = next(each for each in await client.llm.list_downloaded() if each.model_key == "other")
    assert (entry.type, entry.vision, entry.architecture, entry.display_name) == ("llm", False, "scripted", "other")
    await entry.model(ttl=60)
    await entry.load_new_instance("second")
    assert [info.identifier for info in server.loaded()] == ["other", "second"]
