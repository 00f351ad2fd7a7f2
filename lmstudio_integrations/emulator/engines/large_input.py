"""Work whose size a client chooses: large work runs in a thread, and input has a limit."""

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

from lmstudio_integrations.emulator.engines.base import GenerateRequest
from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.types.chat import Message, TextPart
from lmstudio_integrations.types.tools import ToolCallResultPart

T = TypeVar("T")

MAX_PROMPT_LENGTH = 16 * 1024 * 1024
"""The most characters of a text, and of a conversation under its template, whose prefixes and suffixes add up."""

LONG_TEXT = 100_000
MANY_MESSAGES = 500
MANY_TOOLS = 100
"""Up to these sizes, work takes a few milliseconds and does not delay other requests."""


async def run_in_thread(work: Callable[[], T], *, when: bool) -> T:
    """Return the result of pure Python work; run it in a thread when it is large, so that other requests continue."""
    return await asyncio.to_thread(work) if when else work()


def is_long(text: str) -> bool:
    """Return whether work on a text could block the event loop."""
    return len(text) > LONG_TEXT


def is_large(messages: Iterable[Message], tools: int = 0) -> bool:
    """Return whether work on a conversation could block the event loop; stops as soon as that is known."""
    characters = 0
    for number, message in enumerate(messages):
        characters += sum(map(_length, message.content))
        if number >= MANY_MESSAGES or characters > LONG_TEXT:
            return True
    return tools > MANY_TOOLS


def is_large_request(request: GenerateRequest) -> bool:
    """Return whether preparing a prediction could block the event loop. Even a short schema may take long."""
    if request.tool_choice == "required" or (request.config.structured or {}).get("type") == "json":
        return True
    if request.history is None:
        return is_long(request.prompt or "")
    return is_large(request.history.messages, len(request.tools))


def join(parts: Iterable[str]) -> str:
    """Return the parts of a prompt as one text.

    Raises:
        EngineError: If it is too long; nothing beyond the limit is stored.
    """
    texts: list[str] = []
    length = 0
    for part in parts:
        length += len(part)
        require_lengths("prompt", [length])
        texts.append(part)
    return "".join(texts)


def require_length(text: str) -> str:
    """Return a text unless it is too long.

    Raises:
        EngineError: If it is too long.
    """
    require_lengths("text", [len(text)])
    return text


def require_lengths(what: str, lengths: Iterable[int]) -> None:
    """Check that the total length is not too long.

    Raises:
        EngineError: If it is too long.
    """
    if sum(lengths) > MAX_PROMPT_LENGTH:
        raise EngineError(
            f"The {what} is longer than {MAX_PROMPT_LENGTH} characters",
            suggestion="Send less at once; prefixes and suffixes of a prompt template count, too.",
        )


def _length(part: object) -> int:
    if isinstance(part, TextPart):
        return len(part.text)
    return len(part.content) if isinstance(part, ToolCallResultPart) else 1
