"""One fault for one test: the proxy as users have it, in the fixture `lmstudio_faults` and without pytest."""

import asyncio
import math
import threading
from collections.abc import Callable
from random import Random
from types import TracebackType
from typing import Self

from lmstudio_integrations.emulator.testing.proxy.fault import LASTING, Fault
from lmstudio_integrations.emulator.testing.proxy.fault_options import find_fault
from lmstudio_integrations.emulator.testing.proxy.proxy import Proxy, ProxyThread

_OPPORTUNITIES = 3
"""Of how many opportunities a seed draws one."""

_POLL_SECONDS = 0.01


class FaultProxy:
    """A proxy in front of a server in which one fault happens, to test what a program does about it.

    The fault is transient: it happens once, or lasts for a second, so that a program can recover from it. A context
    manager: inside the block the proxy listens, on a thread of its own.

    ```python
    from lmstudio_integrations.emulator import Emulator, FaultProxy
    from lmstudio_integrations.langchain import ChatLMStudio

    with (
        Emulator(["my-model"]) as server,
        FaultProxy(server.address, "connection-reset-mid-response") as proxy,
    ):
        model = ChatLMStudio(
            model="my-model", host=proxy.address, max_retries=1
        )
        print(model.invoke("Hello!").text)
    ```

    Args:
        upstream: `host:port` of the server: an emulator, or LM Studio.
        fault: The name of the fault; the default, `None`, only forwards. `FAULTS` has all names.
        seed: When a fault that happens once happens: with 0, the default, at its first opportunity; any other number
            draws one of the first three.
        limit: Seconds after which all connections are closed, so that a program that waits forever ends. There is no
            limit by default.

    Raises:
        LMStudioValueError: If no fault has this name.
    """

    def __init__(self, upstream: str, fault: str | None = None, *, seed: int = 0, limit: float | None = None) -> None:
        self.fault: Fault | None = None if fault is None else find_fault(fault)
        self.limit: float = math.inf if limit is None else limit
        self.has_expired: bool = False
        """Whether `limit` has passed."""
        self._thread = ProxyThread()
        self._proxy = Proxy(
            self._thread,
            upstream,
            () if self.fault is None else self.fault.transient(_skipped(seed, self.fault)),
            rejecting_for=LASTING if self.fault is not None and self.fault.rejects_connections else 0.0,
        )
        self._timer = None if limit is None else threading.Timer(limit, self._expire)

    @property
    def address(self) -> str:
        """`host:port` for the program under test."""
        return self._proxy.address

    def has_happened(self, timeout: float = 1.0) -> bool:
        """Return whether the fault has happened. Waits for it while predictions run, at most `timeout` seconds."""
        self._thread.run(self._running_after(timeout, self._proxy.happened.is_set))
        return self._proxy.happened.is_set()

    def unfinished(self, timeout: float = 2.0) -> list[str]:
        """Return the predictions that still run after `timeout` seconds, and that nobody has cancelled.

        LM Studio goes on with such a prediction until its end, and the model is busy. Returns at once if there is none.
        From this call on, `limit` has no effect.
        """
        self._cancel_limit()
        return self._thread.run(self._running_after(timeout, lambda: False))

    def __enter__(self) -> Self:
        self._thread.__enter__()
        self._proxy.__enter__()
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cancel_limit()
        self._proxy.close()
        self._thread.__exit__(kind, error, trace)

    def _cancel_limit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()

    def _expire(self) -> None:
        self.has_expired = True
        self._proxy.close()

    async def _running_after(self, seconds: float, is_over: Callable[[], bool]) -> list[str]:
        """Return the predictions that run when none does, something is over, or the time is."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            running = [each for connection in self._proxy.connections for each in connection.tracker.predictions]
            if not running or is_over() or asyncio.get_running_loop().time() >= deadline:
                return running
            await asyncio.sleep(_POLL_SECONDS)


def _skipped(seed: int, fault: Fault) -> int:
    """Return how many opportunities pass first."""
    return Random(f"{seed} {fault.name}").randrange(_OPPORTUNITIES) if seed else 0  # noqa: S311 - no secret
