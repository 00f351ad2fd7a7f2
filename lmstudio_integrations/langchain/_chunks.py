"""Events of a prediction to LangChain's chunks, or to one result. Pure; knows neither client nor chat model.

What langchain-core does with chunks decides their form:

- One chunk is of one kind: text, reasoning, or tool calls.
- Numbers and strings in the metadata of two chunks are added up, so everything but the provider's name, which is
  exempt, is on the last chunk only.
- With `output_version="v1"` core counts text and reasoning blocks itself, from 0, by changes of kind; a tool call with
  the number of such a block would be merged into it. So tool calls count from `FIRST_TOOL_INDEX`.
- `invalid_tool_calls` on a chunk are parsed again, leniently, into valid ones. A call that failed or was cut off is
  therefore spoilt: one last piece makes its arguments invalid for every parser.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall, ToolCall, ToolCallChunk
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk

from lmstudio_integrations._adapters.outcome import (
    NOT_FINISHED,
    cut_off,
    failure,
    figures,
    finish_reason,
    new_call_id,
    token_counts,
    warn_only_reasoning,
    warn_without_call,
    with_tokens,
)
from lmstudio_integrations.langchain._json_prefix import JsonPrefix, invalidator
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    PromptProgress,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)

PROVIDER = "lmstudio"
"""Our name in `model_provider` and `ls_provider`; summarisation middleware trusts usage only if they agree."""

FIRST_TOOL_INDEX = 1000
"""More blocks of text and thought than come before a tool call."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller wants of the chunks.

    Attributes:
        usage: Whether the token counts are wanted.
        required: Whether a tool call must come; a response without one is logged.
        parallel: Whether more than one may come; otherwise the first is kept.
        alternatives: For how many other tokens log-probabilities are wanted.
        names: The tools' own names by those that were sent, where the two differ.
    """

    usage: bool = True
    required: bool = False
    parallel: bool = True
    alternatives: int = 0
    names: Mapping[str, str] = field(default_factory=dict[str, str])

    def own_name(self, name: str) -> str:
        """Return a tool's own name."""
        return self.names.get(name, name)


@dataclass(slots=True)
class _OpenCall:
    """A tool call that has begun and not ended.

    `held` are argument pieces that must not be shown yet, or ever; `sent` is what was shown.
    """

    id: str
    index: int
    name: str | None = None
    named: bool = False
    sent: str = ""
    held: list[str] = field(default_factory=list[str])
    scanner: JsonPrefix = field(default_factory=JsonPrefix)


@dataclass(slots=True)
class Counts:
    """What is noted while events come, for the metadata at the end.

    Attributes:
        cached: Tokens of the prompt that came from the cache, where the server says so.
        reasoning: About how many tokens were thoughts.
        called: How many tool calls came whole.
        failures: Why each of the others did not.
        reasoned: Whether any reasoning came.
        spoke: Whether any text came that is not blank.
    """

    cached: int | None = None
    reasoning: int = 0
    called: int = 0
    failures: list[str] = field(default_factory=list[str])
    reasoned: bool = False
    spoke: bool = False


