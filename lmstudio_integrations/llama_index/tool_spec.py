"""`LMStudioToolSpec`: the tools of LM Studio's plugins and MCP servers as tools of LlamaIndex."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from llama_index.core.base.llms.types import ContentBlock, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool, ToolMetadata
from llama_index.core.tools.tool_spec.base import SPEC_FUNCTION_TYPE, BaseToolSpec
from pydantic import Field

from lmstudio_integrations._adapters.settings_toolkit import ToolkitSettings, ToolkitTool
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.llama_index._tool_errors import ending_the_run
from lmstudio_integrations.types.plugins import ToolContent


class LMStudioToolSpec(ToolkitSettings, BaseToolSpec):
    """The tools of LM Studio's plugins and MCP servers, for agents and workflows of LlamaIndex with any model.

    LM Studio runs the tools. The object holds settings, described in `model_fields`, and opens no connection before it
    is asked for its tools. You can copy it, pickle it, and share it between threads and event loops. Its tools share
    one session, which ends with `close`, or when neither the object nor a tool is in use.

    The blocks of an output are text and images; `raw_output` is the whole result. Errors are raised, and an agent makes
    of them an output with `is_error`, whose text the model gets. But a timeout or a lost connection ends the run of the
    agent: nobody knows what the tool has done, and a model that got a text would call it again. `predict_and_call` and
    `call_tool` of LlamaIndex make a text of every error. The page `docs/guides/lm-studio-tools.md` goes on to several
    plugins, and to what a running tool reports.

    Setup:
        Install the package with its extra: `pip install "lmstudio-integrations[llama-index]"`. Start LM Studio, and
        name MCP servers in its `mcp.json`. `LMSTUDIO_HOST` and `LM_API_TOKEN` select another server.

    Example:
        ```python
        import asyncio
        from llama_index.core.agent.workflow import FunctionAgent
        from lmstudio_integrations.llama_index import LMStudio, LMStudioToolSpec

        async def main() -> None:
            tools = await LMStudioToolSpec(plugin="mcp/weather").to_tool_list_async()
            agent = FunctionAgent(llm=LMStudio(model="qwen/qwen3-4b"), tools=[*tools])
            print(await agent.run("Will it rain in Oslo?"))

        asyncio.run(main())
        ```
    """

    spec_functions: list[SPEC_FUNCTION_TYPE] = Field(
        default_factory=list[SPEC_FUNCTION_TYPE],
        description="Names of the tools to offer, with their prefixes. By default, all are offered.",
    )

    def to_tool_list(
        self,
        spec_functions: list[SPEC_FUNCTION_TYPE] | None = None,
        func_to_metadata_mapping: dict[str, ToolMetadata] | None = None,
    ) -> list[FunctionTool]:
        """Open the session, unless it is open, and return its tools.

        Args:
            spec_functions: The names of the tools to return, instead of the setting.
            func_to_metadata_mapping: Other metadata for tools, by their names.

        Raises:
            LMStudioPluginError: If a plugin cannot be started.
            LMStudioValueError: If two tools have the same name, or a name or a setting is invalid.
        """
        return self._select(self._open(), spec_functions, func_to_metadata_mapping)

    async def to_tool_list_async(
        self,
        spec_functions: list[SPEC_FUNCTION_TYPE] | None = None,
        func_to_metadata_mapping: dict[str, ToolMetadata] | None = None,
    ) -> list[FunctionTool]:
        """Open the session, unless it is open, and return its tools; see `to_tool_list`."""
        return self._select(await self._aopen(), spec_functions, func_to_metadata_mapping)

    def _select(
        self,
        tools: Sequence[ToolkitTool],
        names: list[SPEC_FUNCTION_TYPE] | None,
        metadata: Mapping[str, ToolMetadata] | None,
    ) -> list[FunctionTool]:
        by_name = {tool.definition.name: tool for tool in tools}
        selection = names or self.spec_functions or list(by_name)
        for name in (*selection, *(metadata or {})):
            if name not in by_name:
                listed = ", ".join(by_name) or "none"
                raise LMStudioValueError(f"there is no tool {name!r}; the tools are: {listed}")
        return [_tool(by_name[cast("str", name)], (metadata or {}).get(cast("str", name))) for name in selection]


class _PluginTool(FunctionTool):
    """Its functions return the JSON value that the tool returned; it reads the blocks of the output from that."""

    def _parse_tool_output(self, raw_output: Any) -> list[ContentBlock]:
        return [
            TextBlock(text=part)
            if isinstance(part, str)
            else ImageBlock(image=part.data.encode(), image_mimetype=part.mime_type)
            for part in ToolContent.of(raw_output).parts
        ]


@dataclass
class _Metadata(ToolMetadata):
    """Has the JSON schema of the arguments; LlamaIndex has only classes, from which it makes one."""

    parameters: dict[str, Any] = field(default_factory=dict[str, Any])

    def get_parameters_dict(self) -> dict[str, Any]:
        """Return the JSON schema of the arguments."""
        return self.parameters

    @property
    def fn_schema_str(self) -> str:
        """The JSON schema of the arguments as text, which `ReActAgent` reads."""
        return json.dumps(self.parameters, ensure_ascii=False)


def _tool(tool: ToolkitTool, metadata: ToolMetadata | None) -> FunctionTool:
    definition = tool.definition

    def check(positional: tuple[Any, ...]) -> None:
        if positional:
            names = ", ".join(f"{name}=…" for name in tool.parameters["properties"])
            raise LMStudioValueError(f"{definition.name} takes its arguments by name; write tool({names})")

    def call(*positional: Any, **arguments: Any) -> Any:
        check(positional)
        with ending_the_run():
            return tool.call(arguments)

    async def acall(*positional: Any, **arguments: Any) -> Any:
        check(positional)
        with ending_the_run():
            return await tool.acall(arguments)

    described = _Metadata(definition.description, definition.name, fn_schema=None, parameters=tool.parameters)
    return _PluginTool(fn=call, async_fn=acall, metadata=metadata or described)
