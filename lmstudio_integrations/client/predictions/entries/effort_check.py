"""Warns of an effort of reasoning that has no effect on a model, before the request is sent that would have it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmstudio_integrations._support.text import shortened
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.efforts import efforts_of
from lmstudio_integrations.client.predictions.middleware import Ask, Middleware
from lmstudio_integrations.types.reasoning import EFFORTS, RequestedEffort

_OFF = frozenset({"off", "none"})


@dataclass(eq=False)
class EffortCheck(Middleware):
    """Compares what is sent for an effort with what the server says that the model allows."""

    def parameter(self, wire: Mapping[str, Any], ask: Ask) -> Flow[Mapping[str, Any]]:
        """Return the parameter as it is."""
        effort = self.plan.effort
        assert effort is not None, "otherwise this is not in the list of the call"
        identifier = ask.instance.identifier
        known = yield from efforts_of(ask.operation, effort.key or identifier, identifier)
        problem = problem_of(effort, known.allowed_options)
        if problem is not None:
            effort.warn(problem)
        return wire


def problem_of(effort: RequestedEffort, allowed: Sequence[str]) -> str | None:
    """Return why an effort has no effect, and the remedy; `None` if it may have one.

    Args:
        effort: The effort, and what is sent for it.
        allowed: What the model allows, as the server calls it; empty if that is not known.
    """
    requested, sent = effort.requested, effort.sent
    shown, model = f"reasoning_effort={requested!r}", "the model" if effort.key is None else repr(effort.key)
    if sent is None:
        allows = "" if not allowed or requested in allowed else f", which allows {_listed(allowed, 'and')}"
        return (
            f"{shown} has no effect on {model}{allows}: only models of LM Studio's catalog have levels of reasoning, "
            "by keys such as 'openai/gpt-oss-20b'; name one as model, or set reasoning_budget"
        )
    if requested == "none" and sent != "off":
        return f"{model} always reasons; write reasoning_effort={sent!r}, which is sent in place of 'none'"
    if not allowed or _is_allowed(sent, allowed):
        return None
    shown += f", which is sent as {sent!r}," if sent not in {requested, "on", "off"} else ""
    return (
        f"{model} does not allow {shown} and ignores it; it allows {_listed(allowed, 'and')}: {_remedy_among(allowed)}"
    )


def _is_allowed(sent: str, allowed: Sequence[str]) -> bool:
    if sent == "on":
        return not _OFF.issuperset(allowed)
    return not _OFF.isdisjoint(allowed) if sent == "off" else sent in allowed


def _remedy_among(allowed: Sequence[str]) -> str:
    efforts = [each for each in EFFORTS if each in allowed or (each == "none" and "off" in allowed)]
    remedies = [f"write reasoning_effort={_listed(efforts, 'or')}"] if efforts else []
    remedies += ["set enable_thinking=True"] if "on" in allowed else []
    return ", or ".join(remedies) or "leave it out"


def _listed(names: Sequence[str], conjunction: str) -> str:
    *first, last = map(repr, names)
    return shortened(f"{', '.join(first)} {conjunction} {last}" if first else last)
