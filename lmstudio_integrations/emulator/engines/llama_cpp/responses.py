"""llama.cpp's response chunks as the events of a prediction, without I/O.

The chunks of a chat and of raw text differ; `read_chat` and `read_completion` make a `Delta` of either. A
`ResponseReader` turns deltas into events: it separates reasoning and tool calls from text, and counts tokens.
"""

import importlib.metadata
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.emulator.engines.base import (
    EngineError,
    EngineEvent,
    Finished,
)
from lmstudio_integrations.emulator.engines.generation import CUT_OFF, DEFAULT_TAGS, Tags, progress_details
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PromptProgress,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallFailed,
    ToolCallName,
    ToolCallStart,
)

ENGINE_NAME = "llama.cpp"


def unsupported(feature: str, why: str, suggestion: str | None = None) -> EngineError:
    """Return the error for something that this engine cannot do."""
    return EngineError(
        f"The engine does not support this: {why}",
        suggestion=suggestion,
        display_data={
            "code": "generic.engineDoesNotSupportFeature",
            "feature": feature,
            "engineName": ENGINE_NAME,
            "engineType": "gguf",
            "installedVersion": installed_version(),
            "supportedVersion": None,
        },
    )


def without_vision() -> EngineError:
    """Return the error for an image in a conversation with a model that has no vision."""
    return EngineError(
        {
            (): "Model does not support images. Please use a model that does.",
            (0, 4): "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
        }
    )


def installed_version() -> str:
    """Return the engine's version; `unknown` if it is not installed."""
    try:
        return importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def error_from_response(payload: object) -> EngineError:
    """Return the error in a response `{"error": {"code", "message", "type", …}}`, in the words of llama.cpp."""
    error: Mapping[str, Any] = payload["error"] if is_object(payload) and is_object(payload.get("error")) else {}
    message = str(error.get("message") or payload)
    return EngineError(
        message,
        suggestion=_MORE_MEMORY if "bad_alloc" in message else None,
        error_data={name: error[name] for name in ("code", "type") if name in error} or None,
    )


_MORE_MEMORY = "Send less at once, or start the server with more memory for its workers (worker_memory)."


Json = dict[str, Any]


@dataclass(slots=True)
class Delta:
    """The content of one chunk."""

    text: str = ""
    reasoning: str = ""
    calls: Sequence[Json] = ()
    tokens: list[Json] | None = None
    progress: Json | None = None
    timings: Json | None = None
    end: Json | None = None


def read_chat(chunk: Mapping[str, Any]) -> Delta:
    """Return the content of a chunk of `/v1/chat/completions`."""
    choices: Sequence[Json] = chunk.get("choices") or [{}]
    choice = choices[0]
    delta: Json = choice.get("delta") or {}
    probabilities: Json = choice.get("logprobs") or {}
    return Delta(
        text=delta.get("content") or "",
        reasoning=delta.get("reasoning_content") or "",
        calls=delta.get("tool_calls") or (),
        tokens=_tokens(probabilities.get("content"), "top_logprobs"),
        progress=chunk.get("prompt_progress"),
        timings=chunk.get("timings"),
        end=chunk.get("__verbose"),
    )


def read_completion(chunk: Mapping[str, Any]) -> Delta:
    """Return the content of a chunk of `/completions`."""
    return Delta(
        text=chunk.get("content") or "",
        tokens=_tokens(chunk.get("completion_probabilities"), "top_logprobs"),
        progress=chunk.get("prompt_progress"),
        timings=chunk.get("timings"),
        end=dict(chunk) if chunk.get("stop") else None,
    )


_CALL_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"(?:[^"\\]|\\.)*"\s*,\s*"arguments"\s*:\s*(?=\S)', re.DOTALL)
"""A tool call up to the beginning of its arguments."""


