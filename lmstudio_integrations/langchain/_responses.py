"""A prediction as LangChain's message, whole or in chunks. Pure; knows neither client nor chat model.

What langchain-core does with chunks decides their form:

- A chunk holds one kind of content: text, reasoning, or tool calls.
- Core adds up the metadata of chunks: whole numbers and strings are added, lists are appended, and two floats are an
  error. So metadata have no floats but in `predictions`, a list with an entry for each response, and everything but
  the provider's name is on the last chunk. Then chunks of several responses can be added, and their sums as well.
- With `output_version="v1"` core numbers text and reasoning blocks itself, from 0, and merges a tool call into the
  block with its number. So tool calls count from `FIRST_TOOL_INDEX`.
- Core parses `invalid_tool_calls` of a chunk again, leniently, into valid ones. So a call that failed or was cut off is
  invalidated: its last chunk makes the arguments invalid for every parser. What the model wrote is still all there.
- What is wrong with calls is logged and no error: agents recover from a message without calls, and parsers raise their
  own.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, ToolCallChunk
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.block_translators import register_translator
from langchain_core.messages.content import ContentBlock
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk

from lmstudio_integrations._adapters.request_messages import TAGS, tags_of
from lmstudio_integrations._adapters.request_tools import ToolUse
from lmstudio_integrations._adapters.response import (
    FinishedResponse,
    new_call_id,
    openai_usage,
    token_counts,
)
from lmstudio_integrations._support.typeguards import is_number
from lmstudio_integrations.langchain._json_prefix import JsonPrefix, invalidator
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEvent,
    PredictionResult,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallEvent,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
    finish_reason,
    normalized_finish_reason,
)

PROVIDER = "lmstudio"
"""Our name in `model_provider` and `ls_provider`; summarisation middleware trusts usage only if they agree."""

FIRST_TOOL_INDEX = 1000
"""The index of the first tool call: higher than that of any block of text or reasoning before it."""


# The whole message --------------------------------------------------------------------------------------------------


def to_message(
    result: PredictionResult,
    tool_use: ToolUse,
    alternatives: int | None = 0,
    *,
    include_confidence: bool = False,
) -> AIMessage:
    """Return the message of a finished prediction.

    Args:
        result: The prediction.
        tool_use: How the call uses tools.
        alternatives: How many other tokens the log-probabilities list for each token; `None` to leave them out.
        include_confidence: Whether the metadata have the confidence of the fields.
    """
    response = FinishedResponse(result, tool_use, include_confidence=include_confidence)
    response.log_anomalies()
    metadata = response_metadata(response)
    if result.tokens and alternatives is not None:
        metadata["logprobs"] = {"content": _logprobs(result.tokens, alternatives)}
    reasoning = result.reasoning_content
    tags = {TAGS: tags_of(result.thoughts, result.content)} if result.thoughts else {}
    return AIMessage(
        content=result.content,
        additional_kwargs=({"reasoning_content": reasoning} if reasoning else {}) | tags,
        response_metadata=metadata,
        tool_calls=[
            tool_call(name=tool_use.own_name(end.name), args=end.arguments or {}, id=record.id or new_call_id())
            for record in response.calls
            if (end := record.end)
        ],
        invalid_tool_calls=[
            invalid_tool_call(
                name=record.name and tool_use.own_name(record.name),
                args="".join(record.fragments) or (record.failure and record.failure.raw_content) or "",
                id=record.id or new_call_id(),
                error=reason,
            )
            for record, reason in response.failed
        ],
        usage_metadata=usage_metadata(result),
    )


_TIMES = frozenset({"time_to_first_token_sec", "total_time_sec", "model_load_time_sec"})
_EXACT = _TIMES | {"tokens_per_second"}


def response_metadata(response: FinishedResponse) -> dict[str, Any]:
    """Return the metadata of a finished prediction: model, finish reason, token counts, the server's statistics.

    Times are in whole milliseconds. `predictions` has one dict, with the speed and the times, in seconds, as the server
    measured them, and the confidence of fields.
    """
    usage, exact, whole = openai_usage(response.result), dict[str, Any](), dict[str, Any]()
    for name, value in response.stats.items():
        if name not in _EXACT and not isinstance(value, float):
            whole[name] = value
        elif is_number(value):  # core can add whole numbers only
            if name in _EXACT:
                exact[name] = value
            is_time = name in _TIMES
            whole[f"{name.removesuffix('sec')}ms" if is_time else name] = round(value * 1000 if is_time else value)
    if response.confidence is not None:
        exact["confidence"] = response.confidence
    metadata: dict[str, Any] = {
        "model_provider": PROVIDER,
        "finish_reason": finish_reason(response.result),
        "normalized_finish_reason": normalized_finish_reason(response.result),
        "tool_call_errors": [reason for _, reason in response.failed] or None,
        "token_usage": usage if usage["total_tokens"] else None,
        **response.model,
        **whole,
        "predictions": [exact],
    }
    return {name: value for name, value in metadata.items() if value is not None}


def usage_metadata(result: PredictionResult) -> UsageMetadata | None:
    """Return the token counts, if the server sent them."""
    prompt, predicted, total = token_counts(result.end)
    if not total:
        return None
    usage = UsageMetadata(input_tokens=prompt, output_tokens=predicted, total_tokens=total)
    if result.cached_tokens is not None:
        usage["input_token_details"] = InputTokenDetails(cache_read=result.cached_tokens)
    if result.reasoning_tokens:
        usage["output_token_details"] = OutputTokenDetails(reasoning=result.reasoning_tokens)
    return usage


def _logprobs(tokens: Iterable[Mapping[str, Any]], alternatives: int | None = None) -> list[dict[str, Any]]:
    """Return the log-probabilities of tokens in OpenAI's form; with as many alternatives, unless that is `None`."""
    return [
        {"token": token.get("text"), "logprob": token.get("logProb")}
        | ({} if alternatives is None else {"top_logprobs": _logprobs((token.get("candidates") or ())[:alternatives])})
        for token in tokens
    ]


