"""What `LMStudioToolkit` has of LangChain; what holds in both frameworks is in `tests/_adapters`."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseToolkit, StructuredTool, ToolException

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import LMStudioToolkit
from lmstudio_integrations.langchain._tools import openai_tools
from tests._adapters.toolkits import PLUGIN, Sums, agent_of, asking, graph_of, server, sums, tools_of

__all__ = ["server", "sums"]

WAITING = {"plugin": PLUGIN, "tool": "wait"}
REPORTS = [
    {"type": "tool_status", **WAITING, "text": "waiting"},
    {"type": "tool_warning", **WAITING, "text": "for long"},
]


def named(config: str, run_manager: str, callbacks: str, self: str, runtime: str, args: str = "") -> str:
    """Return the arguments."""
    return f"{config}{run_manager}{callbacks}{self}{runtime}{args}"


def test_a_tool_is_a_structured_tool_with_the_schema_of_the_server(server: Emulator) -> None:
    toolkit = LMStudioToolkit(PLUGIN, host=server.address)
    assert isinstance(toolkit, BaseToolkit)
    add, _, echo, wait = toolkit.get_tools()
    assert isinstance(add, StructuredTool)
    assert (add.name, add.description, add.metadata) == ("add", "Add two numbers.", {"plugin": PLUGIN})
    assert add.args_schema == {
        "type": "object",
        "properties": {"a": {"title": "A", "type": "integer"}, "b": {"title": "B", "type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    assert (set(add.args), wait.args) == ({"a", "b"}, {})
    (function,) = [each["function"] for each in openai_tools([add])]
    assert function["parameters"]["properties"] == {"a": {"type": "integer"}, "b": {"type": "integer"}}
    assert add.func is not None
    assert add.func(a=1, b=2) == ("3", 3)
    assert echo.invoke({"value": {"b": [1]}}) == '{"b":[1]}'  # without a call of a model there is no message


async def test_arguments_may_have_the_names_of_parameters_of_the_framework() -> None:
    arguments = {"config": "a", "run_manager": "b", "callbacks": "c", "self": "d", "runtime": "e", "args": "f"}
    message = AIMessage("", tool_calls=[{"name": "named", "args": arguments, "id": "1"}])
    with Emulator(["m"], plugins={PLUGIN: [named]}) as server:
        (tool,) = LMStudioToolkit(PLUGIN, host=server.address).get_tools()
        assert tool.invoke(arguments, {"tags": ["t"]}) == "abcdef"
        assert await tool.ainvoke(arguments, {"tags": ["t"]}) == "abcdef"
        assert (await graph_of([tool]).ainvoke({"messages": [message]}))["messages"][-1].content == "abcdef"


@pytest.mark.parametrize("name", ["fail", "add"])
async def test_without_handling_the_errors_of_tools_are_exceptions_of_both(server: Emulator, name: str) -> None:
    tool = tools_of(LMStudioToolkit(PLUGIN, host=server.address))[name]
    tool.handle_tool_error = False
    with pytest.raises(ToolException) as caught:
        tool.invoke({})
    with pytest.raises(ToolException):
        await tool.ainvoke({})
    kind = lms.LMStudioPluginToolError if name == "fail" else lms.LMStudioValueError
    assert type(caught.value.__cause__) is kind
    assert str(caught.value) == str(caught.value.__cause__)


def test_an_async_callback_in_a_sync_call_is_an_error_of_the_program(server: Emulator, sums: Sums) -> None:
    async def report(_: lms.ToolReport) -> None:
        raise AssertionError("it is never awaited")

    tool = tools_of(LMStudioToolkit(PLUGIN, host=server.address, on_status=report))["wait"]
    with pytest.raises(lms.LMStudioValueError, match="on_status must be a function that is not async"):
        tool.invoke({})
    assert sums.runs == 0


# In graphs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", ["ToolNode", "create_agent"])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_reports_go_to_the_stream_of_the_graph(server: Emulator, sums: Sums, runner: str, way: str) -> None:
    called: list[str] = []
    toolkit = LMStudioToolkit(PLUGIN, host=server.address, on_status=lambda report: called.append(report.text))
    tools = toolkit.get_tools()
    graph, question = (
        (graph_of(tools), asking("wait")) if runner == "ToolNode" else (agent_of(toolkit, tools), {"messages": "wait"})
    )
    seen: list[Any] = []

    def see(update: Any) -> None:
        seen.append(update)
        if len(seen) == 2:
            sums.gate.open()

    async def stream() -> None:
        async for update in graph.astream(question, stream_mode="custom"):
            see(update)

    if way == "async":
        asyncio.run(stream())
    else:
        for update in graph.stream(question, stream_mode="custom"):
            see(update)
    assert seen == REPORTS
    assert called == ["waiting"]


WITHOUT_LANGGRAPH = """
import sys
sys.modules["langgraph"] = None
from lmstudio_integrations.langchain import LMStudioToolkit
add, *_ = LMStudioToolkit({plugin!r}, host={host!r}).get_tools()
assert add.invoke({{"a": 1, "b": 2}}) == "3"
"""


@pytest.mark.exhaustive
def test_langgraph_is_not_needed(server: Emulator) -> None:
    program = WITHOUT_LANGGRAPH.format(plugin=PLUGIN, host=server.address)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)
