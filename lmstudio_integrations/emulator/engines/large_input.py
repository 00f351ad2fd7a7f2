"""Work whose size a client chooses: large work runs in a thread, so that other requests continue."""

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

from lmstudio_integrations.emulator.engines.base import GenerateRequest
from lmstudio_integrations.types.chat import Message, TextPart
from lmstudio_integrations.types.tools import ToolCallResultPart

T = TypeVar("T")

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


def _length(part: object) -> int:
    if isinstance(part, TextPart):
        return len(part.text)
    return len(part.content) if isinstance(part, ToolCallResultPart) else 1
