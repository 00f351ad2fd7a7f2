"""Faults around the calls of tools of plugins: each call comes to one end in time, and no tool runs twice."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.langchain import LMStudioToolkit
from lmstudio_integrations.llama_index import LMStudioToolSpec
from tests.faults.cells import until_noticed
from tests.faults.proxy import Proxy
from tests.faults.stage import LIMIT, Simulation, Stage, Threads
from tests.faults.tool_call_table import TABLE, TIMEOUT, ToolFault

SHORT = 60.0
"""Seconds of the timeout that is to expire."""

WARNING = lms.LMStudioToolSessionWarning


class Counter:
    """A tool that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def count(self, context: lms.ToolCallContext) -> int:
        """Count this call."""
        self.calls += 1
        context.status("counting")
        return self.calls


Run = Callable[[Any], Any]
"""Runs a coroutine; of a blocking interface, it returns what that has returned."""

Opened = Callable[[], Any]
"""Calls the tool and returns its result."""


@contextmanager
def _closing(used: Any, run: Run, *, is_async: bool) -> Iterator[Any]:
    """Close a client, a session or an adapter after a block."""
    try:
        yield used
    finally:
        run(used.aclose() if is_async else used.close())


@contextmanager
def _session(host: str, plugin: str, timeouts: dict[str, Any], *, run: Run, is_async: bool) -> Iterator[Any]:
    """Open a session; yield it with its client."""
    client: Any = (lms.AsyncClient if is_async else lms.Client)(host, **timeouts)
    with (
        _closing(client, run, is_async=is_async),
        _closing(run(client.plugins.tools(plugin).start()), run, is_async=is_async) as session,
    ):
        yield client, session


@contextmanager
def _native(*where: Any, run: Run, is_async: bool) -> Iterator[Opened]:
    with _session(*where, run=run, is_async=is_async) as (_, session):
        (tool,) = session.tools
        yield lambda: run(tool())


@contextmanager
def _act(*where: Any, run: Run, is_async: bool) -> Iterator[Opened]:
    with _session(*where, run=run, is_async=is_async) as (client, session):
        model, messages = run(client.llm.model("m")), list[Any]()

        def call() -> int:
            messages.clear()
            run(model.act("Count!", session.tools, on_message=messages.append))
            return int(messages[1].content[0].content)  # the result that the model got, after the call

        yield call


@contextmanager
def _langchain(host: str, plugin: str, timeouts: Any, *, run: Run, is_async: bool) -> Iterator[Opened]:
    made = LMStudioToolkit(plugin, host=host, timeouts=timeouts)
    with _closing(made, run, is_async=is_async) as toolkit:
        (tool,) = run(toolkit.aget_tools() if is_async else toolkit.get_tools())
        yield lambda: int(run(tool.ainvoke({}) if is_async else tool.invoke({})))


@contextmanager
def _llama_index(host: str, plugin: str, timeouts: Any, *, run: Run, is_async: bool) -> Iterator[Opened]:
    made = LMStudioToolSpec(plugin, host=host, timeouts=timeouts)
    with _closing(made, run, is_async=is_async) as spec:
        (tool,) = run(spec.to_tool_list_async() if is_async else spec.to_tool_list())
        yield lambda: run(tool.acall() if is_async else tool.call()).raw_output


INTERFACES: dict[str, Callable[..., Any]] = {
    "native": _native,
    "act": _act,
    "langchain": _langchain,
    "llama-index": _llama_index,
}
SURFACES = [f"{name}{suffix}" for name in INTERFACES for suffix in ("", "-async")]


class Cell:
    """One row on one surface."""

    def __init__(self, fault: ToolFault, surface: str, server: Emulator, stage: Stage, tool: Counter) -> None:
        self._fault = fault
        self._surface = surface
        self._server = server
        self._tool = tool
        self._stage = stage
        self._proxy = Proxy(stage, server.address, fault.inject)
        self._host = f"ws://{self._proxy.address}"
        self.found: list[str] = []

    def run(self) -> None:
        """Start, call, and call again once the fault is over; record what is not as the table says."""
        fault, began, runner = self._fault, time.monotonic(), self._stage.new_runner()
        timeouts = {"keepalive": 2.0 if fault.waits else 20.0} | ({fault.timeout: SHORT} if fault.timeout else {})
        interface, is_async, _ = self._surface.partition("-async")
        run: Run = runner.run if is_async else lambda result: result
        open_session = partial(INTERFACES[interface], run=run, is_async=bool(is_async))
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
        runner.close()
        self._check(time.monotonic() - began < LIMIT, "it took too long")

    def _calls(self, call: Opened) -> None:
        fault = self._fault
        expected = None if fault.start is not None else fault.call
        if fault.unnoticed:
            self._call(call, None, 1)
        self._call(call, expected, max(fault.runs, fault.start is not None))
        self._check(self._proxy.happened.is_set(), "the fault never happened")
        if fault.noticed:
            until_noticed(self._stage, self._host, ["plugins"])
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
        self._check(isinstance(error, expected or type(None)), f"a call came to {result!r}, {error!r}")
        if expected is None:
            self._check(result == runs, f"a call returned {result!r} instead of {runs}")
        else:
            self._check("'count'" in str(error), f"the error does not name the tool: {error}")
            self._check(expected is TIMEOUT or "is unknown" in str(error), f"the effect is not unknown: {error}")
        self._check(self._tool.calls == runs, f"it ran {self._tool.calls} times instead of {runs}")

    def _check(self, condition: bool, text: str) -> None:
        if not condition:
            self.found.append(f"{self._surface}: {text}")


@pytest.mark.sampled(8)
@pytest.mark.parametrize("fault", TABLE, ids=str)
def test_a_tool_call_ends_once_and_is_never_repeated(fault: ToolFault) -> None:
    with Simulation.begin() as stage:
        # `act` of the sync client runs a tool that is async in an event loop of its own, whose time is real.
        check(stage, fault, [surface for surface in SURFACES if surface != "act"])


@pytest.mark.slow
@pytest.mark.sampled(1)
@pytest.mark.parametrize("fault", [row for row in TABLE if not row.waits][::4], ids=str)
def test_the_same_on_sockets_and_threads(fault: ToolFault, proxies: Threads) -> None:
    check(proxies, fault, SURFACES)


def check(stage: Stage, fault: ToolFault, surfaces: list[str]) -> None:
    """Compare what calls come to with the table."""
    tools = {surface: Counter() for surface in surfaces}
    plugins = {f"mcp/{surface}": [tool.count] for surface, tool in tools.items()}
    rules = [{"when": {"role": "user"}, "then": [{"tool": "count", "arguments": {}}]}]
    with stage.emulator([{"key": "m", "rules": rules}], plugins=plugins) as server:
        cells = [Cell(fault, surface, server, stage, tool) for surface, tool in tools.items()]
        with warnings.catch_warnings(record=True, action="always", category=WARNING) as given:
            assert not stage.run_all([(surface, cell.run) for surface, cell in zip(surfaces, cells, strict=True)])
        assert not [found for cell in cells for found in cell.found]
        is_lost = fault.ends_session and fault.start is None
        assert [each.category for each in given] == [WARNING] * (len(cells) if is_lost else 0)
        server.wait_for(lambda: not server.running_plugins, LIMIT)
