"""What is done with predictions beside sending and reading them: one file and one line here for each.

Whoever deletes a file has removed the feature; its line may go as well. A file is imported by the first call that has
something for it to do, and a call that has nothing does not enter it.
"""

import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module

from lmstudio_integrations._support.leaves import MissingLeafError, door
from lmstudio_integrations.client.predictions.middleware import Middleware
from lmstudio_integrations.client.predictions.plan import Plan, offered_tools
from lmstudio_integrations.types.structured import is_requested, requests_reasoning

logger: logging.Logger = logging.getLogger(__name__)

_ROOM = "lmstudio_integrations.client.predictions"


def _has_two_steps(plan: Plan) -> bool:
    return plan.options.tools_first and is_requested(plan.settings)


def _may_think_first(plan: Plan) -> bool:
    settings = plan.settings
    if not (is_requested(settings) and requests_reasoning(settings) and plan.options.think_first):
        return False
    # The prompt can be rendered, and continued as a text.
    return plan.history is not None and plan.options.preset is None and not (plan.has_files or offered_tools(settings))


def _may_have_earlier_thoughts(plan: Plan) -> bool:
    # A text to continue has no template that could keep anything.
    return plan.has_reasoning or (plan.options.reasoning.keep and plan.history is not None)


def _may_have_log_probs(plan: Plan) -> bool:
    return plan.settings.log_probs is not None or plan.options.preset is not None or plan.settings.raw is not None


def _has_budget(plan: Plan) -> bool:
    budget = plan.settings.reasoning_budget
    return budget is not None and budget is not False


ENTRIES: tuple[tuple[str, Callable[[Plan], object]], ...] = (
    ("entries.missing_call.MissingCall", lambda plan: plan.requires_call and plan.options.check_response),
    ("entries.tools_first.ToolsFirst", lambda plan: plan.tools and _has_two_steps(plan)),
    ("entries.confidence.Confidence", lambda plan: plan.tools and _may_have_log_probs(plan)),
    (
        "entries.required_tool_fallback.RequiredToolFallback",
        lambda plan: plan.tools and plan.options.required_tool_fallback,
    ),
    ("calls_in_text.repair_calls.RepairCalls", lambda plan: plan.tools and plan.options.repair_tool_calls),
    (
        "calls_in_text.read_calls.ReadCalls",
        lambda plan: (
            plan.tools and plan.options.rescue_tool_calls and (_has_two_steps(plan) or not is_requested(plan.settings))
        ),
    ),
    ("entries.context_check.ContextCheck", lambda plan: plan.options.check_context),
    ("entries.effort_check.EffortCheck", lambda plan: plan.effort is not None),
    ("entries.logit_bias.LogitBias", lambda plan: plan.settings.logit_bias is not None),
    ("entries.returned_images.ReturnedImages", lambda plan: plan.has_returned_images),
    ("entries.sent_reasoning.SentReasoning", _may_have_earlier_thoughts),
    ("entries.think_first.ThinkFirst", lambda plan: plan.settings.structured is not None and _may_think_first(plan)),
    ("entries.json_in_reasoning.JsonInReasoning", lambda plan: is_requested(plan.settings)),
    ("entries.reasoning_budget.ReasoningBudget", _has_budget),
    ("entries.stop_on_repetition.StopOnRepetition", lambda plan: plan.options.stop_on_repetition),
)
"""The place of each middleware, and whether it has something to do for a plan. Outermost first: events pass them up.

`MissingCall` sees what is delivered in the end. `ToolsFirst` decides about a response, or the call that it was forced
to. `Confidence` adds to calls that `RequiredToolFallback`, `RepairCalls` and `ReadCalls` make. `RepairCalls` needs
those that were read. `ContextCheck` looks at the end as the server sent it, and `LogitBias` at the parameter as it is
sent. `EffortCheck` only looks at the plan. `SentReasoning` needs the messages that others have added, and `ThinkFirst`
renders them as they are sent. `JsonInReasoning` adds the text that others read. `ReasoningBudget` counts and
`StopOnRepetition` watches what arrives, and all others see why that was stopped.
"""


@cache
def _middleware(place: str) -> type[Middleware] | None:
    """Return a middleware; `None` if its file was deleted, which the log says once."""
    module, _, name = place.rpartition(".")
    try:
        with door(f"the middleware {name}"):
            found: type[Middleware] = getattr(import_module(f"{_ROOM}.{module}"), name)
    except MissingLeafError as error:
        logger.warning("%s", error)
        return None
    return found


def middlewares_of(plan: Plan) -> list[Middleware]:
    """Return the middlewares of a prediction, outermost first."""
    made: list[Middleware] = []
    for place, applies in ENTRIES:
        if applies(plan) and (middleware := _middleware(place)) is not None:
            made.append(middleware(plan))
    return made
