"""What threads share, and what they run: a bounded cache, and functions of users."""

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")


def run_in_thread(function: Callable[[], T], name: str = "lmstudio-tool") -> "Future[T]":
    """Call a function in a daemon thread, so that neither Ctrl-C nor the end of the process waits for it.

    A pool would wait for its threads at the end of the process, and might have too few of them.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # from here on it cannot be cancelled
    context = copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(function))
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            future.set_exception(error)

    Thread(target=run, name=name, daemon=True).start()
    return future


# A cache --------------------------------------------------------------------------------------------------------------

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


class BoundedCache(Generic[KeyT, ValueT]):
    """Keeps the values of the last keys. Thread-safe without a lock: a signal handler may interrupt its holder.

    Args:
        size: The most keys.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: dict[KeyT, ValueT] = {}

    def get(self, key: KeyT) -> ValueT | None:
        """Return the value of a key, if it is cached."""
        return self._values.get(key)

    def put(self, key: KeyT, value: ValueT) -> ValueT:
        """Cache a value; the oldest one is dropped if there are too many."""
        self._make_room(key)
        self._values[key] = value
        return value

    def get_or_make(self, key: KeyT, make: Callable[[], ValueT]) -> ValueT:
        """Return the value of a key; the first call makes it. Of several at once, all return the value of one."""
        value = self._values.get(key)
        if value is None:
            new = make()
            self._make_room(key)
            value = self._values.setdefault(key, new)
        return value

    def pop(self, key: KeyT) -> ValueT | None:
        """Return the value of a key, if it is cached, and drop it."""
        return self._values.pop(key, None)

    def values(self) -> list[ValueT]:
        return list(self._values.values())

    def pop_all(self) -> list[tuple[KeyT, ValueT]]:
        """Return all entries and drop them."""
        values, self._values = self._values, {}
        return list(values.items())

    def _make_room(self, key: KeyT) -> None:
        if key not in self._values and len(self._values) >= self._size:
            keys = list(self._values)  # in one step, like each of the next ones
            for oldest in keys[: max(0, len(keys) + 1 - self._size)]:  # several, where threads have added some at once
                self._values.pop(oldest, None)
