"""A prompt as hashes of its parts: says what it has in common with an earlier one, and keeps no text.

A server that has processed a prompt keeps it for a while, and continues from the first part that differs. With
outlines, the client chooses hosts and notices prompts that begin differently each time; the emulator chooses slots.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias


class PromptOutline(NamedTuple):
    """The outline of a prompt. Hashes differ from process to process.

    Attributes:
        parts: The hash of the tools, then of each part of each message in turn.
        fixed: How many of them stand before the first turn: the tools and the system messages at the beginning.
    """

    parts: tuple[int, ...]
    fixed: int = 0

    def common_with(self, other: "PromptOutline") -> int:
        """Return how many parts two prompts have in common at their beginning."""
        pairs = enumerate(zip(self.parts, other.parts, strict=False))
        shorter = min(len(self.parts), len(other.parts))
        return next((at for at, (own, others) in pairs if own != others), shorter)

    def continues(self, earlier: "PromptOutline") -> bool:
        """Whether a prompt begins with all of an earlier one."""
        return self.parts[: len(earlier.parts)] == earlier.parts


OutlineMaker: TypeAlias = Callable[[], PromptOutline]
"""Makes the outline of a prompt, where it is needed."""


def outline_of(messages: Iterable[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> PromptOutline:
    """Return the outline of a conversation and its tools, both in wire form."""
    parts, fixed, is_fixed = [hash(repr(tools))], 1, True
    for message in messages:
        role = message["role"]
        hashes = [hash((role, repr(_lasting(part)))) for part in message["content"]]
        parts += hashes
        is_fixed = is_fixed and role == "system"
        fixed += len(hashes) if is_fixed else 0
    return PromptOutline(tuple(parts), fixed)


def _lasting(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a part without the identifier of a file, which is a new one each time that it is uploaded."""
    return {**part, "identifier": ""} if part.get("type") == "file" else part
