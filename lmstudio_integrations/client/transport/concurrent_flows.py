"""Run several flows at once, as one flow: for operations on several hosts.

The caller of the common flow waits for all of them, and runs their callbacks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from lmstudio_integrations.client.transport.client_context import ClientContext
from lmstudio_integrations.client.transport.flows import Flow, Step
from lmstudio_integrations.client.transport.io_thread import IOThread
from lmstudio_integrations.client.transport.waiters import Waiter

MakeWaiter: TypeAlias = Callable[[IOThread], Waiter]
"""Makes the waiters of calls. A concurrent flow passes it to `with_waiters` of each `ClientContext` that it uses."""


class _RelayWaiter(Waiter):
    """Collects what arrives for one call, and wakes the caller of all concurrent flows."""

    __slots__ = ("common",)

    def __init__(self, io: IOThread, common: Waiter) -> None:
        super().__init__(io, common.loop)
        self.common = common

    def wait(self) -> list[Any] | None:
        """Return what has arrived, an empty list at the end; `None` if the caller will be woken.

        Raises:
            BaseException: The error of the call.
        """
        batch = self.pop_all()
        if batch is None and not self._must_wait():
            self._waiting = False
            batch = self.pop_all()
        return batch

    def runs_with(self, other: Waiter) -> bool:
        """Whether both belong to flows of one caller, each of which runs while the other waits."""
        return isinstance(other, _RelayWaiter) and other.common is self.common

    def _wake(self) -> None:
        self.common.put(self)


@dataclass(frozen=True, slots=True)
class _Any:
    """The step of the common flow: any of the steps of the others."""

    waiter: Waiter


_Waiting: TypeAlias = dict[object, tuple[Flow[None], Step]]
"""The flows that wait, each with its step, by the waiter of the step."""


def run_concurrently(context: ClientContext, works: Sequence[Callable[[MakeWaiter], Flow[None]]]) -> Flow[None]:
    """Run flows at once. The first error ends all of them.

    Args:
        context: Makes the common waiter.
        works: Make the flows. All their contexts must have the waiters that they are given.
    """
    common = context.new_waiter()
    waiting: _Waiting = {}

    def make_waiter(io: IOThread) -> Waiter:
        return _RelayWaiter(io, common)

    try:
        for work in works:
            flow = work(make_waiter)
            _advance(flow, partial(next, flow), waiting)
        while waiting:
            for waiter in (yield _Any(common)):
                if waiter in waiting:
                    flow, step = waiting.pop(waiter)
                    _advance(flow, lambda step=step: step, waiting)  # type: ignore[misc]  # a default binds the step
    finally:
        for flow, _ in waiting.values():
            flow.close()


def _advance(flow: Flow[None], resume: Callable[[], Step], waiting: _Waiting) -> None:
    """Resume a flow until it has to wait, or ends."""
    while True:
        try:
            step = resume()
        except StopIteration:
            return
        try:
            batch = step.waiter.wait()
        except BaseException as error:  # noqa: BLE001 - the flow decides
            resume = partial(flow.throw, error)
        else:
            if batch is None:
                waiting[step.waiter] = flow, step
                return
            resume = partial(flow.send, batch)
