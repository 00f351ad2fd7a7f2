"""What all checks of LangChain integrations use."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from pydantic import BaseModel

from tests.contract.engine import RecordingEngine
from tests.contract.suite import Suite


@dataclass(frozen=True)
class Integration:
    """An integration, connected to a scripted server.

    The factories accept LangChain's standard parameters by LangChain's names and translate them if the integration
    documents another name: `temperature`, `max_tokens`, `timeout`, `stop`, `seed`, `api_key`, and the fields of
    langchain-core's own class.

    Attributes:
        name: The name of its package.
        chat: Creates a chat model.
        unreachable: Creates a chat model whose server is not reachable.
        embeddings: Creates an embedding model; accepts `api_key`.
        server: The engine of the server.
        provider: The name of the provider in `init_chat_model`.
        connection: The parameters in which `init_chat_model` passes the address of the server.
    """

    name: str
    chat: Callable[..., Any]
    unreachable: Callable[..., Any]
    embeddings: Callable[..., Any]
    server: RecordingEngine
    provider: str
    connection: Mapping[str, Any]


SUITE: Suite[Integration] = Suite()
contract = SUITE.check


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"rain in {city}"


def population(city: str) -> str:
    """Return the population of a city."""
    return f"{len(city)} million"


def summed(chunks: Iterable[Any]) -> AIMessageChunk:
    """Return the sum of the chunks of a stream."""
    message = reduce(add, chunks)
    assert isinstance(message, AIMessageChunk), f"a chunk is a {type(message).__name__}"
    return message


def both(llm: Any, text: Any) -> tuple[AIMessage, AIMessageChunk]:
    """Return the response of `invoke`, and the sum of the chunks of `stream`."""
    return llm.invoke(text), summed(llm.stream(text))


async def collect(stream: Any) -> list[Any]:
    """Return the items of an async stream."""
    return [item async for item in stream]


def reasoning_of(message: AIMessage) -> str:
    """Return the text of the reasoning blocks."""
    return "".join(block.get("reasoning", "") for block in message.content_blocks if block["type"] == "reasoning")


def check_misspelled(create: Callable[..., Any], **setting: Any) -> None:
    """Check that an unknown setting raises an error, or that a warning names it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            create(**setting)
        except Exception:  # noqa: BLE001 - peers raise all kinds
            return
    (name,) = setting
    assert any(name in str(warning.message) for warning in caught)


def offered_tools(integration: Integration) -> list[str]:
    """Return the names of the tools that the model may call, according to the last request."""
    request = integration.server.last_request
    return [] if request.tool_choice == "none" else [tool.function.name for tool in request.tools]
