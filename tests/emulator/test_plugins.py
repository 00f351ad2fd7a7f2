"""Python functions as tools of a plugin: what they raise, and how fast they report."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from lmstudio_integrations.emulator import plugins
from lmstudio_integrations.emulator.errors import WireError
from lmstudio_integrations.emulator.plugins import MAX_QUEUED, CallReports, FunctionPlugin
from lmstudio_integrations.types.functions import ToolCallContext

SILENT = CallReports(status=lambda _text: None, warn=lambda _text: None)


async def call(function: Callable[..., Any], reports: CallReports = SILENT) -> Any:
    """Call the only tool of a plugin."""
    return await FunctionPlugin("mcp/one", [function]).call(function.__name__, {}, reports)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, pytest.fail.Exception, StopIteration])
@pytest.mark.parametrize("is_async", [False, True])
async def test_whatever_a_function_raises_is_the_text_of_its_call(error: type[BaseException], is_async: bool) -> None:
    def fail() -> None:
        """Fail."""
        raise error("it broke")

    async def fail_async() -> None:
        """Fail."""
        fail()

    with pytest.raises(WireError, match=r"it broke|raised StopIteration"):
        await call(fail_async if is_async else fail)


async def test_a_function_that_reports_too_fast_waits() -> None:
    loop, reported = asyncio.get_running_loop(), list[str]()
    held, waited = threading.Event(), list[bool]()

    def chatter(context: ToolCallContext) -> int:
        """Report much."""
        loop.call_soon_threadsafe(held.wait, 5)  # the loop is busy
        for number in range(MAX_QUEUED):
            context.status(f"{number} " + "x" * 100_000)
        thread = threading.Thread(target=context.status, args=("the last",))
        thread.start()
        thread.join(0.2)
        waited.append(thread.is_alive())
        held.set()
        thread.join(600)
        return 1

    assert await call(chatter, CallReports(status=reported.append, warn=reported.append)) == 1
    assert waited == [True]
    assert [text.split()[0] for text in reported] == [*map(str, range(MAX_QUEUED)), "the"]
    assert max(map(len, reported)) < 10_000


async def test_a_function_whose_call_is_aborted_no_longer_waits() -> None:
    loop, ended = asyncio.get_running_loop(), threading.Event()

    def chatter(context: ToolCallContext) -> None:
        """Report for ever."""
        loop.call_soon_threadsafe(task.cancel)
        while not context.cancelled:
            context.status("on and on")
        ended.set()

    task = asyncio.ensure_future(call(chatter))
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(ended.wait, 5)


async def test_a_thread_that_cannot_start_is_an_error_and_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(_function: object) -> None:
        raise RuntimeError("can't start new thread")

    def one() -> int:
        """Return one."""
        return 1

    monkeypatch.setattr(plugins, "MAX_THREADS", 1)
    plugin = FunctionPlugin("mcp/one", [one])
    with monkeypatch.context() as patched:
        patched.setattr(plugins, "run_in_thread", no_more)
        with pytest.raises(WireError, match="cannot start another thread"):
            await plugin.call("one", {}, SILENT)
    assert await plugin.call("one", {}, SILENT) == 1
