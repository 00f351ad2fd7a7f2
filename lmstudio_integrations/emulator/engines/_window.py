"""What is left out of a conversation or a text that does not fit into the window (protocol §9.2, item 9).

Pure but for the counting, which is exact: the engine's template and tokenizer do it.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from lmstudio_integrations.emulator.engines._refusals import overflow
from lmstudio_integrations.types.chat import ChatHistory, Message

ANSWER_SHARE = 8
"""Where something must be left out, one part in so many of the window is kept free for the answer."""

Count = Callable[[ChatHistory], Awaitable[int]]


async def fit(history: ChatHistory, count: Count, window: int, policy: str | None) -> tuple[ChatHistory, int]:
    """Return the conversation, shortened if it must be, and its number of tokens.

    `truncateMiddle` keeps the system messages, the first user message and as much of the end as fits;
    `rollingWindow` keeps the system messages and as much of the end as fits. The last message always stays.

    Raises:
        EngineError: If it does not fit, even so.
    """
    tokens = await count(history)
    if tokens < window:
        return history, tokens
    if policy == "stopAtLimit":
        raise overflow(tokens, window)
    shorter = shortened(history.messages, keep_first=policy != "rollingWindow")
    if not shorter:
        raise overflow(tokens, window)
    return await _longest(shorter, count, window)


def shortened(messages: Sequence[Message], *, keep_first: bool) -> list[Callable[[], ChatHistory]]:
    """Return what the conversation may become, the longest first; each is built when it is called for.

    Args:
        messages: The conversation.
        keep_first: Whether the first message after the system's stays.
    """
    head = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    first = head + 1 if keep_first else head
    later = range(first + 1, len(messages))
    # An answer of a tool means nothing without the call before it.
    starts = [at for at in later if messages[at].role != "tool"]
    if not keep_first:
        # Many templates insist that the user speaks first.
        starts = [at for at in starts if messages[at].role == "user"] or starts
    return [partial(_without, messages, first, at) for at in starts]


def _without(messages: Sequence[Message], first: int, at: int) -> ChatHistory:
    return ChatHistory(messages=[*messages[:first], *messages[at:]])


def cut(tokens: Sequence[int], window: int, policy: str | None) -> list[int]:
    """Return the tokens of a raw prompt, shortened if they must be.

    `truncateMiddle` keeps both ends, `rollingWindow` the end.

    Raises:
        EngineError: If they do not fit and the policy forbids to cut.
    """
    if len(tokens) < window:
        return list(tokens)
    room = window - answer_room(window)
    if policy == "stopAtLimit" or room < 1:
        raise overflow(len(tokens), window)
    front = 0 if policy == "rollingWindow" else room // 2
    return [*tokens[:front], *tokens[len(tokens) - (room - front) :]]


def answer_room(window: int) -> int:
    """Return how many tokens are kept free for the answer."""
    return max(1, window // ANSWER_SHARE)


async def _longest(choices: Sequence[Callable[[], ChatHistory]], count: Count, window: int) -> tuple[ChatHistory, int]:
    """Return the longest choice that leaves room for an answer; else the shortest, if it fits at all."""
    low, high = 0, len(choices) - 1
    while low < high:
        middle = (low + high) // 2
        if await count(choices[middle]()) <= window - answer_room(window):
            high = middle
        else:
            low = middle + 1
    longest = choices[low]()
    tokens = await count(longest)
    if tokens >= window:
        raise overflow(tokens, window)
    return longest, tokens
