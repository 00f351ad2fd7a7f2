"""What a server responded to a recorded request, without the packets, times and statistics of it."""

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from lmstudio_integrations._support.text import beginning, counted
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.cassettes.cassette import ABSENT, Interaction
from lmstudio_integrations.emulator.cassettes.difference import differences
from lmstudio_integrations.emulator.cassettes.known import KnownInstances, loaded_by
from lmstudio_integrations.emulator.cassettes.meaning import References, key_of, meaning

_ENDS = {"lost": "connection lost", "loaded": "loaded", "end": "no end"}
"""What is said of requests that have no other outcome."""


class Difference(NamedTuple):
    """Where two cassettes differ: a line about it, and the details."""

    title: str
    details: list[str]


def response(interaction: Interaction) -> dict[str, Any]:
    """Return what came of a request, as plain data with names for people."""
    found: dict[str, Any] = {}
    for kind in ("none", "reasoning"):
        text = "".join(
            str(packet["fragment"].get("content", ""))
            for packet in interaction.packets()
            if is_object(packet.get("fragment")) and packet["fragment"].get("reasoningType", "none") == kind
        )
        found |= {"text" if kind == "none" else "reasoning": text} if text else {}
    calls = [packet["toolCallRequest"] for packet in interaction.packets() if is_object(packet.get("toolCallRequest"))]
    if calls:
        found["calls"] = [{name: call.get(name) for name in ("name", "arguments")} for call in calls]
    for packet in interaction.packets():
        if is_object(packet.get("stats")):
            found["stopped"] = packet["stats"].get("stopReason")
    loaded = loaded_by(interaction)
    if loaded is not None:
        found["loaded"] = loaded
    end = interaction.end
    if end is None:
        found["end"] = "none"
    elif end.kind == "result" and end.body is not ABSENT:
        found["result"] = end.body
    elif end.kind in {"error", "warning", "lost"}:
        found[end.kind] = end.body if end.body is not ABSENT else True
    if any(event.kind == "sent" and event.body.get("type") == "cancel" for event in interaction.events):
        found["cancelled"] = True
    return found


def described(interaction: Interaction, known: References) -> str:
    """Return a line about a request: where it went, what it asked, and what came of it."""
    asked = meaning(interaction.request, known)
    what = [str(asked.get("model") or asked.get("identifier") or asked.get("modelKey") or ""), _last_text(asked)]
    seconds = interaction.events[-1].at if interaction.events else 0.0
    return "  ".join(filter(None, [asked["request"], *what, f"-> {_outcome(interaction)}", f"{seconds:.2f} s"]))


def compared(one: list[Interaction], other: list[Interaction]) -> Iterator[Difference]:
    """Return how two cassettes differ: in requests, then in the responses to the same ones."""
    asked, answered = [_meanings(one), _meanings(other)], [[response(each) for each in side] for side in (one, other)]
    keys = [[key_of(each) for each in side] for side in asked]
    matcher = SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    for kind, a, to_a, b, to_b in matcher.get_opcodes():
        if kind != "equal":
            yield from _changed(one[a:to_a], other[b:to_b], asked[0][a:to_a], asked[1][b:to_b])
            continue
        for index in range(to_a - a):
            lines = differences(answered[0][a + index], answered[1][b + index], names=("first", "second"))
            if lines:
                title = f"request {one[a + index].number} ({asked[0][a + index]['request']}): the responses differ"
                yield Difference(title, lines)


def _changed(
    one: list[Interaction], other: list[Interaction], asked: list[dict[str, Any]], instead: list[dict[str, Any]]
) -> Iterator[Difference]:
    """Return the differences of requests that stand in each other's place."""
    for index in range(max(len(one), len(other))):
        if index >= len(other):
            yield Difference(f"request {one[index].number} ({asked[index]['request']}) is only in the first", [])
        elif index >= len(one):
            yield Difference(f"request {other[index].number} ({instead[index]['request']}) is only in the second", [])
        else:
            title = f"request {one[index].number} ({asked[index]['request']}) is another one in the second"
            yield Difference(title, differences(asked[index], instead[index], names=("first", "second")))


def _meanings(interactions: list[Interaction]) -> list[dict[str, Any]]:
    known = KnownInstances(interactions).references
    return [meaning(each.request, known) for each in interactions]


def _last_text(asked: dict[str, Any]) -> str:
    """Return the beginning of what was asked: the newest message, or the text."""
    value = asked.get("messages") or asked.get("rawPrompt") or asked.get("inputString")
    while is_list(value) or is_object(value):
        value = (value[-1] if value else None) if is_list(value) else value.get("content", value.get("text"))
    return beginning(value) if isinstance(value, str) else ""


def _name(result: Any) -> Any:
    """Return the identifier of what a call returned; without one, all of it."""
    return result["identifier"] if is_object(result) and "identifier" in result else result


def _outcome(interaction: Interaction) -> str:
    found = response(interaction)
    failure = found.get("error") or found.get("warning")
    result = found.get("result")
    if failure:
        return str(failure.get("title") or failure.get("warning"))
    if "calls" in found:
        return ", ".join(str(call["name"]) for call in found["calls"])
    if "text" in found or "stopped" in found:
        return f"{beginning(found.get('text', ''))} ({found.get('stopped', 'no end')})"
    if is_object(result) and is_list(result.get("embedding")):
        return counted(len(result["embedding"]), "number")
    if result is not None:
        return counted(len(result), "item") if is_list(result) else beginning(str(_name(result)))
    return next((word for name, word in _ENDS.items() if name in found), "done")
