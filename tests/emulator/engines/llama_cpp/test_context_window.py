"""Shortening what does not fit into the context window."""

from typing import Any

import pytest

from lmstudio_integrations.emulator.engines.errors import EngineError
from lmstudio_integrations.emulator.engines.llama_cpp import context_window
from lmstudio_integrations.emulator.engines.llama_cpp import messages as converter
from lmstudio_integrations.types.chat import ChatHistory


def chat_of(*roles: str) -> ChatHistory:
    def content(role: str, at: int) -> dict[str, Any]:
        kind = "toolCallResult" if role == "tool" else "text"
        return {"type": kind, "content" if role == "tool" else "text": str(at)}

    return ChatHistory.from_dict(
        {"messages": [{"role": role, "content": [content(role, at)]} for at, role in enumerate(roles)]}
    )


def numbers(history: ChatHistory) -> list[int]:
    """Return the numbers that stand in the messages."""
    parts = [part.to_dict() for message in history.messages for part in message.content]
    return [int(part.get("text") or part["content"]) for part in parts]


LONG = ("system", "user", "assistant", "tool", "assistant", "user", "assistant", "user")


def test_truncate_middle_drops_the_middle_and_calls_with_their_results() -> None:
    choices = [numbers(choice()) for choice in context_window.shortened(chat_of(*LONG).messages, keep_first=True)]
    assert choices == [[0, 1, 4, 5, 6, 7], [0, 1, 5, 6, 7], [0, 1, 6, 7], [0, 1, 7]]


def test_rolling_window_drops_the_oldest() -> None:
    choices = [numbers(choice()) for choice in context_window.shortened(chat_of(*LONG).messages, keep_first=False)]
    assert choices == [[0, 5, 6, 7], [0, 7]]


def test_without_a_later_user_message_the_rest_begins_with_an_assistant_message() -> None:
    messages = chat_of("user", "assistant", "tool", "assistant").messages
    choices = [numbers(choice()) for choice in context_window.shortened(messages, keep_first=False)]
    assert choices == [[1, 2, 3], [3]]


def test_a_single_message_cannot_be_shortened() -> None:
    assert context_window.shortened(chat_of("system", "user").messages, keep_first=True) == []
    assert context_window.shortened(chat_of("user").messages, keep_first=False) == []
    assert context_window.shortened(chat_of("system").messages, keep_first=False) == []


async def ten_each(history: ChatHistory) -> int:
    return 10 * len(history.messages)


@pytest.mark.parametrize(
    ("context_length", "policy", "kept"),
    [
        (81, "truncateMiddle", list(range(8))),
        (80, "truncateMiddle", [0, 1, 4, 5, 6, 7]),
        (57, "truncateMiddle", [0, 1, 5, 6, 7]),
        (32, "truncateMiddle", [0, 1, 7]),
        (80, "rollingWindow", [0, 5, 6, 7]),
        (21, "rollingWindow", [0, 7]),
        (80, None, [0, 1, 4, 5, 6, 7]),
    ],
)
async def test_as_much_as_fits_is_kept(context_length: int, policy: str | None, kept: list[int]) -> None:
    history, tokens = await context_window.fit(chat_of(*LONG), ten_each, context_length, policy)
    assert numbers(history) == kept
    assert tokens == 10 * len(kept)


@pytest.mark.parametrize(
    ("context_length", "policy"), [(80, "stopAtLimit"), (30, "truncateMiddle"), (20, "rollingWindow")]
)
async def test_a_conversation_that_does_not_fit_is_rejected(context_length: int, policy: str) -> None:
    with pytest.raises(EngineError, match=f"length of only {context_length} tokens"):
        await context_window.fit(chat_of(*LONG), ten_each, context_length, policy)


def test_raw_text_is_truncated_by_policy() -> None:
    tokens = list(range(100))
    assert context_window.truncate(tokens, 101, "stopAtLimit") == tokens
    assert context_window.truncate(tokens, 16, "truncateMiddle") == [*range(7), *range(93, 100)]
    assert context_window.truncate(tokens, 16, "rollingWindow") == list(range(86, 100))
    with pytest.raises(EngineError, match="first 100 tokens"):
        context_window.truncate(tokens, 100, "stopAtLimit")
    with pytest.raises(EngineError, match="only 1 tokens"):
        context_window.truncate(tokens, 1, "rollingWindow")


def test_twenty_thousand_messages_are_neither_copied_nor_joined_again_and_again() -> None:
    chat = chat_of(*["user"] * 20_000)
    (message,) = converter.to_messages(chat, native_tools=False)
    assert message["content"].count("\n\n") == 19_999
    choices = context_window.shortened(chat.messages, keep_first=False)
    assert numbers(choices[-1]()) == [19_999]
