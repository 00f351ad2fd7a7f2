"""The rest of what the newest release of the official SDK can ask."""

import asyncio
import base64
import logging
from pathlib import Path

import lmstudio as lms
import pytest

from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.broad
CHAT, EMBEDDING, TOKEN = (
    "qwen2.5-7b-instruct",
    "text-embedding-nomic-embed-text-v1.5",
    "sk-lm-abcdefgh:0123456789abcdefghij",
)
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def test_a_new_instance_gets_a_number(server: Emulator, client: lms.Client) -> None:
    first = client.llm.load_new_instance(CHAT, ttl=None)
    second = client.llm.load_new_instance(CHAT, "mine", config={"contextLength": 512, "seed": 7})
    third = client.llm.load_new_instance(CHAT)
    assert [first.identifier, second.identifier, third.identifier] == [CHAT, "mine", f"{CHAT}:2"]
    assert second.get_context_length() == 512
    assert second.get_load_config().seed == 7
    assert [info.ttl_ms for info in server.loaded()] == [None, 3_600_000, 3_600_000]


def test_a_taken_identifier_is_rejected(client: lms.Client) -> None:
    client.llm.load_new_instance(CHAT, "mine")
    with pytest.raises(lms.LMStudioServerError, match=r"Model load error.*already exists"):
        client.llm.load_new_instance(CHAT, "mine")


def test_a_model_loaded_just_in_time_makes_way_for_the_next(server: Emulator, client: lms.Client) -> None:
    client.embedding.model(EMBEDDING)
    client.llm.model(CHAT)
    assert [info.identifier for info in server.loaded()] == [CHAT]


def test_an_alias_names_the_model(client: lms.Client) -> None:
    assert client.llm.model("qwen").identifier == CHAT


def test_tokens_are_counted_and_templates_applied(client: lms.Client) -> None:
    model = client.llm.model(CHAT)
    assert len(model.tokenize("Hello there, world")) == model.count_tokens("Hello there, world") > 0
    chat = lms.Chat("Be brief.")
    chat.add_user_message("Hello there")
    assert "Hello there" in model.apply_prompt_template(chat)
    embedding = client.embedding.load_new_instance(EMBEDDING)
    assert len(embedding.tokenize("Hello there")) == embedding.count_tokens("Hello there") + 2


def test_images_are_seen(client: lms.Client, tmp_path: Path) -> None:
    path = tmp_path / "pixel.png"
    path.write_bytes(PIXEL)
    chat = lms.Chat()
    chat.add_user_message("What is this?", images=[client.prepare_image(path), client.prepare_image(PIXEL)])
    assert client.llm.model(CHAT).respond(chat).content == "I see a picture."


def test_a_model_without_vision_rejects_images(client: lms.Client) -> None:
    chat = lms.Chat()
    chat.add_user_message("What is this?", images=[client.prepare_image(PIXEL, "pixel.png")])
    with pytest.raises(lms.LMStudioServerError, match="does not support images"):
        client.llm.model("blind-model").respond(chat)


def test_reasoning_is_marked(client: lms.Client) -> None:
    stream = client.llm.model(CHAT).respond_stream("Think about it")
    kinds = [fragment.reasoning_type for fragment in stream]
    assert kinds[0] == "reasoningStartTag"
    assert {"reasoning", "reasoningEndTag", "none"} <= set(kinds)


def test_stop_strings_stop(client: lms.Client) -> None:
    result = client.llm.model(CHAT).respond("Count on", config={"stopStrings": ["7 8"]})
    assert result.stats.stop_reason == "stopStringFound"
    assert result.content.endswith("6 ")


def test_a_preset_ranks_below_the_request(client: lms.Client) -> None:
    model = client.llm.model(CHAT)
    assert model.respond("Hello", preset="brief").stats.predicted_tokens_count == 2
    assert model.respond("Hello", preset="brief", config={"maxTokens": 3}).stats.predicted_tokens_count == 3
    with pytest.raises(lms.LMStudioPresetNotFoundError):
        model.respond("Hello", preset="unheard-of")


def test_errors_carry_what_happened(client: lms.Client) -> None:
    with pytest.raises(lms.LMStudioModelNotFoundError):
        client.llm.model("no-such-model")
    with pytest.raises(lms.LMStudioServerError, match="is not an LLM"):
        client.llm.model(EMBEDDING)
    with pytest.raises(lms.LMStudioModelNotFoundError):
        client.llm.unload("no-such-model")
    with pytest.raises(lms.LMStudioServerError, match='Completion error: Cannot find model "no-such-model"'):
        client.llm.model(CHAT).complete("Hello", config={"draftModel": "no-such-model"})
    with pytest.raises(lms.LMStudioServerError, match="It went wrong") as caught:
        client.llm.model(CHAT).respond("Fail")
    assert "A rule says so" in str(caught.value)


def test_a_model_is_found_and_downloaded(client: lms.Client) -> None:
    (found,) = client.repository.search_models("not-yet-here")
    (option,) = found.get_download_options()
    updates: list[lms.DownloadProgressUpdate] = []
    key = option.download(on_progress=updates.append)
    assert updates
    assert all(update.total_bytes for update in updates)
    assert client.llm.model(key).respond("Hello").content


def test_a_token_authenticates(guarded_server: Emulator) -> None:
    with lms.Client(guarded_server.address, TOKEN) as client:
        assert client.llm.list_loaded() == []


@pytest.mark.parametrize("token", [None, "sk-lm-abcdefgh:9999999999abcdefghij", "sk-lm-zzzzzzzz:0123456789abcdefghij"])
def test_without_the_token_nobody_comes_in(guarded_server: Emulator, token: str | None) -> None:
    with lms.Client(guarded_server.address, token) as client, pytest.raises(lms.LMStudioServerError, match="Auth"):
        client.llm.list_loaded()


async def test_many_requests_at_once(server: Emulator) -> None:
    async with lms.AsyncClient(server.address) as client:
        model = await client.llm.model(CHAT)
        responses = await asyncio.gather(*(model.respond(f"Message {number}") for number in range(20)))
        assert [f"Message {number}" in reply.content for number, reply in enumerate(responses)] == [True] * 20
        stream = await model.respond_stream("Count to two thousand")
        async for _ in stream:
            await stream.cancel()
        assert stream.result().stats.stop_reason == "userStopped"


async def test_the_async_client_acts(server: Emulator) -> None:
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    async with lms.AsyncClient(server.address) as client:
        model = await client.llm.model(CHAT)
        result = await model.act("What is 2 + 3?", [add])
        assert result.rounds == 2


def test_closing_a_stream_stops_the_generation(server: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    with lms.Client(server.address) as client:
        stream = client.llm.model(CHAT).respond_stream("Count to two thousand")
        next(iter(stream))
        stream.close()
    server.wait_for(lambda: server.predictions[-1].state == "ended")
    assert server.predictions[-1].stop_reason == "disconnected"
    server.wait_for(lambda: not server.connections)
    # The SDK closes without a cancel, and warns of what was on its way to it.
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert all("for already closed channel" in warning for warning in warnings)
    caplog.clear()
