"""Calls of tools that are cancelled at random moments: `python -m benchmarks.cancelled_tool_calls --calls 1000`.

The tools are those of a real MCP server, a program that records its calls and what was cancelled. Each call of a tool
that never ends is cancelled in one of the ways in which programs do that. Every one must end on the server, and no
process, session or thread may be left.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator

PROGRAM = Path(__file__).parents[1] / "tests" / "support" / "mcp_program.py"
PLUGIN = "mcp/program"

AT_ONCE = 20
"""Calls that run at the same time."""

LATEST = 0.03
"""Seconds after which a call is cancelled, at the latest; a call takes about 0.002 to reach the program."""

LIMIT = 30.0
"""Seconds in which everything must have ended."""


async def _cancel_task(client: lms.AsyncClient, session: lms.AsyncToolUseSession, seconds: float) -> str:
    task = asyncio.ensure_future(_hold(session)())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.wait([task])
    return "cancelled task" if task.cancelled() else f"cancelled task: {task.exception()!r}"


async def _time_out(client: lms.AsyncClient, session: lms.AsyncToolUseSession, seconds: float) -> str:
    try:
        await _hold(session).call({}, timeout=max(seconds, 0.001))
    except lms.LMStudioTimeoutError:
        return "timeout"
    return "timeout: it ended"


async def _close_session(client: lms.AsyncClient, session: lms.AsyncToolUseSession, seconds: float) -> str:
    async with client.plugins.tools(PLUGIN) as own:
        task = asyncio.ensure_future(_hold(own)())
        await asyncio.sleep(seconds)
    await asyncio.wait([task])
    error = task.exception()
    return "closed session" if isinstance(error, lms.LMStudioCancelledError) else f"closed session: {error!r}"


async def _close_client(client: lms.AsyncClient, session: lms.AsyncToolUseSession, seconds: float) -> str:
    async with lms.AsyncClient(client.api_host) as own:
        task = asyncio.ensure_future(_hold(await own.plugins.tools(PLUGIN).start())())
        await asyncio.sleep(seconds)
    await asyncio.wait([task])
    error = task.exception()
    is_right = isinstance(error, lms.LMStudioConnectionLostError | lms.LMStudioClientClosedError)
    return "closed client" if is_right else f"closed client: {error!r}"


async def _collect(client: lms.AsyncClient, session: lms.AsyncToolUseSession, seconds: float) -> str:
    coroutine = _hold(session)()
    coroutine.send(None)  # as far as to its first wait
    await asyncio.sleep(seconds)
    coroutine.close()
    return "collected"


WAYS: tuple[Callable[[lms.AsyncClient, lms.AsyncToolUseSession, float], Awaitable[str]], ...] = (
    _cancel_task,
    _time_out,
    _close_session,
    _close_client,
    _collect,
)


def _hold(session: lms.AsyncToolUseSession) -> lms.AsyncPluginTool:
    return next(tool for tool in session.tools if tool.name == "hold")


async def _run(address: str, calls: int, dice: random.Random) -> Counter[str]:
    """Cancel calls; return how often each way came to its end."""
    ended: Counter[str] = Counter()
    limit = asyncio.Semaphore(AT_ONCE)
    async with lms.AsyncClient(address) as client, client.plugins.tools(PLUGIN) as session:

        async def one() -> None:
            async with limit:
                ended[await dice.choice(WAYS)(client, session, dice.uniform(0, LATEST))] += 1

        await asyncio.gather(*(one() for _ in range(calls)))
        echo = next(tool for tool in session.tools if tool.name == "echo")
        assert await echo(a=1) == [{"type": "text", "text": '{"a": 1}'}], "the session works to the end"
    return ended


def measure(calls: int, seed: int) -> str:
    """Return what has happened, as a table in Markdown.

    Raises:
        AssertionError: If anything is left, or was not aborted.
    """
    import fcntl

    threads = threading.active_count()
    with tempfile.TemporaryDirectory() as folder:
        record, lock = Path(folder, "record"), Path(folder, "lock")
        lock.touch()
        command = [sys.executable, str(PROGRAM)]
        plugin = {"command": command, "env": {"RECORD": str(record), "LOCK": str(lock)}}
        with Emulator(["m"], plugins={PLUGIN: plugin}) as server:
            ended = asyncio.run(_run(server.address, calls, random.Random(seed)))
            server.wait_for(lambda: not server.running_plugins, LIMIT)
            states = Counter(call.state for call in server.tool_calls)
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nothing that the server has started runs any more
        lines = Counter(record.read_text(encoding="utf-8").splitlines())
    assert all(":" not in way for way in ended), ended
    assert states == {"aborted": states["aborted"], "ended": 1}, states
    assert lines["cancelled {}"] == lines["call hold"], lines
    deadline = time.monotonic() + LIMIT
    while threading.active_count() > threads + 1 and time.monotonic() < deadline:  # the I/O thread stays
        time.sleep(0.01)
    assert threading.active_count() <= threads + 1, threading.enumerate()
    rows = {f"cancelled by: {way}": count for way, count in sorted(ended.items())}
    rows |= {
        "calls that reached the server, all aborted": states["aborted"],
        "calls that reached the program, all cancelled there": lines["call hold"],
        "starts of the program": lines["start"],
        "sessions, processes and threads that are left": 0,
    }
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {count:,} |" for name, count in rows.items())])


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}\n")
    print(measure(arguments.calls, arguments.seed))


if __name__ == "__main__":
    main()
