"""An agent calls a tool of the user's browser, and goes on with its result."""

from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "copilotkit",
    group="agents",
    job="an agent calls a tool of the browser, and goes on with its result",
    weekly=True,
)


async def test_an_agent_calls_a_tool_of_the_browser(serve: Serve) -> None:
    from ag_ui.core import RunAgentInput
    from copilotkit import CopilotKitMiddleware, LangGraphAGUIAgent
    from langchain.agents import create_agent
    from langgraph.checkpoint.memory import InMemorySaver

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {"when": {"role": "user"}, "then": [{"tool": "paint", "arguments": {"color": "red"}}]},
        {"when": {"role": "tool"}, "then": "It is {last}."},
    )

    def look(pier: int) -> str:
        """Look at a pier."""
        return "empty"

    graph = create_agent(
        ChatLMStudio(model=CHAT), [look], middleware=[CopilotKitMiddleware()], checkpointer=InMemorySaver()
    )
    agent = LangGraphAGUIAgent(name="agent", graph=graph)
    paint = {
        "name": "paint",
        "description": "Paint the page.",
        "parameters": {"type": "object", "properties": {"color": {"type": "string"}}, "required": ["color"]},
    }

    async def run(*messages: Any) -> list[Any]:
        given = {"threadId": "1", "runId": "1", "state": {}, "messages": messages, "tools": [paint], "context": []}
        value = RunAgentInput.model_validate({**given, "forwardedProps": {}})
        return [each async for each in agent.run(value)]

    question = {"id": "1", "role": "user", "content": "Paint it red."}
    events = await run(question)
    (call,) = [each for each in events if each.type == "TOOL_CALL_START"]
    assert call.tool_call_name == "paint"
    arguments = "".join(each.delta for each in events if each.type == "TOOL_CALL_ARGS")
    assert (arguments, events[-1].type) == ('{"color": "red"}', "RUN_FINISHED")
    function = {"id": call.tool_call_id, "type": "function", "function": {"name": "paint", "arguments": arguments}}
    called = {"id": call.parent_message_id, "role": "assistant", "content": "", "toolCalls": [function]}
    events = await run(question, called, {"id": "2", "role": "tool", "toolCallId": call.tool_call_id, "content": "red"})
    assert "".join(each.delta for each in events if each.type == "TEXT_MESSAGE_CONTENT") == "It is red."
    (usage,) = events[-1].usage
    assert (usage.provider, usage.model) == ("lmstudio", CHAT)
    asked, told = server.predictions
    assert [each["function"]["name"] for each in asked.tools] == ["look", "paint"]
    assert [each["role"] for each in told.messages] == ["system", "user", "assistant", "tool"]
