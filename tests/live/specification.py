"""Checks a recording: against the shapes of `tests/support/strict`, and how requests end (docs/protocol.md)."""

from collections.abc import Iterator, Sequence
from typing import Any

from lmstudio_integrations.cassettes.cassette import ABSENT, Interaction
from tests.support.strict.shapes import ABSENT as VOID
from tests.support.strict.shapes import Schema, endpoints_of, schema_of, wrong_settings, wrong_with

FIRST, LAST = "promptProcessingProgress", {"success", "sessionReady"}
"""The packet that a prediction begins with; the packets of which the last one before `channelClose` must be one."""

CALL_ENDS = {"toolCallGenerationEnd", "toolCallGenerationFailed"}


def findings(interactions: Sequence[Interaction], *, is_invalid: bool = False) -> list[str]:
    """Return what is against the specification in the requests of a question.

    Args:
        interactions: The requests.
        is_invalid: Whether some of them break the rules on purpose.
    """
    found = [
        f"{each.namespace}.{each.endpoint}, request {each.number}: {finding}"
        for each in interactions
        for finding in _check(each, is_invalid=is_invalid)
    ]
    return [*found, *_check_counts(interactions)]


def _check(interaction: Interaction, *, is_invalid: bool) -> Iterator[str]:
    request = list(_check_request(interaction))
    if not is_invalid:
        yield from request
    must_warn = any(" lacks " in finding or "no such endpoint" in finding for finding in request)
    yield from _check_end(interaction, must_warn=is_invalid and must_warn)
    for event in interaction.events:
        if event.kind == "error":
            yield from wrong_with(event.body, schema_of("frames", "error"), "error")
    replies = _check_result(interaction) if interaction.kind == "call" else _check_packets(interaction)
    # A server reports the settings of a request; those that are invalid are still so.
    yield from (each for each in replies if not any(_setting(each) in finding for finding in request))


def _setting(finding: str) -> str:
    """Return the part of a finding that begins with the key of a setting, else all of it."""
    return finding[max(finding.find("(llm."), 0) :]


def _endpoint(interaction: Interaction) -> Schema | None:
    return endpoints_of(interaction.namespace).get(interaction.endpoint)


def _check_request(interaction: Interaction) -> Iterator[str]:
    endpoint = _endpoint(interaction)
    if endpoint is None:
        yield "there is no such endpoint"
        return
    shape = endpoint["parameter" if interaction.kind == "call" else "creationParameter"]
    if interaction.parameter is not ABSENT:
        wrong = [*wrong_with(interaction.parameter, shape, "parameter")]
        yield from wrong or wrong_settings(interaction.namespace, interaction.parameter, "parameter")
    elif shape != VOID and "parameter" in schema_of(interaction.namespace, interaction.endpoint)["required"]:
        yield "the request lacks its parameter"
    for event in interaction.events:
        if event.kind == "sent":
            yield from wrong_with(event.body, endpoint["client"], "message")


def _check_end(interaction: Interaction, *, must_warn: bool) -> Iterator[str]:
    end = interaction.end
    if must_warn:
        if end is None or end.kind != "warning":
            yield f"the server must reply with a warning only; it did with {'nothing' if end is None else end.kind}"
    elif end is None:
        yield "it has not ended"
    elif end.kind in {"lost", "warning"}:
        yield f"it must not end like this: {end.kind} {'' if end.body is ABSENT else end.body}"


def _check_result(interaction: Interaction) -> Iterator[str]:
    endpoint = _endpoint(interaction)
    if interaction.end is None or interaction.end.kind != "result" or endpoint is None:
        return
    shape = endpoint["result"]
    if interaction.result is not ABSENT:
        yield from wrong_with(interaction.result, shape, "result")
        yield from _wrong_config(interaction.endpoint, interaction.result)
    elif shape != VOID and "result" in schema_of(interaction.namespace, interaction.endpoint)["required"]:
        yield "the result is absent"


def _wrong_config(reported_as: str, config: Any) -> Iterator[str]:
    """Check the settings of a language model, as results and packets report them."""
    stack = {
        **dict.fromkeys(("getLoadConfig", "loadModelConfig"), "loadConfigStack"),
        **dict.fromkeys(("getBasePredictionConfig", "predictionConfig"), "predictionConfigStack"),
    }.get(reported_as)
    if stack is not None:
        yield from wrong_settings("llm", {stack: config}, reported_as)


def _check_packets(interaction: Interaction) -> Iterator[str]:
    endpoint = _endpoint(interaction)
    packets = list(interaction.packets())
    for packet in packets:
        yield from wrong_with(packet, {} if endpoint is None else endpoint["server"], "message")
        for name, member in packet.items():
            yield from _wrong_config(name, member)
    types = [str(packet.get("type")) for packet in packets]
    if interaction.end is not None and interaction.end.kind == "closed" and (not types or types[-1] not in LAST):
        yield f"the channel is closed without a last packet; the packets were {', '.join(types) or 'none'}"
    if any(each in LAST for each in types[:-1]):
        yield f"packets follow the last one: {', '.join(types)}"
    yield from _check_tool_calls(types)
    yield from _check_progress(packets)


def _check_tool_calls(types: Sequence[str]) -> Iterator[str]:
    is_open = False
    for kind in types:
        if kind == "toolCallGenerationStart":
            if is_open:
                yield "a tool call begins before the one before it has ended"
            is_open = True
        elif kind.startswith("toolCallGeneration") and not is_open:
            yield f"{kind} comes outside of a tool call"
        if kind in CALL_ENDS:
            is_open = False
    if is_open and types[-1] in LAST:
        yield "a tool call has neither an end nor a failure"


def _check_progress(packets: Sequence[dict[str, Any]]) -> Iterator[str]:
    progress = [packet for packet in packets if packet.get("type") == FIRST]
    for packet in progress:
        details = packet.get("details", {})
        parts = [details.get(f"{name}TokenCount") for name in ("cached", "processedPrompt", "unprocessedPrompt")]
        if None not in parts and sum(parts) != details.get("totalPromptTokenCount"):
            yield f"totalPromptTokenCount is not the sum of the other counts: {details}"
    values = [packet["progress"] for packet in progress if "progress" in packet]
    if values != sorted(values):
        yield f"the progress decreases: {values}"


def _check_counts(interactions: Sequence[Interaction]) -> Iterator[str]:
    """The number of the tokens of a text is the length of its tokens (docs/protocol.md#tokenize)."""
    results = {each.endpoint: each.result for each in interactions if each.result is not ABSENT}
    if results.keys() >= {"tokenize", "countTokens"}:
        length, count = len(results["tokenize"]["tokens"]), results["countTokens"]["tokenCount"]
        if length != count:
            yield f"tokenize returned {length} tokens, and countTokens {count}"
