"""A prediction as LlamaIndex's responses, whole or in chunks. Pure; knows neither client nor model.

What LlamaIndex does with responses decides their form:

- The message of a chunk is cumulative, `delta` is what is new. Consumers rewrite the blocks of the last message in
  place, so every chunk has a message and a list of blocks of its own.
- The text is the first block: extractors of core read that one. The place of the reasoning beside it matters to nobody.
- Reasoning goes into `additional_kwargs["thinking_delta"]`, which agents read, and never into `delta`.
- LlamaIndex writes a message's own `additional_kwargs` into prompts and counts them as memory. So they hold nothing
  but `tool_calls`, and only beside calls: without it core's own programs stream nothing. Reasoning is not among
  them, although chat engines keep nothing else of a streamed message beside the text.
- Token counts are read from `raw["usage"]` of the last chunk, and from its `additional_kwargs`.
- LlamaIndex has no invalid tool calls, and an agent takes the text before a missing call for its final answer. So a
  call that failed, was cut off, or was required and is missing is an error after the last chunk.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from lmstudio_integrations._adapters.request_messages import TAGS, tags_of
from lmstudio_integrations._adapters.request_tools import ToolUse
from lmstudio_integrations._adapters.response import FinishedResponse, new_call_id, openai_counts, openai_usage
from lmstudio_integrations._support.secrets import redact_members
from lmstudio_integrations._support.text import shortened
from lmstudio_integrations._support.typeguards import is_count
from lmstudio_integrations.client.predictions.plan import missing_call
from lmstudio_integrations.llama_index._errors import LlamaIndexToolCallError
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    PredictionResult,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallEvent,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
    finish_reason,
)

LogProbs: TypeAlias = list[list[LogProb]]

# Parts of responses -------------------------------------------------------------------------------------------------


def _unique_id(call_id: str | None, calls: Sequence[ToolCallBlock]) -> str:
    """Return an identifier that no other call of the response has: LlamaIndex matches tool results by it."""
    if not call_id or any(call.tool_call_id == call_id for call in calls):
        return new_call_id()
    return call_id


def _raw(response: FinishedResponse) -> dict[str, Any]:
    """Return what is known of a finished prediction: token counts, finish reason, model, the server's statistics."""
    result, model = response.result, response.model
    usage = openai_usage(result)
    metadata = {
        "model": model.pop("model_name"),
        "usage": usage if usage["total_tokens"] else None,
        "finish_reason": finish_reason(response.result),
        "confidence": response.confidence,
        "only_reasoning": response.only_reasoning,
        **model,
        "stats": response.stats or None,
    }
    return {name: value for name, value in metadata.items() if value is not None}


def _logprobs(token: Mapping[str, Any]) -> list[LogProb]:
    """Return a token's candidates, the most likely first; the token alone if no candidates were requested."""
    return [
        LogProb(token=str(each.get("text", "")), logprob=float(each.get("logProb") or 0.0))
        for each in token.get("candidates") or [token]
    ]


# Chunks -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Step:
    """What is new with one event, or with the whole prediction.

    Attributes:
        text: More of the response; `None` if it was not read as a stream.
        logprobs: The log-probabilities of the new tokens.
        additional_kwargs: More of the reasoning, as agents read it; with the last event, the token counts.
        response: The finished prediction, with the last event.
    """

    text: str | None = ""
    logprobs: LogProbs | None = None
    additional_kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    response: FinishedResponse | None = None


