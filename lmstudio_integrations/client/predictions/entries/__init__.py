"""What is done with predictions beside sending and reading them: one file and one line here for each.

Whoever deletes a file and its line has removed the feature. A call that has nothing for one of them to do does not have
it in its list, and does not enter its file.
"""

from collections.abc import Callable

from lmstudio_integrations.client.predictions.entries.confidence import Confidence
from lmstudio_integrations.client.predictions.entries.context_check import ContextCheck
from lmstudio_integrations.client.predictions.entries.json_in_reasoning import JsonInReasoning
from lmstudio_integrations.client.predictions.entries.logit_bias import LogitBias
from lmstudio_integrations.client.predictions.entries.missing_call import MissingCall
from lmstudio_integrations.client.predictions.entries.read_calls import ReadCalls
from lmstudio_integrations.client.predictions.entries.reasoning_budget import ReasoningBudget
from lmstudio_integrations.client.predictions.entries.repair_calls import RepairCalls
from lmstudio_integrations.client.predictions.entries.required_tool_fallback import RequiredToolFallback
from lmstudio_integrations.client.predictions.entries.returned_images import ReturnedImages
from lmstudio_integrations.client.predictions.entries.sent_reasoning import SentReasoning
from lmstudio_integrations.client.predictions.entries.stop_on_repetition import StopOnRepetition
from lmstudio_integrations.client.predictions.entries.think_first import ThinkFirst
from lmstudio_integrations.client.predictions.entries.tools_first import ToolsFirst
from lmstudio_integrations.client.predictions.middleware import Middleware
from lmstudio_integrations.client.predictions.plan import Plan, offered_tools
from lmstudio_integrations.types.structured import is_requested, requests_reasoning


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


ENTRIES: tuple[tuple[type[Middleware], Callable[[Plan], object]], ...] = (
    (MissingCall, lambda plan: plan.requires_call and plan.options.check_response),
    (ToolsFirst, lambda plan: plan.tools and _has_two_steps(plan)),
    (Confidence, lambda plan: plan.tools and _may_have_log_probs(plan)),
    (RequiredToolFallback, lambda plan: plan.tools and plan.options.required_tool_fallback),
    (RepairCalls, lambda plan: plan.tools and plan.options.repair_tool_calls),
    (
        ReadCalls,
        lambda plan: (
            plan.tools and plan.options.rescue_tool_calls and (_has_two_steps(plan) or not is_requested(plan.settings))
        ),
    ),
    (ContextCheck, lambda plan: plan.options.check_context),
    (LogitBias, lambda plan: plan.settings.logit_bias is not None),
    (ReturnedImages, lambda plan: plan.has_returned_images),
    (SentReasoning, _may_have_earlier_thoughts),
    (ThinkFirst, lambda plan: plan.settings.structured is not None and _may_think_first(plan)),
    (JsonInReasoning, lambda plan: is_requested(plan.settings)),
    (ReasoningBudget, _has_budget),
    (StopOnRepetition, lambda plan: plan.options.stop_on_repetition),
)
"""Each middleware, and whether it has something to do for a plan. Outermost first: events pass them upwards.

`MissingCall` sees what is delivered in the end. `ToolsFirst` decides about a response, or the call that it was forced
to. `Confidence` adds to calls that `RequiredToolFallback`, `RepairCalls` and `ReadCalls` make. `RepairCalls`
needs those that were read. `ContextCheck` looks at the end as the server
sent it, and `LogitBias` at the parameter as it is sent. `SentReasoning` needs the messages that others have added, and
`ThinkFirst` renders them as they are sent. `JsonInReasoning` adds the text that others read. `ReasoningBudget` counts
and `StopOnRepetition` watches what arrives, and all others see why that was stopped.
"""


def middlewares_of(plan: Plan) -> list[Middleware]:
    """Return the middlewares of a prediction, outermost first."""
    return [middleware(plan) for middleware, applies in ENTRIES if applies(plan)]
