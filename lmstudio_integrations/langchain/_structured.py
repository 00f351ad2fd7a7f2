"""`with_structured_output`: how the answer is made to fit a schema, and how it is read. Knows no model.

The parsers are strict where langchain-core's are lenient: half an answer is never repaired into a whole one.
"""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Self

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessageChunk, BaseMessage, ToolCall, ToolCallChunk
from langchain_core.output_parsers import BaseCumulativeTransformOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.utils.function_calling import convert_to_json_schema
from pydantic import BaseModel
from pydantic_core import from_json

from lmstudio_integrations._adapters.growing import GrowingText
from lmstudio_integrations._shortening import beginning, shortened
from lmstudio_integrations.errors import LMStudioStructuredOutputError, LMStudioValueError
from lmstudio_integrations.langchain._errors import LangChainStructuredOutputError
from lmstudio_integrations.langchain._tools import is_pydantic, json_schema, openai_tool, reject_enum
from lmstudio_integrations.types.structured import read_response

METHODS = ("json_schema", "function_calling", "json_mode")


def request(schema: Any, method: str, *, strict: bool | None) -> dict[str, Any]:
    """Return what a method asks of the model: an answer format, or the call of one tool.

    Raises:
        LMStudioValueError: If the method is unknown, or the schema is missing or none.
    """
    if method not in METHODS:
        raise LMStudioValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if schema is None and method != "json_mode":
        raise LMStudioValueError(f"method {method!r} needs a schema; only 'json_mode' works without")
    try:
        reject_enum(schema)
        if method == "json_mode":
            return {"response_format": {"type": "json_object"}}
        if method == "function_calling":
            tool = openai_tool(schema)
            return {"tools": [tool], "tool_choice": tool["function"]["name"], "parallel_tool_calls": False}
        wanted = json_schema(schema, strict=strict)
    except Exception as error:  # whatever the schema's annotations lead to
        raise LMStudioValueError(
            f"{schema!r} is no schema of a structured answer by {method}: {error}; give a pydantic class, a TypedDict, "
            "an OpenAI dict or a JSON schema; function_calling needs one of an object, with a title"
        ) from error
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": wanted}}}


def traced(schema: Any, method: str, *, strict: bool | None) -> dict[str, Any]:
    """Return what core tells tracers of the wanted answer; nothing where its own conversion would fail each call."""
    try:
        convert_to_json_schema(schema)
    except Exception:  # noqa: BLE001 - whatever the schema's annotations lead to
        return {}
    return {"ls_structured_output_format": {"kwargs": {"method": method, "strict": strict}, "schema": schema}}


def _whole(result: list[Generation]) -> Any:
    """Return the JSON value of an answer.

    Raises:
        LangChainStructuredOutputError: If the answer is no JSON, or was cut off.
    """
    generation = result[0]
    try:
        return read_response(json.loads, generation.text, _stop_reason(generation))
    except LMStudioStructuredOutputError as error:
        raise LangChainStructuredOutputError(str(error), text=generation.text) from error


def _stop_reason(generation: Generation) -> str:
    if not isinstance(generation, ChatGeneration):
        return "unknown"
    metadata: dict[str, Any] = generation.message.response_metadata
    return str(metadata.get("stop_reason"))


