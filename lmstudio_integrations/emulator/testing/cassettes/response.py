"""What a server responded to a recorded request, without the packets, times and statistics of it."""

from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import Any, NamedTuple

from lmstudio_integrations._support.text import beginning, counted
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.emulator.testing.cassettes.cassette import ABSENT, Interaction
from lmstudio_integrations.emulator.testing.cassettes.diff import differences
from lmstudio_integrations.emulator.testing.cassettes.instances import RecordedInstances, loaded_by
from lmstudio_integrations.emulator.testing.cassettes.matching import USED_ONCE
from lmstudio_integrations.emulator.testing.cassettes.normalize import References, key_of, normalize, normalize_response

_NAMES = ("first", "second")

_ENDS = {"lost": "connection lost", "loaded": "loaded", "end": "no end"}
"""What is said of requests that have no other outcome."""


class Difference(NamedTuple):
    """Where two cassettes differ: a line about it, and the details."""

    title: str
    details: list[str]


def response(interaction: Interaction) -> dict[str, Any]:
    """Return what came of a request, as plain data with names for people."""
    outcome: dict[str, Any] = {}
    for kind in ("none", "reasoning"):
        text = "".join(
            str(packet["fragment"].get("content", ""))
            for packet in interaction.packets()
            if is_object(packet.get("fragment")) and packet["fragment"].get("reasoningType", "none") == kind
        )
        outcome |= {"text" if kind == "none" else "reasoning": text} if text else {}
    calls = [packet["toolCallRequest"] for packet in interaction.packets() if is_object(packet.get("toolCallRequest"))]
    if calls:
        outcome["calls"] = [{name: call.get(name) for name in ("name", "arguments")} for call in calls]
    for packet in interaction.packets():
        if is_object(packet.get("stats")):
            outcome["stopped"] = packet["stats"].get("stopReason")
    loaded = loaded_by(interaction)
    if loaded is not None:
        outcome["loaded"] = loaded
    end = interaction.end
    if end is None:
        outcome["end"] = "none"
    elif end.kind == "result" and end.body is not ABSENT:
        outcome["result"] = end.body
    elif end.kind in {"error", "warning", "lost"}:
        outcome[end.kind] = end.body if end.body is not ABSENT else True
    if any(event.kind == "sent" and event.body.get("type") == "cancel" for event in interaction.events):
        outcome["cancelled"] = True
    return outcome


def describe(interaction: Interaction, references: References) -> str:
    """Return a line about a request: where it went, what it asked, and what came of it."""
    request = normalize(interaction.request, references)
    what = [
        str(request.get("model") or request.get("identifier") or request.get("modelKey") or ""),
        _last_text(request),
    ]
    seconds = interaction.events[-1].at if interaction.events else 0.0
    return "  ".join(filter(None, [request["request"], *what, f"-> {_outcome(interaction)}", f"{seconds:.2f} s"]))


def compare(one: list[Interaction], other: list[Interaction]) -> list[Difference]:
    """Return how two cassettes differ: in requests, and in the responses to the same ones.

    What a replay leaves aside is no difference. So the order of different requests does not count, nor how often the
    same is asked about a model, nor a question about one to which the other cassette has the response elsewhere.
    """
    instances = RecordedInstances(one), RecordedInstances(other)
    references = instances[0].references = instances[1].references = instances[0].references | instances[1].references
    requests = {each: normalize(each.request, references) for each in (*one, *other)}
    responses = {each: normalize_response(response(each), references) for each in requests}
    pairs = list(_pair(one, other, lambda each: key_of(requests[each]), repeats_last=True))
    differing = [
        (a, ": the responses differ", differences(responses[a], responses[b], names=_NAMES))
        for a, b in pairs
        if a and b and responses[a] != responses[b]
    ]
    firsts = [a for a, b in pairs if a and not b and not instances[1].response(a.request)]
    seconds = [b for a, b in pairs if b and not a and not instances[0].response(b.request)]
    for a, b in _pair(firsts, seconds, lambda each: str(requests[each]["request"])):
        if a and b:
            differing.append((a, " is another one in the second", differences(requests[a], requests[b], names=_NAMES)))
        elif a:
            differing.append((a, " is only in the first", []))
        elif b:
            differing.append((b, " is only in the second", []))
    differing.sort(key=lambda each: each[0].number)
    return [
        Difference(f"request {each.number} ({requests[each]['request']}){what}", details)
        for each, what, details in differing
    ]


def _pair(
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


def _last_text(request: dict[str, Any]) -> str:
    """Return the beginning of what was asked: the newest message, or the text."""
    value = request.get("messages") or request.get("rawPrompt") or request.get("inputString")
    while is_list(value) or is_object(value):
        value = (value[-1] if value else None) if is_list(value) else value.get("content", value.get("text"))
    return beginning(value) if isinstance(value, str) else ""


def _name(result: Any) -> Any:
    """Return the identifier of what a call returned; without one, all of it."""
    return result["identifier"] if is_object(result) and "identifier" in result else result


def _outcome(interaction: Interaction) -> str:
    outcome = response(interaction)
    failure = outcome.get("error") or outcome.get("warning")
    result = outcome.get("result")
    if failure:
        return str(failure.get("title") or failure.get("warning"))
    if "calls" in outcome:
        return ", ".join(str(call["name"]) for call in outcome["calls"])
    if "text" in outcome or "stopped" in outcome:
        return f"{beginning(outcome.get('text', ''))} ({outcome.get('stopped', 'no end')})"
    if is_object(result) and is_list(result.get("embedding")):
        return counted(len(result["embedding"]), "number")
    if result is not None:
        return counted(len(result), "item") if is_list(result) else beginning(str(_name(result)))
    return next((word for name, word in _ENDS.items() if name in outcome), "done")
