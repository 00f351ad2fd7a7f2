"""Sends a response in one write or token by token, and records when a client cancels it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Script:
    """A response, as bytes.

    Attributes:
        head: What comes before the first token.
        tokens: The bytes of each token.
        tail: What comes after the last token.
        gap: Seconds between two tokens.
    """

    head: bytes
    tokens: Sequence[bytes]
    tail: bytes
    gap: float


class Cancellations:
    """Records when a client last cancelled a response, by the clock that all processes share."""

    def __init__(self) -> None:
        self._last: float | None = None

    def record(self) -> None:
        """Record that a client cancels now."""
        self._last = time.monotonic()

    def pop(self) -> float | None:
        """Return the time of the last cancellation, once."""
        last, self._last = self._last, None
        return last


class Player:
    """Sends one response."""

    def __init__(self, transport: asyncio.WriteTransport, script: Script, on_end: Callable[[], None]) -> None:
        self._transport = transport
        self._script = script
        self._on_end = on_end
        self._next = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Send everything, or the first token."""
        script = self._script
        if not script.gap:
            self._on_end()
            self._transport.write(b"".join((script.head, *script.tokens, script.tail)))
            return
        self._transport.write(script.head)
        self._step(asyncio.get_running_loop().time())

    def stop(self) -> None:
        """Stop sending."""
        if self._timer is not None:
            self._timer.cancel()

    def _step(self, due: float) -> None:
        script = self._script
        if self._next == len(script.tokens):
            self._on_end()
            self._transport.write(script.tail)
            return
        self._transport.write(script.tokens[self._next])
        self._next += 1
        due += script.gap
        self._timer = asyncio.get_running_loop().call_at(due, self._step, due)
