"""A required tool call that did not come is requested again, by grammar: the model can write nothing but a call.

Whether a server takes tools together with a grammar is not known. So the request has no tools, and their definitions
are in the prompt.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.models.state import Instance
from lmstudio_integrations.client.predictions.second_step import RequestT, SecondStep
from lmstudio_integrations.client.predictions.text_calls.rescue import call_events, failed_call_events
from lmstudio_integrations.client.predictions.text_calls.tools import OfferedTools
from lmstudio_integrations.client.predictions.text_calls.values import NoCallError
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.types._json_schemas import call_schema
from lmstudio_integrations.types.confidence import confidence_of_arguments
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import PredictionEvent, PredictionResult, PromptProgress
from lmstudio_integrations.types.structured import json_object

logger: logging.Logger = logging.getLogger(__name__)

_MOST_MISSES = 2
"""How many required calls in a row may not come from an instance until the grammar comes first."""

_FULL = "contextLengthReached"
"""The stop reason of a response after which the context window has no place for another one."""

_INSTRUCTION = 'Now call one of the tools. Respond only with JSON: {"name": …, "arguments": …}'
_REQUESTED_AGAIN = "a required tool call did not come; it is requested once more, by grammar"
_GRAMMAR_FIRST = "the last required tool calls did not come; this one is requested by grammar at once"


class ForcedCall(SecondStep[RequestT]):
    """The prediction by grammar: its response becomes a tool call, after the text of the first one.

    Args:
        request_after: Makes the request, after the text of a response without a call.
        tools: The tools that the request offers.
    """

    def __init__(self, request_after: Callable[[str], RequestT], tools: OfferedTools) -> None:
        super().__init__()
        self._request_after = request_after
        self._tools = tools
        self._instance: Instance | None = None
        self._received: Accumulator | None = None
        """What was received of the first response."""

    @property
    def kept(self) -> PredictionResult | None:
        """The first response."""
        return self.first

    @property
    def requests(self) -> Sequence[RequestT]:
        """How to request it."""
        return [self._request_after("" if self.first is None else self.first.content)]

    def begin_on(self, instance: Instance) -> None:
        """Begin with the grammar on an instance that has not made the last required calls."""
        self._instance = instance
        if not self.is_begun and instance.missed_calls >= _MOST_MISSES:
            logger.warning("%r: %s", instance.identifier, _GRAMMAR_FIRST)
            self._begin(None)

    def release(self, batch: list[PredictionEvent], received: Accumulator) -> list[PredictionEvent]:
        """Return the first response as it is, without its end if a call is missing, and then the call."""
        if not self.is_begun:
            return self._release_first(batch, received)
        if received.end is None:
            return [event for event in batch if type(event) is PromptProgress]
        events = self._events(received)
        first = self._received
        if first is None and not events:  # all that there is
            return [*received.fragments, received.end]
        received.fragments = [] if first is None else first.fragments
        for event in events:
            received.add(event)
        return [*events, received.end]

    def _release_first(self, batch: list[PredictionEvent], received: Accumulator) -> list[PredictionEvent]:
        end = received.end
        if end is None or received.tool_calls or end.is_interrupted or end.stats.get("stopReason") == _FULL:
            return batch
        assert self._instance is not None, "it responds"
        self._instance.missed_calls += 1
        logger.warning("%r: %s", end.model_info.get("modelKey"), _REQUESTED_AGAIN)
        self._received = received
        self._begin(received.result())
        return batch[:-1]

    def _events(self, received: Accumulator) -> list[PredictionEvent]:
        """Return the response by grammar as a tool call."""
        assert received.end is not None, "the response has ended"
        result = received.result()
        text = result.content
        call = json_object(text) or {}
        name, arguments = call.get("name"), call.get("arguments")
        tool = self._tools.named(name) if isinstance(name, str) else None
        if received.end.is_interrupted or not text.lstrip().startswith("{"):  # the server has ignored the grammar
            return []
        if tool is None or not is_object(arguments):
            stop_reason = received.end.stats.get("stopReason")
            return failed_call_events(None, f"the response by grammar is no complete call ({stop_reason})", text)
        with suppress(NoCallError):  # a schema that only the server can use
            problem = tool.problem(arguments)
            if problem is not None:
                return failed_call_events(tool.name, problem, text)
        received.end.stats = {**received.end.stats, "forcedByGrammar": True}
        confidence = confidence_of_arguments(text, result.response_tokens, arguments, tool.schema)
        return call_events(tool.name, arguments, text, confidence)


def forced_settings(settings: LlmPredictionConfig, definitions: Sequence[Mapping[str, Any]]) -> LlmPredictionConfig:
    """Return the settings of a prediction that can be nothing but a call of one of the tools."""
    schema = call_schema([each["function"] for each in definitions])
    return settings.merged(
        LlmPredictionConfig(
            structured={"type": "json", "jsonSchema": schema},
            enable_thinking=False,
            raw_tools=None,
            tool_choice=None,
            tool_naming=None,
            tool_call_stop_strings=None,
            stop_strings=None,
            repeat_penalty=False,  # arguments repeat words of the question
        )
    )


def with_instruction(
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
    asked: list[dict[str, Any]] = [*messages]
    if text.strip():
        before: list[dict[str, Any]] = asked.pop()["content"] if asked and asked[-1]["role"] == "assistant" else []
        asked.append({"role": "assistant", "content": [*before, _text(text)]})
    first: dict[str, Any] = {"role": "user", "content": []}
    if asked and asked[0]["role"] in {"system", "user"}:
        first = asked.pop(0)
    given: list[dict[str, Any]] = first["content"]
    is_system = first["role"] == "system"
    content = [*given, _text(f"\n\n{tools}")] if is_system else [_text(f"{tools}\n\n"), *given]
    asked.insert(0, {**first, "content": content})
    last: dict[str, Any] = {"role": "user", "content": []}
    if asked[-1]["role"] == "user":
        last = asked.pop()
    separator = "\n\n" if last["content"] else ""
    return [*asked, {**last, "content": [*last["content"], _text(separator + _INSTRUCTION)]}]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
