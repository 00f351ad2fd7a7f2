"""What a server did, without what differs from one model and machine to another; and where two servers differ."""

import json
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any

from lmstudio_integrations.cassettes.cassette import ABSENT, Event, Interaction
from tools.probe.context import PREFIX
from tools.probe.question import Question
from tools.probe.reasoning import CONSTANT_TOKENS, THOUGHT

PAGE = "docs/protocol.md"

TELLING = ("fileType", "status", "queued")
"""Members of results whose value is an answer."""

CACHE_QUESTION = "cached-tokens"
SAMPLERS_QUESTION = "log-probabilities"
"""Elsewhere, what is cached depends on what was asked before, and how sure the model is on what it writes."""

REASONING_QUESTIONS = ("reasoning-tags", "reasoning-and-format")
FIELDS_QUESTION = "custom-fields-of-reasoning"
DEFAULTS_QUESTION = "base-prediction-config"
LENGTH_QUESTION = "real-context-length"
IDLE_QUESTION = "idle-instance"
"""Elsewhere, what a model thinks and how its template shows that is no answer."""

CERTAIN = -0.001
"""A log-probability above it leaves nothing to other tokens."""


def outlines(interactions: Sequence[Interaction]) -> list[str]:
    """Return what happened, a line for each request of a question. Of equal requests, the last response counts."""
    repeated = groupby(interactions, lambda each: (each.endpoint, each.parameter))
    return [_outline([*same][-1]) for _, same in repeated]


def place(question: Question) -> str:
    """Return the place of the specification that a question is about."""
    return f"{PAGE}#{question.anchor}"


def difference(question: Question, real: Sequence[Interaction], ours: Sequence[Interaction]) -> str | None:
    """Return what an emulator did otherwise than a real server at a question; `None` if nothing that matters."""
    theirs, mine = outlines(real), outlines(ours)
    if theirs == mine:
        return None
    return "\n".join(
        [
            f"{question.name}: {question.text}",
            *_compared(theirs, mine),
            f"Unless the model has decided this, correct {place(question)}, and the emulator by it.",
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
            return "void" if event.body is ABSENT else _with_facts("result", _facts_of_result(event.body, interaction))
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
    kind = packet.get("type")
    if kind == "success" and "stats" in packet:
        stats = packet["stats"]
        own = [f"prompt {_length(stats)}"] if _has_own_template(interaction) else []
        return [f"stopReason {stats.get('stopReason')}", *_unreported(stats, interaction), *own]
    if kind == "promptProcessingProgress" and interaction.section == CACHE_QUESTION:
        details = packet.get("details", {})
        is_cached = 2 * details.get("cachedTokenCount", 0) > details.get("totalPromptTokenCount", 0)
        return ["most tokens cached"] if is_cached else []
    if kind == "fragment" and interaction.section == SAMPLERS_QUESTION:
        token, *_ = packet["fragment"].get("tokens") or [{}]
        is_certain = token.get("logProb", CERTAIN) > CERTAIN
        return [f"{len(token.get('candidates', ()))} candidates", *(["certain"] if is_certain else [])]
    if kind == "fragment" and interaction.section in REASONING_QUESTIONS:
        fragment = packet["fragment"]
        part = fragment.get("reasoningType", "none")
        return [f"{part} {fragment['content']!r}" if part.endswith("Tag") else part]
    return []


def _has_own_template(interaction: Interaction) -> bool:
    return "llm.prediction.promptTemplate" in json.dumps(interaction.parameter)


def _length(stats: dict[str, Any]) -> str:
    return "of the template" if stats.get("promptTokensCount", 0) >= CONSTANT_TOKENS else "of another template"


def _unreported(stats: dict[str, Any], interaction: Interaction) -> list[str]:
    """Return how many predicted tokens were not reported with their log-probability, if any were."""
    fragments = (packet.get("fragment", {}) for packet in interaction.packets())
    reported = sum(len(fragment.get("tokens", ())) for fragment in fragments)
    return [f"{stats.get('predictedTokensCount', 0) - reported} tokens unreported"] if reported else []


def _facts_of_result(result: Any, interaction: Interaction) -> list[str]:
    if isinstance(result, list):
        names = [str(item.get("identifier")) for item in result]
        return [name for name in names if name.startswith(PREFIX)]
    if "peers" in result:  # which machines there are is no answer
        return ["the status of LM Link"]
    if "instanceReference" in result:
        return [_fact_of_instance(result, interaction.section)]
    if "formatted" in result:
        return [_fact_of_prompt(result["formatted"], interaction)]
    if "fields" in result:
        fields = {each["key"]: each.get("value") for each in result["fields"]}
        return ["fields", *_facts_of_fields(fields, interaction.section)]
    return [f"{name} {result[name]}" for name in TELLING if name in result] or sorted(result)


def _fact_of_instance(info: dict[str, Any], section: str | None) -> str:
    if section == LENGTH_QUESTION:
        return f"context length {info['contextLength']}"
    if section == IDLE_QUESTION:
        return "an instance that was never used" if info["lastUsedTime"] is None else "an instance that was used"
    return "an instance"


def _fact_of_prompt(prompt: str, interaction: Interaction) -> str:
    if _has_own_template(interaction):
        return repr(prompt[:200])
    if interaction.section == FIELDS_QUESTION:
        return "with reasoning" if THOUGHT in prompt else "without reasoning"
    return "formatted"


def _facts_of_fields(fields: dict[str, Any], section: str | None) -> Iterator[str]:
    if section == LENGTH_QUESTION:
        yield f"context length {fields.get('llm.load.contextLength')}"
    if section == DEFAULTS_QUESTION:
        yield from _facts_of_defaults(fields)


def _facts_of_defaults(fields: dict[str, Any]) -> Iterator[str]:
    template, parsing = (fields.get(f"llm.prediction.{key}") or {} for key in ("promptTemplate", "reasoning.parsing"))
    if template:
        has_text = bool(template.get("jinjaPromptTemplate", {}).get("template"))
        yield f"a {template.get('type')} template {'with' if has_text else 'without'} its text"
    if parsing:
        yield f"tags {parsing.get('startString')!r} {parsing.get('endString')!r}"
    yield from sorted(key for key in fields if key.startswith("ext.virtualModel.customField."))