class _Seen:
    """What has come of an answer that is being streamed; with a tool, the answer is the arguments of its call."""

    def __init__(self, tool: str | None = None) -> None:
        self._tool = tool
        self._place: int | None = None
        self._chunks: list[Any] = []
        self.text = GrowingText()
        self.told: Any = None

    def add(self, chunk: str | BaseMessage) -> bool:
        """Take a chunk in; return whether it is time to tell what there is, and more must come."""
        self._chunks.append(chunk)
        if not isinstance(chunk, AIMessageChunk) or chunk.chunk_position is not None:
            return False
        if self._tool is None:
            self.text.add(chunk.text)
        else:
            self._follow(chunk.tool_call_chunks)
        return self.text.is_due()

    def _follow(self, calls: Sequence[ToolCallChunk]) -> None:
        """Take in what belongs to the first call of the tool; the next one counts if that came to nothing."""
        for call in calls:
            if call["name"] == self._tool and (self._place is None or _beginning(self.text.read()) is None):
                self._place, self.text = call["index"], GrowingText()
            if self._place is not None and call["index"] == self._place:
                self.text.add(call["args"] or "")

    def generation(self) -> Generation:
        """Return all of it as one."""
        first, rest = self._chunks[0], self._chunks[1:]
        if isinstance(first, str):
            return Generation(text="".join(self._chunks))
        return ChatGeneration(message=first + rest if rest else first)

    def __bool__(self) -> bool:
        return bool(self._chunks)


class StrictParser(BaseCumulativeTransformOutputParser[Any]):
    """Tells what there is so far while the answer streams, and reads the whole strictly."""

    pydantic_object: Any = None
    """The class of the answer; without, it is a JSON value."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Return the answer; with `partial`, as much of it as there is, `None` as long as there is none."""
        text = result[0].text
        return self._so_far(text) if partial else _instance(self.pydantic_object, _whole(result), text)

    def _so_far(self, text: str) -> Any:
        return _begun(self.pydantic_object, _beginning(text))

    def _nothing_seen(self) -> _Seen:
        return _Seen()

    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Any]:  # noqa: A002 - core's name
        seen = self._nothing_seen()
        for chunk in input:
            if seen.add(chunk):
                yield from self._news(seen)
        yield from self._end(seen)

    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[Any]:  # noqa: A002 - core's
        seen = self._nothing_seen()
        async for chunk in input:
            if seen.add(chunk):
                for value in self._news(seen):
                    yield value
        for value in self._end(seen):
            yield value

    def _news(self, seen: _Seen) -> Iterator[Any]:
        value = self._so_far(seen.text.read())
        if value is not None and value != seen.told:
            seen.told = value
            yield value

    def _end(self, seen: _Seen) -> Iterator[Any]:
        if seen:
            value = self.parse_result([seen.generation()])
            if value != seen.told:
                yield value


class StrictJsonParser(StrictParser, JsonOutputParser):
    """Reads the answer as JSON."""


class StrictPydanticParser(StrictParser, PydanticOutputParser[Any]):
    """Reads the answer as an instance of a pydantic class."""


class _Piece(str):
    """A chunk, which adds up with others as the text of its arguments.

    Core adds up what a parser gets, to trace it. A sum of messages would parse the arguments anew with each of them.
    """

    __slots__ = ("chunk",)
    chunk: Any

    def __new__(cls, chunk: Any) -> Self:
        calls: list[ToolCallChunk] = getattr(chunk, "tool_call_chunks", [])
        piece = super().__new__(cls, "".join(call["args"] or "" for call in calls))
        piece.chunk = chunk
        return piece


