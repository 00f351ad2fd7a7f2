"""llama.cpp's chunks to the events of a prediction, without I/O.

Chunks of a chat and of raw text differ; `read_chat` and `read_completion` make `Piece`s of both. An `Answer` turns
pieces into events: thoughts are told from the answer, calls from text, and the end is counted.
"""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lmstudio_integrations._typeguards import is_object
from lmstudio_integrations.emulator.engines.base import EngineEvent, Finished
from lmstudio_integrations.types.config import LlmPredictionConfig
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PromptProgress,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)

Json = dict[str, Any]
Fragments = Iterator[LlmPredictionFragment]

START_TAG, END_TAG = "<think>", "</think>"


@dataclass(slots=True)
class Piece:
    """What one chunk brings."""

    text: str = ""
    reasoning: str = ""
    calls: Sequence[Json] = ()
    tokens: list[Json] | None = None
    progress: Json | None = None
    timings: Json | None = None
    end: Json | None = None


def read_chat(chunk: Mapping[str, Any]) -> Piece:
    """Return the piece of a chunk of `/v1/chat/completions`."""
    choices: Sequence[Json] = chunk.get("choices") or [{}]
    choice = choices[0]
    delta: Json = choice.get("delta") or {}
    probabilities: Json = choice.get("logprobs") or {}
    return Piece(
        text=delta.get("content") or "",
        reasoning=delta.get("reasoning_content") or "",
        calls=delta.get("tool_calls") or (),
        tokens=_tokens(probabilities.get("content"), "top_logprobs"),
        progress=chunk.get("prompt_progress"),
        timings=chunk.get("timings"),
        end=chunk.get("__verbose"),
    )


def read_completion(chunk: Mapping[str, Any]) -> Piece:
    """Return the piece of a chunk of `/completions`."""
    return Piece(
        text=chunk.get("content") or "",
        tokens=_tokens(chunk.get("completion_probabilities"), "top_logprobs"),
        progress=chunk.get("prompt_progress"),
        timings=chunk.get("timings"),
        end=dict(chunk) if chunk.get("stop") else None,
    )


class TextReader(Protocol):
    """Takes the answer's text and says what it is."""

    def feed(self, fragment: LlmPredictionFragment) -> Iterator[EngineEvent]:
        """Take the next piece in."""
        ...

    def end(self) -> Iterator[EngineEvent]:
        """Say what is still held back."""
        ...


class PlainText:
    """Text that is only an answer."""

    def feed(self, fragment: LlmPredictionFragment) -> Iterator[EngineEvent]:
        """Pass a piece on."""
        yield fragment

    def end(self) -> Iterator[EngineEvent]:
        """Hold nothing back."""
        return iter(())


class ThinkingText:
    """Text with thoughts between tags. What might become a tag is held back until it is clear."""

    def __init__(self, start: str, end: str) -> None:
        self._tags = {False: start, True: end}
        self._inside = False
        self._held = LlmPredictionFragment("", 0)

    def feed(self, fragment: LlmPredictionFragment) -> Iterator[EngineEvent]:
        """Take the next piece in."""
        held = self._held
        held.content += fragment.content
        held.tokens_count += fragment.tokens_count
        if fragment.tokens:
            held.tokens = [*(held.tokens or ()), *fragment.tokens]
        while (at := held.content.find(self._tags[self._inside])) >= 0:
            yield from self._take(at)
            yield from self._take(len(self._tags[self._inside]), tag=True)
            self._inside = not self._inside
        yield from self._take(len(held.content) - _overlap(held.content, self._tags[self._inside]))

    def end(self) -> Iterator[EngineEvent]:
        """Say what is still held back."""
        yield from self._take(len(self._held.content))

    def _take(self, length: int, *, tag: bool = False) -> Fragments:
        """Cut a fragment off what is held; the first one after a token counts it."""
        if length == 0:
            return
        held = self._held
        kind = ("reasoningEndTag" if self._inside else "reasoningStartTag") if tag else "none"
        yield LlmPredictionFragment(
            held.content[:length],
            held.tokens_count,
            reasoning_type="reasoning" if self._inside and not tag else kind,
            is_structural=tag,
            tokens=held.tokens,
        )
        self._held.content = held.content[length:]
        self._held.tokens_count, self._held.tokens = 0, None


class ForcedCall:
    """Text that a schema forces to be one call, `{"name": …, "arguments": …}`, told as it is written."""

    def __init__(self) -> None:
        self._id = new_call_id()
        self._text = ""
        self._sent = 0
        self._name: str | None = None
        self._started = False
        self._scan = ObjectScan()

    def feed(self, fragment: LlmPredictionFragment) -> Iterator[EngineEvent]:
        """Take the next piece in."""
        self._text += fragment.content
        if not self._started:
            self._started = True
            yield ToolCallStart(self._id)
        if self._name is None:
            head = call_head(self._text)
            if head is None:
                return
            self._name, self._sent = head
            yield ToolCallName(self._name)
        end = self._scan.advance(self._text, self._sent)
        if end > self._sent:
            yield ToolCallArguments(self._text[self._sent : end])
            self._sent = end

    def end(self) -> Iterator[EngineEvent]:
        """Say how the call ended."""
        if not self._started:
            yield ToolCallStart(self._id)
        yield end_call(self._id, self._text, parse_object(self._text))