class ChunkStream:
    """Turns the events of one prediction into chunks, one for each fragment."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._counts = Counts()
        self._call: _OpenCall | None = None
        self._next_index = FIRST_TOOL_INDEX
        self.end: PredictionEnd | None = None
        self._handlers: dict[type[Any], Callable[[Any], Sequence[ChatGenerationChunk]]] = {
            LlmPredictionFragment: self._fragment,
            PromptProgress: self._progress,
            ToolCallStart: self._start,
            ToolCallName: self._name,
            ToolCallArguments: self._arguments,
            ToolCallEnd: self._end,
            ToolCallFailed: self._failed,
            PredictionEnd: self._finish,
        }

    def chunks(self, events: Iterable[PredictionEvent]) -> Iterator[ChatGenerationChunk]:
        """Yield the chunks of events; most have one."""
        for event in events:
            if type(event) is LlmPredictionFragment and event.reasoning_type == "none" and event.tokens is None:
                # Nearly all events are like this one.
                if not event.is_structural:
                    if not self._counts.spoke:
                        self._note_text(event.content)
                    message = AIMessageChunk(content=event.content, response_metadata={"model_provider": PROVIDER})
                    yield ChatGenerationChunk(message=message)
            else:
                yield from self._handlers[type(event)](event)

    def _note_text(self, content: str) -> None:
        self._counts.spoke = self._counts.spoke or bool(content.strip())

    def _fragment(self, event: LlmPredictionFragment) -> Sequence[ChatGenerationChunk]:
        metadata: dict[str, Any] = {"model_provider": PROVIDER}
        if event.tokens:
            metadata["logprobs"] = {"content": logprobs(event.tokens, self._options.alternatives)}
        if event.reasoning_type == "none":
            if event.is_structural:
                return ()
            self._note_text(event.content)
            message = AIMessageChunk(content=event.content, response_metadata=metadata)
        else:
            self._counts.reasoning = with_tokens(self._counts.reasoning, event)
            if event.reasoning_type != "reasoning":
                return ()
            self._counts.reasoned = True
            message = AIMessageChunk(
                content="", additional_kwargs={"reasoning_content": event.content}, response_metadata=metadata
            )
        return (ChatGenerationChunk(message=message),)

    def _progress(self, event: PromptProgress) -> Sequence[ChatGenerationChunk]:
        note_progress(event, self._counts)
        return ()

    def _dropped(self) -> bool:
        """Whether this tool call is one too many."""
        return self._counts.called > 0 and not self._options.parallel

    def _start(self, event: ToolCallStart) -> Sequence[ChatGenerationChunk]:
        spoilt = self._spoil(NOT_FINISHED)
        if not self._dropped():
            self._open(event.id)
        return spoilt

    def _open(self, call_id: str | None) -> _OpenCall:
        self._call = _OpenCall(call_id or new_call_id(), self._next_index)
        self._next_index += 1
        return self._call

    def _name(self, event: ToolCallName) -> Sequence[ChatGenerationChunk]:
        call = self._call
        if call is None or call.named:
            return ()
        call.name = self._options.own_name(event.name)
        return self._show(call, "".join(call.held))

    def _arguments(self, event: ToolCallArguments) -> Sequence[ChatGenerationChunk]:
        call = self._call
        if call is None:
            return ()
        if call.name is None or call.held or not event.content:
            call.held.append(event.content)
            return ()
        return self._show(call, event.content)

    def _show(self, call: _OpenCall, piece: str) -> Sequence[ChatGenerationChunk]:
        """Show a piece of arguments if it can be part of a JSON object; keep it back for good otherwise."""
        call.held = []
        if not call.scanner.feed(piece):
            call.held = [piece]
            piece = ""
        if call.named and not piece:
            return ()
        return _tool_chunks(self._piece(call, piece))

    def _piece(self, call: _OpenCall, piece: str) -> ToolCallChunk:
        """Return a piece of a call; identifier and name go with the first."""
        call.sent += piece
        first, call.named = not call.named, True
        return tool_call_chunk(
            name=call.name if first else None, args=piece, id=call.id if first else None, index=call.index
        )

    def _end(self, event: ToolCallEnd) -> Sequence[ChatGenerationChunk]:
        if self._dropped():
            return ()
        call = self._call or self._open(event.id)
        self._call = None
        self._counts.called += 1
        arguments, name = event.arguments or {}, self._options.own_name(event.name)
        rest = _completion(call.sent, arguments)
        if rest is None or (call.named and call.name != name):
            return self._again(call, name, arguments)
        call.name = name
        return _tool_chunks(self._piece(call, rest)) if rest else ()

    def _again(self, call: _OpenCall, name: str, arguments: dict[str, Any]) -> Sequence[ChatGenerationChunk]:
        """Spoil what was shown, because the server understood it otherwise, and show the call as it is."""
        spoilt = self._piece(call, invalidator(call.sent))
        whole = _OpenCall(call.id, self._next_index, name)
        self._next_index += 1
        return _tool_chunks(spoilt, self._piece(whole, json.dumps(arguments)))

    def _failed(self, event: ToolCallFailed) -> Sequence[ChatGenerationChunk]:
        if self._dropped():
            return ()
        if self._call is None:
            self._open(None)
        return self._spoil(failure(event.error))

    def _spoil(self, reason: str) -> Sequence[ChatGenerationChunk]:
        """Make the open call, if there is one, invalid."""
        call, self._call = self._call, None
        if call is None:
            return ()
        self._counts.failures.append(reason)
        return _tool_chunks(self._piece(call, invalidator(call.sent)))

    def _finish(self, event: PredictionEnd) -> Sequence[ChatGenerationChunk]:
        spoilt = self._spoil(cut_off(event))
        warn_of_gaps(event, self._counts, self._options)
        self.end = event
        message = AIMessageChunk(
            content="",
            response_metadata=final_metadata(event, self._counts, with_usage=self._options.usage),
            usage_metadata=usage(event, self._counts) if self._options.usage else None,
            chunk_position="last",
        )
        return (*spoilt, ChatGenerationChunk(message=message))


class Fold:
    """Takes the events of one prediction in and makes one message of them."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._counts = Counts()
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self._call: _OpenCall | None = None
        self._calls: list[ToolCall] = []
        self._invalid: list[InvalidToolCall] = []
        self.end: PredictionEnd | None = None

    def add_all(self, events: Iterable[PredictionEvent]) -> None:
        """Take events in."""
        text = self._text
        for event in events:
            if type(event) is LlmPredictionFragment and event.reasoning_type == "none" and event.tokens is None:
                if not event.is_structural:
                    text.append(event.content)
            else:
                self._add(event)

    def _add(self, event: PredictionEvent) -> None:
        if type(event) is LlmPredictionFragment:
            self._add_fragment(event)
        elif type(event) is PromptProgress:
            note_progress(event, self._counts)
        elif type(event) is PredictionEnd:
            self.end = event
        elif self._options.parallel or not self._calls:
            self._add_tool_event(event)

    def _add_fragment(self, event: LlmPredictionFragment) -> None:
        if event.reasoning_type != "none":
            self._counts.reasoning = with_tokens(self._counts.reasoning, event)
        kept = self._kept(event)
        if kept is not None:
            kept.append(event.content)
            if event.tokens:
                self._logprobs.extend(logprobs(event.tokens, self._options.alternatives))

    def _kept(self, event: LlmPredictionFragment) -> list[str] | None:
        """Return where a fragment belongs; markup belongs nowhere."""
        if event.reasoning_type == "none":
            return None if event.is_structural else self._text
        return self._reasoning if event.reasoning_type == "reasoning" else None

    def _add_tool_event(self, event: PredictionEvent) -> None:
        match event:
            case ToolCallStart(id=call_id):
                self._give_up(NOT_FINISHED)
                self._call = _OpenCall(call_id or new_call_id(), 0)
            case ToolCallName(name=name) if self._call:
                self._call.name = self._options.own_name(name)
            case ToolCallArguments(content=content) if self._call:
                self._call.held.append(content)
            case ToolCallEnd():
                call_id = self._call.id if self._call else event.id or new_call_id()
                name = self._options.own_name(event.name)
                self._calls.append(tool_call(name=name, args=event.arguments or {}, id=call_id))
                self._call = None
            case ToolCallFailed(error=error, raw_content=raw):
                self._call = self._call or _OpenCall(new_call_id(), 0)
                self._give_up(failure(error), raw)
            case _:
                pass

    def _give_up(self, reason: str, raw: str | None = None) -> None:
        """Count the open call, if there is one, as invalid."""
        call, self._call = self._call, None
        if call is not None:
            arguments = "".join(call.held) or raw or ""
            self._counts.failures.append(reason)
            self._invalid.append(invalid_tool_call(name=call.name, args=arguments, id=call.id, error=reason))

    def message(self) -> AIMessage:
        """Return the response."""
        assert self.end is not None, "a prediction ends with its statistics, or with an exception"
        self._give_up(cut_off(self.end))
        counts, text, reasoning = self._counts, "".join(self._text), "".join(self._reasoning)
        counts.called, counts.reasoned, counts.spoke = len(self._calls), bool(reasoning), bool(text.strip())
        warn_of_gaps(self.end, counts, self._options)
        metadata = final_metadata(self.end, self._counts)
        if self._logprobs:
            metadata["logprobs"] = {"content": self._logprobs}
        return AIMessage(
            content=text,
            additional_kwargs={"reasoning_content": reasoning} if reasoning else {},
            response_metadata=metadata,
            tool_calls=self._calls,
            invalid_tool_calls=self._invalid,
            usage_metadata=usage(self.end, self._counts),
        )


