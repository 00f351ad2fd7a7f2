"""Where the thoughts of a message are put, by the tags that it keeps of them."""

from typing import Any

import pytest

from lmstudio_integrations._adapters.request_messages import Conversation, response_parts, tags_of
from lmstudio_integrations.types.reasoning import ReasoningPart, Thought


def thought(text: str, start: str = "", end: str = "") -> ReasoningPart:
    return ReasoningPart(text=text, start_tag=start, end_tag=end)


def tags(text: str, *thoughts: Thought) -> list[dict[str, Any]]:
    return tags_of(thoughts, text)


FIRST, SECOND = tags("text", Thought("one", "<a>", "</a>"), Thought("two", "<b>", "</b>", at=2))
WHOLE = [thought("onetwo", "<a>", "</b>"), "text"]
UNKNOWN = [thought("onetwo"), "text"]
IN_FRONT = thought("one", "<a>", "</a>")

TAGS: dict[str, tuple[Any, list[Any]]] = {
    "as they were written": ([FIRST, SECOND], [IN_FRONT, "te", thought("two", "<b>", "</b>"), "xt"]),
    "the thoughts were edited": ([FIRST, {**SECOND, "length": 4}], WHOLE),
    "the text was edited": ([FIRST, {**SECOND, "inside": "0"}], [IN_FRONT, "text"]),
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


WRITTEN = "\n\nBefore. After. "
FRAMES: dict[str, tuple[str, list[Any]]] = {
    "as it was written": (WRITTEN, ["\n", IN_FRONT, "\nBefore.", thought("two", "<b>", "</b>"), " After. "]),
    "stripped": (WRITTEN.strip(), [IN_FRONT, "Before.", thought("two", "<b>", "</b>"), " After."]),
    "redacted": ("[REDACTED]. After.", [IN_FRONT, "[REDACTED]. After."]),
    "with another text behind": (f"{WRITTEN}And more.", ["\n", IN_FRONT, "\nBefore. After. And more."]),
    "nothing": ("", [IN_FRONT]),
}


@pytest.mark.parametrize(("text", "expected"), FRAMES.values(), ids=FRAMES)
def test_no_thought_is_put_into_a_text_that_the_model_did_not_write(text: str, expected: list[Any]) -> None:
    known = tags(WRITTEN, Thought("one", "<a>", "</a>", at=1), Thought("two", "<b>", "</b>", at=9))
    assert response_parts([text], "onetwo", known) == expected


def test_empty_thoughts_go_back_and_are_none_without_their_tags() -> None:
    known = tags("text", Thought("", "<a>", "</a>"))
    assert response_parts(["text"], "", known) == [thought("", "<a>", "</a>"), "text"]
    assert response_parts(["text"], "", [{**known[0], "end": None}]) == ["text"]
    assert response_parts(["text"], "", None) == ["text"]


@pytest.mark.parametrize("cut_off", [thought("one"), thought("one", "<a>")], ids=["untagged", "tagged"])
def test_a_thought_that_ends_a_message_is_no_whole_one_of_the_next(cut_off: ReasoningPart) -> None:
    conversation = Conversation()
    conversation.add("assistant", ["a", cut_off])
    conversation.add("assistant", ["b"])
    (message,) = conversation.finish()
    assert message.parts == ["a\n\nb"]


def test_a_thought_joins_no_texts_of_two_messages() -> None:
    conversation = Conversation()
    conversation.add("assistant", ["a"])
    conversation.add("assistant", [thought("one"), "b"])
    (message,) = conversation.finish()
    assert message.parts == ["a\n\n", thought("one"), "b"]
