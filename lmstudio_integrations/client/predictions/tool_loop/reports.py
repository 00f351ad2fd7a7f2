"""Report the tool calls of a round of `act` while the model writes them.

`act.py` runs the flow for the events of a prediction. The callbacks, and their order, are those of TypeScript's SDK.
"""

import json
from collections.abc import Callable
from typing import Any

from lmstudio_integrations._support.secrets import redact_members
from lmstudio_integrations._support.text import shortened
from lmstudio_integrations.client.transport.flows import Flow
from lmstudio_integrations.errors import LMStudioToolCallError
from lmstudio_integrations.types.results import (
    PredictionEvent,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)

REQUEST_CALLBACKS = frozenset(
    f"on_tool_call_request_{step}" for step in ("start", "name_received", "argument_fragment", "end", "failure")
)
"""The callbacks that it calls: each call starts once, and ends or fails once."""


class ToolCallReports:
    """Calls the callbacks of one round.

    Args:
        call_back: A flow that calls a callback by its name.
        problem_of: Returns what is wrong with a complete call.
        first_id: The number of the round's first call.
    """

    def __init__(
        self,
        call_back: Callable[..., Flow[Any]],
        problem_of: Callable[[ToolCallEnd], LMStudioToolCallError | None],
        first_id: int,
    ) -> None:
        self._call_back = call_back
        self._problem_of = problem_of
        self._id = first_id - 1
        self._is_open = self._is_named = self._has_arguments = False

    def report(self, event: PredictionEvent) -> Flow[None]:
        match event:
            case ToolCallStart():
                yield from self.fail("the model gave the call up for another one")
                yield from self._open(event)
            case ToolCallName() if self._is_open:
                self._is_named = True
                yield from self._emit("name_received", event.name)
            case ToolCallArguments() if self._is_open:
                self._has_arguments = True
                yield from self._emit("argument_fragment", event.content)
            case ToolCallEnd():
                yield from self._end(event)
            case ToolCallFailed():
                if not self._is_open:
                    yield from self._open(ToolCallStart())
                yield from self._close("failure", error_of(event))
            case _:
                pass

    def fail(self, reason: str) -> Flow[None]:
        """Report that the call that the model is writing remains incomplete, if there is one."""
        if self._is_open:
            yield from self._close("failure", LMStudioToolCallError(reason))

    def _open(self, event: ToolCallStart) -> Flow[None]:
        self._id += 1
        self._is_open, self._is_named, self._has_arguments = True, False, False
        yield from self._emit("start", event)

    def _end(self, event: ToolCallEnd) -> Flow[None]:
        """Report a complete call, and first what the server has not streamed of it."""
        if not self._is_open:
            yield from self._open(ToolCallStart(event.id))
        if not self._is_named:
            yield from self._emit("name_received", event.name)
        if not self._has_arguments:
            yield from self._emit("argument_fragment", json.dumps(event.arguments or {}, indent=2, ensure_ascii=False))
        problem = self._problem_of(event)
        yield from self._close("end", event) if problem is None else self._close("failure", problem)

    def _close(self, step: str, argument: Any) -> Flow[None]:
        self._is_open = False
        yield from self._emit(step, argument)

    def _emit(self, step: str, argument: Any) -> Flow[None]:
        yield from self._call_back(f"on_tool_call_request_{step}", self._id, argument)


def error_of(call: ToolCallFailed) -> LMStudioToolCallError:
    """Return the error about a call that the server could not parse."""
    reason = call.error.get("cause") or call.error.get("title") or "no reason given"
    return LMStudioToolCallError(
        f"Failed to parse tool call request: {shortened(redact_members(str(reason)))}", raw_content=call.raw_content
    )