def _tool_chunks(*pieces: ToolCallChunk) -> Sequence[ChatGenerationChunk]:
    message = AIMessageChunk(content="", tool_call_chunks=list(pieces), response_metadata={"model_provider": PROVIDER})
    return (ChatGenerationChunk(message=message),)


def _completion(sent: str, arguments: Mapping[str, Any]) -> str | None:
    """Return what turns the shown text into exactly these arguments; `None` if nothing can."""
    try:
        if sent and json.loads(sent) == arguments:
            return ""
    except ValueError:
        pass
    for separators in ((", ", ": "), (",", ":")):
        for ascii_only in (True, False):
            whole = json.dumps(arguments, separators=separators, ensure_ascii=ascii_only)
            if whole.startswith(sent):
                return whole[len(sent) :]
    return None


def warn_of_gaps(end: PredictionEnd, counts: Counts, options: Options) -> None:
    """Log that the response is all reasoning, or lacks a required tool call.

    Neither is an error: callers such as agents recover from a message without calls, and parsers raise their own.
    """
    if counts.called or counts.failures:
        return
    if counts.reasoned and not counts.spoke:
        warn_only_reasoning(end)
    elif options.required:
        warn_without_call(end)


def note_progress(event: PromptProgress, counts: Counts) -> None:
    """Remember how much of the prompt came from the cache, where the server says so."""
    if event.details and "cachedTokenCount" in event.details:
        counts.cached = event.details["cachedTokenCount"]


