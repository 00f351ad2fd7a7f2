"""A limit on how many calls of an actor run at once. `_stage.py` uses it."""

import asyncio
from collections import deque


class Slots:
    """As many slots as the hosts have; the number may change. Belongs to one event loop.

    Used as an async context manager around a call. Slots are given in the order in which they are requested.
    """

    def __init__(self) -> None:
        self._limit = 1
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def resize(self, limit: int) -> None:
        """Change the number of slots. Calls that run are not affected."""
        self._limit = max(limit, 1)
        self._give()

    async def __aenter__(self) -> None:
        if self._taken < self._limit and not self._waiting:
            self._taken += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # cancelled just after its slot was given
                self._release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        self._taken -= 1
        self._give()

    def _give(self) -> None:
        """Give free slots to those that wait longest."""
        while self._waiting and self._taken < self._limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)
