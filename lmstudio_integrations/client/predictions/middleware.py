"""What is done with a prediction beside sending and reading it: the interface of each file in `entries/`.

A prediction is one request to the server, an ask, or several: a middleware may ask once more, or ask in its own way at
once. Each ask passes all middlewares, and `ask.asked_by` says whose it is. Its parameter passes from the outermost one
to the wire, each batch of events from the wire to the outermost one. What that returns is delivered to the caller, what
a middleware does not return is held, or dropped. The result is made of what was delivered, over all asks.

At the end: what the requests of middlewares have in common, and the events of calls that the server did not send.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import uuid4

from lmstudio_integrations._support.text import shortened
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.predictions.plan import Plan
from lmstudio_integrations.client.transport.operation import OpenRequest, Operation
from lmstudio_integrations.errors import (
    LMStudioError,
    LMStudioPredictionError,
    LMStudioPromptTemplateError,
    LMStudioServerError,
    LMStudioToolCallError,
    LMStudioUnsupportedError,
)
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.types.chat import text_part
from lmstudio_integrations.types.config import LlmPredictionConfig, switched_off
from lmstudio_integrations.types.results import (
    PredictionEnd,
    PredictionEvent,
    PredictionResult,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)

Events: TypeAlias = list[PredictionEvent]


@dataclass(slots=True, eq=False)
class Ask:
    """One request of a prediction, and what has come of it. Only `prediction.py` changes it.

    Attributes:
        asked_by: The middleware whose request it is; `None` if it is the caller's.
        operation: The operation that it is a part of, once it has one; may ask the server more.
        instance: The instance that responds, once it has one.
        parameter: The parameter as it was sent; empty until then.
        request: The request to the server, once it is sent.
        is_open: Whether the server has begun to respond.
        is_cancelled: Whether the caller had cancelled the prediction when the response ended.
        raw: All that was received.
        delivered: What was delivered of it.
        is_changed: Whether that is not all that was received.
        end: Its last event, with what middlewares have added to it.
    """

    asked_by: "Middleware | None" = None
    operation: Operation = field(init=False)
    instance: Instance = field(init=False)
    parameter: Mapping[str, Any] = field(default_factory=dict[str, Any], init=False)
    request: OpenRequest | None = None
    is_open: bool = False
    is_cancelled: bool = False
    raw: Accumulator = field(default_factory=Accumulator)
    delivered: list[PredictionEvent] = field(default_factory=list[PredictionEvent])
    is_changed: bool = False
    end: PredictionEnd | None = None
    _response: PredictionResult | None = field(default=None, init=False)

    def response(self) -> PredictionResult:
        """Return what was received as a result, once it has ended. It is made once, because it takes a while."""
        if self._response is None:
            self._response = self.raw.result()
        return self._response

    @property
    def is_empty(self) -> bool:
        """Whether neither text nor thoughts nor a call was received."""
        return not (self.raw.tool_calls or any(fragment.content for fragment in self.raw.fragments))


@dataclass(eq=False)
class Middleware:
    """What is done with one prediction. Each method has a default, which changes nothing.

    Attributes:
        plan: What the prediction requests.
        has_asked: Whether it was asked once more for it.
    """

    plan: Plan
    has_asked: bool = field(default=False, init=False)

    def asks_first(self, instance: Instance) -> bool:
        """Whether to ask in its own way at once, on this instance, in place of the caller's request."""
        return False

    def parameter(self, wire: Mapping[str, Any], ask: Ask) -> Flow[Mapping[str, Any]]:
        """Return the parameter of a request, changed as necessary."""
        yield from ()
        return wire

    def events(self, batch: Events, ask: Ask) -> Events:
        """Return which of these events are delivered now."""
        return batch

    def finish(self, batch: Events, end: PredictionEnd, ask: Ask) -> Flow[tuple[Events, PredictionEnd | None]]:
        """Return what is delivered of the last events of an ask, and of those that are held, and the end.

        Without an end, it is asked once more, for this middleware. That is done once; afterwards the end stays.
        """
        yield from ()
        return self.events(batch, ask), end

    def recover(self, error: LMStudioError, ask: Ask) -> tuple[Events, PredictionEnd] | None:
        """Return what is still held, and the end, if its own ask failed or was cancelled; `None` raises the error.

        It comes after what earlier asks have delivered. A cancelled ask may not be sent, and any thread may cancel it.
        """
        return None

    def repeats_after(self, error: LMStudioError, ask: Ask) -> bool:
        """Whether to send an ask again that has failed before anything of it was delivered, because this changes it."""
        return False

    def reset(self, ask: Ask) -> None:
        """Forget what was received of an ask: it has failed, and is repeated, perhaps on another instance."""


