"""How the steps of an operation are run: written once as a flow, waited for in a thread or in an event loop.

A flow is a generator. It starts calls, yields the one it waits for, is sent what has come of it, and returns its
result. A flow itself does no waiting.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar

from lmstudio_integrations._shortening import shortened
from lmstudio_integrations.client.transport.dispatcher import Call, Dispatcher
from lmstudio_integrations.client.transport.tasks import IOTask
from lmstudio_integrations.client.transport.waiters import LoopWaiter, ThreadWaiter
from lmstudio_integrations.errors import LMStudioProtocolError
from lmstudio_integrations.protocol.endpoints import Namespace, channel, rpc
from lmstudio_integrations.protocol.session import closed_early

T = TypeVar("T")
Flow: TypeAlias = Generator[Call[Any], list[Any], T]
"""Quoted where a function is made in every call: subscripting it takes as long as to build a request."""

WINDOW = 32
"""Calls of one batch that are on their way at once."""


class CallbackEffect(partial[Any]):
    """A call of a caller's own function, made apart from the reading: what it raises is not the server's fault."""


def run(flow: Flow[T]) -> T:
    """Drive a flow, waiting in this thread."""
    try:
        call: Call[ThreadWaiter] = next(flow)
        while True:
            try:
                batch = call.waiter.wait()
            except BaseException as error:  # noqa: BLE001 - the flow decides
                call = flow.throw(error)
            else:
                call = flow.send(batch)
    except StopIteration as stop:
        result: T = stop.value
        return result


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
        result: T = stop.value
        return result


def ask(
    dispatcher: Dispatcher[Any],
    namespace: Namespace,
    name: str,
    parameter: Mapping[str, Any] | None = None,
    *,
    doing: str = "RPC",
) -> Flow[Any]:
    """Make a call and return its result."""
    with dispatcher.start(namespace, rpc(namespace, name), parameter, doing=doing) as call:
        (result,) = yield call
        return result


def ask_many(
    dispatcher: Dispatcher[Any],
    namespace: Namespace,
    name: str,
    parameters: Sequence[Mapping[str, Any]],
    read: Callable[[Any], T],
    *,
    doing: str,
) -> Flow[list[T]]:
    """Make many calls, `WINDOW` at a time at most, and return what is read of the results, in their order.

    They are started by half a window, because several cost little more to send than one; and read as they come, while
    they are at hand.
    """
    endpoint = rpc(namespace, name)
    calls: list[Call[Any]] = []
    results: list[T] = []
    try:
        for done in range(len(parameters)):
            if len(calls) - done <= WINDOW // 2 and (due := parameters[len(calls) : done + WINDOW]):
                calls += dispatcher.start_all(namespace, endpoint, due, doing=doing)
            (result,) = yield calls[done]
            with understanding(doing):
                results.append(read(result))
    finally:
        for call in calls[len(results) :]:
            call.abandon()
    return results


def wait_for(task: IOTask[T]) -> Flow[T]:
    """Wait for a coroutine on the I/O thread; leaving the wait cancels it."""
    with task:
        step: Any = task
        results: list[T] = yield step
        return results[0]


def follow(
    dispatcher: Dispatcher[Any],
    namespace: Namespace,
    name: str,
    parameter: Mapping[str, Any] | None,
    read: Callable[[dict[str, Any]], CallbackEffect | T | None],
    *,
    doing: str,
) -> Flow[T]:
    """Open a channel and read its packets until one of them gives the result; tell the caller what others say."""
    with dispatcher.start(namespace, channel(namespace, name), parameter, doing=doing) as call:
        while batch := (yield call):
            for packet in batch:
                with understanding(doing):
                    result = read(packet)
                if isinstance(result, CallbackEffect):
                    result()
                elif result is not None:
                    call.release()
                    return result
        raise closed_early(doing)


@contextmanager
def understanding(doing: str) -> Generator[None]:
    """Turn what goes wrong in reading an answer into one error that says so."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = shortened(repr(error))
        raise LMStudioProtocolError(f"{doing}: the server's response cannot be read: {reason}") from error