class ObjectScan:
    """Finds the end of a JSON object in text that grows."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_text = self._escaped = self._closed = False

    def advance(self, text: str, start: int) -> int:
        """Return how far the object goes in what has come since `start`."""
        at = start
        while at < len(text) and not self._closed:
            self._step(text[at])
            at += 1
        return at

    def _step(self, character: str) -> None:
        if self._in_text:
            self._in_text = self._escaped or character != '"'
            self._escaped = not self._escaped and character == "\\"
        elif character == '"':
            self._in_text = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            self._closed = self._depth == 0


class NativeCalls:
    """Calls that the engine has parsed itself, in the form of OpenAI's deltas."""

    def __init__(self) -> None:
        self._index: int | None = None
        self._id: str | None = None
        self._name = ""
        self._arguments: list[str] = []

    def feed(self, deltas: Sequence[Json]) -> Iterator[EngineEvent]:
        """Take the next deltas in."""
        for delta in deltas:
            if delta.get("index", 0) != self._index:
                yield from self.end()
                self._index, self._id = delta.get("index", 0), delta.get("id") or new_call_id()
                yield ToolCallStart(self._id)
            function: Json = delta.get("function") or {}
            if function.get("name"):
                self._name = function["name"]
                yield ToolCallName(self._name)
            if function.get("arguments"):
                self._arguments.append(function["arguments"])
                yield ToolCallArguments(function["arguments"])

    def end(self) -> Iterator[EngineEvent]:
        """End the call that is open, if one is."""
        if self._index is None:
            return
        raw = "".join(self._arguments)
        arguments = parse_object(raw or "{}")
        yield end_call(self._id, raw, None if arguments is None else {"name": self._name, "arguments": arguments})
        self._index, self._name, self._arguments = None, "", []


@dataclass(slots=True)
class Answer:
    """Turns the pieces of one prediction into its events.

    Attributes:
        text: Says what the text is.
        prompt_tokens: How long the prompt is.
        max_tokens: How many tokens were allowed by the settings, not by the window.
        call_stops: The stop strings that end a tool call.
        tags: What marks thoughts that the engine itself has told apart.
        log_probs: How many alternatives a token brings.
    """

    text: TextReader
    prompt_tokens: int
    max_tokens: int | None = None
    call_stops: Sequence[str] = ()
    tags: tuple[str, str] = (START_TAG, END_TAG)
    log_probs: int | None = None
    _calls: NativeCalls = field(default_factory=NativeCalls)
    _read: bool = False
    _thinking: bool = False
    _predicted: int = 0

    def begin(self) -> PromptProgress:
        """Return the first event."""
        return progress(0, 0, self.prompt_tokens)

    def take(self, piece: Piece) -> Iterator[EngineEvent]:
        """Yield the events of a piece; with the engine's last one comes `Finished`."""
        if piece.progress is not None:
            yield from self._progress(piece.progress)
        if piece.text or piece.reasoning or piece.calls or piece.end is not None:
            if not self._read:
                yield from self._progress({"total": self.prompt_tokens, "processed": self.prompt_tokens})
            yield from self._content(piece)
        if piece.end is not None:
            yield from self.text.end()
            yield from self._calls.end()
            yield self._finished(piece.end)

    def _progress(self, state: Mapping[str, Any]) -> Iterator[EngineEvent]:
        total, cached, processed = (int(state.get(name, 0)) for name in ("total", "cache", "processed"))
        if processed > cached or processed >= total:
            self._read = processed >= total
            yield progress(min(cached, processed), processed, total)

    def _content(self, piece: Piece) -> Iterator[EngineEvent]:
        tokens = self._shown(piece.tokens)
        count = self._count(piece)
        if piece.reasoning:
            yield from self._think(inside=True)
            yield LlmPredictionFragment(piece.reasoning, count, reasoning_type="reasoning", tokens=tokens)
        if piece.text:
            yield from self._think(inside=False)
            yield from self.text.feed(LlmPredictionFragment(piece.text, count, tokens=tokens))
        if piece.calls:
            yield from self._think(inside=False)
            yield from self._calls.feed(piece.calls)

    def _count(self, piece: Piece) -> int:
        """Return how many tokens were written for a piece: a character may take several."""
        if piece.timings is None:
            return len(piece.tokens) if piece.tokens else 1
        before, self._predicted = self._predicted, int(piece.timings["predicted_n"])
        return self._predicted - before

    def _think(self, *, inside: bool) -> Fragments:
        """Write the tag that the engine has swallowed."""
        if inside == self._thinking:
            return
        self._thinking = inside
        kind = "reasoningStartTag" if inside else "reasoningEndTag"
        yield LlmPredictionFragment(self.tags[0 if inside else 1], reasoning_type=kind, is_structural=True)

    def _shown(self, tokens: list[Json] | None) -> list[Json] | None:
        if self.log_probs is None or tokens is None:
            return None
        return [{**token, "candidates": token["candidates"][: self.log_probs]} for token in tokens]

    def _finished(self, end: Mapping[str, Any]) -> Finished:
        kind, word = end.get("stop_type"), end.get("stopping_word") or ""
        predicted = int(end.get("tokens_predicted", 0))
        # With pictures the engine alone knows how many tokens they are.
        read = int(end.get("tokens_evaluated", self.prompt_tokens))
        if kind == "word" and word:
            called = word in self.call_stops
            reason = "toolCalls" if called else "stopStringFound"
            return Finished(reason, read, predicted, None if called else word, stats=_speed(end))
        reason = "eosFound"
        if kind == "limit":
            full = self.max_tokens is None or predicted < self.max_tokens
            reason = "contextLengthReached" if full else "maxPredictedTokensReached"
        return Finished(reason, read, predicted, stats=_speed(end))


