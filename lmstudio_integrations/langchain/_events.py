"""The chunks of a prediction as langchain-core's events, for `stream_events(version="v3")` and for LangGraph. Pure.

langchain-core makes the same events of any model's chunks, but looks for every kind of content block in each, which
costs as much as making the chunk. Ours hold one kind each (`_responses.py`), so they are converted as they are. A block
stays open to the end, because a model may write on after a tool call. The log-probabilities of all tokens are kept;
langchain-core keeps those of the last.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from langchain_core.callbacks import BaseRunManager
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_protocol.protocol import MessagesData

_DELTAS = {
    "text": ("text-delta", "text"),
    "reasoning": ("reasoning-delta", "reasoning"),
    "tool_call_chunk": ("tool-call-delta", "args"),
}
"""The delta of each kind of block, and the member that grows, which has the same name in both."""


_REASONS = ("finish_reason", "normalized_finish_reason")
"""What a `message-finish` event has of the metadata since langchain-core 1.8.4; earlier ones ignore it."""


@dataclass(slots=True)
class _Block:
    """A content block that is being streamed: its number, its first form, and what it has grown by."""

    index: int
    start: dict[str, Any]
    fragments: list[str] = field(default_factory=list[str])

    def finished(self) -> dict[str, Any]:
        kind, text = self.start["type"], "".join(self.fragments)
        if kind != "tool_call_chunk":
            return {**self.start, _DELTAS[kind][1]: text}
        call = {"id": self.start["id"], "name": self.start["name"]}
        try:
            arguments = json.loads(text or "{}")
        except ValueError:
            arguments = None
        if isinstance(arguments, dict):
            return {"type": "tool_call", **call, "args": arguments}
        error = "Failed to parse tool call arguments as JSON"  # as core says it
        return {"type": "invalid_tool_call", **call, "args": text, "error": error}


class EventStream:
    """Turns the chunks of one prediction into events.

    Args:
        run_manager: The run, by which core names its message; `None` if there is none.
    """

    def __init__(self, run_manager: BaseRunManager | None) -> None:
        self._message_id = f"lc_run--{run_manager.run_id}" if run_manager else ""
        self._started = False
        self._blocks: dict[str | int | None, _Block] = {}
        self._logprobs: list[dict[str, Any]] = []

    def events(self, chunk: ChatGenerationChunk) -> Iterator[MessagesData]:
        """Yield the events of a chunk; those of most are one delta."""
        message = cast("AIMessageChunk", chunk.message)
        metadata = message.response_metadata
        if not self._started:
            self._started = True
            names = (("provider", "model_provider"), ("model", "model_name"))
            start_metadata: Any = {name: metadata[ours] for name, ours in names if ours in metadata}
            yield {"event": "message-start", "role": "ai", "id": self._message_id, "metadata": start_metadata}
        if message.content:
            yield from self._add_text("text", {"type": "text", "text": ""}, message.content)
        elif text := message.additional_kwargs.get("reasoning_content"):
            yield from self._add_text("reasoning", {"type": "reasoning", "reasoning": ""}, text)
        for call in message.tool_call_chunks:
            yield from self._add_text(call["index"], {"type": "tool_call_chunk", **call, "args": ""}, call["args"])
        if "logprobs" in metadata:
            self._logprobs += metadata["logprobs"]["content"]
        if message.chunk_position == "last":
            yield from self._end(message)

    def _add_text(self, key: str | int | None, start: dict[str, Any], text: Any) -> Iterator[Any]:
        """Yield what adds a text to a block, which it begins if necessary."""
        block = self._blocks.get(key)
        if block is None:
            block = self._blocks[key] = _Block(len(self._blocks), start)
            yield {"event": "content-block-start", "index": block.index, "content": start}
        if text:
            block.fragments.append(text)
            delta, member = _DELTAS[start["type"]]
            yield {"event": "content-block-delta", "index": block.index, "delta": {"type": delta, member: text}}

    def _end(self, last: AIMessageChunk) -> Iterator[Any]:
        for block in self._blocks.values():
            yield {"event": "content-block-finish", "index": block.index, "content": block.finished()}
        metadata = dict(last.response_metadata)
        reasons = {name: metadata[name] for name in _REASONS if name in metadata}
        finish: dict[str, Any] = {"event": "message-finish", **reasons, "metadata": metadata}
        if self._logprobs:
            finish["metadata"]["logprobs"] = {"content": self._logprobs}
        if last.usage_metadata:
            finish["usage"] = last.usage_metadata
        if "reasoning" in self._blocks:
            reasoning = "".join(self._blocks["reasoning"].fragments)
            finish["additional_kwargs"] = {"reasoning_content": reasoning, **last.additional_kwargs}
        yield finish
