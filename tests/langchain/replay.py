"""A chat model without a server, which replays events: what langchain-core makes of our chunks in every format."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from lmstudio_integrations._adapters.request_tools import ToolUse
from lmstudio_integrations.langchain._responses import ChunkStream, to_message
from lmstudio_integrations.protocol.prediction import Accumulator
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    PredictionResult,
    PromptProgress,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)

FORMATS = ("v0", "v1", "v3")


class Replay(BaseChatModel):
    """Responds to every input with the same events."""

    events: Sequence[Any]
    required: bool = False
    parallel: bool = True
    alternatives: int = 0

    @property
    def _llm_type(self) -> str:
        return "replay"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        message = to_message(self._result(), ToolUse(self.required, self.parallel), self.alternatives)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        tool_use = ToolUse(self.required, self.parallel)
        stream = ChunkStream(tool_use, self._result, self.alternatives)
        yield from stream.chunks(self.events)

    def _result(self) -> PredictionResult:
        prediction = Accumulator()
        prediction.add_all(self.events)
        return prediction.result()

    async def _astream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages):
            yield chunk


def streamed(events: Iterable[PredictionEvent], format_: str, **settings: Any) -> AIMessage:
    """Return the message that a stream of chunks becomes."""
    version = "v1" if format_ == "v1" else "v0"
    model = Replay(events=list(events), **settings, output_version=version)
    if format_ == "v3":
        message = model.stream_events("q", version="v3").output
        assert isinstance(message, AIMessage)
        return message
    whole: AIMessageChunk | None = None
    for chunk in model.stream("q"):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    return whole


def invoked(events: Iterable[PredictionEvent], **settings: Any) -> AIMessage:
    """Return the message of a non-streaming call."""
    return Replay(events=list(events), **settings).invoke("q")


def text(*fragments: str) -> list[PredictionEvent]:
    return [LlmPredictionFragment(fragment) for fragment in fragments]


def reasoning(*fragments: str) -> list[PredictionEvent]:
    inner = [LlmPredictionFragment(fragment, reasoning_type="reasoning") for fragment in fragments]
    start = LlmPredictionFragment("<think>", reasoning_type="reasoningStartTag")
    return [start, *inner, LlmPredictionFragment("</think>", reasoning_type="reasoningEndTag")]


def call(
    call_id: str | None, name: str, arguments: dict[str, Any] | None, *fragments: str, named: bool = True
) -> list[PredictionEvent]:
    """A whole tool call; the fragments are what the model wrote."""
    begun = opened(call_id, name, *fragments, named=named)
    return [*begun, ToolCallEnd(call_id, name, arguments)]


def opened(call_id: str | None, name: str, *fragments: str, named: bool = True) -> list[PredictionEvent]:
    """A tool call that has begun."""
    names = [ToolCallName(name)] if named else []
    return [ToolCallStart(call_id), *names, *(ToolCallArguments(fragment) for fragment in fragments)]


def failed(title: str = "Failed to parse tool call") -> ToolCallFailed:
    return ToolCallFailed({"title": title}, "raw")


def end(stop_reason: str = "eosFound", **stats: Any) -> PredictionEnd:
    return PredictionEnd(
        {"stopReason": stop_reason, "promptTokensCount": 7, "predictedTokensCount": 3, "totalTokensCount": 10, **stats},
        {"modelKey": "a-model", "identifier": "a-model:2", "contextLength": 2048},
        {"fields": []},
        {"fields": []},
    )


RESENT = "arguments sent again"
_TOKENS = [{"text": "a", "logProb": -0.5, "candidates": [{"text": "b", "logProb": -1.5}]}]
_PARALLEL = [*call("c1", "f", {"a": 1}, '{"a": 1}'), *call("c2", "g", {"b": [2]}, '{"b"', ": [2]}")]
KINDS: dict[str, list[PredictionEvent]] = {
    "nothing": [end("failed")],
    "text": [PromptProgress(1), *text("Hel", "lo", ""), end(tokensPerSecond=51.5)],
    "no usage": [*text("Hi"), end(promptTokensCount=0, predictedTokensCount=0, totalTokensCount=0)],
    "cached tokens": [PromptProgress(1.0, {"cachedTokenCount": 5}), *text("Hi"), end()],
    "markup": [LlmPredictionFragment("<|channel|>", is_structural=True), *text("Hi"), end()],
    "reasoning": [*reasoning("Let ", "me."), *text("Yes", "!"), end()],
    "reasoning alone": [*reasoning("Let ", "me."), end("maxPredictedTokensReached")],
    "log-probabilities": [
        LlmPredictionFragment("<think>", reasoning_type="reasoningStartTag", tokens=_TOKENS),
        LlmPredictionFragment("Hm.", reasoning_type="reasoning", tokens=_TOKENS),
        LlmPredictionFragment("<|end|>", is_structural=True, tokens=_TOKENS),
        *(LlmPredictionFragment(each, tokens=_TOKENS) for each in ("a", "b")),
        end(),
    ],
    "call": [*text("I ", "look."), *call("c1", "f", {"a": 1}, '{"a"', ": 1}"), end("toolCalls")],
    "call without arguments": [*call("c1", "f", None), end()],
    "parallel calls": [*reasoning("Hm."), *text("First."), *_PARALLEL, *text(" Done."), end()],
    "one identifier twice": [*call("c1", "f", {"a": 1}, '{"a": 1}'), *call("c1", "g", {}), end("toolCalls")],
    "failed call": [*opened("c1", "f", '{"a'), failed(), *call("c2", "g", {}, "{}"), end()],
    "failed calls": [*opened("c1", "f"), failed(), *opened("c2", "f"), *opened("c3", "g", "{"), end("userStopped")],
    "call that was cut off": [*text("I"), *opened("c1", "f", '{"city": "Par'), end("maxPredictedTokensReached")],
    RESENT: [*call("c1", "f", {"a": 1}, '{"a": "1"}'), end()],
}
"""Predictions of every kind, as events."""
