"""The thoughts of a response as messages of both frameworks keep them, so that they go back as the model wrote them.

Their text is in the framework's own place, their tags are beside it. Pure.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from lmstudio_integrations._adapters.conversation import Part
from lmstudio_integrations._support.typeguards import is_count, is_list, is_object
from lmstudio_integrations.types.reasoning import Thought, with_thoughts

TAGS = "reasoning_tags"
"""The member of a message, or of its block, that holds the tags."""


def tags_of(thoughts: Sequence[Thought], text: str) -> list[dict[str, Any]]:
    """Return the tags of the thoughts of a response as JSON.

    Each has the length of the thought, and how many characters of the response stand before it, of which white space at
    its beginning does not count. One inside of the response also has a hash of the response.
    """
    leading = len(text) - len(text.lstrip())
    return [
        {
            "start": each.start_tag,
            "end": each.end_tag,
            "length": len(each.text),
            "at": each.at - leading,
            **({"inside": _hash(text)} if each.at > leading else {}),
        }
        for each in thoughts
    ]


def response_parts(parts: list[Part], reasoning: str, tags: object) -> list[Part]:
    """Return the parts of a message with its thoughts where the model wrote them.

    Args:
        parts: The parts; texts beside each other are joined.
        reasoning: The thoughts, joined.
        tags: What `tags_of` returned, or anything else that a message may hold in its place.
    """
    known = tags if is_list(tags) else []
    if not (reasoning or known):
        return parts
    text, rest = (parts[0], parts[1:]) if parts and isinstance(parts[0], str) else ("", parts)
    return [*with_thoughts(text, _thoughts(reasoning, known, text)), *rest]


def _thoughts(reasoning: str, tags: list[Any], text: str) -> list[Thought]:
    """Return the thoughts; edited ones become one, in front.

    Of a text that was edited, only those that stood before it are returned: the places of others are not known.
    """
    known = [each for each in tags if _is_valid(each)]
    if not known or len(known) < len(tags):
        return [Thought(reasoning)] if reasoning else []
    if sum(each["length"] for each in known) != len(reasoning):
        return [Thought(reasoning, known[0]["start"], known[-1]["end"])] if reasoning else []
    leading, own = len(text) - len(text.lstrip()), None
    thoughts, done = list[Thought](), 0
    for each in known:
        thought = reasoning[done : done + each["length"]]
        done += each["length"]
        if each["at"] > 0:
            own = own or _hash(text)
            if each.get("inside") != own:
                continue
        at = min(max(each["at"] + leading, 0), len(text))
        thoughts.append(Thought(thought, each["start"], each["end"], at))
    return sorted(thoughts, key=lambda thought: thought.at)


def _hash(text: str) -> str:
    return sha256(text.strip().encode(errors="surrogatepass")).hexdigest()[:16]


def _is_valid(tags: object) -> bool:
    return (
        is_object(tags)
        and isinstance(tags.get("start"), str)
        and isinstance(tags.get("end"), str)
        and is_count(tags.get("length"))
        and type(tags.get("at")) is int
    )
