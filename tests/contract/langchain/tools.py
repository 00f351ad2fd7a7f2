"""Tool calls, their results, and agents."""

import base64
from typing import Any

from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from tests.contract.langchain.integration import (
    Integration,
    Person,
    both,
    collect,
    contract,
    offered_tools,
    population,
    weather,
)
from tests.contract.suite import PNG, SECRET
from tests.support.requested import digest

OSLO = {"city": "Oslo"}


class _Weather(BaseModel):
    """Return the weather of a city."""

    city: str = Field(description="The city.")


class _TypedWeather(TypedDict):
    """Return the weather of a city."""

    city: str


_WEATHER_DICT: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Return the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@contract("`bind_tools` accepts functions, pydantic classes, `TypedDict`s, LangChain tools and OpenAI dicts")
def _bind_tools(integration: Integration) -> None:
    llm = integration.chat()
    kinds = {"weather": weather, "_Weather": _Weather, "_TypedWeather": _TypedWeather}
    for name, kind in [*kinds.items(), ("weather", tool(weather)), ("weather", _WEATHER_DICT)]:
        llm.bind_tools([kind]).invoke("count")
        (sent,) = integration.server.last_request.tools
        assert sent.function.name == name
        assert [*(sent.function.parameters or {})["properties"]] == ["city"]


@contract("tool calls have a name, arguments and an id")
async def _calls(integration: Integration) -> None:
    llm = integration.chat().bind_tools([weather])
    for message in (llm.invoke("weather"), await llm.ainvoke("weather")):
        (call,) = message.tool_calls
        assert (call["name"], call["args"]) == ("weather", OSLO)
        assert call["id"]


@contract("`tool_call_chunks` of a stream add up to the tool call")
async def _streamed_calls(integration: Integration) -> None:
    llm = integration.chat().bind_tools([weather])
    for chunks in (list(llm.stream("weather")), await collect(llm.astream("weather"))):
        assert any(chunk.tool_call_chunks for chunk in chunks)
        total = chunks[0]
        for chunk in chunks[1:]:
            total += chunk
        (call,) = total.tool_calls
        assert (call["name"], call["args"]) == ("weather", OSLO)
        assert call["id"]


@contract("two identical tool calls have distinct ids, streaming or not")
def _equal_calls(integration: Integration) -> None:
    for message in both(integration.chat().bind_tools([weather]), "both"):
        assert len({call["id"] for call in message.tool_calls}) == 2


@contract("a malformed tool call is reported in `invalid_tool_calls` or raised, not returned as text")
def _malformed(integration: Integration) -> None:
    llm = integration.chat().bind_tools([weather])
    for respond in (lambda: llm.invoke("broken"), lambda: both(llm, "broken")[1]):
        try:
            message = respond()
        except Exception:  # noqa: BLE001 - peers raise all kinds
            continue
        assert message.invalid_tool_calls
        assert not message.tool_calls


@contract('`tool_choice="any"` is sent to the server')
def _any_tool(integration: Integration) -> None:
    integration.chat().bind_tools([weather], tool_choice="any").invoke("weather")
    assert integration.server.last_request.tool_choice == "required"


@contract("with the name of a tool as `tool_choice`, the model calls that tool")
def _named_tool(integration: Integration) -> None:
    llm = integration.chat().bind_tools([weather, population], tool_choice="population")
    assert [call["name"] for call in llm.invoke("either").tool_calls] == ["population"]


@contract('with `tool_choice="none"`, the model calls no tool')
def _no_tool(integration: Integration) -> None:
    message = integration.chat().bind_tools([weather], tool_choice="none").invoke("weather")
    assert not message.tool_calls
    assert not offered_tools(integration)


@contract("with `parallel_tool_calls=False`, a response has one tool call")
def _one_call(integration: Integration) -> None:
    llm = integration.chat().bind_tools([weather], parallel_tool_calls=False)
    for message in both(llm, "both"):
        assert len(message.tool_calls) == 1


def _conversation(call_id: str, content: Any, **fields: Any) -> list[Any]:
    call = {"name": "weather", "args": OSLO, "id": call_id}
    result = ToolMessage(content=content, tool_call_id=call_id, **fields)
    return [HumanMessage("weather"), AIMessage(content="", tool_calls=[call]), result]


@contract("a tool result is sent with the id of its call, and without its artifact")
def _results(integration: Integration) -> None:
    messages = _conversation("call-1", "rain", artifact={"raw": SECRET})
    integration.chat().bind_tools([weather]).invoke(messages)
    history = integration.server.last_request.history
    assert history is not None
    last = history.messages[-1].to_dict()["content"][0]
    assert (last["content"], last.get("toolCallId")) == ("rain", "call-1")
    assert SECRET not in repr(history.to_dict())


@contract("an image in a `ToolMessage` is sent")
def _image_results(integration: Integration) -> None:
    image = {"type": "image", "base64": base64.b64encode(PNG).decode(), "mime_type": "image/png"}
    integration.chat().bind_tools([weather]).invoke(_conversation("call-1", [image]))
    assert integration.server.last_request.images == [digest(PNG)]


def _input(text: str) -> Any:
    return {"messages": [("user", text)]}


@contract("`create_agent`: the agent calls a tool and responds to its result, sync and async")
async def _agent(integration: Integration) -> None:
    agent: Any = create_agent(integration.chat(), [weather])
    for result in (agent.invoke(_input("weather")), await agent.ainvoke(_input("weather"))):
        assert result["messages"][-1].text == "The tool said rain in Oslo."


@contract("`create_agent`: a streaming agent delivers tokens and tool calls")
async def _streaming_agent(integration: Integration) -> None:
    agent: Any = create_agent(integration.chat(), [weather])
    chunks = [chunk for chunk, _ in agent.stream(_input("weather"), stream_mode="messages")]
    awaited = [chunk async for chunk, _ in agent.astream(_input("weather"), stream_mode="messages")]
    for found in (chunks, awaited):
        text = "".join(chunk.text for chunk in found if not isinstance(chunk, ToolMessage))
        assert text.endswith("The tool said rain in Oslo.")
        assert any(getattr(chunk, "tool_call_chunks", None) for chunk in found)


@contract("`create_agent`: with `response_format`, the agent returns an instance of the class")
def _structured_agent(integration: Integration) -> None:
    agent: Any = create_agent(integration.chat(), [weather], response_format=ToolStrategy(Person))
    assert agent.invoke(_input("weather"))["structured_response"] == Person(name="Ann Lee", age=7)
