"""The outputs of models, and what this package reads in them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from lmstudio_integrations.client.predictions.calls_in_text.read_calls import ReadCalls
from lmstudio_integrations.client.predictions.calls_in_text.repair_calls import RepairCalls
from lmstudio_integrations.client.predictions.middleware import Events, call_events, failed_call_events
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.types.results import LlmPredictionFragment
from lmstudio_integrations.types.structured import json_object
from tests.client.predictions.middlewares import end, passed, plan_with
from tools import ROOT
from tools.evidence.rows import OBSERVATIONS, OUTPUTS, Row, read

_OF_PARSER = ROOT / "tests/client/predictions/calls_in_text"
_OF_REPAIRS = ROOT / "tests/client/predictions/calls_in_text/misfits.json"
"""Outputs that the tests of two parts have in forms of their own."""


@cache
def all_outputs() -> tuple[Row, ...]:
    """Return all outputs: of the corpus, of other tests, and those that servers delivered as text."""
    delivered = (row for row in read(OBSERVATIONS) if row.kind == "tool-text")
    return (*read(OUTPUTS), *delivered, *_of_parser(), *_of_repairs())


def _of_parser() -> Iterator[Row]:
    tools = json.loads((_OF_PARSER / "tools.json").read_text(encoding="utf-8"))
    for name in ("outputs.jsonl", "fresh_outputs.jsonl"):
        for line in (_OF_PARSER / name).read_text(encoding="utf-8").splitlines():
            case = json.loads(line)
            yield Row(
                id=case["id"],
                source=case["thread"].removeprefix("https://github.com/").replace("/issues/", "#"),
                date="",
                family=case["model"],
                kind="call" if case["calls"] else "not-call",
                payload={"text": case["text"], "tools": {each: tools[each] for each in case["tools"]}},
                quality="rebuilt",
            )


def _of_repairs() -> Iterator[Row]:
    for number, case in enumerate(json.loads(_OF_REPAIRS.read_text(encoding="utf-8")), 1):
        functions = [each["function"] for each in case["tools"]]
        tools = {each["name"]: each["parameters"] for each in functions}
        text = case["call"].get("raw") or json.dumps(case["call"], ensure_ascii=False)
        payload = {"text": text, "tools": tools, "call": case["call"]}
        source, kind = case["source"], "misfit"
        yield Row(id=f"{kind}-{number:02}", source=source, date="", kind=kind, payload=payload, quality="rebuilt")


def read_output(row: Row, *, repairs: bool) -> Any:
    """Return what is read in an output: the calls and the text beside them, or a structured value; `None` for nothing.

    Args:
        row: The output.
        repairs: Whether calls that do not fit are mended.
    """
    if row.kind == "structured":
        return json_object(row.payload["text"])
    tools = [{"name": name, "parameters": schema} for name, schema in row.payload.get("tools", {}).items()]
    plan = plan_with([{"type": "function", "function": tool} for tool in tools])
    plan = replace(plan, options=replace(plan.options, rescue_tool_calls=True, repair_tool_calls=repairs))
    if row.kind == "misfit":
        events: Events = [*_parsed_by_server(row.payload["call"]), end()]
    else:
        delivered, events = passed(ReadCalls(plan), [[LlmPredictionFragment(row.payload["text"])], [end()]])
        if not repairs:
            return _read(delivered)
    return _read(passed(RepairCalls(plan), [[event] for event in events])[0]) if repairs else None


def _parsed_by_server(call: Mapping[str, Any]) -> Events:
    """Return the packets in which a server reports a call that does not fit, or that it cannot parse."""
    if "raw" in call:
        return failed_call_events(call["name"], "the call cannot be parsed", call["raw"])
    return call_events(call["name"], json.dumps(call["arguments"], ensure_ascii=False), "")


def _read(delivered: Accumulator) -> tuple[list[tuple[str, Any]], str] | None:
    """Return the calls that were delivered, and the text; `None` without calls, or if the model is asked again."""
    if delivered.end is None or not delivered.result().tool_call_requests:
        return None
    response = delivered.result()
    return [(call.name, call.arguments) for call in response.tool_call_requests], response.content
