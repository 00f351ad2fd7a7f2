"""Run several flows at once, as one flow: for models on several hosts, and for decisions.

The caller of the common flow waits for all of them, and runs their callbacks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from lmstudio_integrations.client.concurrency.flows import Flow, Step
from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.client.concurrency.mailboxes import Mailbox

MakeMailbox: TypeAlias = Callable[[IOThread], Mailbox]
"""Makes the mailboxes of calls. A concurrent flow passes it to `with_mailboxes` of each `ClientContext` it uses."""


class _RelayMailbox(Mailbox):
    """Collects what arrives for one call, and wakes the caller of all concurrent flows."""

    __slots__ = ("common",)

    def __init__(self, io: IOThread, common: Mailbox) -> None:
        super().__init__(io, common.loop)
        self.common = common

    def wait(self) -> list[Any] | None:
        """Return what has arrived, an empty list at the end; `None` if the caller will be woken.

        Raises:
            BaseException: The error of the call.
        """
        batch = self.pop_all()
        if batch is None and not self.must_wait():
            self._waiting = False
            batch = self.pop_all()
        return batch

    def runs_with(self, other: Mailbox) -> bool:
        """Whether both belong to flows of one caller, each of which runs while the other waits."""
        return isinstance(other, _RelayMailbox) and other.common is self.common

    def _wake(self) -> None:
        self.common.put(self)


@dataclass(frozen=True, slots=True)
class _Any:
    """The step of the common flow: any of the steps of the others."""

    mailbox: Mailbox


_Waiting: TypeAlias = dict[object, tuple[Flow[None], Step]]
"""The flows that wait, each with its step, by the mailbox of the step."""


def run_concurrently(common: Mailbox, works: Sequence[Callable[[MakeMailbox], Flow[None]]]) -> Flow[None]:
    """Run flows at once. The first error ends all of them.

    Args:
        common: Where their caller waits.
        works: Make the flows. All their contexts must have the mailboxes that they are given.
    """
    waiting: _Waiting = {}

    def make_mailbox(io: IOThread) -> Mailbox:
        return _RelayMailbox(io, common)

    try:
        for work in works:
            flow = work(make_mailbox)
            _advance(flow, partial(next, flow), waiting)
        while waiting:
            for mailbox in (yield _Any(common)):
                if mailbox in waiting:
                    flow, step = waiting.pop(mailbox)
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
            batch = step.mailbox.wait()
        except BaseException as error:  # noqa: BLE001 - the flow decides
            resume = partial(flow.throw, error)
        else:
            if batch is None:
                waiting[step.mailbox] = flow, step
                return
            resume = partial(flow.send, batch)
