"""The thoughts of a response as messages of both frameworks keep them, so that they go back as the model wrote them.

Their text is in the framework's own place, their tags are beside it. Pure.
"""

from collections.abc import Sequence
from typing import Any

from lmstudio_integrations._adapters.conversation import Part
from lmstudio_integrations._support.typeguards import is_count, is_list, is_object
from lmstudio_integrations.types.reasoning import Thought, with_thoughts

TAGS = "reasoning_tags"
"""The member of a message, or of its block, that holds the tags."""


def tags_of(thoughts: Sequence[Thought]) -> list[dict[str, Any]]:
    """Return the tags of thoughts as JSON, each with the length of the thought and of the response before it."""
    return [
        {"start": each.start_tag, "end": each.end_tag, "length": len(each.text), "at": each.at} for each in thoughts
    ]


def response_parts(parts: list[Part], reasoning: str, tags: object) -> list[Part]:
    """Return the parts of a message with its thoughts where the model wrote them.

    Args:
        parts: The parts; texts beside each other are joined.
        reasoning: The thoughts, joined.
        tags: What `tags_of` returned, or anything else that a message may hold in its place.
    """
    if not reasoning:
        return parts
    text, rest = (parts[0], parts[1:]) if parts and isinstance(parts[0], str) else ("", parts)
    thoughts = _thoughts(reasoning, tags if is_list(tags) else [], len(text))
    return [*with_thoughts(text, thoughts), *rest]


def _thoughts(reasoning: str, tags: list[Any], length: int) -> list[Thought]:
    """Return the thoughts; those of a message that was edited since become one, in front."""
    known = [each for each in tags if _is_valid(each)]
    ends = [each["at"] for each in known]
    if not known or len(known) < len(tags):
        return [Thought(reasoning)]
    if sum(each["length"] for each in known) != len(reasoning) or ends != sorted(ends) or ends[-1] > length:
        return [Thought(reasoning, known[0]["start"], known[-1]["end"])]
    thoughts, done = list[Thought](), 0
    for each in known:
        thoughts.append(Thought(reasoning[done : done + each["length"]], each["start"], each["end"], each["at"]))
        done += each["length"]
    return thoughts


def _is_valid(tags: object) -> bool:
    return (
        is_object(tags)
        and isinstance(tags.get("start"), str)
        and isinstance(tags.get("end"), str)
        and is_count(tags.get("length"))
        and is_count(tags.get("at"))
    )
