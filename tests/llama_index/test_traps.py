"""What other integrations were seen to get wrong, and what is easy to get wrong with LlamaIndex; one test for each."""

import json
from typing import Any

import pytest
from llama_index.core.base.llms.generic_utils import messages_to_prompt
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.core.schema import ImageDocument

from lmstudio_integrations.errors import LMStudioEvictionWarning
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from tests.llama_index.scripted_server import CHAT, EMBEDDING, Server, raw
from tests.llama_index.test_messages import PNG
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


def test_a_response_in_a_prompt_is_its_text_alone(llm: LMStudio) -> None:
    *_, last = llm.stream_chat(generating("count"))
    assert messages_to_prompt([last.message]) == "assistant: 0 1 2 3 4 5 6 7 8 9\nassistant: "


@pytest.mark.parametrize("prompt", ["count", "think", "nothing"])
def test_every_chunk_can_be_written_as_json(llm: LMStudio, prompt: str) -> None:
    for chunk in llm.stream_chat(generating(prompt)):
        assert json.loads(chunk.model_dump_json())["message"]["role"] == "assistant"


def test_a_chunk_of_reasoning_alone_is_not_dropped(llm: LMStudio) -> None:
    found = list(llm.stream_chat(generating("think only")))
    assert "".join(chunk.additional_kwargs.get("thinking_delta", "") for chunk in found) == "Hmm, well."
    assert raw(found[-1])["only_reasoning"] is True


def test_the_instances_context_window_counts_not_the_models(llm: LMStudio, server: Server) -> None:
    llm.load()
    (info,) = server.loaded()
    assert llm.metadata.context_window == info.context_length < info.max_context_length


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


def test_objects_cost_no_connection(server: Server) -> None:
    objects: list[Any] = [server.llm() for _ in range(50)]
    objects += [LMStudioEmbedding(model="m", host=server.address) for _ in range(50)]
    assert server.connections == ()
