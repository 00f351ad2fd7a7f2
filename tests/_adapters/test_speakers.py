"""Several speakers of one role: the wire has no place for names, so the names stand in the text where two differ."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock

from lmstudio_integrations._adapters import request_messages
from lmstudio_integrations.langchain._messages import convert as from_langchain
from lmstudio_integrations.llama_index._messages import convert as from_llama_index
from tests.support.web import PIXEL

Said = tuple[str, str, str | None]
"""The role, the text and the name of a message."""

ASKED: Said = ("user", "Ferry or train?", None)
FERRY: Said = ("assistant", "Take the ferry.", "Researcher")
TRAIN: Said = ("assistant", "No, the train.", "Critic")


def of_langchain(*messages: Said) -> list[dict[str, Any]]:
    kinds = {"user": HumanMessage, "assistant": AIMessage, "system": SystemMessage}
    made = [kinds[role](text, name=name) for role, text, name in messages]
    return [*request_messages.encode(from_langchain(made), {}).messages]


def of_llama_index(*messages: Said) -> list[dict[str, Any]]:
    made = [
        ChatMessage(text, role=role, additional_kwargs={} if name is None else {"name": name})
        for role, text, name in messages
    ]
    return [*request_messages.encode(from_llama_index(made), {}).messages]


def texts(written: list[dict[str, Any]]) -> list[str]:
    return ["".join(part["text"] for part in message["content"]) for message in written]


Write = Callable[..., list[dict[str, Any]]]
both_frameworks = pytest.mark.parametrize("write", [of_langchain, of_llama_index])


@both_frameworks
def test_neighbors_of_one_role_with_two_names_are_told_apart(write: Write) -> None:
    assert texts(write(ASKED, FERRY, TRAIN)) == [
        "Ferry or train?",
        "Researcher: Take the ferry.\n\nCritic: No, the train.",
    ]
    assert texts(write(("user", "Hi.", "Anna"), ("user", "Me too.", "Bob"))) == ["Anna: Hi.\n\nBob: Me too."]


@both_frameworks
@pytest.mark.parametrize(
    "messages",
    [
        [ASKED, FERRY, ("assistant", "Or wait.", "Researcher")],
        [ASKED, FERRY, ("assistant", "No name.", None)],
        [ASKED, FERRY, ("assistant", "Empty.", " ")],
        [ASKED, FERRY, ASKED, TRAIN],
        [("user", "Hi.", "Anna"), FERRY],
        [("system", "a", "example_user"), ("system", "b", "example_assistant"), ASKED],
    ],
)
def test_a_run_of_one_role_with_one_name_stays_as_it_is_without(write: Write, messages: list[Said]) -> None:
    assert write(*messages) == write(*((role, text, None) for role, text, _ in messages))


@both_frameworks
def test_a_longer_conversation_begins_with_the_bytes_of_the_shorter(write: Write) -> None:
    conversation = [ASKED, FERRY, TRAIN, ASKED, FERRY, TRAIN, ASKED]
    turns = [write(*conversation[:end]) for end in (1, 3, 4, 6, 7)]
    assert all(longer[: len(turn)] == turn for turn, longer in pairwise(turns))
    first, second = (texts(write(*conversation[:3], *more))[1] for more in ([], [("assistant", "A bus.", "Driver")]))
    assert second == f"{first}\n\nDriver: A bus."


@both_frameworks
def test_a_text_that_begins_with_the_name_gets_no_second_one(write: Write) -> None:
    inline = "<name>Critic</name><content>No.</content>"  # as langgraph-supervisor writes it
    written = write(ASKED, ("assistant", "Researcher: Yes.", "Researcher"), ("assistant", inline, "Critic"))
    assert texts(written)[1] == f"Researcher: Yes.\n\n{inline}"


@both_frameworks
def test_a_name_is_one_line(write: Write) -> None:
    assert texts(write(ASKED, FERRY, ("assistant", "No.", "The\n Critic")))[1].endswith("The Critic: No.")


def test_names_are_told_apart_where_a_system_message_goes_to_the_front() -> None:
    messages = [HumanMessage("Hi.", name="Anna"), SystemMessage("Be brief."), HumanMessage("Me too.", name="Bob")]
    written = request_messages.encode(from_langchain(messages), {})
    assert texts([*written.messages]) == ["Hi.", "Be brief.", "Me too."]
    assert written.system_first is not None
    assert texts([*written.system_first]) == ["Be brief.", "Anna: Hi.\n\nBob: Me too."]


def test_thoughts_and_calls_have_no_name() -> None:
    call: Any = {"name": "look", "args": {}, "id": "1"}
    thinking = AIMessage("No.", name="Critic", additional_kwargs={"reasoning_content": "Hm."})
    calling = AIMessage("", name="Researcher", tool_calls=[call])
    pending = from_langchain([HumanMessage("q"), AIMessage("Yes.", name="Researcher"), thinking, calling])
    assert [part for part in pending[1].parts if isinstance(part, str)] == ["Researcher: Yes.\n\n", "Critic: No."]
    alone = from_langchain([HumanMessage("q"), calling, ToolMessage("3", tool_call_id="1"), thinking])
    assert [part for message in alone for part in message.parts if isinstance(part, str)] == ["q", "No."]


def test_who_sent_an_image_is_said_before_it() -> None:
    image = ChatMessage(role="user", blocks=[ImageBlock(image=PIXEL)], additional_kwargs={"name": "Anna"})
    text = ChatMessage(role="user", blocks=[TextBlock(text="Nice!")], additional_kwargs={"name": "Bob"})
    (message,) = from_llama_index([image, text])
    assert [part if isinstance(part, str) else "image" for part in message.parts] == ["Anna:", "image", "Bob: Nice!"]
