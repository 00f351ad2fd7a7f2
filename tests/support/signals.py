"""Signals to the main thread, sent until their handler has begun.

A signal that arrives just before the main thread blocks is handled when it wakes; the next one wakes it.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def send_until(handled: threading.Event, number: int) -> None:
    """Send a signal to the main thread, which may be this one, until its handler has set the event."""
    main = threading.main_thread().ident
    assert main is not None
    for _ in range(200):
        if handled.is_set():
            return
        signal.pthread_kill(main, number)
        handled.wait(0.1)
    raise AssertionError("no handler began")


@contextmanager
def ctrl_c(when: Callable[[], object]) -> Iterator[threading.Event]:
    """Interrupt the main thread once, when a function that is called in another thread has returned.

    The event is set when the signal has arrived.
    """
    handled = threading.Event()

    def handle(*_: object) -> None:
        if not handled.is_set():
            handled.set()
            raise KeyboardInterrupt

    def interrupt() -> None:
        when()
        send_until(handled, signal.SIGINT)

    previous = signal.signal(signal.SIGINT, handle)
    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    try:
        yield handled
    finally:
        interrupter.join(600)
        signal.signal(signal.SIGINT, previous)
