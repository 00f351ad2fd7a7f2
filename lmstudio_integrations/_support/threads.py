"""Run a function of a user in a thread of its own. `act` and the emulator's plugins run tools with it."""

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def run_in_thread(function: Callable[[], T]) -> "Future[T]":
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

    Thread(target=run, name="lmstudio-tool", daemon=True).start()
    return future
