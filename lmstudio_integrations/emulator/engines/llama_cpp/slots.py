"""Which slot of the engine runs a prediction, so that each conversation finds its prompt cache again.

llama.cpp itself asks how much of a prompt a slot has. A turn that adds a third to its conversation has too little in
its own slot, and a conversation that only begins alike has enough in the slot of another one.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

MOSTLY = 0.75
"""The share of a prompt that a slot of another conversation must have to be chosen for it. llama.cpp gets the same."""

_CHUNK = 32
"""Characters of a text that are compared at once."""


def parts_of(text: str) -> list[str]:
    """Return a prompt without messages in parts. What is left over at its end is no part: there it may be continued."""
    return [text[start : start + _CHUNK] for start in range(0, len(text) - _CHUNK + 1, _CHUNK)]


class Slots:
    """The slots of one model, and what each has read. A caller takes a slot only if one is free.

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        self._free: dict[int, Sequence[str]] = dict.fromkeys(range(count), ())
        """What the free slots have read, the least recently used first."""

    @contextmanager
    def take(self, parts: Sequence[str]) -> Generator[int]:
        """Occupy the best slot for the duration of the block, and provide its number.

        That is the one whose conversation the prompt continues, else one that has most of the prompt, else the one that
        was idle for longest, whose content the engine keeps elsewhere.

        Args:
            parts: The prompt: what precedes the messages, then each message.
        """
        slot = max(self._free, key=lambda number: _use(self._free[number], parts))  # the first of several
        del self._free[slot]
        try:
            yield slot
        finally:
            self._free[slot] = parts


def _use(held: Sequence[str], parts: Sequence[str]) -> tuple[bool, int]:
    """Return whether a prompt continues what a slot has read, and how many characters of it the slot has."""
    count = next((at for at, (old, new) in enumerate(zip(held, parts, strict=False)) if old != new), len(held))
    shared = sum(map(len, parts[:count]))
    if held and count == len(held) <= len(parts):
        return True, shared
    return False, shared if shared > MOSTLY * sum(map(len, parts)) else 0
