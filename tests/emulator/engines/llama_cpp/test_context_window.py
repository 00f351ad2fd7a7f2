"""Shortening what does not fit into the context window."""

from typing import Any

import pytest

from lmstudio_integrations.emulator.engines.base import EngineError
from lmstudio_integrations.emulator.engines.llama_cpp import context_window
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


async def ten_each(history: ChatHistory) -> int:
    return 10 * len(history.messages)


LONG = ("system", "user", "assistant", "tool", "assistant", "user", "assistant", "user")


@pytest.mark.parametrize(
    ("roles", "context_length", "policy", "kept"),
    [
        (LONG, 81, "truncateMiddle", list(range(8))),
        (LONG, 80, "truncateMiddle", [0, 1, 4, 5, 6, 7]),
        (LONG, 57, "truncateMiddle", [0, 1, 5, 6, 7]),
        (LONG, 32, "truncateMiddle", [0, 1, 7]),
        (LONG, 80, "rollingWindow", [0, 5, 6, 7]),
        (LONG, 21, "rollingWindow", [0, 7]),
        (LONG, 80, None, [0, 1, 4, 5, 6, 7]),
        (("user", "assistant", "tool", "assistant"), 40, "rollingWindow", [1, 2, 3]),  # no later message of the user
        (LONG, 80, "stopAtLimit", None),
        (LONG, 30, "truncateMiddle", None),
        (LONG, 20, "rollingWindow", None),
        (("system", "user"), 20, "truncateMiddle", None),
        (("user",), 10, "rollingWindow", None),
        (("system",), 10, "rollingWindow", None),
    ],
)
async def test_as_much_as_fits_is_kept_by_policy_and_calls_stay_with_their_results(
    roles: tuple[str, ...], context_length: int, policy: str | None, kept: list[int] | None
) -> None:
    if kept is None:
        with pytest.raises(EngineError, match=rf"n_ctx \({context_length}\)"):
            await context_window.fit(chat_of(*roles), ten_each, context_length, policy)
    else:
        history, tokens = await context_window.fit(chat_of(*roles), ten_each, context_length, policy)
        assert (numbers(history), tokens) == (kept, 10 * len(kept))


def test_raw_text_is_truncated_by_policy() -> None:
    tokens = list(range(100))
    assert context_window.truncate(tokens, 101, "stopAtLimit") == tokens
    assert context_window.truncate(tokens, 16, "truncateMiddle") == [*range(7), *range(93, 100)]
    assert context_window.truncate(tokens, 16, "rollingWindow") == list(range(86, 100))
    with pytest.raises(EngineError, match=r"n_keep \(100\)"):
        context_window.truncate(tokens, 100, "stopAtLimit")
    with pytest.raises(EngineError, match=r"n_ctx \(1\)"):
        context_window.truncate(tokens, 1, "rollingWindow")
