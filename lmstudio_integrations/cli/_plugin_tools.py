"""Opens the tools of plugins, and prints what they report. Shared by the commands `tools` and `chat`."""

from collections.abc import Mapping

from lmstudio_integrations._support.text import one_line
from lmstudio_integrations.cli._wrapping import note
from lmstudio_integrations.client.api.plugins import PluginParameters
from lmstudio_integrations.client.api.sync import Client, ToolUseSession
from lmstudio_integrations.types.plugins import ToolReport


def tool_session(client: Client, plugins: Mapping[str, PluginParameters]) -> ToolUseSession:
    """Return a session with the tools of plugins, which prints their status and warnings on stderr."""
    return client.plugins.tools(plugins, on_status=_print_status, on_warning=_print_warning)


def _print_status(report: ToolReport) -> None:
    note(f"{report.tool}: {one_line(report.text)}", dim=True)


def _print_warning(report: ToolReport) -> None:
    note(f"Warning: {report.tool}: {one_line(report.text)}")
