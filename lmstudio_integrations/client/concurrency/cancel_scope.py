"""Cancel scopes: what is called in one can be cancelled together, in whichever threads and tasks it runs.

Frameworks copy the context of a run into the threads and tasks of its steps. So a scope in the context sees every call
that a run makes: predictions, requests and work on the I/O thread add themselves. Any thread may cancel a scope, and so
may a finalizer, because nothing here waits for a lock.
"""

import weakref
from contextvars import Context, ContextVar, copy_context
from typing import Protocol

from lmstudio_integrations.client.concurrency.io_thread import IOThread
from lmstudio_integrations.client.concurrency.mailboxes import running_loop
from lmstudio_integrations.errors import LMStudioCancelledError


class Cancellable(Protocol):
    """What a scope can end: a prediction, a request, or work on the I/O thread."""

    def abort(self, error: LMStudioCancelledError) -> None:
        """End it, at the server as well; whoever waits for it gets the error."""
        ...


class CancelScope:
    """Ends the calls that are made in its context, once it is cancelled; those that are made later fail at once.

    The rule: a scope is a part of those in which it is made or joined; anyone may cancel it, from anywhere, and only
    who runs in it must not wait for its end; and after its end it holds only threads, which nobody could cancel, while
    a task that still runs has outlived it.

    It refers to nothing of a program: neither to the context in which its calls run nor to the calls.

    Args:
        name: What is cancelled with it, for the error.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._outer: list[CancelScope] = []
        self._is_cancelled = False
        self._has_ended = False
        self._calls: dict[weakref.ref[Cancellable], None] = {}
        self.join()

    def context(self) -> Context:
        """Return the context of the caller, with this scope. Run in it what belongs to the scope."""
        context = copy_context()
        context.run(_current.set, self)
        return context

    def join(self) -> None:
        """Make it a part of the scope that the caller runs in, with the calls that it has."""
        outer = _current.get()
        if outer is None or outer in self._outer or self.is_callers:
            return
        self._outer.append(outer)
        for call in list(self._calls):  # one step, as threads may be adding theirs
            cancellable = call()
            if cancellable is not None:
                outer.add(cancellable)

    @property
    def is_callers(self) -> bool:
        """Whether who asks runs in it, or in a part of it."""
        scope = _current.get()
        return scope is not None and scope.is_part_of(self)

    def is_part_of(self, scope: "CancelScope") -> bool:
        """Whether it is this scope, or is in it."""
        return scope is self or any(outer.is_part_of(scope) for outer in self._outer)

    def cancel(self) -> None:
        """End all calls that were made in it."""
        self._is_cancelled = True
        for call in list(self._calls):  # one step, as threads may be adding theirs
            cancellable = call()
            if cancellable is not None:
                cancellable.abort(self.error())
        io = IOThread.started()
        if io is not None:
            io.yield_to()  # once for all of them

    def end(self) -> None:
        """Release the tasks that outlive what was cancelled."""
        self._has_ended = True

    def add(self, call: Cancellable) -> None:
        """Add a call. If the scope was cancelled meanwhile, end it."""
        calls = self._calls

        def remove(ended: "weakref.ref[Cancellable]") -> None:
            calls.pop(ended, None)

        calls[weakref.ref(call, remove)] = None
        if self._rejects:  # looked at after the call was added: this or `cancel` sees the other
            call.abort(self.error())
        for outer in self._outer:
            outer.add(call)

    def check(self) -> None:
        """Reject a call of who runs in it.

        Raises:
            LMStudioCancelledError: If it was cancelled, or one around it was.
        """
        if self._rejects:
            raise self.error("; start what outlives it before it, or in an empty contextvars.Context()")
        for outer in self._outer:
            outer.check()

    @property
    def _rejects(self) -> bool:
        return self._is_cancelled and not (self._has_ended and running_loop() is not None)

    def error(self, remedy: str = "") -> LMStudioCancelledError:
        """Return the error of a call that was cancelled."""
        return LMStudioCancelledError(f"the call was cancelled together with {self._name}{remedy}")


_current: ContextVar[CancelScope | None] = ContextVar("lmstudio_cancel_scope", default=None)


def add_to_scope(call: Cancellable) -> None:
    """Add a call to the scope that it is made in, if there is one."""
    scope = _current.get()
    if scope is not None:
        scope.add(call)


def check_scope() -> None:
    """Reject a call that is made in a cancelled scope.

    Raises:
        LMStudioCancelledError: If the scope was cancelled.
    """
    scope = _current.get()
    if scope is not None:
        scope.check()