# `llm_output`, which langchain-core combines for several predictions ------------------------------------------------


def generation_info_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the metadata of a whole response, or of the last chunk, that tracers read apart from it."""
    return {name: metadata[name] for name in ("finish_reason", "model_name", "model_provider") if name in metadata}


def combined_output(metadata: Iterable[Mapping[str, Any] | None], model: str | None) -> dict[str, Any]:
    """Return the `llm_output` of several predictions together.

    Args:
        metadata: The metadata of each; `None` of those without any, such as cached ones.
        model: The model, if no metadata names it.
    """
    present = [each for each in metadata if each]
    usage = _summed([each["token_usage"] for each in present if "token_usage" in each])
    names = [each["model_name"] for each in present if "model_name" in each]
    return {"token_usage": usage, "model_name": names[-1] if names else model, "model_provider": PROVIDER}


def _summed(usages: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sums of token counts, some of which are in dicts of their own."""
    sums: dict[str, Any] = {}
    for usage in usages:
        for name, value in usage.items():
            if isinstance(value, Mapping):
                sums[name] = _summed([sums.get(name, {}), cast("Mapping[str, Any]", value)])
            else:
                sums[name] = sums.get(name, 0) + value
    return sums


# Chunks -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _StreamedCall:
    """A tool call whose arguments are being streamed.

    Attributes:
        id: The call's identifier.
        index: The call's number among the content blocks.
        name: The tool's own name, once it is known.
        begun: Whether a chunk of it, with identifier and name, was sent.
        sent_arguments: The arguments that were sent.
        pending: Fragments of arguments that are held back: the name is missing, or they cannot be part of an object.
        prefix: Checks that what is sent can still become a JSON object; `None` if the server promises that.
    """

    id: str
    index: int
    name: str | None = None
    begun: bool = False
    sent_arguments: str = ""
    pending: list[str] = field(default_factory=list[str])
    prefix: JsonPrefix | None = field(default_factory=JsonPrefix)

    def next_chunk(self, arguments: str) -> ToolCallChunk:
        """Return a chunk of the call; identifier and name go with the first."""
        self.sent_arguments += arguments
        first, self.begun = not self.begun, True
        return tool_call_chunk(
            name=self.name if first else None, args=arguments, id=self.id if first else None, index=self.index
        )

    def named(self, name: str) -> list[ToolCallChunk]:
        """Record the name, and send the call as far as it waited for that."""
        if self.begun:
            return []
        self.name = name
        return self._send_valid("".join(self.pending))

    def add(self, arguments: str) -> list[ToolCallChunk]:
        """Send more of the arguments, unless they have to wait."""
        if arguments and self.name is not None and not self.pending:
            return self._send_valid(arguments)
        self.pending += [arguments] if arguments else []
        return []

    def _send_valid(self, arguments: str) -> list[ToolCallChunk]:
        """Send arguments if they can be part of a JSON object; hold them back for good otherwise."""
        self.pending = []
        if self.prefix is not None and not self.prefix.feed(arguments):
            self.pending, arguments = [arguments], ""
        return [self.next_chunk(arguments)] if arguments or not self.begun else []


