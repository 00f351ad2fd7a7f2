"""A plugin, the toolkits of both frameworks, and every path by which a program or an agent calls one of their tools."""

import asyncio
import base64
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolCall, ToolMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.base.llms.types import ImageBlock
from llama_index.core.tools import ToolOutput

from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioToolkit
from lmstudio_integrations.llama_index import LMStudio, LMStudioToolSpec
from lmstudio_integrations.types.functions import ToolCallContext
from tests.support.gate import Gate

SECONDS = 600.0
PLUGIN = "mcp/sums"
PNG = base64.b64encode((File(__file__).parents[2] / "cookbook/data/square.png").read_bytes()).decode()
CHART = [{"type": "text", "text": "a chart"}, {"type": "image", "data": PNG, "mimeType": "image/png"}]
FAILED = {"content": [{"type": "text", "text": "the disk is full"}], "isError": True}


class Sums:
    """The functions of a plugin, and how often they have run."""

    def __init__(self) -> None:
        self.runs = 0
        self.gate = Gate()

    def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        self.runs += 1
        return a + b

    def fail(self) -> None:
        """Fail."""
        self.runs += 1
        raise ValueError("no api token is loaded")

    def echo(self, value: Any) -> Any:
        """Return a value."""
        self.runs += 1
        return value

    async def wait(self, context: ToolCallContext) -> str:
        """Wait until the call is aborted or the test lets it go on."""
        self.runs += 1
        context.status("waiting")
        context.warn("for long")
        await self.gate.wait()
        return "done"

    @property
    def functions(self) -> Sequence[Callable[..., Any]]:
        return self.add, self.fail, self.echo, self.wait


CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "add": ("add", {"a": 1, "b": 2}),
    "chart": ("echo", {"value": CHART}),
    "data": ("echo", {"value": {"rows": [1, None]}}),
    "text": ("echo", {"value": "plain"}),
    "nothing": ("echo", {"value": {"content": []}}),
    "fail": ("fail", {}),
    "failed": ("echo", {"value": FAILED}),
    "invalid": ("add", {"a": "one", "b": 2}),
    "wait": ("wait", {}),
}
"""The calls of the tests. The scripted model makes the one that it is asked for."""

RULES: list[dict[str, Any]] = [
    {"when": {"role": "tool"}, "then": [{"text": "It says {last}"}]},
    *(
        {"when": {"last": f"^{question}$"}, "then": [{"tool": tool, "arguments": arguments}]}
        for question, (tool, arguments) in CALLS.items()
    ),
]


def server_of(*plugins: Sums, **settings: Any) -> Emulator:
    """Return a server with a model that calls tools, and plugins."""
    named = {PLUGIN if not number else f"mcp/more-{number}": each.functions for number, each in enumerate(plugins)}
    return Emulator([{"key": "m", "vision": True, "rules": RULES}], plugins=named, **settings)


@pytest.fixture
def sums() -> Sums:
    """The functions of the plugin `PLUGIN`."""
    return Sums()


@pytest.fixture
def server(sums: Sums) -> Iterator[Emulator]:
    """A server with the plugin, and with another one that has the same tools."""
    with server_of(sums, Sums()) as running:
        yield running


@dataclass
class Outcome:
    """What a call of a tool came to, for the model and for the program."""

    text: str
    images: list[str] = field(default_factory=list[str])
    is_error: bool = False
    raw: Any = None


Path = Callable[[Any, str], Outcome]
"""Makes a call of `CALLS` with a toolkit."""

# LangChain ------------------------------------------------------------------------------------------------------------


def _tool_call(question: str) -> ToolCall:
    name, arguments = CALLS[question]
    return ToolCall(name=name, args=arguments, id="c1", type="tool_call")


def _named(tools: list[Any], question: str) -> Any:
    return next(tool for tool in tools if tool.name == CALLS[question][0])


def _seen_message(message: Any) -> Outcome:
    assert isinstance(message, ToolMessage)
    is_error = message.status == "error"
    if isinstance(message.content, str):
        return Outcome(message.content, [], is_error, message.artifact)
    blocks: list[Any] = message.content
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    images = [block["base64"] for block in blocks if block["type"] == "image"]
    assert all(block["mime_type"] == "image/png" for block in blocks if block["type"] == "image")
    return Outcome("\n".join(texts), images, is_error, message.artifact)


def invoke(toolkit: LMStudioToolkit, question: str) -> Outcome:
    return _seen_message(_named(toolkit.get_tools(), question).invoke(_tool_call(question)))


async def ainvoke(toolkit: LMStudioToolkit, question: str) -> Outcome:
    return _seen_message(await _named(await toolkit.aget_tools(), question).ainvoke(_tool_call(question)))


def graph_of(tools: list[Any]) -> Any:
    """Return a graph that runs the tool calls of the last message."""
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "tools")
    return graph.compile()


