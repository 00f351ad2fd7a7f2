"""What other integrations were seen to get wrong, and what is easy to get wrong with LlamaIndex; one test for each."""

from typing import Any

from llama_index.core.base.llms.generic_utils import messages_to_prompt
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.core.schema import ImageDocument

from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from tests.llama_index.scripted_server import Server
from tests.support.requested import digest
from tests.support.web import PIXEL


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
        role=MessageRole.USER, content="look", additional_kwargs={"images": [ImageDocument(image=PIXEL)]}
    )
    list(llm.stream_chat([message]))
    _, parts = server.conversation[0]
    assert [part["type"] for part in parts] == ["text", "file"]
    list(llm.stream_chat([message]))
    assert set(server.last_request.images) == {digest(PIXEL)}


def test_no_message_of_ours_has_images_among_its_kwargs(llm: LMStudio) -> None:
    message = ChatMessage(role=MessageRole.USER, blocks=[TextBlock(text="count"), ImageBlock(image=PIXEL)])
    assert all("images" not in chunk.message.additional_kwargs for chunk in llm.stream_chat([message]))


def test_a_response_in_a_prompt_is_its_text_alone(llm: LMStudio) -> None:
    *_, last = llm.stream_chat(generating("count"))
    assert messages_to_prompt([last.message]) == "assistant: 0 1 2 3 4 5 6 7 8 9\nassistant: "


def test_objects_cost_no_connection(server: Server) -> None:
    objects: list[Any] = [server.llm() for _ in range(50)]
    objects += [LMStudioEmbedding(model="m", host=server.address) for _ in range(50)]
    assert server.connections == ()
