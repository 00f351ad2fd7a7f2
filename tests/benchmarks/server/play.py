"""Sending an answer: all of it in one write, or piece by piece; and taking note of when a client has left it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Score:
    """An answer, as bytes.

    Attributes:
        head: What comes before the first token.
        tokens: One piece for each.
        tail: What comes after the last token.
        gap: Seconds between two tokens.
    """

    head: bytes
    tokens: Sequence[bytes]
    tail: bytes
    gap: float


class Departures:
    """When clients have left answers before their end, by the clock that all processes share."""

    def __init__(self) -> None:
        self._last: float | None = None

    def note(self) -> None:
        """Take note that a client has left just now."""
        self._last = time.monotonic()

    def take(self) -> float | None:
        """Return when the last one has left, once."""
        last, self._last = self._last, None
        return last


class Player:
    """One answer on its way."""

    def __init__(self, transport: asyncio.WriteTransport, score: Score, on_end: Callable[[], None]) -> None:
        self._transport = transport
        self._score = score
        self._on_end = on_end
        self._next = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Send all, or the first piece."""
        score = self._score
        if not score.gap:
            self._on_end()
            self._transport.write(b"".join((score.head, *score.tokens, score.tail)))
            return
        self._transport.write(score.head)
        self._step(asyncio.get_running_loop().time())

    def stop(self) -> None:
        """Send no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _step(self, due: float) -> None:
        score = self._score
        if self._next == len(score.tokens):
            self._on_end()
            self._transport.write(score.tail)
            return
        self._transport.write(score.tokens[self._next])
        self._next += 1
        due += score.gap
        self._timer = asyncio.get_running_loop().call_at(due, self._step, due)
