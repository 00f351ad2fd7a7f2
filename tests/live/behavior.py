"""What a server did, without what differs from one model and machine to another; and where two servers differ."""

import json
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any

from lmstudio_integrations.cli._probe.bench import PREFIX
from lmstudio_integrations.cli._probe.rows import Row
from lmstudio_integrations.emulator.cassettes.cassette import ABSENT, Event, Interaction

TELLING = ("fileType", "status", "queued")
"""Members of results whose value is an answer."""

CACHE_ROW = "cached-tokens"
"""Elsewhere, what is in the cache depends on what was asked before."""

CERTAIN = -0.001
"""A log-probability above it leaves nothing to other tokens."""


def outlines(interactions: Sequence[Interaction]) -> list[str]:
    """Return what happened in a row, a line for each request; one that is repeated with the same response is one."""
    return [line for (_, line), _ in groupby((each.parameter, _outline(each)) for each in interactions)]


def difference(row: Row, real: Sequence[Interaction], ours: Sequence[Interaction]) -> str | None:
    """Return what an emulator did otherwise than a real server in a row; `None` if nothing."""
    theirs, mine = outlines(real), outlines(ours)
    if theirs == mine:
        return None
    return "\n".join(
        [
            f"{row.name}: {row.question}",
            *_compared(theirs, mine),
            f"Correct docs/protocol.md#{row.anchor}, and the emulator by it.",
        ]
    )


def _compared(real: Sequence[str], ours: Sequence[str]) -> Iterator[str]:
    for kind, first, last, begin, end in SequenceMatcher(None, real, ours, autojunk=False).get_opcodes():
        if kind == "equal":
            yield from (f"  both:        {line}" for line in real[first:last])
        else:
            yield from (f"  real server: {line}" for line in real[first:last] or ["nothing"])
            yield from (f"  emulator:    {line}" for line in ours[begin:end] or ["nothing"])


def _outline(interaction: Interaction) -> str:
    events = interaction.events
    is_canceled = any(event.kind == "sent" and event.body == {"type": "cancel"} for event in events)
    if is_canceled:  # how many packets come until then is a matter of time
        events = [event for event in events if event.kind != "received" or event.body.get("type") == "success"]
    said = [said for said, _ in groupby(_said(event, interaction) for event in events if event.kind != "sent")]
    return f"{_request(interaction)}{', canceled' if is_canceled else ''}: {', '.join(said) or 'nothing'}"


def _request(interaction: Interaction) -> str:
    name = f"{interaction.namespace}.{interaction.endpoint}"
    match interaction.parameter:
        case {"specifier": {"query": query}}:
            return f"{name} {json.dumps(query)}"
        case _:
            return name


def _said(event: Event, interaction: Interaction) -> str:
    match event.kind:
        case "received":
            return _with_facts(str(event.body.get("type")), _facts_of_packet(event.body, interaction))
        case "result":
            return "void" if event.body is ABSENT else _with_facts("result", _facts_of_result(event.body))
        case "error":
            code = (event.body.get("displayData") or {}).get("code")
            return _with_facts("error", [str(code or "without a code")])
        case "warning":
            return _with_facts("warning", [str(event.body.get("kind", "without a kind"))])
        case _:
            return event.kind


def _with_facts(name: str, facts: Sequence[str]) -> str:
    return f"{name} ({', '.join(facts)})" if facts else name


def _facts_of_packet(packet: dict[str, Any], interaction: Interaction) -> list[str]:
    match packet:
        case {"type": "success", "stats": {"stopReason": reason, **stats}}:
            return [f"stopReason {reason}", *_unreported(stats, interaction)]
        case {"type": "promptProcessingProgress", "progress": 1, "details": {"cachedTokenCount": cached}}:
            return [f"{'some' if cached else 'no'} tokens cached"] if interaction.section == CACHE_ROW else []
        case {"type": "fragment", "fragment": {"tokens": [{**token}, *_]}}:
            is_certain = token.get("logProb", CERTAIN) > CERTAIN
            return [f"{len(token.get('candidates', ()))} candidates", *(["certain"] if is_certain else [])]
        case _:
            return []


def _unreported(stats: dict[str, Any], interaction: Interaction) -> list[str]:
    """Return how many predicted tokens were not reported with their log-probability, if any were."""
    fragments = (packet.get("fragment", {}) for packet in interaction.packets())
    reported = sum(len(fragment.get("tokens", ())) for fragment in fragments)
    return [f"{stats.get('predictedTokensCount', 0) - reported} tokens unreported"] if reported else []


def _facts_of_result(result: Any) -> list[str]:
    match result:
        case {"instanceReference": _}:
            return ["an instance"]
        case {**members}:
            told = [f"{name} {members[name]}" for name in TELLING if name in members]
            return told or sorted(members)
        case [*items]:
            names = [str(item.get("identifier")) for item in items]
            return [name for name in names if name.startswith(PREFIX)]
        case _:
            return [repr(result)]
