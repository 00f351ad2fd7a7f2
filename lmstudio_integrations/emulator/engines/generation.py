"""What all engines do alike: read the settings of a prediction, report progress, and run large work in a thread."""

import asyncio
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from lmstudio_integrations._support import threads
from lmstudio_integrations._support.typeguards import is_list
from lmstudio_integrations.emulator.engines.base import GenerateRequest
from lmstudio_integrations.types.chat import Message, TextPart
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.functions import ToolCallResultPart

CUT_OFF = {"title": "Failed to parse tool call: Unexpected end of content."}
"""The error of a tool call that ends before it is complete."""


@dataclass(frozen=True, slots=True)
class Tags:
    """The tags around reasoning, and whether reasoning is separated from the text."""

    start: str
    end: str
    enabled: bool = True


DEFAULT_TAGS = Tags("<think>", "</think>")


def reasoning_tags(config: LlmPredictionConfig) -> Tags:
    """Return the tags of the settings. An empty tag cannot be found in a text, so it disables the separation."""
    parsing = config.reasoning_parsing or {}
    start = str(parsing.get("startString", DEFAULT_TAGS.start))
    end = str(parsing.get("endString", DEFAULT_TAGS.end))
    return Tags(start, end, bool(parsing.get("enabled", True) and start and end))


def stop_strings(config: LlmPredictionConfig) -> list[str]:
    """Return everything at which generation stops: for the settings, tool calls and the prompt template."""
    of_template = (config.prompt_template or {}).get("stopStrings")
    return [
        *(config.stop_strings or ()),
        *(config.tool_call_stop_strings or ()),
        *(str(stop) for stop in (of_template if is_list(of_template) else ()) if stop),
    ]


def candidate_count(config: LlmPredictionConfig) -> int | None:
    """Return how many candidates to list for each token; `None` for no log-probabilities at all."""
    return None if config.log_probs is None or config.log_probs is False else config.log_probs


def progress_details(total: int, processed: int, cached: int = 0) -> dict[str, int]:
    """Return the details of the progress of a prompt in tokens; `processed` includes what was in the cache."""
    return {
        "cachedTokenCount": cached,
        "totalPromptTokenCount": total,
        "processedPromptTokenCount": processed - cached,
        "unprocessedPromptTokenCount": total - processed,
    }


T = TypeVar("T")

LONG_TEXT = 100_000
MANY_MESSAGES = 500
MANY_TOOLS = 100
"""Up to these sizes, work takes a few milliseconds and does not delay other requests."""


_SLOTS = threading.BoundedSemaphore(4)
"""For large work. Each of more threads at once would delay the event loop."""


async def run_in_thread(work: Callable[[], T], *, when: bool) -> T:
    """Return the result of pure Python work; run it in a thread when it is large, so that other requests continue.

    The end of the server waits for no thread: work on a hundred megabytes takes a minute. What is cancelled before its
    turn never begins.
    """
    if not when:
        return work()
    is_cancelled = False

    def work_in_turn() -> T:
        with _SLOTS:
            if is_cancelled:
                raise asyncio.CancelledError
            return work()

    try:
        return await asyncio.wrap_future(threads.run_in_thread(work_in_turn))
    except asyncio.CancelledError:
        is_cancelled = True
        raise


def is_large(messages: Iterable[Message], tools: int = 0) -> bool:
    """Return whether work on a conversation could block the event loop; stops as soon as that is known."""
    characters = 0
    for number, message in enumerate(messages):
        for part in message.content:
            if isinstance(part, TextPart):
                characters += len(part.text)
            else:
                characters += len(part.content) if isinstance(part, ToolCallResultPart) else 1
        if number >= MANY_MESSAGES or characters > LONG_TEXT:
            return True
    return tools > MANY_TOOLS


def is_large_request(request: GenerateRequest) -> bool:
    """Return whether preparing a prediction could block the event loop. Even a short schema may take long."""
    if request.tool_choice == "required" or (request.config.structured or {}).get("type") == "json":
        return True
    if request.history is None:
        return len(request.prompt or "") > LONG_TEXT
    return is_large(request.history.messages, len(request.tools))
