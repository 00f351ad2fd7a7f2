"""Tools: what is offered, what comes back, and what the programs of LlamaIndex make of it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.agent.react import ReActChatFormatter, ReActOutputParser
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.program.function_program import get_function_tool
from llama_index.core.tools import BaseTool, FunctionTool, ToolMetadata
from pydantic import BaseModel

from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.errors import LMStudioToolCallError, LMStudioValueError
from lmstudio_integrations.llama_index import LlamaIndexToolCallError, LMStudio
from tests._adapters.ways import AGENT_WARNINGS
from tests.llama_index.scripted_server import Server, raw


class Node(BaseModel):
    """A node of a tree."""

    children: list["Node"] = []


def weather(city: str) -> str:
    """Report the weather of a city."""
    return f"rain in {city}"


def now() -> str:
    """Report the time."""
    return "noon"


def tool(function: Callable[..., Any], **settings: Any) -> FunctionTool:
    return FunctionTool.from_defaults(function, **settings)


WEATHER, NOW = tool(weather), tool(now)


def user(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=text)


def offered(llm: LMStudio, server: Server, *tools: Any) -> list[dict[str, Any]]:
    """Offer tools; return their definitions as the server got them."""
    llm.chat([user("count")], tools=[*tools])
    return [each["function"] for each in server.predictions[-1].tools]


# What is offered ------------------------------------------------------------------------------------------------------


def test_a_tool_is_offered_with_name_description_and_parameters(server: Server, llm: LMStudio) -> None:
    (found,) = offered(llm, server, WEATHER)
    assert found["name"] == "weather"
    assert "Report the weather of a city." in found["description"]
    assert found["parameters"]["properties"]["city"]["type"] == "string"
    assert found["parameters"]["required"] == ["city"]


def test_a_schema_that_contains_itself_keeps_its_references(server: Server, llm: LMStudio) -> None:
    (found,) = offered(llm, server, get_function_tool(Node))
    assert "$defs" in found["parameters"]
    assert found["parameters"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}


def test_a_tool_without_a_name_is_rejected(llm: LMStudio) -> None:
    class Nameless(BaseTool):
        @property
        def metadata(self) -> ToolMetadata:
            return ToolMetadata(description="does things")

        def __call__(self, input: Any) -> Any:  # noqa: A002 - core's
            raise AssertionError

    with pytest.raises(LMStudioValueError, match="a tool needs a name"):
        llm.chat([user("hi")], tools=[Nameless()])


@pytest.mark.parametrize("wrong", ["weather", {"type": "object"}, {"function": {}}])
def test_what_is_no_tool_is_rejected(llm: LMStudio, wrong: Any) -> None:
    with pytest.raises(LMStudioValueError, match="tools must be LlamaIndex tools or OpenAI function dicts"):
        llm.chat([user("hi")], tools=[wrong])


def test_a_function_whose_annotation_nobody_defines_is_rejected(llm: LMStudio) -> None:
    def look(place: "Nowhere") -> None:  # type: ignore[name-defined] # noqa: F821 - the point
        """Look."""

    with pytest.raises(LMStudioValueError, match=r"look has no JSON schema: .* you should define `Nowhere`"):
        llm.chat([user("hi")], tools=[FunctionTool.from_defaults(look)])


def test_what_is_no_list_of_tools_is_rejected(llm: LMStudio) -> None:
    with pytest.raises(LMStudioValueError, match="tools must be a list of tools, got 5"):
        llm.chat([user("hi")], tools=5)


# On the server --------------------------------------------------------------------------------------------------------


def test_a_format_goes_with_further_settings(server: Server) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    with server.llm(prediction_config={"cpu_threads": 2}) as llm:
        llm.chat([user("count")], response_format=schema)
    assert (server.last_request.config.cpu_threads, server.last_request.config.structured) == (
        2,
        {"type": "json", "jsonSchema": schema},
    )


def test_streamed_calls_grow(llm: LMStudio) -> None:
    found = list(llm.stream_chat_with_tools([WEATHER], user_msg="weather please"))
    growing = [
        [call.tool_kwargs for call in llm.get_tool_calls_from_response(chunk, error_on_no_tool_call=False)]
        for chunk in found
    ]
    assert growing[0] == []
    assert growing[-1] == [{"city": "Oslo"}]
    assert any(kwargs == [{}] for kwargs in growing)
    assert {call.tool_id for chunk in found for call in llm.get_tool_calls_from_response(chunk, False)} == {"c1"}


def test_a_tool_without_arguments_is_called_without(llm: LMStudio) -> None:
    response = llm.predict_and_call([NOW], user_msg="bare")
    assert response.response == "noon"


@AGENT_WARNINGS
@pytest.mark.parametrize("method", ["predict_and_call", "apredict_and_call"])
@pytest.mark.parametrize(
    ("written", "output"),
    [
        ('Thought: I need a tool.\nAction: weather\nAction Input: {"city": "Oslo"}', ["rain in Oslo"]),
        ("Thought: I can answer without using any more tools.\nAnswer: It rains.", []),
    ],
    ids=["a call", "an answer"],
)
async def test_a_model_without_calls_follows_the_prompt_of_an_agent(
    written: str, output: list[str], method: str
) -> None:
    """The prompt of core says much of tokens and tools, and has no secret."""
    of_agent = {"react_chat_formatter": ReActChatFormatter(), "output_parser": ReActOutputParser()}
    rules = ({"when": {}, "then": [{"text": written}]},)
    with Emulator([ModelEntry(key="m", rules=rules)]) as server:
        llm = LMStudio(model="m", host=server.address, is_function_calling_model=False)
        response = getattr(llm, method)([WEATHER], user_msg="weather?", **of_agent)
        found = await response if method.startswith("a") else response
    assert [each.content for each in found.sources] == output
    assert found.response == "".join(output)


def test_no_call_is_an_error_where_one_is_expected(llm: LMStudio) -> None:
    response = llm.chat([user("count")])
    assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
    with pytest.raises(LlamaIndexToolCallError) as caught:
        llm.get_tool_calls_from_response(response)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, LMStudioToolCallError)
    assert caught.value.text.startswith("0 1 2")


def until_error(stream: Iterator[ChatResponse]) -> ChatResponse:
    """Return the last chunk before the error that a stream must end with."""
    last = None
    try:
        for chunk in stream:
            last = chunk
    except LlamaIndexToolCallError:
        assert last is not None
        return last
    raise AssertionError("the stream ended without an error")


@pytest.mark.parametrize("prompt", ["broken", "silent"])
async def test_a_failed_or_missing_call_is_an_error_on_every_path(llm: LMStudio, prompt: str) -> None:
    requested: Any = {"tools": [WEATHER], "user_msg": prompt, "tool_required": True, "required_tool_fallback": False}
    requested["repair_tool_calls"] = False
    with pytest.raises(LlamaIndexToolCallError):
        llm.chat_with_tools(**requested)
    with pytest.raises(LlamaIndexToolCallError):
        await llm.achat_with_tools(**requested)
    assert raw(until_error(llm.stream_chat_with_tools(**requested)))["usage"]["completion_tokens"] > 0
    stream = await llm.astream_chat_with_tools(**requested)
    with pytest.raises(LlamaIndexToolCallError):
        [chunk async for chunk in stream]
