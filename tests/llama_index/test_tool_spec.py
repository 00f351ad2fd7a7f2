"""What `LMStudioToolSpec` has of LlamaIndex; what holds in both frameworks is in `tests/_adapters`."""

import json
import pickle
from typing import Any

import pytest
from llama_index.core.agent.workflow import ReActAgent, ToolCallResult
from llama_index.core.tools import FunctionTool, ToolMetadata
from llama_index.core.tools.calling import acall_tool, call_tool
from llama_index.core.tools.tool_spec.base import BaseToolSpec

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.llama_index import LMStudio, LMStudioToolSpec
from lmstudio_integrations.llama_index._tool_errors import as_error_of_agent
from lmstudio_integrations.llama_index._tools import openai_tools
from tests._adapters.toolkits import PLUGIN, Sums, function_agent, server, sums, tools_of
from tests._adapters.ways import AGENT_WARNINGS

__all__ = ["server", "sums"]

pytestmark = AGENT_WARNINGS

SCHEMA = {
    "type": "object",
    "properties": {"a": {"title": "A", "type": "integer"}, "b": {"title": "B", "type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


def spec_of(server: Emulator, **settings: Any) -> LMStudioToolSpec:
    return LMStudioToolSpec(PLUGIN, host=server.address, **settings)


def test_a_tool_is_a_function_tool_with_the_schema_of_the_server(server: Emulator) -> None:
    spec = spec_of(server)
    assert isinstance(spec, BaseToolSpec)
    add, *_, wait = spec.to_tool_list()
    assert isinstance(add, FunctionTool)
    assert (add.metadata.name, add.metadata.description) == ("add", "Add two numbers.")
    assert add.metadata.get_parameters_dict() == json.loads(add.metadata.fn_schema_str) == SCHEMA
    assert wait.metadata.get_parameters_dict()["properties"] == {}
    (function,) = [each["function"] for each in openai_tools([add])]
    assert function["parameters"] == SCHEMA
    assert add.metadata.to_openai_tool()["function"]["parameters"] == SCHEMA
    output = add.call(a=1, b=2)
    assert (output.tool_name, output.raw_input["kwargs"]) == ("add", {"a": 1, "b": 2})


async def test_the_functions_return_the_result_of_the_server(server: Emulator) -> None:
    echo = tools_of(spec_of(server))["echo"]
    assert echo.fn(value={"b": [1]}) == await echo.async_fn(value={"b": [1]}) == {"b": [1]}
    for output in (call_tool(echo, {"value": 5}), await acall_tool(echo, {"value": 5})):  # the only argument, by name
        assert (output.content, output.is_error) == ("5", False)


async def test_a_positional_argument_of_a_tool_is_an_error_that_names_its_arguments(server: Emulator) -> None:
    add = tools_of(spec_of(server))["add"]
    remedy = r"add takes its arguments by name; write tool\(a=…, b=…\)"
    with pytest.raises(lms.LMStudioValueError, match=remedy):
        add(1)
    with pytest.raises(lms.LMStudioValueError, match=remedy):
        await add.acall(1, 2)


@pytest.mark.parametrize("way", ["setting", "argument"])
async def test_tools_are_chosen_by_name(server: Emulator, way: str) -> None:
    names: Any = ["my_echo", "my_add"]
    of_spec, of_call = (names, None) if way == "setting" else (["my_fail"], names)
    spec = spec_of(server, prefix="my_", spec_functions=of_spec)
    metadata = ToolMetadata(name="sum", description="Add.")
    for tools in (
        spec.to_tool_list(of_call, {"my_add": metadata}),
        await spec.to_tool_list_async(of_call, {"my_add": metadata}),
    ):
        assert [tool.metadata.name for tool in tools] == ["my_echo", "sum"]
        assert tools[1].call(a=1, b=2).content == "3"
    with pytest.raises(lms.LMStudioValueError, match="there is no tool 'add'; the tools are: my_add, my_fail"):
        spec.to_tool_list(["add"])
    with pytest.raises(lms.LMStudioValueError, match="there is no tool 'nothing'"):
        spec.to_tool_list(func_to_metadata_mapping={"nothing": metadata})


async def test_an_agent_that_writes_its_calls_as_text_reads_the_schemas(sums: Sums) -> None:
    thought = 'Thought: I add.\nAction: add\nAction Input: {"a": 1, "b": 2}'
    rules: list[dict[str, Any]] = [
        {"when": {"last": "Observation: 3"}, "then": [{"text": "Thought: I know.\nAnswer: It is 3."}]},
        {"then": [{"text": thought}]},
    ]
    with Emulator([{"key": "m", "rules": rules}], plugins={PLUGIN: sums.functions}) as server:
        llm = LMStudio(model="m", host=server.address)
        agent = ReActAgent(llm=llm, tools=[*await spec_of(server).to_tool_list_async()])
        assert str(await agent.run("1 + 2?")) == "It is 3."
        assert json.dumps(SCHEMA) in server.predictions[0].messages[0]["content"]


# Errors of which nobody knows what the tool has done ------------------------------------------------------------------


async def test_a_run_that_ends_by_a_timeout_gives_the_model_nothing(server: Emulator) -> None:
    tools: Any = await spec_of(server, timeouts={"total_timeout": 0.5}).to_tool_list_async()
    handler = function_agent(spec_of(server), tools).run("wait")
    results = [each async for each in handler.stream_events() if isinstance(each, ToolCallResult)]
    with pytest.raises(lms.LMStudioTimeoutError, match="'wait' of 'mcp/sums'"):
        await handler
    assert results == []
    assert len(server.predictions) == 1


@pytest.mark.parametrize(
    ("error", "ends_the_run"),
    [
        (lms.LMStudioToolConnectionLostError("lost", plugin="p", tool="t"), True),
        (lms.LMStudioTimeoutError("late", timeout_name="total_timeout", elapsed=2.0), True),
        (lms.LMStudioPluginToolError("failed", plugin="p", tool="t"), False),
        (lms.LMStudioUnreachableError("nobody there", tried=("a",)), False),
        (lms.LMStudioRuntimeError("closed"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_errors_of_unknown_effect_end_the_run(error: lms.LMStudioError, ends_the_run: bool) -> None:
    kind, before = type(error), dict(vars(error))
    same = as_error_of_agent(error)
    assert same is error
    assert isinstance(error, kind)
    assert (type(error) is not kind) is ends_the_run
    assert vars(error) == before
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied), vars(copied)) == (type(error), str(error), before)
    assert as_error_of_agent(error) is error