class JsonCall:
    """Text that is one tool call, `{"name": …, "arguments": …}`: all of it, or what stands between two markers.

    Closing brackets at the end are held back, as the last one closes the call and not its arguments.
    """

    def __init__(self, start_marker: str = "", end_marker: str = "") -> None:
        self.start_marker: str = start_marker
        self.end_marker: str = end_marker
        self._id = new_call_id()
        self._text = ""
        self._start = self._sent = 0
        self._started = False

    def feed(self, fragment: LlmPredictionFragment) -> Iterator[EngineEvent]:
        """Yield the events of a fragment."""
        self._text += fragment.content
        if not self._started:
            self._started = True
            yield self._begin()
        if not self._start:
            head = _CALL_HEAD.match(self._text)
            call = parse_object(f"{head[0]}null}}") if head else None
            if head is None or call is None:
                return
            self._start = self._sent = head.end()
            yield ToolCallName(str(call["name"]))
            yield from self._send(len(self._text.rstrip("} \n")))
        elif kept := fragment.content.rstrip("} \n"):
            yield from self._send(len(self._text) - len(fragment.content) + len(kept))

    def end(self) -> Iterator[EngineEvent]:
        """Yield the rest of the arguments, and how the call ended."""
        if not self._started:
            yield self._begin()
        if self._start:
            yield from self._send(_end_of_value(self._text, self._start))
        raw = f"{self.start_marker}{self._text}{self.end_marker}"
        yield end_call(self._id, raw, parse_object(self._text))

    def _begin(self) -> ToolCallStart:
        """Return the start. Where the call is all of the text, a grammar sees to it that it is JSON."""
        return ToolCallStart(self._id, None if self.start_marker else "json")

    def _send(self, end: int) -> Iterator[EngineEvent]:
        if end > self._sent:
            yield ToolCallArguments(self._text[self._sent : end])
            self._sent = end