class ChunkStream:
    """Turns the events of one prediction into chunks, one for each fragment.

    Args:
        tool_use: How the call uses tools.
        result: Returns the prediction, which the client accumulates; called with the last event.
        alternatives: How many other tokens the log-probabilities list for each token; `None` to leave them out.
        include_confidence: Whether the last chunk has the confidence of the fields.
    """

    def __init__(
        self,
        tool_use: ToolUse,
        result: Callable[[], PredictionResult],
        alternatives: int | None = 0,
        *,
        include_confidence: bool = False,
    ) -> None:
        self._tool_use = tool_use
        self._result = result
        self._alternatives = alternatives
        self._include_confidence = include_confidence
        self._call: _StreamedCall | None = None
        self._next_index = FIRST_TOOL_INDEX
        self._has_call = False

    def chunks(self, events: Iterable[PredictionEvent]) -> Iterator[ChatGenerationChunk]:
        """Yield the chunks of events; most have one."""
        for event in events:
            if type(event) is LlmPredictionFragment:
                if event.reasoning_type == "none" and event.tokens is None:
                    # Nearly all events are like this one, so it is converted without a further call.
                    if not event.is_structural:
                        message = AIMessageChunk(content=event.content, response_metadata={"model_provider": PROVIDER})
                        yield ChatGenerationChunk(message=message)
                elif (chunk := self._fragment(event)) is not None:
                    yield chunk
            elif event.kind == "call":
                yield from _of_calls(self._tool_chunks(event))
            elif event.kind == "end":
                if self._call is not None:
                    yield from _of_calls(self._invalidate())
                yield self._last_chunk()

    def _fragment(self, event: LlmPredictionFragment) -> ChatGenerationChunk | None:
        metadata: dict[str, Any] = {"model_provider": PROVIDER}
        if event.tokens and self._alternatives is not None:
            metadata["logprobs"] = {"content": _logprobs(event.tokens, self._alternatives)}
        if event.reasoning_type == "reasoning":
            kwargs = {"reasoning_content": event.content}
            message = AIMessageChunk(content="", additional_kwargs=kwargs, response_metadata=metadata)
        elif event.reasoning_type == "none" and not event.is_structural:
            message = AIMessageChunk(content=event.content, response_metadata=metadata)
        else:
            return None
        return ChatGenerationChunk(message=message)

    def _last_chunk(self) -> ChatGenerationChunk:
        result = self._result()
        response = FinishedResponse(result, self._tool_use, include_confidence=self._include_confidence)
        response.log_anomalies()
        metadata = response_metadata(response)
        message = AIMessageChunk(
            content="",
            additional_kwargs={TAGS: tags_of(result.thoughts, result.content)} if result.thoughts else {},
            response_metadata=metadata,
            usage_metadata=usage_metadata(result),
            chunk_position="last",
        )
        return ChatGenerationChunk(message=message, generation_info=generation_info_of(metadata))

    def _tool_chunks(self, event: ToolCallEvent) -> list[ToolCallChunk]:
        if self._has_call and not self._tool_use.parallel:
            return []  # the first call is kept, later ones are dropped
        call, chunks = self._call, list[ToolCallChunk]()
        match event:
            case ToolCallStart():
                chunks = self._invalidate()
                self._call = self._new_call(event.id)
                if event.arguments_format == "json":
                    self._call.prefix = None
            case ToolCallName():
                chunks = call.named(self._tool_use.own_name(event.name)) if call else []
            case ToolCallArguments():
                chunks = call.add(event.content) if call else []
            case ToolCallEnd():
                self._call, self._has_call = None, True
                chunks = self._end(call or self._new_call(event.id), event)
            case ToolCallFailed(raw_content=content):
                self._call = call = call or self._new_call(None)
                if content and not (call.sent_arguments or call.pending):
                    call.pending = [content]
                chunks = self._invalidate()
        return chunks

    def _new_call(self, call_id: str | None, name: str | None = None) -> _StreamedCall:
        self._next_index += 1
        return _StreamedCall(call_id or new_call_id(), self._next_index - 1, name)

    def _invalidate(self) -> list[ToolCallChunk]:
        """Send the rest of the open call, if there is one, and what makes its arguments invalid."""
        call, self._call = self._call, None
        if call is None:
            return []
        rest = "".join(call.pending)
        rest += invalidator(call.sent_arguments + rest)
        return [call.next_chunk(rest)] if rest or not call.begun else []

    def _end(self, call: _StreamedCall, event: ToolCallEnd) -> list[ToolCallChunk]:
        """Return the rest of a call. If the server understood it otherwise than it was sent, send it again."""
        arguments, name = event.arguments or {}, self._tool_use.own_name(event.name)
        rest = _completion(call.sent_arguments, arguments)
        if rest is None or (call.begun and call.name != name):
            again = self._new_call(call.id, name)
            return [call.next_chunk(invalidator(call.sent_arguments)), again.next_chunk(json.dumps(arguments))]
        call.name = name
        return [call.next_chunk(rest)] if rest else []


