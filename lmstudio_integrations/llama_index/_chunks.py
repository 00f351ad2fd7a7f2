"""Events of a prediction to LlamaIndex's responses. Pure; knows neither client nor model.

What LlamaIndex does with responses decides their form:

- The message of a chunk is cumulative, `delta` is what is new. Consumers rewrite the blocks of the last message in
  place, so every chunk has a message and a list of blocks of its own.
- Thoughts are told in `additional_kwargs["thinking_delta"]`, which agents read, and never in `delta`.
- Whatever stands in a message's own `additional_kwargs` is written into prompts and counted as memory. Only
  `tool_calls` is there, and only beside calls: without it core's own programs stream nothing.
- Token counts are read from `raw["usage"]` of the last chunk, and from its `additional_kwargs`.
- LlamaIndex has no invalid tool calls, and an agent takes the text before a missing call for its final answer. So a
  call that failed, was cut off, or was required and did not come is an error after the last chunk.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

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

from lmstudio_integrations._adapters import outcome
from lmstudio_integrations._shortening import shortened
from lmstudio_integrations.llama_index._errors import LlamaIndexToolCallError
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

LogProbs: TypeAlias = list[list[LogProb]]


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller wants of the answer.

    Attributes:
        required: Whether a tool call must come.
        parallel: Whether more than one may come; otherwise the first is kept.
        names: The tools' own names by those that were sent, where they differ.
    """

    required: bool = False
    parallel: bool = True
    names: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Step:
    """What is new with one event.

    Attributes:
        text: More of the answer.
        thinking: More of the thoughts.
        logprobs: The log-probabilities of the new tokens.
        last: Whether the answer has ended.
    """

    text: str = ""
    thinking: str = ""
    logprobs: LogProbs | None = None
    last: bool = False


@dataclass(slots=True)
class _OpenCall:
    """A tool call that has begun and not ended."""

    id: str
    name: str | None = None
    arguments: str = ""


