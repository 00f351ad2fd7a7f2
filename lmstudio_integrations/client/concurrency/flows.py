"""Flows: operations of several calls, written once, run in a thread or in an event loop.

A flow is a generator. It starts calls with an `Operation`, yields the step that it waits for, receives what has arrived
for it, and returns its result. A flow never waits itself; `run` and `arun` do. Every function that returns a flow is a
generator, so nothing of it happens before it runs, not even the check of its arguments.
"""

from collections.abc import Awaitable, Callable, Generator
from inspect import isawaitable
from typing import Any, Protocol, Self, TypeAlias, TypeVar, cast

from lmstudio_integrations.errors import LMStudioValueError

T = TypeVar("T")


class StepMailbox(Protocol):
    """Where one waits for a step."""

    def wait(self) -> Any:
        """Return what has arrived, a list; for coroutines, an awaitable of that."""
        ...


class Step(Protocol):
    """What a flow waits for: a call, a coroutine on the I/O thread, an async callback, or any of several steps."""

    @property
    def mailbox(self) -> StepMailbox:
        """Where one waits for it."""
        ...


Flow: TypeAlias = Generator[Step, list[Any], T]
"""The type of a flow, which returns a `T`."""


def run(flow: Flow[T]) -> T:
    """Drive a flow, waiting in this thread."""
    start: Any = None  # what a generator must get first
    try:
        step = flow.send(start)
        while True:
            try:
                batch = step.mailbox.wait()
            except BaseException as error:  # noqa: BLE001 - the flow decides
                step = flow.throw(error)
            else:
                step = flow.send(batch)
    except StopIteration as stop:
        return cast("T", stop.value)


async def arun(flow: Flow[T]) -> T:
    """Drive a flow, waiting in the running loop."""
    start: Any = None  # what a generator must get first
    try:
        step = flow.send(start)
        while True:
            try:
                batch = await step.mailbox.wait()
            except BaseException as error:  # noqa: BLE001 - the flow decides
                step = flow.throw(error)
            else:
                step = flow.send(batch)
    except StopIteration as stop:
        return cast("T", stop.value)


class _AwaitedResult:
    """What an async callback returned, as a step: `arun` awaits it in the caller's task, `run` does not."""

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        self._awaitable = awaitable

    @property
    def mailbox(self) -> Self:
        return self

    def wait(self) -> Self:
        return self

    def __await__(self) -> Generator[Any, Any, list[Any]]:
        return self._awaited().__await__()

    async def _awaited(self) -> list[Any]:
        return [await self._awaitable]

    def close(self) -> None:
        """Close a coroutine that nothing awaits; it would warn of that."""
        close: Callable[[], object] | None = getattr(self._awaitable, "close", None)
        if close is not None:
            close()


def call_back(name: str, callback: Callable[..., Any] | None, *arguments: Any) -> Flow[Any]:
    """Call a user's callback, if there is one, and return its result; the async client awaits it if necessary.

    Args:
        name: The name of the callback, for the error of the sync client.
        callback: The callback.
        arguments: Its arguments.

    Raises:
        LMStudioValueError: If the sync client would have to await the result.
    """
    result = None if callback is None else callback(*arguments)
    if result is None or not isawaitable(result):
        return result
    awaited = _AwaitedResult(result)
    received: Any = yield awaited
    if received is awaited:
        awaited.close()
        raise LMStudioValueError(f"{name} must be a function that is not async; AsyncClient awaits async ones")
    return received[0]
