"""A prompt as hashes of its parts: says what it has in common with an earlier one, and keeps no text.

A server that has processed a prompt keeps it for a while, and continues from the first part that differs. With
fingerprints, the client chooses hosts, and scripted models say what is cached.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple


class PromptFingerprint(NamedTuple):
    """The fingerprint of a prompt. Hashes differ from process to process.

    Attributes:
        parts: The hash of the tools, then of each part of each message in turn.
        fixed: How many of them stand before the first turn: the tools and the system messages at the beginning.
    """

    parts: tuple[int, ...]
    fixed: int = 0

    def common_with(self, other: "PromptFingerprint") -> int:
        """Return how many parts two prompts have in common at their beginning."""
        pairs = enumerate(zip(self.parts, other.parts, strict=False))
        shorter = min(len(self.parts), len(other.parts))
        return next((at for at, (own, others) in pairs if own != others), shorter)


def fingerprint_of(messages: Iterable[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> PromptFingerprint:
    """Return the fingerprint of a conversation and its tools, both in wire form."""
    parts = [hash(repr(list(tools)) if tools else "")]
    fixed, is_fixed = 1, True
    for message in messages:
        role, content = message["role"], message["content"]
        parts += [hash((role, _text_of(part))) for part in content]
        is_fixed = is_fixed and role == "system"
        fixed += len(content) if is_fixed else 0
    return PromptFingerprint(tuple(parts), fixed)


def _text_of(part: Mapping[str, Any]) -> str:
    """Return what stands for a part: not the identifier of a file, which is a new one each time it is uploaded."""
    if part.get("type") == "text":  # nearly all are, and a text is hashed once
        text: str = part["text"]
        return text
    return repr({**part, "identifier": ""} if part.get("type") == "file" else part)
