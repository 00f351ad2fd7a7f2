"""Faults around the calls of tools of plugins: each call comes to one end in time, and no tool runs twice."""

import asyncio
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.types.functions import ToolCallContext
from tests.faults import actions
from tests.faults.cells import until_noticed
from tests.faults.model import at
from tests.faults.proxy import Injection, Proxy, ProxyThread

LIMIT, SHORT = 10.0, 0.5
"""Seconds within which everything ends, and of the timeout that is to expire."""

PROGRAM = Path(__file__).parents[1] / "support" / "mcp_program.py"

LOST = lms.LMStudioToolConnectionLostError
TIMEOUT = lms.LMStudioTimeoutError
WARNING = lms.LMStudioToolSessionWarning


class Counter:
    """A tool that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def count(self, context: ToolCallContext) -> int:
        """Count this call."""
        self.calls += 1
        context.status("counting")
        return self.calls


Opened = Callable[[], Any]
"""Calls the tool and returns its result."""


@contextmanager
def _native(host: str, plugin: str, timeouts: dict[str, Any]) -> Iterator[Opened]:
    with lms.Client(host, **timeouts) as client, client.plugins.tools(plugin) as session:
        (tool,) = session.tools
        yield tool


@contextmanager
def _native_async(host: str, plugin: str, timeouts: dict[str, Any]) -> Iterator[Opened]:
    with asyncio.Runner() as runner:
        client = lms.AsyncClient(host, **timeouts)
        session = runner.run(client.plugins.tools(plugin).start())
        (tool,) = session.tools
        try:
            yield lambda: runner.run(tool())
        finally:
            runner.run(client.aclose())


SURFACES: dict[str, Callable[[str, str, dict[str, Any]], Any]] = {"native": _native, "native-async": _native_async}


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        name: What goes wrong.
        inject: What the proxy does.
        call: The error of the first call, if it fails.
        start: The error of the start, if it fails.
        runs: How often the tool has run by then.
        ends_session: Whether the next call opens a new session, with a warning.
        timeouts: The timeouts that are to expire.
        unnoticed: Whether the connection is lost after a call that works, and the next one finds out.
        noticed: Whether the next call waits until the client knows that the connection is gone.
    """

    name: str
    inject: tuple[Injection, ...]
    call: type[Exception] | None = None
    start: type[Exception] | None = None
    runs: int = 1
    ends_session: bool = True
    timeouts: tuple[str, ...] = ()
    unnoticed: bool = False
    noticed: bool = False


def _breaks(point: str, runs: int) -> Iterator[Fault]:
    """Return the rows of what may break a connection at a point."""
    for name, action in (
        ("is reset", actions.reset),
        ("is closed", actions.finish),
        ("is closed by the server", actions.half_close),
        ("is cut in the middle of a frame", actions.cut(actions.reset)),
        ("goes dead", actions.DEAD),
    ):
        yield Fault(f"{point}: the connection {name}", at(point, action), LOST, runs=runs)
    frozen = Fault(f"{point}: the host freezes", at(point, actions.freeze), TIMEOUT, runs=runs)
    yield replace(frozen, timeouts=("idle_timeout",), ends_session=True)


def _failure(message: dict[str, Any]) -> dict[str, Any]:
    return {"type": "channelError", "channelId": message["channelId"], "error": {"title": "The plugin has crashed"}}


def _end(message: dict[str, Any]) -> dict[str, Any]:
    return {"type": "channelClose", "channelId": message["channelId"]}


START = "startToolUseSession"
TABLE = (
    Fault("start: the request is lost", at(START, actions.drop), start=TIMEOUT, runs=0, timeouts=("load_timeout",)),
    Fault("start: the connection is reset", at(START, actions.reset), start=lms.LMStudioConnectionLostError, runs=0),
    Fault("start: nothing comes", at("sessionReady", actions.drop), start=TIMEOUT, runs=0, timeouts=("load_timeout",)),
    *_breaks("callTool", runs=0),
    *_breaks("toolCallStatus", runs=1),
    *_breaks("toolCallComplete", runs=1),
    Fault("during: the session fails", at("toolCallStatus", actions.replace(_failure)), LOST),
    Fault("during: the session ends", at("toolCallStatus", actions.replace(_end)), LOST),
    Fault(
        "during: the result is lost",
        at("toolCallComplete", actions.drop),
        TIMEOUT,
        timeouts=("timeout",),
        ends_session=False,
    ),
    Fault("after: the connection is reset", at("toolCallComplete", actions.after(actions.reset)), noticed=True),
    Fault("after: the connection goes dead", at("toolCallComplete", actions.after(actions.DEAD)), LOST, unnoticed=True),
    Fault("a status comes twice", at("toolCallStatus", actions.duplicate), ends_session=False),
    Fault("a result comes twice", at("toolCallComplete", actions.duplicate), ends_session=False),
)