def _of_calls(chunks: list[ToolCallChunk]) -> Iterator[ChatGenerationChunk]:
    """Yield the chunk of the message that has the chunks of tool calls, if there are any."""
    if chunks:
        message = AIMessageChunk(content="", tool_call_chunks=chunks, response_metadata={"model_provider": PROVIDER})
        yield ChatGenerationChunk(message=message)


def _completion(sent_arguments: str, arguments: Mapping[str, Any]) -> str | None:
    """Return what completes the text that was sent to exactly these arguments; `None` if nothing can."""
    try:
        if sent_arguments and json.loads(sent_arguments) == arguments:
            return ""
    except ValueError:
        pass
    for separators in ((", ", ": "), (",", ":")):
        for ascii_only in (True, False):
            text = json.dumps(arguments, separators=separators, ensure_ascii=ascii_only)
            if text.startswith(sent_arguments):
                return text[len(sent_arguments) :]
    return None


# Content blocks -------------------------------------------------------------------------------------------------------
# The tags of a thought stay in LangChain's standard content blocks, from which programs make messages anew. Core makes
# the blocks. It asks a translator of the provider first, and has none for us.


def with_tags(message: AIMessage) -> list[ContentBlock]:
    """Return the blocks that core makes of a message, with the tags in `extras` of the thought.

    Raises:
        NotImplementedError: If there are no tags; core makes the blocks then.
    """
    tags = message.additional_kwargs.get(TAGS)
    if not tags:
        raise NotImplementedError
    blocks = message.model_copy(update={"response_metadata": {}}).content_blocks
    for block in blocks:
        if block["type"] == "reasoning":
            block["extras"] = {TAGS: tags}
    return blocks


register_translator(PROVIDER, with_tags, with_tags)
