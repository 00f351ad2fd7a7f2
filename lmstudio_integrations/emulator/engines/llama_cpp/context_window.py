"""What happens to a prompt that does not fit into the context window: its middle or its beginning is dropped."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from lmstudio_integrations.emulator.engines.base import context_overflow
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
    shorter = shortened(history.messages, keep_first=policy != "rollingWindow")
    if policy == "stopAtLimit" or not shorter:
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
