"""The mistakes with plugins, and what may happen to their tools. Imported for its entries of `MISTAKES`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.plugins import registry
from tests.faults import actions
from tests.faults.cells import until_noticed
from tests.faults.model import at
from tests.faults.proxy import Injection, Proxy, ProxyThread
from tests.messages.mistakes import Case, mistake, only

FILES = "mcp/my-files"
DENIED = (
    f"Permission denied to use plugin '{FILES}'. Ensure that the server configuration allows plugin usage and, if "
    "using an API token, it has the necessary permissions."
)
"""What LM Studio's REST API says. The emulator has no permissions."""

NATIVE = only("native")


def read_text_file(path: str) -> str:
    """Return the text of a file."""
    return f"This is {path}."


@contextmanager
def _server(*injections: Injection) -> Iterator[str]:
    """Yield the address of a server with a plugin, behind a proxy that injects faults."""
    with (
        ProxyThread() as thread,
        Emulator(["m"], plugins={FILES: [read_text_file]}) as server,
        Proxy(thread, server.address, injections) as proxy,
    ):
        yield f"ws://{proxy.address}"


def _denied(message: dict[str, Any]) -> dict[str, Any]:
    return {"type": "channelError", "channelId": message["channelId"], "error": {"title": DENIED}}


def _call(host: str, plugin: str = FILES) -> Any:
    with lms.Client(host) as client, client.plugins.tools(plugin) as session:
        (tool,) = session.tools
        return tool(path="a.txt")


@mistake("plugin-unknown", NATIVE)
def _unknown_plugin(case: Case) -> Any:
    with _server() as host:
        return _call(host, "mcp/My Files")


@mistake("plugin-permission", NATIVE)
def _no_permission(case: Case) -> Any:
    with _server(*at("sessionReady", actions.replace(_denied))) as host:
        return _call(host)


@mistake("tool-lost", NATIVE)
def _lost_while_it_runs(case: Case) -> Any:
    with _server(*at("toolCallComplete", actions.reset)) as host:
        return _call(host)


@mistake("tool-session-lost", NATIVE)
def _lost_between_two_calls(case: Case) -> Any:
    lost = at("toolCallComplete", actions.after(actions.reset))
    with _server(*lost) as host, lms.Client(host) as client, client.plugins.tools(FILES) as session:
        (tool,) = session.tools
        tool(path="a.txt")
        until_noticed(host)
        return tool(path="b.txt")


@mistake("missing-package", NATIVE)
def _no_mcp(case: Case) -> Any:
    case.monkeypatch.setattr(registry, "find_spec", lambda _: None)
    return Emulator(["m"], plugins={FILES: {"command": ["npx", "-y", "@modelcontextprotocol/server-filesystem", "."]}})
