"""Pydantic AI calls a tool of LangChain, on a function over ours and by the OpenAI-compatible address."""

from typing import Any

import pytest
from neighbour_replies import replies
from neighbour_servers import CHAT, Collector, Serve

pytestmark = pytest.mark.neighbour(
    "pydantic-ai",
    group="others",
    job="an agent with `tool_from_langchain` and `output_type`, on `OpenAIChatModel` and a `FunctionModel` over ours",
    settings="`OpenAIChatModel('KEY', provider=OpenAIProvider(base_url='http://HOST:1234/v1', api_key='lm-studio'))`, "
    "or the `FunctionModel`: our object itself is rejected. Without `api_key`, LM Studio gets `OPENAI_API_KEY`",
    weekly=True,
)


def _agent(model: Any) -> Any:
    from langchain_core.tools import tool
    from pydantic import BaseModel
    from pydantic_ai import Agent
    from pydantic_ai.ext.langchain import tool_from_langchain

    class Price(BaseModel):
        euros: int

    @tool
    def price(pier: int) -> str:
        """Return the price of a ferry from a pier."""
        return f"{pier * 3} euros"

    return Agent(model, output_type=Price, tools=[tool_from_langchain(price)])


CALLS = [("price", {"pier": 7}), ("final_result", {"euros": 21})]
QUESTION = "What is the price at pier 7?"


def test_it_works_by_the_openai_compatible_address(collector: Collector) -> None:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    collector.answer = replies(*({"tool": name, "arguments": arguments} for name, arguments in CALLS))
    provider = OpenAIProvider(base_url=f"{collector.address}/v1", api_key="lm-studio")
    result = _agent(OpenAIChatModel("qwen/qwen3-4b", provider=provider)).run_sync(QUESTION)
    assert result.output.euros == 21
    asked, told = collector.requests
    assert (asked.path, asked.json["model"]) == ("/v1/chat/completions", "qwen/qwen3-4b")
    assert [each["function"]["name"] for each in asked.json["tools"]] == ["price", "final_result"]
    assert told.json["messages"][-1]["content"] == "21 euros"


async def test_it_works_by_a_function_over_ours(serve: Serve) -> None:
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
    from pydantic_ai import ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import FunctionModel

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        *({"when": {"times": 1}, "then": [{"tool": name, "arguments": arguments}]} for name, arguments in CALLS)
    )

    def message_of(part: Any) -> Any:
        match part.part_kind:
            case "tool-call":
                call = {"name": part.tool_name, "args": part.args_as_dict(), "id": part.tool_call_id}
                return AIMessage("", tool_calls=[call])
            case "tool-return":
                return ToolMessage(part.model_response_str(), tool_call_id=part.tool_call_id)
            case "text":
                return AIMessage(part.content)
            case _:
                return HumanMessage(part.content)

    async def on_lm_studio(messages: Any, info: Any) -> ModelResponse:
        tools = [
            {"name": each.name, "description": each.description or "", "parameters": each.parameters_json_schema}
            for each in [*info.function_tools, *info.output_tools]
        ]
        chat = ChatLMStudio(model=CHAT).bind_tools(tools, tool_choice="auto" if info.allow_text_output else "any")
        response = await chat.ainvoke([message_of(part) for each in messages for part in each.parts])
        calls = [ToolCallPart(call["name"], call["args"], call["id"]) for call in response.tool_calls]
        return ModelResponse(calls or [TextPart(response.text)])

    result = await _agent(FunctionModel(on_lm_studio)).run(QUESTION)
    assert result.output.euros == 21
    asked, told = server.predictions
    assert [each["function"]["name"] for each in asked.tools] == ["price", "final_result"]
    assert (asked.tool_choice, [each["role"] for each in told.messages]) == ("required", ["user", "assistant", "tool"])


def test_our_object_is_rejected(serve: Serve) -> None:
    from lmstudio_integrations.langchain import ChatLMStudio
    from lmstudio_integrations.llama_index import LMStudio

    server = serve()
    for ours in (ChatLMStudio(model=CHAT), LMStudio(model=CHAT)):
        with pytest.raises(AttributeError, match="no attribute 'replace'"):
            _agent(ours).run_sync(QUESTION)
    assert server.predictions == ()
