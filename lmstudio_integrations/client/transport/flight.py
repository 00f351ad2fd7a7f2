"""Work of one caller that others wait for. `_single_flight.py` decides who does it."""

from collections.abc import Hashable
from copy import copy
from typing import TypeAlias

from lmstudio_integrations.client.transport.waiters import Waiter
from lmstudio_integrations.errors import LMStudioTimeoutError


class Flight:
    """Work that runs.

    Args:
        leader: Who does it.
    """

    def __init__(self, leader: Waiter) -> None:
        from asyncio import Event  # noqa: PLC0415 - the first call has loaded it

        self.leader = leader
        self._ended = Event()
        self._error: Exception | None = None

    async def wait(self, time_left: float | None) -> None:
        """Wait until it has ended, and fail if it failed (on the I/O thread).

        Raises:
            LMStudioTimeoutError: If that takes longer than the caller has.
            Exception: The error of the leader, if it is one for all.
        """
        from asyncio import timeout  # noqa: PLC0415 - the first call has loaded it

        try:
            async with timeout(time_left):
                await self._ended.wait()
        except TimeoutError:
            raise LMStudioTimeoutError(
                "Model load: another call loads the model, and timeout expired; raise timeout, or set it to None",
                timeout_name="timeout",
            ) from None
        if self._error is not None:
            raise copy(self._error)

    def end(self, error: Exception | None) -> None:
        """Wake those who wait (on the I/O thread)."""
        self._error = error
        self._ended.set()


Flights: TypeAlias = dict[Hashable, Flight]
