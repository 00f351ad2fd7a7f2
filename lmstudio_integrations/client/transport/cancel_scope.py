"""Cancel scopes: what is called in one can be cancelled together, in whichever threads and tasks it runs.

Frameworks copy the context of a run into the threads and tasks of its steps. So a scope in the context sees every call
that a run makes: predictions, requests and work on the I/O thread add themselves. Any thread may cancel a scope, and so
may a finalizer, because nothing here waits for a lock.
"""

import weakref
from contextvars import Context, ContextVar, copy_context
from typing import Protocol

from lmstudio_integrations.errors import LMStudioCancelledError


class Cancellable(Protocol):
    """What a scope can end: a prediction, a request, or work on the I/O thread."""

    def abort(self, error: LMStudioCancelledError) -> None:
        """End it, at the server as well; whoever waits for it gets the error."""
        ...


class CancelScope:
    """Ends the calls that are made in its context, once it is cancelled; those that are made later fail at once.

    A scope that is made in another one is a part of it.

    Attributes:
        context: The context of the maker, with this scope. Run in it what belongs to the scope.
    """

    def __init__(self) -> None:
        self.context: Context = copy_context()
        self._outer = self.context.get(_current)
        self._is_cancelled = False
        self._calls: dict[weakref.ref[Cancellable], None] = {}
        self.context.run(_current.set, self)

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled, or one around it was."""
        return self._is_cancelled or (self._outer is not None and self._outer.is_cancelled)

    @property
    def is_callers(self) -> bool:
        """Whether who asks runs in it, or in a part of it."""
        scope = _current.get()
        while scope is not None and scope is not self:
            scope = scope._outer  # noqa: SLF001 - of the same class
        return scope is self

    def cancel(self) -> None:
        """End all calls that were made in it."""
        self._is_cancelled = True
        for call in list(self._calls):  # one step, as threads may be adding theirs
            cancellable = call()
            if cancellable is not None:
                cancellable.abort(cancelled())

    def add(self, call: Cancellable) -> None:
        """Add a call. If the scope was cancelled meanwhile, end it."""
        calls = self._calls

        def remove(ended: "weakref.ref[Cancellable]") -> None:
            calls.pop(ended, None)

        calls[weakref.ref(call, remove)] = None
        if self._is_cancelled:  # looked at after the call was added: this or `cancel` sees the other
            call.abort(cancelled())
        if self._outer is not None:
            self._outer.add(call)


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
    if scope is not None and scope.is_cancelled:
        raise cancelled()


def cancelled() -> LMStudioCancelledError:
    """Return the error of a call whose scope was cancelled."""
    return LMStudioCancelledError("the call was cancelled together with the stream or the batch that it belongs to")
