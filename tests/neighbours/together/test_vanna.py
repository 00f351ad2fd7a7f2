"""An agent answers a question about data with a query of a database."""

import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "vanna",
    group="applications",
    job="an agent answers questions about data with queries of a database",
    settings="It takes an `LlmService`: a subclass that turns its messages and tools into those of LangChain, about 40 "
    "lines. It asks for `temperature=0.7`",
    weekly=True,
)


async def test_an_agent_queries_a_database(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    from langchain_core.messages import AIMessageChunk
    from vanna import Agent, AgentConfig
    from vanna.core.llm import LlmRequest, LlmResponse, LlmService, LlmStreamChunk
    from vanna.core.registry import ToolRegistry
    from vanna.core.tool import ToolCall
    from vanna.core.user import RequestContext, User, UserResolver
    from vanna.integrations.local.agent_memory import DemoAgentMemory
    from vanna.integrations.sqlite import SqliteRunner
    from vanna.tools import RunSqlTool

    from lmstudio_integrations.langchain import ChatLMStudio

    class Service(LlmService):
        """Our model as a service of vanna."""

        def __init__(self, model: ChatLMStudio) -> None:
            self.model = model

        def _stream(self, request: LlmRequest) -> AsyncIterator[AIMessageChunk]:
            messages: list[Any] = [("system", request.system_prompt)] if request.system_prompt else []
            for each in request.messages:
                calls = [{"name": c.name, "args": c.arguments, "id": c.id} for c in each.tool_calls or ()]
                called = {"tool_calls": calls} if calls else {}
                result = {"tool_call_id": each.tool_call_id} if each.tool_call_id else {}
                messages.append({"role": each.role, "content": each.content, **called, **result})
            tools = [
                {"type": "function", "function": t.model_dump(exclude={"access_groups"})} for t in request.tools or ()
            ]
            return self.model.bind_tools(tools).astream(messages, temperature=request.temperature)

        async def stream_request(self, request: LlmRequest) -> AsyncGenerator[LlmStreamChunk, None]:
            whole = AIMessageChunk("")
            async for chunk in self._stream(request):
                whole += chunk
                yield LlmStreamChunk(content=chunk.text)
            calls = [ToolCall(id=str(c["id"]), name=c["name"], arguments=c["args"]) for c in whole.tool_calls]
            yield LlmStreamChunk(tool_calls=calls or None, finish_reason="stop")

        async def send_request(self, request: LlmRequest) -> LlmResponse:
            chunks = [each async for each in self.stream_request(request)]
            text = "".join(each.content or "" for each in chunks)
            return LlmResponse(content=text, tool_calls=chunks[-1].tool_calls, finish_reason="stop")

        async def validate_tools(self, tools: list[Any]) -> list[str]:
            return []

    class Resolver(UserResolver):
        async def resolve_user(self, request_context: RequestContext) -> User:
            return User(id="ada", group_memberships=["user"])

    with sqlite3.connect(tmp_path / "ferries.db") as database:
        database.execute("create table ferries (name text, minutes integer)")
        database.execute("insert into ferries values ('Aurora', 20), ('Borea', 35)")
    database.close()
    server = serve(
        {"when": {"role": "tool"}, "then": "It said: {last}"},
        {"then": [{"tool": "run_sql", "arguments": {"sql": "select name from ferries where minutes < 30"}}]},
    )
    tools = ToolRegistry()
    tools.register_local_tool(RunSqlTool(sql_runner=SqliteRunner(str(tmp_path / "ferries.db"))), access_groups=["user"])
    agent = Agent(
        llm_service=Service(ChatLMStudio(model=CHAT)),
        tool_registry=tools,
        user_resolver=Resolver(),
        agent_memory=DemoAgentMemory(),
        config=AgentConfig(stream_responses=True),
    )
    shown = [each async for each in agent.send_message(RequestContext(), "Which ferry is the fast one?")]
    assert [each.rich_component.rows for each in shown if hasattr(each.rich_component, "rows")] == [
        [{"name": "Aurora"}]
    ]
    (said,) = [each.rich_component.content for each in shown if getattr(each.rich_component, "content", None)]
    assert said.startswith("It said: name\nAurora\n")
    asked, told = server.predictions
    assert [each["function"]["name"] for each in asked.tools] == ["run_sql"]
    assert [each["role"] for each in told.messages] == ["system", "user", "assistant", "tool"]
    assert [each.config["temperature"] for each in server.predictions] == [0.7, 0.7]
