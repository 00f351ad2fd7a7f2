"""`tools`: the tools of a plugin or an MCP server, and calls of them."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmstudio_integrations._support.suggestions import closest_names
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.cli._common import AsJson, Host, Token, note, print_json, results, warnings_as_notes
from lmstudio_integrations.errors import LMStudioValueError

if TYPE_CHECKING:
    from lmstudio_integrations.client.api.sync import PluginTool

_STDIN = "-"


def tools(
    plugin: Annotated[
        str,
        typer.Argument(
            metavar="PLUGIN", help="The plugin. An MCP server of mcp.json is mcp/ and its name in kebab case."
        ),
    ],
    tool: Annotated[
        str | None,
        typer.Argument(metavar="TOOL", help="The tool to call. Without it, they are listed.", show_default=False),
    ] = None,
    arguments: Annotated[
        str | None,
        typer.Argument(metavar="JSON", help="Its arguments, as a JSON object; - is stdin.", show_default=False),
    ] = None,
    *,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.001, help="Abort the call after this time.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    host: Host = None,
    token: Token = None,
) -> None:
    """List the tools of a plugin or an MCP server, or call one and print its result.

    In the list, parameters in brackets are optional. Ctrl-C aborts a call.
    """
    from lmstudio_integrations.cli._plugin_tools import tool_session  # noqa: PLC0415 - slow
    from lmstudio_integrations.client.api.sync import Client  # noqa: PLC0415

    values = parse_arguments(arguments)
    with Client(host, token) as client, warnings_as_notes(), tool_session(client, {plugin: {}}) as session:
        if tool is None:
            print_tools(plugin, session.tools, as_json=as_json)
        else:
            result = find_tool(plugin, session.tools, tool).call(values, timeout=timeout)
            print_result(plugin, tool, result, as_json=as_json)


def parse_arguments(text: str | None) -> dict[str, Any]:
    """Return the arguments that the user typed, or that stdin contains."""
    from pydantic_core import from_json  # noqa: PLC0415 - slow

    if text is None:
        return {}
    try:
        # A process may have no stdin. Arguments of a command are bytes, which may be no UTF-8.
        document = sys.stdin.buffer.read() if text == _STDIN and sys.stdin else os.fsencode(text)
        value = from_json(document, allow_inf_nan=False)
    except ValueError as error:
        raise typer.BadParameter(f"it is not JSON: {error}", param_hint="JSON") from None
    if not is_object(value):
        raise typer.BadParameter(
            "it is not an object with the arguments by name, such as '{\"a\": 1}'", param_hint="JSON"
        )
    return value


def find_tool(plugin: str, tools: "Sequence[PluginTool]", name: str) -> "PluginTool":
    """Return the tool with a name.

    Raises:
        LMStudioValueError: If there is none.
    """
    from lmstudio_integrations.cli._model_names import listed  # noqa: PLC0415 - slow

    by_name = {tool.name: tool for tool in tools}
    if name in by_name:
        return by_name[name]
    similar = closest_names(name, by_name)
    suggestion = f"did you mean {similar[0]!r}?" if similar else f"it has {listed(by_name) or 'none'}"
    raise LMStudioValueError(f"{plugin!r} has no tool {name!r}; {suggestion}")


def print_tools(plugin: str, tools: "Sequence[PluginTool]", *, as_json: bool) -> None:
    """Print the tools with their parameters."""
    from lmstudio_integrations.cli._tables import tool_lines  # noqa: PLC0415 - slow

    definitions = [tool.to_tool() for tool in tools]
    if as_json:
        print_json([definition.to_dict() for definition in definitions])
        return
    if not definitions:
        note(f"{plugin} has no tools.")
        return
    console = results()
    for line in tool_lines([definition.function for definition in definitions], console.width):
        console.write_line(line)


def print_result(plugin: str, tool: str, result: Any, *, as_json: bool) -> None:
    """Print the result of a tool: that of an MCP server as text, any other JSON value with indentation.

    Raises:
        LMStudioPluginToolError: If the result says that the tool has failed.
    """
    from lmstudio_integrations._support.json_text import dumps  # noqa: PLC0415 - slow
    from lmstudio_integrations.types.plugins import ToolContent  # noqa: PLC0415

    text = ToolContent.of(result).checked(plugin, tool).text
    if as_json or (not isinstance(result, str) and text == dumps(result)):
        print_json(result)
    elif text:
        results().write(text if text.endswith("\n") else f"{text}\n")