class Answer:
    """One answer as it grows."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.text = ""
        self.thinking = ""
        self.end: PredictionEnd | None = None
        self._thought: ThinkingBlock | None = None
        self._thinking_tokens = 0
        self._cached_tokens: int | None = None
        self._logprobs: LogProbs = []
        self._open: _OpenCall | None = None
        self._calls: list[ToolCallBlock] = []
        self._failures: list[tuple[str, str | None]] = []

    # What comes -----------------------------------------------------------------------------------------------------

    def take(self, event: PredictionEvent) -> Step | None:
        """Take an event in; return what is new, if it is anything to be shown."""
        return self._handlers[type(event)](self, event)

    def take_all(self, events: Iterable[PredictionEvent]) -> None:
        """Take several events in, of an answer that is not shown as it grows."""
        handlers = self._handlers
        for event in events:
            handlers[type(event)](self, event)

    def _fragment(self, event: LlmPredictionFragment) -> Step | None:
        logprobs = None
        if event.tokens:
            logprobs = [_logprobs(token) for token in event.tokens]
            self._logprobs.extend(logprobs)
        if event.reasoning_type == "none":
            if event.is_structural:
                return None
            self.text += event.content
            return Step(event.content, "", logprobs)
        self._thinking_tokens = outcome.with_tokens(self._thinking_tokens, event)
        if event.reasoning_type != "reasoning":
            return None
        self.thinking += event.content
        self._thought = ThinkingBlock(content=self.thinking, num_tokens=self._thinking_tokens)
        return Step("", event.content, logprobs)

    def _progress(self, event: PromptProgress) -> None:
        if event.details and "cachedTokenCount" in event.details:
            self._cached_tokens = event.details["cachedTokenCount"]

    def _is_surplus(self) -> bool:
        """Whether this tool call is one too many."""
        return bool(self._calls) and not self._options.parallel

    def _start(self, event: ToolCallStart) -> None:
        self._give_up(outcome.NOT_FINISHED)
        if not self._is_surplus():
            self._open = _OpenCall(self._unique(event.id))

    def _unique(self, call_id: str | None) -> str:
        """Return an identifier that no other call of this answer has; results are matched by it."""
        if not call_id or any(call.tool_call_id == call_id for call in self._calls):
            return outcome.new_call_id()
        return call_id

    def _name(self, event: ToolCallName) -> Step | None:
        if self._open is None:
            return None
        self._open.name = self._own_name(event.name)
        return Step()

    def _own_name(self, name: str) -> str:
        return self._options.names.get(name, name)

    def _arguments(self, event: ToolCallArguments) -> Step | None:
        if self._open is None:
            return None
        self._open.arguments += event.content
        return Step() if self._open.name else None

    def _call_end(self, event: ToolCallEnd) -> Step | None:
        if self._is_surplus():
            return None
        call_id = self._open.id if self._open else self._unique(event.id)
        self._open = None
        self._calls.append(
            ToolCallBlock(tool_call_id=call_id, tool_name=self._own_name(event.name), tool_kwargs=event.arguments or {})
        )
        return Step()

    def _call_failed(self, event: ToolCallFailed) -> None:
        if not self._is_surplus():
            self._open = self._open or _OpenCall("")
            self._give_up(outcome.failure(event.error), event.raw_content)

    def _give_up(self, reason: str, raw: str | None = None) -> None:
        """Count the open call, if there is one, as failed."""
        call, self._open = self._open, None
        if call is not None:
            name = f"{call.name}: " if call.name else ""
            self._failures.append((name + reason, raw or call.arguments or None))

    def _finish(self, event: PredictionEnd) -> Step:
        self._give_up(outcome.cut_off(event))
        self.end = event
        if self.only_thinking:
            outcome.warn_only_reasoning(event)
        return Step(last=True)

    _handlers: ClassVar[dict[type[Any], Callable[["Answer", Any], Step | None]]] = {
        LlmPredictionFragment: _fragment,
        PromptProgress: _progress,
        ToolCallStart: _start,
        ToolCallName: _name,
        ToolCallArguments: _arguments,
        ToolCallEnd: _call_end,
        ToolCallFailed: _call_failed,
        PredictionEnd: _finish,
    }

    # What it is in LlamaIndex ---------------------------------------------------------------------------------------

    @property
    def only_thinking(self) -> bool:
        """Whether the model thought and then said and did nothing."""
        return bool(self.thinking) and not (self.text.strip() or self._calls or self._failures)

    def chat_chunk(self, step: Step) -> ChatResponse:
        """Return the chunk of a chat stream."""
        return ChatResponse(
            message=self._message(),
            delta=step.text,
            raw=self._raw() if step.last else None,
            logprobs=step.logprobs,
            additional_kwargs=self._kwargs(step),
        )

    def completion_chunk(self, step: Step) -> CompletionResponse:
        """Return the chunk of a completion stream."""
        return CompletionResponse(
            text=self.text,
            delta=step.text,
            raw=self._raw() if step.last else None,
            logprobs=step.logprobs,
            additional_kwargs=self._completion_kwargs() if step.last else self._kwargs(step),
        )

    def chat_response(self) -> ChatResponse:
        """Return the whole answer.

        Raises:
            LlamaIndexToolCallError: If a tool call failed, or was required and did not come.
        """
        self.check()
        return ChatResponse(
            message=self._message(), raw=self._raw(), logprobs=self._logprobs or None, additional_kwargs=self._usage()
        )

    def completion_response(self) -> CompletionResponse:
        """Return the whole answer, as a completion.

        Raises:
            LlamaIndexToolCallError: If a tool call failed, or was required and did not come.
        """
        self.check()
        return CompletionResponse(
            text=self.text,
            raw=self._raw(),
            logprobs=self._logprobs or None,
            additional_kwargs=self._completion_kwargs(),
        )

    def check(self) -> None:
        """Raise what went wrong with tool calls.

        Raises:
            LlamaIndexToolCallError: If one failed, was cut off, or was required and did not come.
        """
        if self._failures:
            reasons = "; ".join(reason for reason, _ in self._failures)
            raw = "\n".join(raw for _, raw in self._failures if raw) or None
            shown = f"; the model wrote {shortened(raw)!r}" if raw else ""
            if self.end is not None and outcome.finish_reason(self.end, called=False) == "length":
                shown += "; the answer was cut off: raise max_tokens or the context length"
            raise LlamaIndexToolCallError(f"a tool call failed: {reasons}{shown}", raw_content=raw, text=self.text)
        if self._options.required and not self._calls:
            raise LlamaIndexToolCallError(outcome.REQUIRED, text=self.text)

    def _message(self) -> ChatMessage:
        calls = self._shown_calls()
        if not calls and self._thought is None:
            return ChatMessage(role=MessageRole.ASSISTANT, blocks=[TextBlock(text=self.text)])
        blocks: list[Any] = [] if self._thought is None else [self._thought]
        if self.text or not calls:
            blocks.append(TextBlock(text=self.text))
        if not calls:
            return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)
        blocks += calls
        legacy = {"tool_calls": [_legacy(call) for call in calls]}
        return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=legacy)

    def _shown_calls(self) -> Sequence[ToolCallBlock]:
        """Return the calls so far; the arguments of an open one are the text so far."""
        call = self._open
        if call is None or not call.name:
            return self._calls
        return [*self._calls, ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=call.arguments)]

    def _kwargs(self, step: Step) -> dict[str, Any]:
        if step.last:
            return self._usage()
        return {"thinking_delta": step.thinking} if step.thinking else {}

    def _completion_kwargs(self) -> dict[str, Any]:
        """Return the token counts, and the reasoning: a completion has no block for it."""
        return {**self._usage(), **({"thinking": self.thinking} if self.thinking else {})}

    def _usage(self) -> dict[str, int]:
        assert self.end is not None, "a prediction ends with its statistics, or with an exception"
        read, written, total = outcome.token_counts(self.end)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": total}

    def _raw(self) -> dict[str, Any]:
        """Return what is known of the finished answer: counts, why it ended, who answered, the server's figures."""
        assert self.end is not None, "a prediction ends with its statistics, or with an exception"
        info = self.end.model_info
        usage: dict[str, Any] = self._usage()
        if self._cached_tokens is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": self._cached_tokens}
        if self._thinking_tokens:
            usage["completion_tokens_details"] = {"reasoning_tokens": self._thinking_tokens}
        return {
            "model": info.get("modelKey") or info.get("identifier"),
            "usage": usage,
            "finish_reason": outcome.finish_reason(self.end, called=bool(self._calls)),
            "only_thinking": self.only_thinking,
            "instance_identifier": info.get("identifier"),
            "context_length": info.get("contextLength"),
            "stats": outcome.figures(self.end),
        }


def _legacy(call: ToolCallBlock) -> dict[str, Any]:
    """Return a call in OpenAI's form, as LlamaIndex kept it before it had blocks for calls."""
    arguments = call.tool_kwargs
    return {
        "id": call.tool_call_id,
        "type": "function",
        "function": {
            "name": call.tool_name,
            "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
        },
    }


def _logprobs(token: Mapping[str, Any]) -> list[LogProb]:
    """Return a token's candidates, the best first; the token alone where no others were asked for."""
    return [
        LogProb(token=str(one.get("text", "")), logprob=float(one.get("logProb") or 0.0))
        for one in token.get("candidates") or [token]
    ]