class ResponseBuilder:
    """A response as it grows; one that is not streamed grows once, see `add_all`.

    Args:
        tool_use: How the call uses tools.
        result: Returns the prediction, which the client accumulates; called with the last event.
        check_model: Called with the end of the prediction.
        include_confidence: Whether `raw` of the last chunk has the confidence of the fields.
    """

    def __init__(
        self,
        tool_use: ToolUse,
        result: Callable[[], PredictionResult],
        check_model: Callable[[PredictionEnd], None] = lambda _: None,
        *,
        include_confidence: bool = False,
    ) -> None:
        self._tool_use = tool_use
        self._result = result
        self._check_model = check_model
        self._include_confidence = include_confidence
        self._text = self._reasoning = ""
        self._reasoning_block: ThinkingBlock | None = None
        self._reasoning_tokens = 0
        self._call: ToolCallBlock | None = None  # whose arguments are the text so far
        self._calls: list[ToolCallBlock] = []
        self._response: FinishedResponse | None = None

    def add(self, event: PredictionEvent) -> Step | None:
        """Record an event; return what is new, if a chunk can show it."""
        match event.kind:
            case "text":
                return self._add_fragment(event)
            case "call":
                return Step() if self._adds_to_calls(event) else None
            case "end":
                return self._finish()
            case "progress":
                return None

    def _add_fragment(self, event: LlmPredictionFragment) -> Step | None:
        logprobs = [_logprobs(token) for token in event.tokens] if event.tokens else None
        if event.reasoning_type == "none":
            if event.is_structural:
                return None
            self._text += event.content
            return Step(event.content, logprobs)
        if is_count(event.tokens_count):
            self._reasoning_tokens += event.tokens_count
        if event.reasoning_type != "reasoning":
            return None
        self._reasoning += event.content
        self._reasoning_block = ThinkingBlock(
            content=self._reasoning,
            num_tokens=self._reasoning_tokens,
            # Where the thoughts stand is known at the end. Until then, one after text may be cut off.
            additional_information={TAGS: None} if self._text.strip() else {},
        )
        return Step("", logprobs, {"thinking_delta": event.content})

    def add_all(self) -> Step:
        """Record a finished prediction of which no event was added; return what is new: all of it.

        Raises:
            LlamaIndexToolCallError: If a tool call failed, or was required and is missing.
        """
        step = self._finish()
        self.check()
        result = self._result()
        self._text = result.content
        for record in step.response.calls if step.response else ():
            assert record.end is not None, "what is kept is complete"
            self._add_call(record.end, _unique_id(record.id, self._calls))
        return replace(step, text=None, logprobs=[_logprobs(token) for token in result.tokens] or None)

    def _finish(self) -> Step:
        result = self._result()
        self._check_model(result.end)
        self._call = self._reasoning_block = None
        if result.thoughts:
            self._reasoning_block = ThinkingBlock(
                content=result.reasoning_content,
                num_tokens=result.reasoning_tokens,
                additional_information={TAGS: tags_of(result.thoughts, result.content)},
            )
        self._response = FinishedResponse(result, self._tool_use, include_confidence=self._include_confidence)
        self._response.log_anomalies(missing_call=False)
        counts = openai_counts(result.end)
        return Step(additional_kwargs={**counts} if counts["total_tokens"] else {}, response=self._response)

    def check(self) -> None:
        """Raise an error if the response is finished and something is wrong with its tool calls.

        Raises:
            LlamaIndexToolCallError: If one failed, was cut off, or was required and is missing.
        """
        response = self._response
        if response is None:
            return
        text = response.result.content
        if response.lacks_call:
            raise LlamaIndexToolCallError(missing_call(response.tool_use.choice), text=text)
        if response.failed:
            written = [
                (record.failure and record.failure.raw_content) or "".join(record.fragments)
                for record, _ in response.failed
            ]
            raw = "\n".join(filter(None, written)) or None
            details = f"; the model wrote {shortened(redact_members(raw))!r}" if raw else ""
            raise LlamaIndexToolCallError(f"{response.failure}{details}", raw_content=raw, text=text)

    def _add_call(self, end: ToolCallEnd, call_id: str | None) -> None:
        name, arguments = self._tool_use.own_name(end.name), end.arguments or {}
        self._calls.append(ToolCallBlock(tool_call_id=call_id, tool_name=name, tool_kwargs=arguments))

    def _adds_to_calls(self, event: ToolCallEvent) -> bool:
        """Record what an event adds to the tool calls; return whether a chunk can show it."""
        if self._calls and not self._tool_use.parallel:
            return False  # the first call is kept, later ones are dropped
        call = self._call
        match event:
            case ToolCallStart():
                call_id = _unique_id(event.id, self._calls)
                self._call = ToolCallBlock(tool_call_id=call_id, tool_name="", tool_kwargs="")
            case ToolCallName():
                if call:
                    call.tool_name = self._tool_use.own_name(event.name)
                return call is not None
            case ToolCallArguments():
                if call:
                    call.tool_kwargs = f"{call.tool_kwargs}{event.content}"
                return call is not None and bool(call.tool_name)
            case ToolCallEnd():
                self._add_call(event, call.tool_call_id if call else _unique_id(event.id, self._calls))
                self._call = None
                return True
            case ToolCallFailed():
                self._call = None
        return False

    def chat_response(self, step: Step) -> ChatResponse:
        """Return a chat response, or the chunk of its stream."""
        response = step.response
        return ChatResponse(
            message=self._message(),
            delta=step.text,
            raw=_raw(response) if response else None,
            logprobs=step.logprobs,
            additional_kwargs=step.additional_kwargs,
        )

    def completion_response(self, step: Step) -> CompletionResponse:
        """Return the response to a prompt, or the chunk of its stream."""
        response, kwargs = step.response, step.additional_kwargs
        if response is not None and response.result.reasoning_content:  # for which a completion has no block
            kwargs = {**kwargs, "thinking": response.result.reasoning_content}
        return CompletionResponse(
            text=self._text,
            delta=step.text,
            raw=_raw(response) if response else None,
            logprobs=step.logprobs,
            additional_kwargs=kwargs,
        )

    def _message(self) -> ChatMessage:
        """Return the message so far; the arguments of an open call are the text so far."""
        calls = self._calls
        if self._call is not None and self._call.tool_name:
            calls = [*calls, self._call.model_copy()]
        blocks: list[Any] = [TextBlock(text=self._text)] if self._text or not calls else []
        if self._reasoning_block is not None:
            blocks.append(self._reasoning_block)
        if not calls:
            return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)
        # In OpenAI's form, as LlamaIndex kept them before it had blocks for calls.
        legacy = [
            {
                "id": call.tool_call_id,
                "type": "function",
                "function": {
                    "name": call.tool_name,
                    "arguments": call.tool_kwargs
                    if isinstance(call.tool_kwargs, str)
                    else json.dumps(call.tool_kwargs),
                },
            }
            for call in calls
        ]
        return ChatMessage(
            role=MessageRole.ASSISTANT, blocks=[*blocks, *calls], additional_kwargs={"tool_calls": legacy}
        )
