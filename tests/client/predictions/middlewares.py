"""Middlewares of a prediction without a prediction: events pass one of them, and a plan with the tools of a call."""

from collections.abc import Sequence
from typing import Any

import lmstudio_integrations as lms
from lmstudio_integrations.client.concurrency.flows import run
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.predictions.middleware import Ask, Events, Middleware
from lmstudio_integrations.client.predictions.plan import Plan, PredictionOptions
from lmstudio_integrations.protocol.kv_config import stack_of
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.types.chat import WireHistory


def plan_with(tools: Sequence[Any] = (), *, keeps_misfits: bool = False, repairs: bool = False) -> Plan:
    """Return the plan of a prediction that offers tools."""
    options = PredictionOptions(repair_tool_calls=repairs)
    settings = lms.LlmPredictionConfig(raw_tools={"type": "toolArray", "tools": list(tools)})
    return Plan(settings, history=WireHistory.of_prompt("hi"), options=options, keeps_misfits=keeps_misfits)


def end() -> lms.PredictionEnd:
    return lms.PredictionEnd({"stopReason": "eosFound"}, {}, {}, {})


def passed(middleware: Middleware, batches: Sequence[Events], ask: Ask | None = None) -> tuple[Accumulator, Events]:
    """Return what a middleware delivers of the response to an ask, also as events."""
    ask, delivered = Ask() if ask is None else ask, Accumulator()
    ask.instance, ask.parameter = Instance("m"), {"predictionConfigStack": stack_of(middleware.plan.settings)}
    events: Events = []
    for batch in batches:
        ask.raw.add_all(batch)
        last = ask.raw.end
        if last is None:
            events += middleware.events(batch, ask)
        else:
            shown, last = run(middleware.finish(batch[:-1], last, ask))
            events += shown if last is None else [*shown, last]
    delivered.add_all(events)
    return delivered, events
