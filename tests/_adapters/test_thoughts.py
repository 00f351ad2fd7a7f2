"""Where the thoughts of a message are put, by the tags that it keeps of them."""

from typing import Any

import pytest

from lmstudio_integrations._adapters.conversation import Conversation
from lmstudio_integrations._adapters.thoughts import response_parts, tags_of
from lmstudio_integrations.types.reasoning import ReasoningPart, Thought


def thought(text: str, start: str = "", end: str = "") -> ReasoningPart:
    return ReasoningPart(text=text, start_tag=start, end_tag=end)


FIRST, SECOND = tags_of([Thought("one", "<a>", "</a>"), Thought("two", "<b>", "</b>", at=2)])
WHOLE = [thought("onetwo", "<a>", "</b>"), "text"]
UNKNOWN = [thought("onetwo"), "text"]

TAGS: dict[str, tuple[Any, list[Any]]] = {
    "as they were written": (
        [FIRST, SECOND],
        [thought("one", "<a>", "</a>"), "te", thought("two", "<b>", "</b>"), "xt"],
    ),
    "the thoughts were edited": ([FIRST, {**SECOND, "length": 4}], WHOLE),
    "the text was shortened": ([FIRST, {**SECOND, "at": 5}], WHOLE),
    "another order": ([{**FIRST, "at": 3}, SECOND], WHOLE),
    "none": ([], UNKNOWN),
    "no list": (1, UNKNOWN),
    **{
        f"one has no {member}": ([FIRST, {**SECOND, member: None}], UNKNOWN)
        for member in ("start", "end", "length", "at")
    },
}


@pytest.mark.parametrize(("tags", "expected"), TAGS.values(), ids=TAGS)
def test_thoughts_are_where_they_were_or_one_in_front(tags: Any, expected: list[Any]) -> None:
    assert response_parts(["text"], "onetwo", tags) == expected


def test_a_thought_joins_no_texts_of_two_messages() -> None:
    conversation = Conversation()
    conversation.add("assistant", ["a"])
    conversation.add("assistant", [thought("one"), "b"])
    (message,) = conversation.finish()
    assert message.parts == ["a\n\n", thought("one"), "b"]