def logprobs(tokens: Iterable[Mapping[str, Any]], alternatives: int) -> list[dict[str, Any]]:
    """Return the tokens of a fragment in the form that OpenAI gives log-probabilities."""
    return [
        {**_logprob(token), "top_logprobs": [_logprob(each) for each in (token.get("candidates") or ())[:alternatives]]}
        for token in tokens
    ]


def _logprob(token: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": token.get("text"), "logprob": token.get("logProb")}


def usage(end: PredictionEnd, counts: Counts) -> UsageMetadata | None:
    """Return the token counts, if the server gave them."""
    read, written, total = token_counts(end)
    if not total:
        return None
    found = UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=total)
    if counts.cached is not None:
        found["input_token_details"] = InputTokenDetails(cache_read=counts.cached)
    if counts.reasoning:
        found["output_token_details"] = OutputTokenDetails(reasoning=counts.reasoning)
    return found


def token_usage(end: PredictionEnd) -> dict[str, int] | None:
    """Return the token counts by OpenAI's names, if the server gave them."""
    counts = token_counts(end)
    return dict(zip(_TOKEN_USAGE, counts, strict=True)) if counts[-1] else None


def llm_output(metadata: Iterable[Mapping[str, Any] | None], model: str | None) -> dict[str, Any]:
    """Return what langchain-core reports of several predictions together.

    Args:
        metadata: The metadata of each; `None` of those that are unknown, such as cached ones.
        model: The model, if no metadata names it.
    """
    known = [each for each in metadata if each]
    usages = [each["token_usage"] for each in known if "token_usage" in each]
    summed = {name: sum(usage[name] for usage in usages) for name in _TOKEN_USAGE} if usages else {}
    names = [each["model_name"] for each in known if "model_name" in each]
    return {"token_usage": summed, "model_name": names[-1] if names else model}


_TOKEN_USAGE = ("prompt_tokens", "completion_tokens", "total_tokens")
"""OpenAI's names of the token counts."""

_REPORTED = ("token_usage", "model_name")
"""Metadata that langchain-core takes together over several predictions."""


def reported(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the metadata of one prediction that `llm_output` reads."""
    return {name: metadata[name] for name in _REPORTED if name in metadata}


def final_metadata(end: PredictionEnd, counts: Counts, *, with_usage: bool = True) -> dict[str, Any]:
    """Return what is known of a finished prediction: model, reason of the end, token counts, the server's stats."""
    info = end.model_info
    metadata: dict[str, Any] = {
        "model_provider": PROVIDER,
        "model_name": info.get("modelKey") or info.get("identifier"),
        "finish_reason": finish_reason(end, called=counts.called > 0),
        "instance_identifier": info.get("identifier"),
        "context_length": info.get("contextLength"),
        "tool_call_errors": counts.failures or None,
        "token_usage": token_usage(end) if with_usage else None,
    }
    return {name: value for name, value in metadata.items() if value is not None} | figures(end)