class Cell:
    """One row on one surface."""

    def __init__(self, fault: Fault, surface: str, server: Emulator, thread: ProxyThread, tool: Counter) -> None:
        self._fault = fault
        self._surface = surface
        self._server = server
        self._tool = tool
        self._proxy = Proxy(thread, server.address, fault.inject)
        self._host = f"ws://{self._proxy.address}"
        self.found: list[str] = []

    def run(self) -> None:
        """Start, call, and call again once the fault is over; record what is not as the table says."""
        fault, began = self._fault, time.monotonic()
        timeouts = dict.fromkeys(fault.timeouts, SHORT) | {"keepalive": 0.2}
        open_session = SURFACES[self._surface]
        with self._proxy:
            for start in (fault.start, None):
                try:
                    with open_session(self._host, f"mcp/{self._surface}", timeouts) as call:
                        self._check(start is None, "it started")
                        self._calls(call)
                        break
                except Exception as error:  # noqa: BLE001 - compared with the table
                    self._check(start is not None and type(error) is start, f"the start failed: {error!r}")
                    self._proxy.heal()
        self._check(time.monotonic() - began < LIMIT, "it took too long")

    def _calls(self, call: Opened) -> None:
        fault = self._fault
        expected = None if fault.start is not None else fault.call
        if fault.unnoticed:
            self._call(call, None, 1)
        self._call(call, expected, max(fault.runs, fault.start is not None))
        self._check(self._proxy.happened.is_set(), "the fault never happened")
        if fault.noticed:
            until_noticed(self._host)
        self._proxy.heal()
        self._call(call, None, self._tool.calls + 1)

    def _call(self, call: Opened, expected: type[Exception] | None, runs: int) -> None:
        """Make a call; the tool returns how often it has run."""
        error: Exception | None = None
        result: Any = None
        try:
            result = call()
        except Exception as raised:  # noqa: BLE001 - compared with the table
            error = raised
        self._check(type(error) is (expected or type(None)), f"a call came to {result!r}, {error!r}")
        if expected is None:
            self._check(result == runs, f"a call returned {result!r} instead of {runs}")
        else:
            self._check("'count'" in str(error), f"the error does not name the tool: {error}")
            self._check(expected is TIMEOUT or "is unknown" in str(error), f"the effect is not unknown: {error}")
        self._check(self._tool.calls == runs, f"it ran {self._tool.calls} times instead of {runs}")

    def _check(self, condition: bool, text: str) -> None:
        if not condition:
            self.found.append(f"{self._surface}: {text}")


@pytest.mark.slow
@pytest.mark.sampled(8)
@pytest.mark.parametrize("fault", TABLE, ids=lambda fault: fault.name)
def test_a_tool_call_ends_once_and_is_never_repeated(fault: Fault, proxies: ProxyThread) -> None:
    tools = {surface: Counter() for surface in SURFACES}
    plugins = {f"mcp/{surface}": [tool.count] for surface, tool in tools.items()}
    with Emulator(["m"], plugins=plugins) as server:
        cells = [Cell(fault, surface, server, proxies, tool) for surface, tool in tools.items()]
        threads = [threading.Thread(target=cell.run, daemon=True) for cell in cells]
        with warnings.catch_warnings(record=True, action="always", category=WARNING) as given:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(2 * LIMIT)
        assert not any(thread.is_alive() for thread in threads)
        assert not [found for cell in cells for found in cell.found]
        is_lost = fault.ends_session and fault.start is None
        assert [each.category for each in given] == [WARNING] * (len(cells) if is_lost else 0)
        server.wait_for(lambda: not server.running_plugins, LIMIT)


@pytest.mark.slow
def test_a_killed_mcp_server_fails_its_calls_and_is_started_anew(tmp_path: Path) -> None:
    record = tmp_path / "record"
    command = [sys.executable, str(PROGRAM)]
    plugins = {"mcp/program": {"command": command, "env": {"RECORD": str(record)}}}
    with Emulator(["m"], plugins=plugins) as server, lms.Client(server.address) as client:
        with client.plugins.tools("mcp/program") as session:
            tools = {tool.name: tool for tool in session.tools}
            held: list[Exception] = []

            def hold() -> None:
                try:
                    tools["hold"]()
                except Exception as error:  # noqa: BLE001 - compared below
                    held.append(error)

            thread = threading.Thread(target=hold)
            thread.start()
            server.wait_for(lambda: [call.state for call in server.tool_calls] == ["running"], LIMIT)
            with pytest.raises(lms.LMStudioPluginToolError, match="has ended"):
                tools["die"]()
            thread.join(LIMIT)
            assert [type(error) for error in held] in ([LOST], [lms.LMStudioPluginToolError])
            channel = session._sessions._sessions[0]._channel
            assert channel is not None
            server.wait_for(lambda: channel.waiter.done, LIMIT)  # a call before that might have run
            with pytest.warns(WARNING, match="what the plugin remembered is gone"):
                assert tools["echo"](a=1) == [{"type": "text", "text": '{"a": 1}'}]
        server.wait_for(lambda: not server.running_plugins, LIMIT)
    assert record.read_text(encoding="utf-8").split("\n")[:-1] == [
        "start",
        "call hold",
        "call die",
        "start",
        "call echo",
    ]