def _speed(end: Mapping[str, Any]) -> Json:
    """Return the engine's own speed, which knows what text was held back; it has none for a single token."""
    timings: Json = end.get("timings") or {}
    speed = timings.get("predicted_per_second")
    return {"tokensPerSecond": speed} if speed else {}


def text_reader(config: LlmPredictionConfig) -> TextReader:
    """Return the reader that the settings for thoughts ask for."""
    tags = reasoning_tags(config)
    return ThinkingText(*tags) if tags else PlainText()


def reasoning_tags(config: LlmPredictionConfig) -> tuple[str, str] | None:
    """Return the tags around thoughts; `None` if thoughts are not to be told apart."""
    parsing = config.reasoning_parsing or {}
    if parsing.get("enabled") is False:
        return None
    start, end = parsing.get("startString", START_TAG), parsing.get("endString", END_TAG)
    return (start, end) if start and end else None


def progress(cached: int, processed: int, total: int) -> PromptProgress:
    """Return how much of a prompt has been read; `processed` counts what was in the cache, too."""
    return PromptProgress(
        processed / total if total else 1.0,
        {
            "cachedTokenCount": cached,
            "totalPromptTokenCount": total,
            "processedPromptTokenCount": processed - cached,
            "unprocessedPromptTokenCount": total - processed,
        },
    )


def call_head(text: str) -> tuple[str, int] | None:
    """Return a call's name and where its arguments begin, as soon as both are there."""
    decoder = json.JSONDecoder()
    at = _after(text, 0, "{", '"name"', ":")
    if at is None:
        return None
    try:
        name, at = decoder.raw_decode(text, at)
    except ValueError:
        return None
    start = _after(text, at, ",", '"arguments"', ":")
    return None if start is None or start >= len(text) else (str(name), start)


def parse_object(text: str) -> Json | None:
    """Return a JSON object; `None` if the text is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if is_object(value) else None


def end_call(call_id: str | None, raw: str, call: Json | None) -> ToolCallEnd | ToolCallFailed:
    """Return how a call ended: with its arguments, or as text that is no call."""
    arguments = call.get("arguments") if call else None
    if call is None or not is_object(arguments):
        return ToolCallFailed({"title": "Failed to parse tool call: Unexpected end of content."}, raw)
    return ToolCallEnd(call_id, str(call["name"]), arguments, raw)


def new_call_id() -> str:
    """Return an identifier for a call: nine digits, which every client and template takes."""
    return str(100_000_000 + secrets.randbelow(900_000_000))


def _after(text: str, at: int, *marks: str) -> int | None:
    """Return where the text goes on after the marks, with white space around them; `None` if they are not there."""
    for mark in marks:
        at = _skip_space(text, at)
        if not text.startswith(mark, at):
            return None
        at += len(mark)
    return _skip_space(text, at)


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _overlap(text: str, tag: str) -> int:
    """Return how many characters at the end of the text may be the beginning of the tag."""
    return next((size for size in range(min(len(text), len(tag) - 1), 0, -1) if text.endswith(tag[:size])), 0)


def _tokens(entries: Sequence[Json] | None, alternatives: str) -> list[Json] | None:
    if not entries:
        return None
    return [
        {**_token(entry), "candidates": [_token(other) for other in entry.get(alternatives) or ()]} for entry in entries
    ]


def _token(entry: Mapping[str, Any]) -> Json:
    known: Json = {"text": entry.get("token", ""), "id": entry.get("id", -1)}
    return known if entry.get("logprob") is None else {**known, "logProb": entry["logprob"]}
