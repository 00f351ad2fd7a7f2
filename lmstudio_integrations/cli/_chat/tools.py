"""The tools of a chat: opens them, shows their calls, and asks before each of them."""

import contextlib
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from lmstudio_integrations.cli._errors import message_for_commands
from lmstudio_integrations.cli._plugin_tools import tool_session
from lmstudio_integrations.cli._questions import confirm, has_terminal
from lmstudio_integrations.cli._wrapping import note
from lmstudio_integrations.client.api.plugins import PluginParameters
from lmstudio_integrations.client.api.sync import Client, PluginTool
from lmstudio_integrations.client.predictions.tool_loop.guard import GuardToolCallController
from lmstudio_integrations.errors import LMStudioPredictionError, LMStudioValueError
from lmstudio_integrations.types.tools import ToolCallRequest


@dataclass(slots=True)
class ChatTools:
    """The tools that a model may call.

    Attributes:
        tools: The tools.
        asks: Whether the user is asked before each call.
        always: The names of the tools that run without a question, after the answer "always".
    """

    tools: Sequence[PluginTool]
    asks: bool
    always: set[str] = field(default_factory=set[str])

    def guard(self, _round: int, _call: int, controller: GuardToolCallController) -> None:
        """Show a call, and run it unless the user denies it."""
        name = controller.tool.name
        asks = self.asks and name not in self.always
        arguments = json.dumps(controller.tool_call_request.arguments or {}, ensure_ascii=False)
        note(f"Tool call: {name} {arguments}", dim=not asks)
        answer = confirm("Run it?") if asks else "yes"
        if answer == "always":
            self.always.add(name)
        if answer == "no":
            controller.deny("The user denied this tool call.")
        else:
            controller.allow()

    def report_failure(self, error: LMStudioPredictionError, request: ToolCallRequest | None) -> None:
        """Print why a call failed. The model gets an error, too; if the call cannot be read, the response ends."""
        if request is not None:
            note(f"Warning: {message_for_commands(str(error.__cause__ or error))}")


@contextlib.contextmanager
def open_tools(client: Client, plugins: Sequence[str], *, yes: bool) -> Generator[ChatTools | None]:
    """Open the tools of plugins for the block; there are none without plugins.

    Args:
        client: The server.
        plugins: What the user typed: an identifier each, and after `=` what the names of its tools begin with.
        yes: Whether calls are made without a question.

    Raises:
        LMStudioPluginError: If a plugin cannot be started.
        LMStudioValueError: If there are no tools, two have the same name, or there is no terminal to ask at.
    """
    if not plugins:
        yield None
        return
    if not yes and not has_terminal():
        raise LMStudioValueError("not a terminal, so cannot ask before each call of a tool; use --yes to run them all")
    specs: dict[str, PluginParameters] = {}
    for plugin in plugins:
        name, _, prefix = plugin.partition("=")
        specs[name] = {"prefix": prefix}
    with tool_session(client, specs) as session:
        if not session.tools:
            raise LMStudioValueError(f"there are no tools in {', '.join(specs)}")
        yield ChatTools(session.tools, asks=not yes)