_USUAL_TAGS = (
    DEFAULT_TAGS,
    Tags("<|channel>thought", "<channel|>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("<mm:think>", "</mm:think>"),
)
"""Those of which a pair is all that a model writes around its reasoning. llama.cpp reads others, such as channels."""


def known_tags(template: str) -> Tags | None:
    """Return the tags around reasoning that a chat template knows; `None` if they are none of the usual ones."""
    return next((tags for tags in _USUAL_TAGS if knows(template, tags)), None)


def knows(template: str, tags: Tags) -> bool:
    """Return whether a chat template has these tags."""
    return tags.start.strip() in template and tags.end.strip() in template


def end_of_prompt(prompt: str, tags: Tags) -> str:
    """Return the tags at the end of a prompt, with white space: an opened or an empty block; empty if there is none."""
    start, end = re.escape(tags.start.strip()), re.escape(tags.end.strip())
    match = re.search(rf"{start}\s*(?:{end}\s*)?\Z", prompt)
    return match[0] if match else ""


_MARKERS = {"<tool_call>": "</tool_call>", "[TOOL_REQUEST]": "[END_TOOL_REQUEST]"}
"""What stands before and after calls in a text."""


class TextParser:
    """Separates reasoning between tags from the text. What may become a tag is held back until more text comes.

    Args:
        tags: The tags.
        end_of_prompt: The tags at the end of the prompt. A start tag there opens the reasoning: it becomes the first
            fragment, of no token, so that all fragments are what belongs into the next prompt. llama.cpp repeats such
            tags at the beginning of the text, which the model has not written.
        calls: Whether tool calls between markers are read as well.
    """

    def __init__(self, tags: Tags, end_of_prompt: str = "", *, calls: bool = False) -> None:
        self._tags = tags
        self._markers = _MARKERS if calls else {}
        self._repeated = end_of_prompt
        self._opened = end_of_prompt if tags.end.strip() not in end_of_prompt else ""
        self._inside = bool(self._opened)
        self._call: JsonCall | None = None
        self._pending = LlmPredictionFragment("", 0)

    def feed(self, fragment: LlmPredictionFragment) -> Iterator[EngineEvent]:
        """Yield the events of a fragment."""
        if not self._next_tags():
            yield fragment
            return
        pending = self._pending
        pending.content += fragment.content.removeprefix(self._repeated)
        if self._opened:
            yield LlmPredictionFragment(self._opened, 0, reasoning_type="reasoningStartTag", is_structural=True)
        self._repeated = self._opened = ""
        pending.tokens_count += fragment.tokens_count
        if fragment.tokens:
            pending.tokens = [*(pending.tokens or ()), *fragment.tokens]
        while matches := [(at, tag) for tag in self._next_tags() if (at := pending.content.find(tag)) >= 0]:
            at, tag = min(matches)
            yield from self._release(at)
            yield from self._pass(tag)
        yield from self._release(len(pending.content) - overlap(pending.content, self._next_tags()))

    def end(self) -> Iterator[EngineEvent]:
        """Yield the events of the text that is still held back."""
        yield from self._release(len(self._pending.content))
        if self._call is not None:
            yield from self._call.end()

    def _next_tags(self) -> list[str]:
        """Return the tags and markers that may come next."""
        if self._call is not None:
            return [self._call.end_marker]
        if not self._tags.enabled:
            return [*self._markers]
        return [self._tags.end] if self._inside else [self._tags.start, *self._markers]

    def _pass(self, tag: str) -> Iterator[EngineEvent]:
        """Go on after a tag or marker that the held text begins with."""
        if self._call is not None:
            call, self._call = self._call, None
            self._cut(len(tag))
            yield from call.end()
        elif tag in self._markers:
            self._cut(len(tag))
            self._call = JsonCall(tag, self._markers[tag])
        else:
            kind = "reasoningEndTag" if self._inside else "reasoningStartTag"
            self._inside = not self._inside
            yield self._cut(len(tag), reasoning_type=kind, is_structural=True)

    def _release(self, length: int) -> Iterator[EngineEvent]:
        if length and self._call is not None:
            yield from self._call.feed(self._cut(length))
        elif length:
            yield self._cut(length, reasoning_type="reasoning" if self._inside else "none")

    def _cut(self, length: int, **kind: Any) -> LlmPredictionFragment:
        """Cut a fragment off the text that is held; the first one after a token counts the token."""
        pending = self._pending
        fragment = LlmPredictionFragment(pending.content[:length], pending.tokens_count, tokens=pending.tokens, **kind)
        pending.content = pending.content[length:]
        pending.tokens_count, pending.tokens = 0, None
        return fragment


class NativeCalls:
    """Tool calls that the engine has parsed itself, as OpenAI's deltas."""

    def __init__(self) -> None:
        self._index: int | None = None
        self._id: str | None = None
        self._name = ""
        self._arguments: list[str] = []

    def feed(self, deltas: Sequence[Json]) -> Iterator[EngineEvent]:
        """Yield the events of the next deltas."""
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
        """End the open call, if there is one."""
        if self._index is None:
            return
        raw = "".join(self._arguments)
        arguments = parse_object(raw or "{}")
        yield end_call(self._id, raw, None if arguments is None else {"name": self._name, "arguments": arguments})
        self._index, self._name, self._arguments = None, "", []


@dataclass(slots=True)
class ResponseReader:
    """Turns the deltas of one prediction into its events.

    Attributes:
        text: Turns the text into events.
        prompt_tokens: The length of the prompt.
        max_tokens: The limit of the settings; `None` if the context window ends first.
        call_stops: The stop strings that end a tool call.
        tags: What stands around reasoning that the engine has separated itself.
        log_probs: The number of alternatives for each token.
    """

    text: TextParser | JsonCall
    prompt_tokens: int
    max_tokens: int | None = None
    call_stops: Sequence[str] = ()
    tags: Tags = DEFAULT_TAGS
    log_probs: int | None = None
    _calls: NativeCalls = field(default_factory=NativeCalls)
    _in_reasoning: bool = False
    _predicted: int = 0

    def begin(self) -> PromptProgress:
        """Return the first event."""
        return _progress(0, 0, self.prompt_tokens)

    def read(self, delta: Delta) -> Iterator[EngineEvent]:
        """Yield the events of a delta; with the engine's last one comes `Finished`."""
        if delta.progress is not None:
            total, cached, processed = (int(delta.progress.get(name, 0)) for name in ("total", "cache", "processed"))
            if processed > cached or processed >= total:
                yield _progress(min(cached, processed), processed, total)
        if delta.text or delta.reasoning or delta.calls:
            yield from self._content(delta)
        if delta.end is not None:
            yield from self.text.end()
            yield from self._calls.end()
            yield self._end_of(delta.end)

    def _content(self, delta: Delta) -> Iterator[EngineEvent]:
        tokens = None
        if self.log_probs is not None and delta.tokens is not None:
            tokens = [{**token, "candidates": token["candidates"][: self.log_probs]} for token in delta.tokens]
        count = self._count(delta)
        if delta.reasoning:
            yield from self._write_tag(inside=True)
            yield LlmPredictionFragment(delta.reasoning, count, reasoning_type="reasoning", tokens=tokens)
        if delta.text:
            yield from self._write_tag(inside=False)
            yield from self.text.feed(LlmPredictionFragment(delta.text, count, tokens=tokens))
        if delta.calls:
            yield from self._write_tag(inside=False)
            yield from self._calls.feed(delta.calls)

    def _count(self, delta: Delta) -> int:
        """Return how many tokens a delta stands for: one character may take several."""
        if delta.timings is None:
            return len(delta.tokens) if delta.tokens else 1
        before, self._predicted = self._predicted, int(delta.timings["predicted_n"])
        return self._predicted - before

    def _write_tag(self, *, inside: bool) -> Iterator[LlmPredictionFragment]:
        """Yield the tag that the engine has removed."""
        if inside == self._in_reasoning:
            return
        self._in_reasoning = inside
        kind = "reasoningStartTag" if inside else "reasoningEndTag"
        yield LlmPredictionFragment(
            self.tags.start if inside else self.tags.end, reasoning_type=kind, is_structural=True
        )

    def _end_of(self, end: Mapping[str, Any]) -> Finished:
        kind, word = end.get("stop_type"), end.get("stopping_word") or ""
        predicted = int(end.get("tokens_predicted", 0))
        # Only the engine knows how many tokens an image takes.
        read = int(end.get("tokens_evaluated", self.prompt_tokens))
        reason, stop_string = "eosFound", None
        if kind == "word" and word:
            reason, stop_string = ("toolCalls", None) if word in self.call_stops else ("stopStringFound", word)
        elif kind == "limit":
            full = self.max_tokens is None or predicted < self.max_tokens
            reason = "contextLengthReached" if full else "maxPredictedTokensReached"
        # The engine's own speed includes text that was held back; it has none for a single token.
        timings: Json = end.get("timings") or {}
        speed = timings.get("predicted_per_second")
        return Finished(reason, read, predicted, stop_string, {"tokensPerSecond": speed} if speed else {})


def _progress(cached: int, processed: int, total: int) -> PromptProgress:
    """Return the progress of reading a prompt; `processed` includes what was in the cache."""
    return PromptProgress(processed / total if total else 1.0, progress_details(total, processed, cached))


def parse_object(text: str) -> Json | None:
    """Return the JSON object of a text, or `None` if it is not one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if is_object(value) else None


def end_call(call_id: str | None, raw: str, call: Json | None) -> ToolCallEnd | ToolCallFailed:
    """Return how a call ended: with its arguments, or as text that cannot be parsed."""
    arguments = call.get("arguments") if call else None
    if call is None or not is_object(arguments):
        return ToolCallFailed(CUT_OFF, raw)
    return ToolCallEnd(call_id, str(call["name"]), arguments, raw)


def new_call_id() -> str:
    """Return an identifier for a call: nine digits, which every client and template accepts."""
    return str(100_000_000 + secrets.randbelow(900_000_000))


def _end_of_value(text: str, start: int) -> int:
    """Return where the JSON value that begins at `start` ends; the end of the text if the value is incomplete."""
    try:
        return json.JSONDecoder().raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return len(text)


def _tokens(entries: Sequence[Json] | None, alternatives: str) -> list[Json] | None:
    if not entries:
        return None
    return [
        {**_token(entry), "candidates": [_token(other) for other in entry.get(alternatives) or ()]} for entry in entries
    ]


def _token(entry: Mapping[str, Any]) -> Json:
    token: Json = {"text": entry.get("token", ""), "id": entry.get("id", -1)}
    return token if entry.get("logprob") is None else {**token, "logProb": entry["logprob"]}


def overlap(text: str, strings: Sequence[str]) -> int:
    """Return how many characters at the end of a text may be the start of one of the strings."""
    longest = max(map(len, strings), default=0)
    sizes = range(min(longest - 1, len(text)), 0, -1)
    return next((size for size in sizes if any(string.startswith(text[-size:]) for string in strings)), 0)
