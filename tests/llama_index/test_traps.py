"""What other integrations were seen to get wrong, and what is easy to get wrong with LlamaIndex; one test for each."""

import json
from typing import Any

import pytest
from llama_index.core.base.llms.generic_utils import messages_to_prompt
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.core.schema import ImageDocument

from lmstudio_integrations.emulator import ModelEntry
from lmstudio_integrations.errors import LMStudioEvictionWarning, LMStudioServerError, LMStudioTimeoutError
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from tests.llama_index.scripted_server import CHAT, EMBEDDING, Server, raw
from tests.llama_index.test_messages import PNG
from tests.support.event_loop import ticks_during
from tests.support.requested import digest


def generating(text: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=text)]


def test_a_stream_has_read_its_messages_before_it_is_read_itself(server: Server, llm: LMStudio) -> None:
    messages = generating("count")
    stream = llm.stream_chat(messages)
    messages[0].blocks[:] = [TextBlock(text="something else")]
    messages.clear()
    list(stream)
    assert server.conversation == [("user", [{"type": "text", "text": "count"}])]


def test_images_of_older_histories_do_not_multiply(server: Server, llm: LMStudio) -> None:
    message = ChatMessage(
        role=MessageRole.USER, content="look", additional_kwargs={"images": [ImageDocument(image=PNG)]}
    )
    list(llm.stream_chat([message]))
    _, parts = server.conversation[0]
    assert [part["type"] for part in parts] == ["text", "file"]
    list(llm.stream_chat([message]))
    assert set(server.last_request.images) == {digest(PNG)}


def test_no_message_of_ours_has_images_among_its_kwargs(llm: LMStudio) -> None:
    message = ChatMessage(role=MessageRole.USER, blocks=[TextBlock(text="count"), ImageBlock(image=PNG)])
    assert all("images" not in chunk.message.additional_kwargs for chunk in llm.stream_chat([message]))


def test_a_response_can_be_the_history_of_the_next_turn(server: Server, llm: LMStudio) -> None:
    response = llm.chat(generating("think")).message
    llm.chat([*generating("think"), response, *generating("count")])
    assert server.conversation[1] == ("assistant", [{"type": "text", "text": "Done now."}])


def test_a_response_in_a_prompt_is_its_text_alone(llm: LMStudio) -> None:
    *_, last = llm.stream_chat(generating("count"))
    assert messages_to_prompt([last.message]) == "assistant: 0 1 2 3 4 5 6 7 8 9\nassistant: "


@pytest.mark.parametrize("prompt", ["count", "think", "nothing"])
def test_every_chunk_can_be_written_as_json(llm: LMStudio, prompt: str) -> None:
    for chunk in llm.stream_chat(generating(prompt)):
        assert json.loads(chunk.model_dump_json())["message"]["role"] == "assistant"


def test_the_temperature_may_be_above_one(server: Server) -> None:
    with server.llm(temperature=1.7) as llm:
        llm.chat(generating("count"))
    assert server.last_request.config.temperature == 1.7


def test_reasoning_may_be_switched_off_for_one_call(llm: LMStudio) -> None:
    llm.enable_thinking = True
    assert llm.chat(generating("think"), enable_thinking=False).message.content == "Done now."
    assert len(llm.chat(generating("think"), enable_thinking=False).message.blocks) == 1
    assert len(llm.chat(generating("think")).message.blocks) == 2


def test_a_chunk_of_reasoning_alone_is_not_dropped(llm: LMStudio) -> None:
    found = list(llm.stream_chat(generating("think only")))
    assert "".join(chunk.additional_kwargs.get("thinking_delta", "") for chunk in found) == "Hmm, well."
    assert raw(found[-1])["only_reasoning"] is True


def test_the_instances_context_window_counts_not_the_models(llm: LMStudio, server: Server) -> None:
    llm.load()
    (info,) = server.loaded()
    assert llm.metadata.context_window == info.context_length < info.max_context_length


def test_a_draft_model_is_requested() -> None:
    llm = LMStudio(model="m", draft_model="tiny")
    assert llm._resolve_call({}).config.draft_model == "tiny"


@pytest.mark.slow
def test_a_silence_is_ended_by_its_timeout_and_the_server_stops() -> None:
    stalling = {"when": {}, "then": [{"text": "so "}, {"fault": "stall"}]}
    with Server([ModelEntry(key=CHAT, rules=(stalling,))]) as server, server.llm(idle_timeout=0.2) as llm:
        with pytest.raises(LMStudioTimeoutError) as caught:
            llm.chat(generating("count"))
        assert caught.value.timeout_name == "idle_timeout"
        server.wait_for(lambda: server.predictions[0].state == "ended")


def test_a_generation_that_failed_is_not_retried(server: Server) -> None:
    with server.llm(max_retries=3) as llm, pytest.raises(LMStudioServerError):
        llm.chat(generating("fail"))
    assert len(server.predictions) == 1


def test_a_model_that_went_away_is_loaded_again(server: Server, llm: LMStudio) -> None:
    llm.chat(generating("count"))
    server.unload(CHAT)
    assert llm.chat(generating("count")).message.content
    assert len(server.loads) == 2


async def test_load_loads_an_evicted_model_again() -> None:
    with (
        Server(auto_evict=True) as server,
        server.llm() as llm,
        server.embedding(load_policy="get_or_load") as embedding,
    ):
        embedding.load()
        with pytest.warns(LMStudioEvictionWarning, match=f"{CHAT!r} evicted {EMBEDDING!r}"):
            llm.load()
        assert [info.identifier for info in server.loaded()] == [CHAT]
        await embedding.aload()
        assert [info.identifier for info in server.loaded()] == [EMBEDDING]
        await llm.aload()
        assert len(embedding.get_text_embedding("long " * 200)) == 16


def test_texts_are_embedded_as_they_are(server: Server) -> None:
    with server.embedding() as model:
        model.get_text_embedding(" two\nlines ")
    assert server.embedded == [" two\nlines "]


async def test_embedding_does_not_block_the_loop(server: Server) -> None:
    with server.embedding() as model:
        assert await ticks_during(model.aget_text_embedding("slow rain")) > 20


def test_objects_cost_no_connection(server: Server) -> None:
    objects: list[Any] = [server.llm() for _ in range(50)]
    objects += [LMStudioEmbedding(model="m", host=server.address) for _ in range(50)]
    assert server.connections == ()