REJECTIONS = (LMStudioServerError, LMStudioPredictionError, LMStudioPromptTemplateError, LMStudioUnsupportedError)
"""The errors after which another request may succeed. Those of other classes are not about the request."""


def is_last(end: PredictionEnd) -> bool:
    """Whether no request can follow: the response was interrupted, or it has filled the context window."""
    return end.is_interrupted or end.stats.get("stopReason") == "contextLengthReached"


def only_json(schema: Mapping[str, Any]) -> LlmPredictionConfig:
    """Return what changes the settings of a prediction so that it can be nothing but JSON of a schema."""
    return LlmPredictionConfig(
        structured={"type": "json", "jsonSchema": schema},
        enable_thinking=False,
        raw_tools=None,
        tool_choice=None,
        tool_naming=None,
        tool_call_stop_strings=None,
        stop_strings=None,
        **switched_off("penalty"),  # arguments repeat words of the question
    )


def with_response(messages: Sequence[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """Return a conversation with the text of a response at its end, if there is any."""
    asked: list[dict[str, Any]] = [*messages]
    if text.strip():
        before: list[dict[str, Any]] = asked.pop()["content"] if asked and asked[-1]["role"] == "assistant" else []
        asked.append({"role": "assistant", "content": [*before, text_part(text)]})
    return asked


def with_instruction(messages: Sequence[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """Return a conversation with an instruction at its end, in the user's last message if nothing follows on that.

    Many chat templates take no two messages of the user in a row.
    """
    if not messages or messages[-1]["role"] != "user":
        return [*messages, {"role": "user", "content": [text_part(text)]}]
    *before, last = messages
    content: list[dict[str, Any]] = last["content"]
    return [*before, {**last, "content": [*content, text_part(f"\n\n{text}" if content else text)]}]


_ID_LENGTH = 9
"""Mistral's templates accept no other identifiers."""


def call_events(name: str, arguments: str, raw_content: str, call_id: str | None = None) -> list[PredictionEvent]:
    """Return the events of a complete call.

    Args:
        name: The name of the tool.
        arguments: The arguments, as JSON.
        raw_content: What the model wrote.
        call_id: The identifier of the call; by default a new one.
    """
    call_id = call_id or uuid4().hex[:_ID_LENGTH]
    return [
        ToolCallStart(call_id, "json"),
        ToolCallName(name),
        ToolCallArguments(arguments),
        ToolCallEnd(call_id, name, json.loads(arguments), raw_content),
    ]


def failed_call_events(name: str | None, problem: str, raw_content: str) -> list[PredictionEvent]:
    """Return the events of a call that cannot be made."""
    named = [] if name is None else [ToolCallName(name)]
    return [ToolCallStart(uuid4().hex[:_ID_LENGTH]), *named, ToolCallFailed({"title": shortened(problem)}, raw_content)]


def end_of_unreadable(ask: Ask, error: LMStudioToolCallError) -> Events:
    """Return how a response ends whose engine reports a call that it cannot read as an error of the request.

    Others report it as a call that failed, within a response (docs/protocol.md#predict-packets), and so does this.
    """
    failed = failed_call_events(None, error.title or str(error), "")
    end = PredictionEnd({}, {**ask.instance.info}, {**ask.instance.load_config}, {})
    return [*(failed if ask.raw.open_call is None else failed[1:]), end]
