"""`LMStudio(model="plugin:owner/name")`: a generator plugin in place of a model."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.core.types import PydanticProgramMode

from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.llama_index import LlamaIndexToolCallError, LMStudio, LMStudioTokenizer
from tests.llama_index.scripted_server import Server, raw
from tests.support.generators import GENERATOR, MODEL, OF_MODELS, PLUGINS, City, pier

PIER = FunctionTool.from_defaults(pier)
Response = ChatResponse | CompletionResponse


@pytest.fixture
def server() -> Iterator[Server]:
    with Server([], plugins=PLUGINS) as running:
        yield running


@pytest.fixture
def writer(server: Server) -> LMStudio:
    return server.llm(model=MODEL)


# Responses


def _user(text: str) -> list[ChatMessage]:
    return [ChatMessage(text)]


async def _last(stream: Awaitable[Any]) -> Any:
    return [chunk async for chunk in await stream][-1]


WAYS: dict[str, Callable[..., Response]] = {
    "chat": lambda llm, text, **given: llm.chat(_user(text), **given),
    "achat": lambda llm, text, **given: asyncio.run(llm.achat(_user(text), **given)),
    "stream_chat": lambda llm, text, **given: list(llm.stream_chat(_user(text), **given))[-1],
    "astream_chat": lambda llm, text, **given: asyncio.run(_last(llm.astream_chat(_user(text), **given))),
    "complete": lambda llm, text, **given: llm.complete(text, **given),
    "acomplete": lambda llm, text, **given: asyncio.run(llm.acomplete(text, **given)),
    "stream_complete": lambda llm, text, **given: list(llm.stream_complete(text, **given))[-1],
    "astream_complete": lambda llm, text, **given: asyncio.run(_last(llm.astream_complete(text, **given))),
}
Way = Callable[..., Response]


def _text(response: Response) -> str | None:
    return response.text if isinstance(response, CompletionResponse) else response.message.content


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_response_has_what_is_known_and_no_more(server: Server, writer: LMStudio, way: Way) -> None:
    response = way(writer, "count")
    assert _text(response) == "0 1 2 3"
    assert raw(response) == {"model": GENERATOR, "host": server.address, "only_reasoning": False}
    assert response.additional_kwargs == {}


def test_the_metadata_has_defaults_or_what_the_user_says(server: Server, writer: LMStudio) -> None:
    assert writer.metadata.context_window == DEFAULT_CONTEXT_WINDOW
    assert writer.metadata.is_function_calling_model
    assert writer.metadata.model_name == MODEL
    writer.chat(_user("count"))
    assert writer.metadata.context_window == DEFAULT_CONTEXT_WINDOW
    assert server.llm(model=MODEL, context_window=9000).metadata.context_window == 9000


# Tools


CALLS: dict[str, Callable[[LMStudio, str], ChatResponse]] = {
    "chat": lambda llm, text: llm.chat_with_tools([PIER], text),
    "achat": lambda llm, text: asyncio.run(llm.achat_with_tools([PIER], text)),
    "stream": lambda llm, text: list(llm.stream_chat_with_tools([PIER], text))[-1],
    "astream": lambda llm, text: asyncio.run(_last(llm.astream_chat_with_tools([PIER], text))),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_tool_call_is_a_tool_call(writer: LMStudio, call: Callable[[LMStudio, str], ChatResponse]) -> None:
    (found,) = writer.get_tool_calls_from_response(call(writer, "call it"))
    assert (found.tool_id, found.tool_name, found.tool_kwargs) == ("c1", "pier", {"destination": "island"})


def test_a_required_call_that_does_not_come_is_an_error(server: Server, writer: LMStudio) -> None:
    with pytest.raises(LlamaIndexToolCallError, match="a tool call was required"):
        writer.chat_with_tools([PIER], "count", tool_required=True)
    assert len(server.predictions) == 1


# Core's agents look at every attribute, also at those that pydantic and workflows have deprecated.
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning", "ignore:is_running called")
async def test_an_agent_runs_tools(writer: LMStudio) -> None:
    assert str(await FunctionAgent(tools=[pier], llm=writer).run("call it")) == "The tool said pier 7, to the island."


# Structured output

CITY = PromptTemplate("city")
STRUCTURED: dict[str, Callable[[LMStudio], Any]] = {
    "structured_predict": lambda llm: llm.structured_predict(City, CITY),
    "astructured_predict": lambda llm: asyncio.run(llm.astructured_predict(City, CITY)),
    "stream_structured_predict": lambda llm: list(llm.stream_structured_predict(City, CITY))[-1],
    "astream_structured_predict": lambda llm: asyncio.run(_last(llm.astream_structured_predict(City, CITY))),
    "as_structured_llm": lambda llm: llm.as_structured_llm(City).complete("city").raw,
}


@pytest.mark.parametrize("mode", [PydanticProgramMode.DEFAULT, PydanticProgramMode.FUNCTION])
@pytest.mark.parametrize("predict", STRUCTURED.values(), ids=STRUCTURED)
def test_a_tool_gives_structured_output(
    server: Server, predict: Callable[[LMStudio], Any], mode: PydanticProgramMode
) -> None:
    writer = server.llm(model=MODEL, pydantic_program_mode=mode, system_prompt="Be brief.")
    assert predict(writer) == City(name="Oslo")
    assert [message["role"] for message in server.predictions[-1].messages] == ["system", "user"]


def test_a_response_format_is_an_error(writer: LMStudio) -> None:
    with pytest.raises(LMStudioValueError, match="but not response_format;"):
        writer.chat(_user("city"), response_format=City)


def test_more_than_one_attempt_is_an_error(server: Server, writer: LMStudio) -> None:
    with pytest.raises(LMStudioValueError, match="which a generator plugin does not use; use another model"):
        writer.structured_predict(City, CITY, {"max_attempts": 2})
    assert not server.predictions


# What only models have


@pytest.mark.parametrize("way", [WAYS["chat"], WAYS["astream_complete"]])
@pytest.mark.parametrize(("given", "names"), OF_MODELS.values(), ids=OF_MODELS)
def test_settings_of_models_are_one_error(server: Server, given: dict[str, Any], names: str, way: Way) -> None:
    text = f"'{GENERATOR}' accepts a conversation and tools, but not {names}$"
    with pytest.raises(LMStudioValueError, match=text):
        way(server.llm(**{"model": MODEL, **given}), "count")
    with pytest.raises(LMStudioValueError, match=text):
        way(server.llm(model=MODEL), "count", **given)
    assert not server.predictions


ON_MODELS: dict[str, Callable[[Server], Any]] = {
    "a text to continue": lambda server: server.llm(model=MODEL).complete("a", formatted=True),
    "the same async": lambda server: asyncio.run(server.llm(model=MODEL).acomplete("a", formatted=True)),
    "tokens": lambda server: LMStudioTokenizer(server.llm(model=MODEL))("a"),
    "atokenize": lambda server: asyncio.run(server.llm(model=MODEL).atokenize("a")),
    "load": lambda server: server.llm(model=MODEL).load(),
    "aload": lambda server: asyncio.run(server.llm(model=MODEL).aload()),
    "hosts": lambda server: server.llm(model=MODEL).hosts(),
    "embedding": lambda server: server.embedding(model=MODEL).get_query_embedding("a"),
}


@pytest.mark.parametrize("call", ON_MODELS.values(), ids=ON_MODELS)
def test_what_needs_a_model_is_an_error_that_says_so(server: Server, call: Callable[[Server], Any]) -> None:
    with pytest.raises(LMStudioValueError, match=f"model='{MODEL}' is a generator plugin"):
        call(server)
