"""An agent is served over the AG-UI protocol, and a client reads its events."""

import json
from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "ag-ui-langgraph",
    "fastapi",
    group="agents",
    job="an agent is served over AG-UI: its reasoning, calls and texts are streamed as events",
    weekly=True,
)


async def test_an_agent_is_served(serve: Serve) -> None:
    from ag_ui_langgraph import LangGraphAgent, add_langgraph_fastapi_endpoint
    from fastapi import FastAPI
    from httpx import ASGITransport, AsyncClient
    from langchain.agents import create_agent
    from langgraph.checkpoint.memory import InMemorySaver

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {
            "when": {"role": "user"},
            "then": [{"reasoning": "I look."}, {"tool": "weather", "arguments": {"city": "Oslo"}}],
        },
        {"when": {"role": "tool"}, "then": "It says: {last}"},
    )

    def weather(city: str) -> str:
        """Return the weather of a city."""
        return f"Rain in {city}."

    graph = create_agent(ChatLMStudio(model=CHAT), [weather], checkpointer=InMemorySaver())
    app = FastAPI()
    add_langgraph_fastapi_endpoint(app, LangGraphAgent(name="agent", graph=graph), "/agent")
    request: dict[str, Any] = {
        "threadId": "1",
        "runId": "2",
        "state": {},
        "messages": [{"id": "3", "role": "user", "content": "How is the weather in Oslo?"}],
        "tools": [],
        "context": [],
        "forwardedProps": {},
    }
    async with AsyncClient(transport=ASGITransport(app), base_url="http://localhost") as client:
        response = await client.post("/agent", json=request, headers={"accept": "text/event-stream"})
    events = [json.loads(line.removeprefix("data: ")) for line in response.text.splitlines() if line]

    def joined(kind: str) -> str:
        return "".join(each["delta"] for each in events if each["type"] == kind)

    assert joined("REASONING_MESSAGE_CONTENT") == "I look."
    assert [each["toolCallName"] for each in events if each["type"] == "TOOL_CALL_START"] == ["weather"]
    assert json.loads(joined("TOOL_CALL_ARGS")) == {"city": "Oslo"}
    assert [each["content"] for each in events if each["type"] == "TOOL_CALL_RESULT"] == ["Rain in Oslo."]
    assert joined("TEXT_MESSAGE_CONTENT") == "It says: Rain in Oslo."
    assert events[-1]["type"] == "RUN_FINISHED"
    (usage,) = events[-1]["usage"]
    assert (usage["provider"], usage["model"]) == ("lmstudio", CHAT)
    asked, told = server.predictions
    assert usage["inputTokens"] == asked.stats["promptTokensCount"] + told.stats["promptTokensCount"]
    assert usage["outputTokens"] == asked.stats["predictedTokensCount"] + told.stats["predictedTokensCount"]
    assert [each["role"] for each in told.messages] == ["user", "assistant", "tool"]
