"""Which of the engine's slots gets a prediction: the idle one that has its conversation cached.

Each slot keeps the last prompt that it processed. The engine alone would choose the slot whose prompt begins like the
new one, so conversations with the same system prompt would overwrite each other. Slots that are not chosen here are
chosen by the engine: the one that was idle for longest, whose prompt it moves to its cache in memory.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from lmstudio_integrations.emulator.engines.base import GenerateRequest, context_overflow
from lmstudio_integrations.emulator.engines.generation import is_large_request, run_in_thread
from lmstudio_integrations.protocol.prompt_fingerprint import PromptFingerprint, fingerprint_of
from lmstudio_integrations.types.chat import ChatHistory, Message

RESPONSE_SHARE = 8
"""When something is dropped, one part in so many of the context window is kept free for the response."""

Count = Callable[[ChatHistory], Awaitable[int]]


async def fit(history: ChatHistory, count: Count, context_length: int, policy: str | None) -> tuple[ChatHistory, int]:
    """Return the conversation, shortened if necessary, and its number of tokens.

    `truncateMiddle` keeps the system messages, the first user message and as much of the end as fits;
    `rollingWindow` keeps the system messages and as much of the end as fits. The last message always stays.

    Raises:
        EngineError: If even the shortest form does not fit.
    """
    tokens = await count(history)
    if tokens < context_length:
        return history, tokens
    if policy == "stopAtLimit":
        raise context_overflow(tokens, context_length)
    shorter = shortened(history.messages, keep_first=policy != "rollingWindow")
    if not shorter:
        raise context_overflow(tokens, context_length)
    return await _longest(shorter, count, context_length)


def shortened(messages: Sequence[Message], *, keep_first: bool) -> list[Callable[[], ChatHistory]]:
    """Return builders of shorter conversations, the longest first.

    Args:
        messages: The conversation.
        keep_first: Whether the first message after the system messages stays.
    """
    head = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    first = head + 1 if keep_first else head
    later = range(first + 1, len(messages))
    # A tool result is invalid without the call before it.
    starts = [at for at in later if messages[at].role != "tool"]
    if not keep_first:
        # Many templates require that the user speaks first.
        starts = [at for at in starts if messages[at].role == "user"] or starts
    return [partial(_without, messages, first, at) for at in starts]


def _without(messages: Sequence[Message], first: int, at: int) -> ChatHistory:
    return ChatHistory(messages=[*messages[:first], *messages[at:]])


def truncate(tokens: Sequence[int], context_length: int, policy: str | None) -> list[int]:
    """Return the tokens of a raw prompt, shortened if necessary.

    `truncateMiddle` keeps both ends, `rollingWindow` the end.

    Raises:
        EngineError: If they do not fit and the policy allows no truncation.
    """
    if len(tokens) < context_length:
        return list(tokens)
    prompt_length = context_length - response_room(context_length)
    if policy == "stopAtLimit" or prompt_length < 1:
        raise context_overflow(len(tokens), context_length)
    front = 0 if policy == "rollingWindow" else prompt_length // 2
    return [*tokens[:front], *tokens[len(tokens) - (prompt_length - front) :]]


def response_room(context_length: int) -> int:
    """Return how many tokens are kept free for the response."""
    return max(1, context_length // RESPONSE_SHARE)


async def _longest(
    choices: Sequence[Callable[[], ChatHistory]], count: Count, context_length: int
) -> tuple[ChatHistory, int]:
    """Return the longest choice that leaves room for a response; else the shortest, if it fits at all."""
    low, high = 0, len(choices) - 1
    while low < high:
        middle = (low + high) // 2
        if await count(choices[middle]()) <= context_length - response_room(context_length):
            high = middle
        else:
            low = middle + 1
    longest = choices[low]()
    tokens = await count(longest)
    if tokens >= context_length:
        raise context_overflow(tokens, context_length)
    return longest, tokens


_LITTLE = 0.05
"""What may be lost of a slot for the sake of the system message and tools in it, relative to these."""

_MUCH = 100
"""Characters of turns that show that two prompts belong to one conversation: more than "Yes" and "Please go on"."""

_PIECE = 512
"""Characters of a text without messages that count as one part."""

_UNKNOWN = PromptFingerprint(())
"""What is in a slot if a prediction ended without saying where it ran."""


@dataclass(slots=True)
class Slot:
    """A slot that a prediction has.

    Attributes:
        number: Its number; where the engine chooses it, the one that it is expected to choose, or has chosen.
        is_pinned: Whether the prediction must have this one.
        has_begun: Whether the engine has begun the prediction.
        has_ended: Whether it has ended, and said where it ran.
    """

    number: int
    is_pinned: bool
    has_begun: bool = False
    has_ended: bool = False


class Slots:
    """The slots of one engine.

    Args:
        number: How many there are.
    """

    def __init__(self, number: int) -> None:
        # A call that waits inside the engine cannot be seen, so no more are sent than it processes at once.
        self._free = asyncio.Semaphore(number)
        self._idle: dict[int, PromptFingerprint | None] = dict.fromkeys(range(number))

    @asynccontextmanager
    async def use(self, fingerprint: PromptFingerprint) -> AsyncGenerator[Slot]:
        """Wait for a slot and use it for a prompt. Set what happens to the slot that is yielded."""
        async with self._free:
            slot = choose(self._idle, fingerprint)
            expected = slot.number
            cached = self._idle.pop(expected)
            try:
                yield slot
            finally:
                if not slot.has_begun:
                    self._idle = {expected: cached, **self._idle}  # as if nothing had been
                else:
                    if slot.number in self._idle:
                        self._idle[expected] = cached
                        del self._idle[slot.number]
                    else:
                        slot.number = expected
                    self._idle[slot.number] = fingerprint if slot.is_pinned or slot.has_ended else _UNKNOWN


def choose(idle: dict[int, PromptFingerprint | None], fingerprint: PromptFingerprint) -> Slot:
    """Choose one of the idle slots, which are in the order in which they became idle."""
    numbers = list(idle)
    best = max(numbers, key=lambda number: _claim(idle[number], fingerprint))
    if _claim(idle[best], fingerprint) > (0, 0):
        return Slot(best, is_pinned=True)
    empty = next((number for number in numbers if idle[number] is None), None)
    return Slot(numbers[0], is_pinned=False) if empty is None else Slot(empty, is_pinned=True)


def _claim(cached: PromptFingerprint | None, fingerprint: PromptFingerprint) -> tuple[int, int]:
    """Return how much of a conversation a slot has: of its beginning, then anywhere; zeros if it has another one.

    A conversation that was summarized still has its last messages. What stands before the first turn is no claim,
    because many conversations have the same, unless the slot has hardly anything else.
    """
    if cached is None:
        return 0, 0
    common = fingerprint.common_with(cached)
    cached_size, lost_size = sum(cached.sizes[:common]), sum(cached.sizes[common:])
    if common <= fingerprint.fixed and lost_size > _LITTLE * cached_size:
        common = 0
    turns = set(fingerprint.parts[fingerprint.fixed :])
    same = sum(size for part, size in zip(cached.parts, cached.sizes, strict=False) if part in turns)
    return common, same if same >= _MUCH else 0


async def fingerprint_of_request(request: GenerateRequest) -> PromptFingerprint:
    """Return the fingerprint of the prompt of a prediction."""
    return await run_in_thread(lambda: _fingerprint(request), when=is_large_request(request))


def _fingerprint(request: GenerateRequest) -> PromptFingerprint:
    if request.history is not None:
        return fingerprint_of(request.history.to_dict()["messages"], [tool.to_dict() for tool in request.tools])
    text = request.prompt or ""
    return PromptFingerprint(tuple(hash(text[at : at + _PIECE]) for at in range(0, len(text), _PIECE)))
