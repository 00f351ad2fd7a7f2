"""The mistakes with plugins, and what may happen to their tools. Imported for its entries of `MISTAKES`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.emulator.testing import actions
from lmstudio_integrations.emulator.testing.faults import at
from lmstudio_integrations.emulator.testing.proxy import Injection, Proxy, ProxyThread
from lmstudio_integrations.langchain import LMStudioToolkit
from lmstudio_integrations.llama_index import LMStudioToolSpec
from tests.faults.cells import until_noticed
from tests.messages.mistakes import Case, mistake, only

FILES, ARGUMENTS = "mcp/my-files", {"path": "a.txt"}
DENIED = (
    f"Permission denied to use plugin '{FILES}'. Ensure that the server configuration allows plugin usage and, if "
    "using an API token, it has the necessary permissions."
)
"""What LM Studio's REST API says. The emulator has no permissions."""

EACH = {**only("native"), **only("LangChain"), **only("LlamaIndex")}
"""An interface of each framework: only it matters."""


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


@contextmanager
def _tool(case: Case, host: str, plugin: str = FILES) -> Iterator[Callable[[], Any]]:
    """Yield what calls the tool of the plugin, in the framework of a case."""
    match case.surface.framework:
        case "native":
            with lms.Client(host) as client, client.plugins.tools(plugin) as session:
                yield partial(session.tools[0].call, ARGUMENTS)
        case "LangChain":
            with LMStudioToolkit(plugin, host=host) as toolkit:
                yield partial(toolkit.get_tools()[0].invoke, ARGUMENTS)
        case "LlamaIndex":
            with LMStudioToolSpec(plugin, host=host) as tool_spec:
                yield partial(tool_spec.to_tool_list()[0].call, **ARGUMENTS)


def _call(case: Case, host: str, plugin: str = FILES) -> Any:
    with _tool(case, host, plugin) as call:
        return call()


@mistake("plugin-unknown", EACH)
def _unknown_plugin(case: Case) -> Any:
    with _server() as host:
        return _call(case, host, "mcp/file")


@mistake("plugin-unknown", EACH)
def _unknown_spelling(case: Case) -> Any:
    with _server() as host:
        return _call(case, host, "mcp/My Files")


@mistake("plugin-permission", EACH)
def _no_permission(case: Case) -> Any:
    with _server(*at("sessionReady", actions.replace(_denied))) as host:
        return _call(case, host)


@mistake("tool-lost", EACH)
def _lost_while_it_runs(case: Case) -> Any:
    with _server(*at("toolCallComplete", actions.reset)) as host:
        return _call(case, host)


@mistake("tool-session-lost", EACH)
def _lost_between_two_calls(case: Case) -> Any:
    lost = at("toolCallComplete", actions.after(actions.reset))
    with _server(*lost) as host, _tool(case, host) as call:
        call()
        until_noticed(host, ["plugins"])
        return call()
