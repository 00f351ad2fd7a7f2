"""Which tool calls may run: those that the program allows (the guard of `act`), and those that do not repeat. Pure.

What repeats is decided here for agents, too.

A call repeats if the same tool had the same arguments and returned the same result each time, and nothing new came in
between: tests that run again after an edit do not repeat, two calls that alternate do.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.errors import LMStudioRuntimeError, LMStudioValueError
from lmstudio_integrations.types.functions import ToolCallRequest, ToolFunctionDef


class MadeCall(NamedTuple):
    """A call that the turn has made.

    Attributes:
        name: The tool.
        arguments: The arguments.
        result: What the model got; `None` if the call was answered in place of its tool because it repeated.
    """

    name: str
    arguments: Mapping[str, Any]
    result: str | None


class RequestedCall(NamedTuple):
    """A call of the newest message.

    Attributes:
        name: The tool.
        arguments: The arguments.
        is_repeatable: Whether it may repeat, such as a poll.
    """

    name: str
    arguments: Mapping[str, Any]
    is_repeatable: bool = False


@dataclass(frozen=True, slots=True)
class RepeatedCalls:
    """What is done with the calls of a message.

    Attributes:
        answers: For each call, the text for the model in place of running the tool; `None` runs it.
        ending: The call because of which the turn ends with this message; `None` if it goes on.
        count: How often that call was made.
    """

    answers: tuple[str | None, ...]
    ending: RequestedCall | None = None
    count: int = 0

    @property
    def reason(self) -> str:
        """Why the turn ends, for the user; empty if it goes on."""
        if self.ending is None:
            return ""
        return f"Stopped: `{self.ending.name}` was called {self.count} times with the same arguments and result."


def find_repeated(made: Sequence[MadeCall], calls: Sequence[RequestedCall], *, most: int) -> RepeatedCalls:
    """Return what is done with the calls of a message.

    A call that is made for the `most`-th time is answered. At twice that, the turn ends, unless the message has other
    calls, which are something new. It does not end before the model has seen an answer.

    Args:
        made: The calls that the turn has made before this message, in their order.
        calls: The calls of the message. Those that are equal count as if they had the same result.
        most: See above; at least 2.
    """
    history = _history(made)
    keys = [_key(call.name, call.arguments) for call in calls]
    before = [0 if call.is_repeatable else _times(history, key) for call, key in zip(calls, keys, strict=True)]
    counts = [1 if call.is_repeatable else before[at] + keys[: at + 1].count(keys[at]) for at, call in enumerate(calls)]
    answers = tuple(
        _answer(call.name, count) if count >= most else None for call, count in zip(calls, counts, strict=True)
    )
    for call, earlier, count in zip(calls, before, counts, strict=True):
        if earlier + 1 >= 2 * most and None not in answers:
            return RepeatedCalls(answers, call, count)
    return RepeatedCalls(answers)


def _answer(name: str, count: int) -> str:
    return (
        f"`{name}` did not run: this is call number {count} with the same arguments, and the result was the same each "
        "time. Use that result, change the arguments, or do something else."
    )


def _key(name: str, arguments: Mapping[str, Any]) -> str:
    """Return what equal calls have in common. Python would also take `1`, `1.0` and `true` for equal."""
    return json.dumps([name, arguments], sort_keys=True, default=str)


class _Step(NamedTuple):
    """A call of the past: its key, its result, and whether the turn had not seen the two before."""

    key: str
    result: str | None
    is_new: bool


def _history(made: Sequence[MadeCall]) -> list[_Step]:
    steps: list[_Step] = []
    seen: set[tuple[str, str]] = set()
    for call in made:
        key = _key(call.name, call.arguments)
        is_new = call.result is not None and (key, call.result) not in seen
        if call.result is not None:
            seen.add((key, call.result))
        steps.append(_Step(key, call.result, is_new))
    return steps


def _times(history: Sequence[_Step], key: str) -> int:
    """Return how often a call was made with its last result, up to the first time before something new came."""
    times, last, is_before = 0, None, False
    for step in reversed(history):
        if step.key != key:
            is_before = is_before or step.is_new
            continue
        if None not in {step.result, last} and step.result != last:
            break
        last = last if step.result is None else step.result
        times += 1
        if is_before:
            break
    return times


_DENIED = "The tool call was denied."


class GuardToolCallController:
    """What `guard_tool_call` decides with: it calls one of the methods, once.

    Attributes:
        tool_call_request: The call, with valid arguments.
        tool: The tool.
    """

    def __init__(self, tool_call_request: ToolCallRequest, tool: ToolFunctionDef) -> None:
        self.tool_call_request = tool_call_request
        self.tool = tool
        self._decision: str | None = None
        self._parameters: Mapping[str, Any] | None = None
        self._reason: str | None = None

    def allow(self) -> None:
        """Run the tool.

        Raises:
            LMStudioRuntimeError: If the call was decided before.
        """
        self._decide("allow")

    def allow_and_override_parameters(self, new_parameters: Mapping[str, Any]) -> None:
        """Run the tool with other arguments. The conversation shows them as if the model had written them.

        Raises:
            LMStudioRuntimeError: If the call was decided before.
            LMStudioValueError: If they are no dict, or do not fit.
        """
        if not is_mapping(new_parameters):
            raise LMStudioValueError(f"new_parameters must be a dict of arguments; got {new_parameters!r}")
        self.tool.check(new_parameters)
        self._decide("allow_and_override_parameters")
        self._parameters = new_parameters

    def deny(self, reason: str | None = None) -> None:
        """Do not run the tool; the model gets the reason. To end `act`, raise an exception instead.

        Raises:
            LMStudioRuntimeError: If the call was decided before.
        """
        self._decide("deny")
        self._reason = reason or _DENIED

    def _decide(self, decision: str) -> None:
        if self._decision is not None:
            raise LMStudioRuntimeError(f"guard_tool_call: {decision}() after {self._decision}(); decide a call once")
        self._decision = decision

    def decision(self) -> tuple[Mapping[str, Any] | None, str | None]:
        """Return other arguments, and the reason why the tool must not run; each `None` if there is none.

        Raises:
            LMStudioRuntimeError: If the guard has not decided.
        """
        if self._decision is None:
            raise LMStudioRuntimeError(
                f"guard_tool_call has not decided the call of {self.tool.name!r}; call allow(), "
                "allow_and_override_parameters() or deny() of the controller"
            )
        return self._parameters, self._reason
