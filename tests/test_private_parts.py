"""What we override or read of other libraries, beyond what they promise, is still there.

`pyproject.toml` excludes their next major versions. Before one is allowed, this test passes with it.
"""

import asyncio
import inspect
from importlib.metadata import version
from types import ModuleType
from typing import Any, get_args
from unittest.mock import Mock

import opentelemetry.metrics._internal
import opentelemetry.trace
import pytest
from llama_index.core.tools import FunctionTool
from mcp import ClientSession
from pydantic import BaseModel
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection
from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig
from websockets.protocol import Protocol
from websockets.server import ServerProtocol
from websockets.uri import parse_uri
from workflows.runtime.types import results

OURS = "client/transport/connect/websocket.py and emulator/server/sockets.py"

CLIENT, SERVER = ClientProtocol(parse_uri("ws://localhost")), ServerProtocol()

ATTRIBUTES = {"protocol", "loop", "debug", "send_data", "transport"}
PROTOCOL = {"state", "parser_exc", "close_rcvd", "close_expected", "send_text", "send_ping", "data_to_send"}

OVERRIDDEN: dict[tuple[type[Any], str], list[str]] = {
    (connect, "process_redirect"): ["exc"],
    (Connection, "connection_made"): ["transport"],
    (Connection, "connection_lost"): ["exc"],
    (Connection, "data_received"): ["data"],
    (Connection, "eof_received"): [],
    (ClientConnection, "process_event"): ["event"],
    (ServerConnection, "process_event"): ["event"],
}
"""The methods that we override, and their parameters."""


def complaint(library: str, ours: str, missing: object) -> str:
    return f"{library} {version(library)} has moved {missing}; adapt {ours} before its upper bound is raised"


@pytest.mark.parametrize(("kind", "name"), OVERRIDDEN, ids=lambda part: getattr(part, "__name__", part))
def test_a_method_of_websockets_that_we_override_is_there(kind: type[Any], name: str) -> None:
    method = getattr(kind, name, None)
    found = None if method is None else list(inspect.signature(method).parameters)[1:]
    assert found == OVERRIDDEN[kind, name], complaint("websockets", OURS, f"{kind.__name__}.{name}")


async def test_the_attributes_of_sockets_that_we_read_are_there() -> None:
    client, server = ClientConnection(CLIENT), ServerConnection(SERVER, None)  # type: ignore[arg-type]  # no server is needed
    for socket in (client, server):
        Connection.connection_made(socket, Mock(spec=asyncio.Transport))
        missing = {name for name in ATTRIBUTES if not hasattr(socket, name)}
        assert not missing, complaint("websockets", OURS, missing)
    assert client.response is None, complaint("websockets", OURS, "response")


@pytest.mark.parametrize("protocol", [CLIENT, SERVER], ids=["client", "server"])
def test_the_attributes_of_protocols_that_we_read_are_there(protocol: Protocol) -> None:
    missing = {name for name in PROTOCOL if not hasattr(protocol, name)}
    assert not missing, complaint("websockets", OURS, missing)


def test_the_error_of_a_message_that_is_too_large_has_its_sizes() -> None:
    error = PayloadTooBig(1, 2, 3)
    assert (error.size, error.current_size) == (1, 3), complaint("websockets", OURS, "PayloadTooBig")


@pytest.mark.parametrize(
    ("module", "name"),
    [(opentelemetry.trace, "_TRACER_PROVIDER"), (opentelemetry.metrics._internal, "_METER_PROVIDER")],
    ids=["traces", "metrics"],
)
def test_the_providers_of_opentelemetry_are_where_we_look_for_them(module: ModuleType, name: str) -> None:
    assert hasattr(module, name), complaint("opentelemetry-api", "client/transport/listener.py", name)


def test_sessions_of_mcp_have_the_id_of_their_next_request_in_version_1() -> None:
    has_id = hasattr(ClientSession(Mock(), Mock()), "_request_id")
    assert has_id == version("mcp").startswith("1."), complaint("mcp", "emulator/plugins/mcp_server.py", "_request_id")


def test_workflows_add_to_the_results_of_a_step_what_an_exception_that_waits_holds() -> None:
    names = "WaitingForEvent", "StepWorkerFailed"
    failed = results.StepWorkerFailed(exception=ValueError(), failed_at=0.0)
    waiting = results.WaitingForEvent[Any](Mock())
    is_there = hasattr(waiting, "add") and type(failed) in get_args(results.StepFunctionResult)
    assert is_there, complaint("llama-index-workflows", "llama_index/_agent_errors.py", names)


def test_functions_of_llama_index_have_their_output_read_by_a_method() -> None:
    parameters = [*inspect.signature(FunctionTool._parse_tool_output).parameters]
    assert parameters == ["self", "raw_output"], complaint("llama-index-core", "llama_index/tool_spec.py", parameters)


def test_pydantic_marks_constructors_that_do_nothing_but_validate() -> None:
    mark = "__pydantic_base_init__"
    assert getattr(BaseModel.__init__, mark, False), complaint("pydantic", "types/_config_base.py", mark)