class StrictCallParser(StrictParser):
    """Reads the arguments of the one tool call as the answer."""

    tool: str
    """The name of the tool."""

    def parse(self, text: str) -> Any:
        """Refuse a bare text: it has no calls."""
        return self.parse_result([Generation(text=text)])

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Return the answer; with `partial`, as much of it as there is, `None` as long as there is none."""
        calls: list[ToolCall] = getattr(_message(result), "tool_calls", [])
        arguments: Any = next((call["args"] for call in calls if call["name"] == self.tool), None)
        if partial:
            return _begun(self.pydantic_object, arguments)
        if arguments is None:
            raise _no_call(self.tool, calls, result)
        return _instance(self.pydantic_object, arguments, json.dumps(arguments))

    def transform(
        self,
        input: Iterator[Any],  # noqa: A002 - core's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """Read an answer while it comes."""
        yield from super().transform(map(_Piece, input), config, **kwargs)

    async def atransform(
        self,
        input: AsyncIterator[Any],  # noqa: A002 - core's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """Read an answer while it comes."""
        async for value in super().atransform((_Piece(chunk) async for chunk in input), config, **kwargs):
            yield value

    def _nothing_seen(self) -> _Seen:
        return _Seen(self.tool)

    def _transform(self, input: Iterator[Any]) -> Iterator[Any]:  # noqa: A002 - core's name
        return super()._transform(piece.chunk for piece in input)

    def _atransform(self, input: AsyncIterator[Any]) -> AsyncIterator[Any]:  # noqa: A002 - core's name
        return super()._atransform(piece.chunk async for piece in input)


def _message(result: list[Generation]) -> BaseMessage | None:
    generation = result[0]
    return generation.message if isinstance(generation, ChatGeneration) else None


def _no_call(tool: str, calls: Sequence[ToolCall], result: list[Generation]) -> LangChainStructuredOutputError:
    """Return the error about a response that has no whole call of a tool."""
    if calls:
        called = ", ".join(repr(call["name"]) for call in calls)
        problem = f"the response calls {called} and not {tool!r}; use a model that was trained for tools"
        return _error(problem, json.dumps(calls[0]["args"]))
    invalid: Any = getattr(_message(result), "invalid_tool_calls", None)
    problem = (
        f"the response has no whole tool call (stop reason {_stop_reason(result[0])}); if it was cut off, "
        "raise max_tokens or the context length"
    )
    return _error(problem, (invalid[0]["args"] or "") if invalid else result[0].text)


def _error(problem: str, text: str) -> LangChainStructuredOutputError:
    return LangChainStructuredOutputError(f"{problem}; the model wrote {beginning(text)}", text=text)


def _begun(kind: Any, value: Any) -> Any:
    """Return the instance that the beginning of a value already is; `None` if it is none yet."""
    if value is None:
        return None
    try:
        return _validated(kind, value)
    except Exception:  # noqa: BLE001 - a validator is the user's, and may raise anything over half a value
        return None


def _instance(kind: Any, value: Any, text: str) -> Any:
    """Return the instance that a value is; without a class, the value.

    Raises:
        LangChainStructuredOutputError: If it is none.
    """
    try:
        return _validated(kind, value)
    except Exception as error:  # a validator is the user's, and may raise anything
        reason = error if isinstance(error, ValueError) else repr(error)
        raise _error(f"the response does not fit {kind.__name__}: {shortened(str(reason))}", text) from error


def _validated(kind: Any, value: Any) -> Any:
    if kind is None:
        return value
    return kind.model_validate(value) if issubclass(kind, BaseModel) else kind.parse_obj(value)


def _beginning(text: str) -> Any:
    """Return as much of a JSON value as there is; `None` if there is nothing yet."""
    try:
        return from_json(text, allow_partial="trailing-strings")
    except ValueError:
        return None


def text_parser(schema: Any) -> StrictParser:
    """Return the parser of a response that follows the grammar of a schema."""
    return StrictPydanticParser(pydantic_object=schema) if is_pydantic(schema) else StrictJsonParser()


def call_parser(schema: Any, tool: str) -> StrictParser:
    """Return what reads the arguments of a tool call as the answer."""
    return StrictCallParser(tool=tool, pydantic_object=schema if is_pydantic(schema) else None)


def with_parser(model: Runnable[Any, Any], parser: Runnable[Any, Any], *, include_raw: bool) -> Runnable[Any, Any]:
    """Join a model and a parser; with `include_raw`, errors of the parser become part of the result."""
    if not include_raw:
        return model | parser

    def read(message: BaseMessage, config: RunnableConfig) -> dict[str, Any]:
        try:
            return {"raw": message, "parsed": parser.invoke(message, config), "parsing_error": None}
        except OutputParserException as error:
            return {"raw": message, "parsed": None, "parsing_error": error}

    async def aread(message: BaseMessage, config: RunnableConfig) -> dict[str, Any]:
        return read(message, config)

    return model | RunnableLambda(read, aread)
