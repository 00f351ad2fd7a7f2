"""Flows: operations of several calls, written once, run in a thread or in an event loop.

A flow is a generator. It starts calls with a `Dispatcher`, yields the call that it waits for, receives what has arrived
for it, and returns its result. A flow never waits itself; `run` and `arun` do. All operations of the client are flows,
made of the steps below: `call_rpc`, `call_rpcs`, `open_channel`, `wait_for` and `call_back`.
"""

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import isawaitable
from typing import Any, NoReturn, Self, TypeAlias, TypeVar, cast

from pydantic_core import ValidationError

from lmstudio_integrations._support.shortening import shortened
from lmstudio_integrations.client.transport.dispatcher import Call, Dispatcher
from lmstudio_integrations.client.transport.tasks import IOTask
from lmstudio_integrations.client.transport.waiters import LoopWaiter, ThreadWaiter
from lmstudio_integrations.errors import LMStudioProtocolError, LMStudioValueError
from lmstudio_integrations.protocol.endpoints import Namespace, channel, rpc
from lmstudio_integrations.protocol.session import closed_early

T = TypeVar("T")
Flow: TypeAlias = Generator[Call[Any], list[Any], T]
"""The type of a flow. Nested functions quote it in annotations, because evaluating the subscript whenever they are
defined takes as long as building a request."""

MAX_IN_FLIGHT = 32
"""Maximum number of calls in flight at once, for each `call_rpcs`."""


_DECODE_ERRORS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What decoding raises when a response has an unexpected form."""


class CallbackEffect(partial[Any]):
    """A call of a user's callback. It runs outside of `decode_errors`: its errors are not the server's."""


class _AwaitedCallback:
    """What an async callback returned, as a step: `arun` awaits it in the caller's task, `run` rejects it."""

    def __init__(self, name: str, awaitable: Awaitable[Any]) -> None:
        self._name = name
        self._awaitable = awaitable

    @property
    def waiter(self) -> Self:
        """Itself."""
        return self

    async def wait(self) -> list[Any]:
        """Return what the callback returns in the end."""
        return [await self._awaitable]

    def reject(self) -> NoReturn:
        """Raise the error of the sync client.

        Raises:
            LMStudioValueError: Always.
        """
        close: Callable[[], object] | None = getattr(self._awaitable, "close", None)
        if close is not None:  # a coroutine would warn that it was never awaited
            close()
        raise LMStudioValueError(f"{self._name} must be a function that is not async; AsyncClient awaits async ones")


def run(flow: Flow[T]) -> T:
    """Drive a flow, waiting in this thread."""
    try:
        call: Call[ThreadWaiter] = next(flow)
        while True:
            try:
                if isinstance(call, _AwaitedCallback):
                    call.reject()
                batch = call.waiter.wait()
            except BaseException as error:  # noqa: BLE001 - the flow decides
                call = flow.throw(error)
            else:
                call = flow.send(batch)
    except StopIteration as stop:
        return cast("T", stop.value)


async def arun(flow: Flow[T]) -> T:
    """Drive a flow, waiting in the running loop."""
    try:
        call: Call[LoopWaiter] = next(flow)
        while True:
            try:
                batch = await call.waiter.wait()
            except BaseException as error:  # noqa: BLE001 - the flow decides
                call = flow.throw(error)
            else:
                call = flow.send(batch)
    except StopIteration as stop:
        return cast("T", stop.value)


def _as_is(result: Any) -> Any:
    return result


def call_rpc(
    dispatcher: Dispatcher[Any],
    namespace: Namespace,
    name: str,
    parameter: Mapping[str, Any] | None = None,
    read: Callable[[Any], T] = _as_is,
    *,
    operation: str = "RPC",
) -> Flow[T]:
    """Make a call and return its decoded result."""
    with dispatcher.start(namespace, rpc(namespace, name), parameter, operation=operation) as call:
        (result,) = yield call
        with decode_errors(operation):
            return read(result)


def call_rpcs(
    dispatcher: Dispatcher[Any],
    namespace: Namespace,
    name: str,
    parameters: Sequence[Mapping[str, Any]],
    read: Callable[[Any], T],
    *,
    operation: str,
) -> Flow[list[T]]:
    """Make many calls, at most `MAX_IN_FLIGHT` at once; return the decoded results in their order.

    Whenever at most half of that are still in flight, the next ones are started together, because one write for several
    calls costs little more than for one.
    """
    endpoint = rpc(namespace, name)
    calls: list[Call[Any]] = []
    results: list[T] = []
    try:
        for done in range(len(parameters)):
            if len(calls) - done <= MAX_IN_FLIGHT // 2 and (due := parameters[len(calls) : done + MAX_IN_FLIGHT]):
                calls += dispatcher.start_all(namespace, endpoint, due, operation=operation)
            (result,) = yield calls[done]
            try:
                results.append(read(result))
            except _DECODE_ERRORS as error:
                raise _unreadable(operation, error) from error
    finally:
        for call in calls[len(results) :]:
            call.close()
        if calls and calls[0].connecting is not None:
            calls[0].report_connection()
    return results


def wait_for(task: IOTask[T]) -> Flow[T]:
    """Wait for a coroutine on the I/O thread; ending the wait early cancels it."""
    with task:
        (result,) = yield cast("Any", task)
        return cast("T", result)


def open_channel(
    dispatcher: Dispatcher[Any],
    namespace: Namespace,
    name: str,
    parameter: Mapping[str, Any] | None,
    read: Callable[[dict[str, Any]], CallbackEffect | T | None],
    *,
    operation: str,
) -> Flow[T]:
    """Open a channel and read its packets until one of them gives the result; run the callbacks of the others.

    `read` returns `None` to ignore a packet, a `CallbackEffect` to run it, and anything else to end the channel with
    that result. So `T` must not include `None`.
    """
    with dispatcher.start(namespace, channel(namespace, name), parameter, operation=operation) as call:
        while batch := (yield call):
            for packet in batch:
                with decode_errors(operation):
                    result = read(packet)
                if isinstance(result, CallbackEffect):
                    result()
                elif result is not None:
                    call.nothing_to_stop = True
                    return result
        raise closed_early(operation)


def call_back(name: str, callback: Callable[..., Any] | None, *arguments: Any) -> "Flow[Any]":
    """Call a user's callback, if there is one, and return its result; the async client awaits it if necessary.

    Args:
        name: The name of the callback, for the error of the sync client.
        callback: The callback.
        arguments: Its arguments.
    """
    result = None if callback is None else callback(*arguments)
    if result is not None and isawaitable(result):
        (result,) = yield cast("Any", _AwaitedCallback(name, result))
    return result


@contextmanager
def decode_errors(operation: str) -> Generator[None]:
    """Turn every error in decoding a response into one `LMStudioProtocolError`."""
    try:
        yield
    except _DECODE_ERRORS as error:
        raise _unreadable(operation, error) from error


def _unreadable(operation: str, error: Exception) -> LMStudioProtocolError:
    return LMStudioProtocolError(
        f"{operation}: the server's response cannot be read: {_what_is_wrong(error)}; update LM Studio and this package"
    )


def _what_is_wrong(error: Exception) -> str:
    """Return what is wrong with a response. The error itself is the cause of ours, for people who debug it."""
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {shortened(each['msg'])}" for each in error.errors(include_url=False)
        )
    if isinstance(error, KeyError):
        return f"it has no {shortened(repr(error.args[0]))}"
    return "a part of it has another form than expected"
