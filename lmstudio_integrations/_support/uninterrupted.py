"""Runs what a signal handler must not interrupt, because the handler may need it, too.

Handlers run in the main thread, between any two of its steps. One that makes a call would wait for a lock that the step
below it holds, or find a module whose import is not finished. Used for what the first call of a process makes.
"""

import sys
import threading
from _thread import start_new_thread
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def uninterrupted(function: Callable[[], T]) -> T:
    """Return the result of a function; it runs in another thread than the main one, where no signal handler runs.

    Raises:
        BaseException: What the function raises.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return function()
    ended: SimpleQueue[Callable[[], T]] = SimpleQueue()
    try:
        start_new_thread(_run, (function, ended))  # not `threading.Thread`: its `start` holds locks in this thread
    except RuntimeError:  # the process is ending, or may have no more threads
        return function()
    return ended.get()()


def _run(function: Callable[[], T], ended: "SimpleQueue[Callable[[], T]]") -> None:
    trace = threading.gettrace()
    if trace is not None:  # as `threading.Thread` does it, for debuggers
        sys.settrace(trace)
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
        failure = error

        def end() -> T:
            raise failure
    else:

        def end() -> T:
            return result

    ended.put(end)
