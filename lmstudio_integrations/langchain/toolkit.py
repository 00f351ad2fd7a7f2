"""`LMStudioToolkit`: the tools of LM Studio's plugins and MCP servers as tools of LangChain."""

import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

from langchain_core.tools import BaseTool, BaseToolkit, StructuredTool, ToolException

from lmstudio_integrations._adapters.settings_toolkit import OnReport, ToolkitSettings, ToolkitTool
from lmstudio_integrations.errors import LMStudioPluginToolError, LMStudioValueError
from lmstudio_integrations.types.plugins import ToolContent, ToolReport


class LMStudioToolkit(ToolkitSettings, BaseToolkit):
    """The tools of LM Studio's plugins and MCP servers, for agents with any chat model of LangChain.

    LM Studio runs the tools. The object holds settings, described in `model_fields`, and opens no connection before it
    is asked for its tools. You can copy it, pickle it, and share it between threads and event loops. Its tools share
    one session, which ends with `close`, or when neither the object nor a tool is in use.

    The content of a result is a string, or text and image blocks if there are images; the artifact is the whole result.
    If a tool fails, or its arguments do not fit, the model gets a text. Everything else is raised: after a timeout or a
    lost connection nobody knows what the tool has done, and a model that got a text would call it again. So leave
    `handle_tool_errors` of a `ToolNode` as it is, and have no middleware retry all errors of tools. The page
    `docs/guides/lm-studio-tools.md` goes on to several plugins, and to what a running tool reports.

    Setup:
        Install the package with its extra: `pip install "lmstudio-integrations[langchain]"`. Start LM Studio, and name
        MCP servers in its `mcp.json`. `LMSTUDIO_HOST` and `LM_API_TOKEN` select another server.

    Example:
        ```python
        from langchain.agents import create_agent
        from langchain_core.messages import HumanMessage

        from lmstudio_integrations.langchain import ChatLMStudio, LMStudioToolkit

        toolkit = LMStudioToolkit(plugin="mcp/weather")
        agent = create_agent(ChatLMStudio(model="qwen/qwen3-4b"), toolkit.get_tools())
        state = agent.invoke({"messages": [HumanMessage("Will it rain in Oslo?")]})
        print(state["messages"][-1].text)
        ```
    """

    def get_tools(self) -> list[BaseTool]:
        """Open the session, unless it is open, and return its tools.

        Raises:
            LMStudioPluginError: If a plugin cannot be started.
            LMStudioValueError: If two tools have the same name, or a setting is invalid.
        """
        return [_tool(each) for each in self._open()]

    async def aget_tools(self) -> list[BaseTool]:
        """Open the session, unless it is open, and return its tools; see `get_tools`."""
        return [_tool(each) for each in await self._aopen()]


class _PluginTool(StructuredTool):
    """Passes all arguments on, also those that are named like parameters of langchain-core, such as `config`."""

    def _run(self, /, *_positional: Any, **arguments: Any) -> Any:
        assert self.func is not None, "it is made with both functions"
        return self.func(**arguments)

    async def _arun(self, /, *_positional: Any, **arguments: Any) -> Any:
        assert self.coroutine is not None, "it is made with both functions"
        return await self.coroutine(**arguments)


def _tool(tool: ToolkitTool) -> BaseTool:
    def call(**arguments: Any) -> tuple[Any, Any]:
        with _tool_exceptions():
            _check(tool, arguments)
            return _content_and_artifact(tool.call(arguments, **_callbacks(tool)))

    async def acall(**arguments: Any) -> tuple[Any, Any]:
        with _tool_exceptions():
            _check(tool, arguments)
            return _content_and_artifact(await tool.acall(arguments, **_callbacks(tool)))

    definition = tool.definition
    return _PluginTool(
        name=definition.name,
        description=definition.description,
        args_schema=tool.parameters,
        func=call,
        coroutine=acall,
        response_format="content_and_artifact",
        handle_tool_error=True,
        metadata={"plugin": definition.plugin},
    )


def _check(tool: ToolkitTool, arguments: Mapping[str, Any]) -> None:
    """Check the arguments. Any other invalid value is an error of the program, not of the model."""
    try:
        tool.definition.check(arguments)
    except LMStudioValueError as error:
        raise ToolException(str(error)) from error


@contextmanager
def _tool_exceptions() -> Generator[None]:
    """Raise what a tool says of its failure as the error whose text the model gets."""
    try:
        yield
    except LMStudioPluginToolError as error:
        raise ToolException(str(error)) from error


def _content_and_artifact(result: Any) -> tuple[str | list[dict[str, Any]], Any]:
    content = ToolContent.of(result)
    if not content.images:
        return content.text, result
    blocks: list[dict[str, Any]] = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image", "base64": part.data, "mime_type": part.mime_type}
        for part in content.parts
    ]
    return blocks, result


# Reports of running tools ---------------------------------------------------------------------------------------------


def _callbacks(tool: ToolkitTool) -> Any:
    writer, toolkit = _stream_writer(), tool.toolkit
    if writer is None:
        return {}
    return {
        "on_status": _also_write(writer, "tool_status", toolkit.on_status),
        "on_warning": _also_write(writer, "tool_warning", toolkit.on_warning),
    }


def _stream_writer() -> Callable[[Any], None] | None:
    """Return what writes to the stream of the graph in which this runs, if LangGraph runs it."""
    config = sys.modules.get("langgraph.config")  # a program that has not imported it runs no graph
    if config is None:
        return None
    try:
        writer: Callable[[Any], None] = config.get_stream_writer()
    except (RuntimeError, LookupError):  # outside of a graph
        return None
    return writer


def _also_write(writer: Callable[[Any], None], kind: str, callback: OnReport | None) -> OnReport:
    """Return a callback that also writes to the stream of a graph."""

    def report(message: ToolReport) -> Any:
        writer({"type": kind, "plugin": message.plugin, "tool": message.tool, "text": message.text})
        return None if callback is None else callback(message)

    return report
