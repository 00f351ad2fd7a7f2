"""A required tool call that did not come is requested again, by grammar: the model can write nothing but a call.

Whether a server takes tools together with a grammar is not known. So the request has no tools, and their definitions
are in the prompt.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.concurrency.flows import Flow
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.predictions.middleware import (
    Ask,
    Events,
    Middleware,
    call_events,
    failed_call_events,
    is_last,
    only_json,
    with_instruction,
    with_response,
)
from lmstudio_integrations.client.predictions.plan import parameters_of, tools_in
from lmstudio_integrations.errors import (
    LMStudioCancelledError,
    LMStudioError,
    LMStudioModelUnloadedError,
    LMStudioPredictionError,
    LMStudioServerError,
)
from lmstudio_integrations.protocol.kv_config import with_changes
from lmstudio_integrations.types._call_schemas import call_schema
from lmstudio_integrations.types._json_schemas import ArgumentSchema
from lmstudio_integrations.types.chat import text_part
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import (
    PredictionEnd,
    PredictionEvent,
    ToolCallEnd,
    ToolCallStart,
)
from lmstudio_integrations.types.structured import json_object

logger: logging.Logger = logging.getLogger(__name__)

_MOST_MISSES = 2
"""How many required calls in a row may not come from an instance until the grammar comes first."""

_INSTRUCTION = 'Now call one of the tools. Respond only with JSON: {"name": …, "arguments": …}'
_REQUESTED_AGAIN = "a required tool call did not come; it is requested once more, by grammar"
_GRAMMAR_FIRST = "the last required tool calls did not come; the next ones are requested by grammar at once"


@dataclass(eq=False)
class RequiredToolFallback(Middleware):
    """Asks by grammar after a response without a call; that response becomes a tool call, after the first text."""

    _first: Ask | None = None
    _instance: Instance | None = None

    def asks_first(self, instance: Instance) -> bool:
        """Whether the instance has not made the last required calls."""
        self._instance = instance
        return self.plan.requires_call and instance.missed_calls >= _MOST_MISSES

    def parameter(self, wire: Mapping[str, Any], ask: Ask) -> Flow[Mapping[str, Any]]:
        """Return the parameter of its own ask."""
        yield from ()
        if ask.asked_by is not self:
            return wire
        text = "" if self._first is None else self._first.response().content
        return {
            **wire,
            "history": {"messages": with_definitions(wire["history"]["messages"], text, self.plan.tools)},
            "predictionConfigStack": with_changes(wire["predictionConfigStack"], self._settings()),
        }

    def events(self, batch: Events, ask: Ask) -> Events:
        """Return progress only of the response by grammar, which is read as a whole."""
        if ask.asked_by is not self:
            return batch
        return [event for event in batch if event.kind == "progress"]

    def finish(self, batch: Events, end: PredictionEnd, ask: Ask) -> Flow[tuple[Events, PredictionEnd | None]]:
        """Return the call; ask by grammar after a response without one."""
        yield from ()
        if ask.asked_by is self:
            called, end = self._to_call(ask, end)
            return [*self.events(batch, ask), *called], end
        if not tools_in(ask.parameter):
            return batch, end
        if any(isinstance(event, ToolCallEnd) for event in batch) or any(call.end for call in ask.raw.tool_calls):
            ask.instance.missed_calls = 0
        has_call = ask.raw.tool_calls or any(isinstance(event, ToolCallStart) for event in batch)
        if has_call or is_last(end) or self.has_asked or not self.plan.requires_call:
            return batch, end
        self._instance = ask.instance
        ask.instance.missed_calls += 1
        logger.warning("%r: %s", end.model_info.get("modelKey"), _REQUESTED_AGAIN)
        if ask.instance.missed_calls == _MOST_MISSES:
            logger.warning("%r: %s", ask.instance.identifier, _GRAMMAR_FIRST)
        self._first = ask
        return batch, None

    def recover(self, error: LMStudioError, ask: Ask) -> tuple[Events, PredictionEnd] | None:
        """Return the end of the first response, if the server cannot respond by grammar or was stopped."""
        end = None if self._first is None else self._first.end
        first_end: tuple[Events, PredictionEnd] | None = None if end is None else ([], end)
        if isinstance(error, LMStudioCancelledError):
            return first_end
        is_of_server = isinstance(error, LMStudioServerError | LMStudioPredictionError)
        if not is_of_server or isinstance(error, LMStudioModelUnloadedError):
            return None
        if self._instance is not None:
            self._instance.missed_calls = 0  # by grammar, it is no better
        if first_end is not None:
            logger.warning("the second prediction failed: %s", error)
        return first_end

    def _settings(self) -> LlmPredictionConfig:
        return only_json(call_schema([each["function"] for each in self.plan.tools]))

    def _to_call(self, ask: Ask, end: PredictionEnd) -> tuple[list[PredictionEvent], PredictionEnd]:
        response = ask.response()
        text = response.content if response.content.strip() else response.reasoning_content
        if end.is_interrupted or not text.lstrip().startswith("{"):  # the server has ignored the grammar
            return [] if self._first is not None else [*ask.raw.fragments], end
        call = json_object(text) or {}
        name, arguments = call.get("name"), call.get("arguments")
        schema = parameters_of(self.plan.tools, name)
        if not isinstance(name, str) or schema is None or not is_object(arguments):
            problem = f"the response by grammar is no complete call ({end.stats.get('stopReason')})"
            return failed_call_events(None, problem, text), end
        misfits: list[str] = []
        with suppress(Exception):  # a schema that only the server can use
            misfits = ArgumentSchema(schema, name).problems(arguments)
        if misfits:
            return failed_call_events(name, "; ".join(misfits), text), end
        stats = {**end.stats, "forcedByGrammar": True}
        return call_events(name, json.dumps(arguments, ensure_ascii=False), text), replace(end, stats=stats)


def with_definitions(
    messages: Sequence[dict[str, Any]], text: str, definitions: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return a conversation that asks for a tool call.

    The definitions come first, as they stay the same: only what comes after them has to be processed again each time.

    Args:
        messages: The conversation, in wire form.
        text: What the model has responded instead.
        definitions: The definitions of the tools, in wire form.
    """
    tools = "\n".join(["These are tools:", *(json.dumps(each["function"], ensure_ascii=False) for each in definitions)])
    conversation = with_response(messages, text)
    first: dict[str, Any] = {"role": "user", "content": []}
    if conversation and conversation[0]["role"] in {"system", "user"}:
        first = conversation.pop(0)
    first_content: list[dict[str, Any]] = first["content"]
    is_system = first["role"] == "system"
    content = [*first_content, text_part(f"\n\n{tools}")] if is_system else [text_part(f"{tools}\n\n"), *first_content]
    return with_instruction([{**first, "content": content}, *conversation], _INSTRUCTION)
