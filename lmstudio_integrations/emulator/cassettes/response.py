"""What a server responded to a recorded request, without the packets, times and statistics of it."""

from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import Any, NamedTuple

from lmstudio_integrations._support.text import beginning, counted
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.cassettes.cassette import ABSENT, Interaction
from lmstudio_integrations.emulator.cassettes.difference import differences
from lmstudio_integrations.emulator.cassettes.known import KnownInstances, loaded_by
from lmstudio_integrations.emulator.cassettes.normalize import References, key_of, normalize, normalize_response
from lmstudio_integrations.emulator.cassettes.player import USED_ONCE

_NAMES = ("first", "second")

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
    asked = normalize(interaction.request, known)
    what = [str(asked.get("model") or asked.get("identifier") or asked.get("modelKey") or ""), _last_text(asked)]
    seconds = interaction.events[-1].at if interaction.events else 0.0
    return "  ".join(filter(None, [asked["request"], *what, f"-> {_outcome(interaction)}", f"{seconds:.2f} s"]))


def compared(one: list[Interaction], other: list[Interaction]) -> list[Difference]:
    """Return how two cassettes differ: in requests, and in the responses to the same ones.

    What a replay leaves aside is no difference. So the order of different requests does not count, nor how often the
    same is asked about a model, nor a question about one to which the other cassette has the response elsewhere.
    """
    known = KnownInstances(one), KnownInstances(other)
    references = known[0].references = known[1].references = known[0].references | known[1].references
    asked = {each: normalize(each.request, references) for each in (*one, *other)}
    answered = {each: normalize_response(response(each), references) for each in asked}
    pairs = list(_paired(one, other, lambda each: key_of(asked[each]), repeats_last=True))
    found = [
        (a, ": the responses differ", differences(answered[a], answered[b], names=_NAMES))
        for a, b in pairs
        if a and b and answered[a] != answered[b]
    ]
    firsts = [a for a, b in pairs if a and not b and not known[1].response(a.request)]
    seconds = [b for a, b in pairs if b and not a and not known[0].response(b.request)]
    for a, b in _paired(firsts, seconds, lambda each: str(asked[each]["request"])):
        if a and b:
            found.append((a, " is another one in the second", differences(asked[a], asked[b], names=_NAMES)))
        elif a:
            found.append((a, " is only in the first", []))
        elif b:
            found.append((b, " is only in the second", []))
    found.sort(key=lambda each: each[0].number)
    return [
        Difference(f"request {each.number} ({asked[each]['request']}){what}", details) for each, what, details in found
    ]


def _paired(
    one: Iterable[Interaction],
    other: Iterable[Interaction],
    key: Callable[[Interaction], str],
    *,
    repeats_last: bool = False,
) -> Iterator[tuple[Interaction | None, Interaction | None]]:
    """Pair the requests of the same key in their order, if told so with the last one for further ones, as a replay."""
    groups: dict[str, tuple[list[Interaction], list[Interaction]]] = {}
    for index, side in enumerate((one, other)):
        for each in side:
            groups.setdefault(key(each), ([], []))[index].append(each)
    for group in groups.values():
        if all(group) and repeats_last and group[0][0].endpoint not in USED_ONCE:
            longest = max(map(len, group))
            for side in group:
                side.extend(side[-1:] * (longest - len(side)))
        yield from zip_longest(*group)


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