def asking(question: str) -> Any:
    """Return the input of such a graph."""
    return {"messages": [AIMessage("", tool_calls=[_tool_call(question)])]}


def tool_node(toolkit: LMStudioToolkit, question: str) -> Outcome:
    return _seen_message(graph_of(toolkit.get_tools()).invoke(asking(question))["messages"][-1])


def agent_of(toolkit: LMStudioToolkit, tools: list[Any]) -> Any:
    """Return an agent of LangChain."""
    return create_agent(ChatLMStudio(model="m", host=toolkit.host, repair_tool_calls=False), tools)


def agent(toolkit: LMStudioToolkit, question: str) -> Outcome:
    messages = agent_of(toolkit, toolkit.get_tools()).invoke({"messages": question})["messages"]
    return _seen_message(messages[2])


# LlamaIndex -----------------------------------------------------------------------------------------------------------


def _function(tools: list[Any], question: str) -> Any:
    return next(tool for tool in tools if tool.metadata.name == CALLS[question][0])


def _seen_output(output: Any) -> Outcome:
    assert isinstance(output, ToolOutput)
    images = [block for block in output.blocks if isinstance(block, ImageBlock)]
    assert all(block.image_mimetype == "image/png" for block in images)
    found = [base64.b64encode(block.resolve_image().read()).decode() for block in images]
    return Outcome(output.content, found, output.is_error, None if output.is_error else output.raw_output)


def call(spec: LMStudioToolSpec, question: str) -> Outcome:
    return _seen_output(_function(spec.to_tool_list(), question).call(**CALLS[question][1]))


async def acall(spec: LMStudioToolSpec, question: str) -> Outcome:
    tool = _function(await spec.to_tool_list_async(), question)
    return _seen_output(await tool.acall(**CALLS[question][1]))


def function_agent(spec: LMStudioToolSpec, tools: list[Any], **settings: Any) -> FunctionAgent:
    """Return an agent of LlamaIndex."""
    return FunctionAgent(llm=LMStudio(model="m", host=spec.host, repair_tool_calls=False), tools=tools, **settings)


async def _run(agent: Any, question: str) -> Outcome:
    handler = agent.run(question)
    outputs = [each.tool_output async for each in handler.stream_events() if isinstance(each, ToolCallResult)]
    await handler
    return _seen_output(outputs[0])


async def llama_agent(spec: LMStudioToolSpec, question: str) -> Outcome:
    return await _run(function_agent(spec, await spec.to_tool_list_async()), question)


# All of them ----------------------------------------------------------------------------------------------------------

Kind = type[LMStudioToolkit] | type[LMStudioToolSpec]


def _blocking(path: Callable[[Any, str], Coroutine[Any, Any, Outcome]]) -> Path:
    return lambda toolkit, question: asyncio.run(path(toolkit, question))


PATHS: dict[str, tuple[Kind, Path]] = {
    "invoke": (LMStudioToolkit, invoke),
    "ainvoke": (LMStudioToolkit, _blocking(ainvoke)),
    "ToolNode": (LMStudioToolkit, tool_node),
    "create_agent": (LMStudioToolkit, agent),
    "call": (LMStudioToolSpec, call),
    "acall": (LMStudioToolSpec, _blocking(acall)),
    "FunctionAgent": (LMStudioToolSpec, _blocking(llama_agent)),
}
"""Each path, with the toolkit that it needs."""

RAISING = {"call", "acall"}
"""LlamaIndex raises the errors of tools there; its agents make texts of them."""

ASYNC = {name for name in PATHS if name not in {"invoke", "ToolNode", "create_agent", "call"}}

KINDS: tuple[Kind, ...] = (LMStudioToolkit, LMStudioToolSpec)


def tools_of(toolkit: Any) -> dict[str, Any]:
    """Open a toolkit of either framework; return its tools by name."""
    if isinstance(toolkit, LMStudioToolkit):
        return {tool.name: tool for tool in toolkit.get_tools()}
    return {str(tool.metadata.name): tool for tool in toolkit.to_tool_list()}


async def atools_of(toolkit: Any) -> dict[str, Any]:
    """Do the same without blocking."""
    if isinstance(toolkit, LMStudioToolkit):
        return {tool.name: tool for tool in await toolkit.aget_tools()}
    return {str(tool.metadata.name): tool for tool in await toolkit.to_tool_list_async()}


def result_of(tool: Any, **arguments: Any) -> str:
    """Call a tool of either framework; return the text of its result."""
    return str(tool.invoke(arguments) if hasattr(tool, "invoke") else tool.call(**arguments))


async def aresult_of(tool: Any, **arguments: Any) -> str:
    """Do the same without blocking."""
    return str(await (tool.ainvoke(arguments) if hasattr(tool, "ainvoke") else tool.acall(**arguments)))
