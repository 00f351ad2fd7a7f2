"""The parsers of `with_structured_output`: partial values of a stream, and the complete value.

They are strict where langchain-core's are lenient: a response that was cut off is an error, not repaired.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Self, get_type_hints

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ToolCallChunk,
)
from langchain_core.output_parsers import BaseCumulativeTransformOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, create_model

import lmstudio_integrations as lms
from lmstudio_integrations._support.secrets import without_secrets
from lmstudio_integrations._support.suggestions import reason_of
from lmstudio_integrations._support.text import REMEDIES, beginning, shortened
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.errors import LMStudioStructuredOutputError
from lmstudio_integrations.langchain._errors import LangChainStructuredOutputError
from lmstudio_integrations.langchain._tools import (
    is_pydantic,
    required_member,
)
from lmstudio_integrations.types.functions import for_pydantic
from lmstudio_integrations.types.structured import (
    EXCERPT,
    PartialJson,
    partial_json,
    read_response,
    schema_problems,
    uncorrected,
)

CORRECTION_ERROR = "correction_error"
"""In the metadata of a response that does not fit: why the model could not correct it."""


class StrictParser(BaseCumulativeTransformOutputParser[Any]):
    """Yields partial values while a response is streamed, and parses the complete response strictly."""

    pydantic_object: Any = None
    """The class of the value; `None` for any JSON value."""

    value_schema: dict[str, Any] | None = None
    """The JSON schema of a value that is no instance of a class; `None` for any JSON value."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:  # noqa: ARG002 - see `StreamedValue`
        """Return the complete value."""
        message = _message(result)
        try:
            return self._complete(*self._value(message))
        except LangChainStructuredOutputError as error:
            failure = message.response_metadata.get(CORRECTION_ERROR)
            if failure is None:
                raise
            raise uncorrected(error, failure) from error.__cause__

    def _value(self, message: AIMessage) -> tuple[Any, str]:
        """Return the JSON value of a response, and what the model wrote.

        Raises:
            LangChainStructuredOutputError: If the response is not JSON, or was cut off.
        """
        try:
            return read_response(json.loads, message.text, *_ending(message)), message.text
        except LMStudioStructuredOutputError as error:
            raise LangChainStructuredOutputError(str(error), text=message.text) from error

    def _complete(self, value: Any, text: str) -> Any:
        """Return the complete value, as an instance of the class if there is one.

        Raises:
            LangChainStructuredOutputError: If it does not fit the class or the schema.
        """
        problems = "" if self.value_schema is None else schema_problems(self.value_schema, value)
        if problems:
            raise _error(f"the response does not fit the schema: {shortened(problems)}", text)
        kind = self.pydantic_object
        try:
            return _validate(kind, value)
        except Exception as error:  # noqa: BLE001 - a user's validator may raise anything
            problem = without_secrets(error)
        reason = reason_of(problem) if isinstance(problem, ValueError) else repr(problem)
        raise _error(f"the response does not fit {kind.__name__}: {shortened(reason)}", text) from problem

    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Any]:  # noqa: A002 - core's name
        streamed = StreamedValue(self)
        for chunk in input:
            yield from streamed.add(chunk)
        yield from streamed.finish()

    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[Any]:  # noqa: A002 - core's
        streamed = StreamedValue(self)
        async for chunk in input:
            for value in streamed.add(chunk):
                yield value
        for value in streamed.finish():
            yield value


_NOTHING: Any = object()
"""No value, not even JSON's `null`."""


class StreamedValue:
    """The value of a streamed response: from its text or, for a `StrictCallParser`, from the call of the tool."""

    def __init__(self, parser: StrictParser) -> None:
        self._parser = parser
        self._tool = parser.tool if isinstance(parser, StrictCallParser) else None
        self._call_index: int | None = None
        self._chunks: list[Any] = []
        self._text = PartialJson()
        self._last_value: Any = _NOTHING

    def add(self, part: Any) -> Iterator[Any]:
        """Add a chunk; yield the partial value if it has changed. The last chunk is left to `finish`."""
        chunk = part.chunk if isinstance(part, _ArgumentsChunk) else part
        self._chunks.append(chunk)
        if isinstance(chunk, AIMessageChunk) and chunk.chunk_position is None:
            if self._tool is None:
                self._text.add(chunk.text)
            else:
                self._add_calls(chunk.tool_call_chunks)
            value = self._text.value()
            if value is None:
                return
            try:
                value = _validate(self._parser.pydantic_object, value)
            except Exception:  # noqa: BLE001 - a user's validator may raise anything over a partial value
                return
            yield from self._yield_if_new(value)

    def finish(self) -> Iterator[Any]:
        """Yield the complete value, unless the last partial one is the same or there was no chunk.

        Raises:
            LangChainStructuredOutputError: If the response does not fit.
        """
        if self._chunks:
            yield from self._yield_if_new(self._parser.parse_result([self._generation()]))

    def confidence(self) -> "dict[str, lms.FieldConfidence] | None":
        """Return the confidence of the fields, once all chunks are added; `None` if it is not known."""
        if not self._chunks:
            return None
        message = _message([self._generation()])
        if (self._tool or "") != (message.tool_calls[0]["name"] if message.tool_calls else ""):
            return None  # it is that of something else
        predictions = message.response_metadata.get("predictions")
        confidence: dict[str, Any] | None = predictions[-1].get("confidence") if predictions else None
        return None if confidence is None else {path: lms.FieldConfidence(**each) for path, each in confidence.items()}

    def _add_calls(self, calls: Sequence[ToolCallChunk]) -> None:
        """Add the arguments of the tool's first call, or of a later one if those before have no valid arguments."""
        for call in calls:
            if call["name"] == self._tool and (self._call_index is None or partial_json(str(self._text)) is None):
                self._call_index, self._text = call["index"], PartialJson()
            if self._call_index is not None and call["index"] == self._call_index:
                self._text.add(call["args"] or "")

    def _generation(self) -> Generation:
        first, rest = self._chunks[0], self._chunks[1:]
        if isinstance(first, str):
            return Generation(text="".join(self._chunks))
        return ChatGeneration(message=first + rest if rest else first)

    def _yield_if_new(self, value: Any) -> Iterator[Any]:
        if self._last_value is _NOTHING or value != self._last_value:
            self._last_value = value
            yield value


class StrictJsonParser(StrictParser, JsonOutputParser):
    """Parses a response as JSON."""


class StrictPydanticParser(StrictParser, PydanticOutputParser[Any]):
    """Parses a response as an instance of a pydantic class."""


class _ArgumentsChunk(str):
    """A chunk as the string of its arguments.

    Core adds up the input of a parser for traces. Adding messages would parse all arguments again with each chunk.
    """

    __slots__ = ("chunk",)
    chunk: Any

    def __new__(cls, chunk: Any) -> Self:
        calls: list[ToolCallChunk] = getattr(chunk, "tool_call_chunks", [])
        arguments = super().__new__(cls, "".join(call["args"] or "" for call in calls))
        arguments.chunk = chunk
        return arguments


class StrictCallParser(StrictParser):
    """Parses the arguments of the tool call."""

    tool: str
    """The name of the tool."""

    def parse(self, text: str) -> Any:
        """Raise: a bare text contains no call."""
        return self.parse_result([Generation(text=text)])

    def _value(self, message: AIMessage) -> tuple[Any, str]:
        arguments = next((call["args"] for call in message.tool_calls if call["name"] == self.tool), None)
        if arguments is None:
            raise _no_call(self.tool, message)
        return arguments, json.dumps(arguments)

    def transform(
        self,
        input: Iterator[Any],  # noqa: A002 - core's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """Parse a streamed response."""
        yield from super().transform(map(_ArgumentsChunk, input), config, **kwargs)

    async def atransform(
        self,
        input: AsyncIterator[Any],  # noqa: A002 - core's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """Parse a streamed response."""
        async for value in super().atransform((_ArgumentsChunk(chunk) async for chunk in input), config, **kwargs):
            yield value


def _message(result: list[Generation]) -> AIMessage:
    """Return the message of a response; one that has only the text if there is none."""
    generation = result[0]
    message = generation.message if isinstance(generation, ChatGeneration) else None
    return message if isinstance(message, AIMessage) else AIMessage(generation.text)


def _ending(message: AIMessage) -> tuple[str, str]:
    """Return why the response ended, and its reasoning."""
    reasoning = message.additional_kwargs.get("reasoning_content")
    stop_reason = str(message.response_metadata.get("stop_reason") or "unknown")
    return stop_reason, reasoning if isinstance(reasoning, str) else ""


def _no_call(tool: str, message: AIMessage) -> LangChainStructuredOutputError:
    """Return the error about a response without a complete call of the tool."""
    if message.tool_calls:
        called = ", ".join(repr(call["name"]) for call in message.tool_calls)
        problem = f"the model called {called} instead of {tool!r}; use a model that was trained for tool use"
        return _error(problem, json.dumps(message.tool_calls[0]["args"]))
    invalid, (stop_reason, reasoning) = message.invalid_tool_calls, _ending(message)
    text = (invalid[0]["args"] or "") if invalid else message.text
    remedy = REMEDIES.get(stop_reason, "use a model that was trained for tool use, or method='json_schema'")
    problem = f"the response has no complete tool call (stop reason {stop_reason}); {remedy}"
    if reasoning and not text.strip():
        problem = f"{problem}; the model only reasoned{EXCERPT}{beginning(reasoning)}"
        return LangChainStructuredOutputError(problem, text=text)
    return _error(problem, text)


def _error(problem: str, text: str) -> LangChainStructuredOutputError:
    return LangChainStructuredOutputError(f"{problem}{EXCERPT}{beginning(text)}", text=text)


def _validate(kind: Any, value: Any) -> Any:
    if kind is None:
        return value
    return kind.model_validate(value) if issubclass(kind, BaseModel) else kind.parse_obj(value)


def parser_of(schema: Any, requested: Mapping[str, Any]) -> StrictParser:
    """Return the parser of the responses to a request.

    Args:
        schema: The schema as the user gave it.
        requested: The call arguments from `bind_kwargs`.
    """
    kind = schema if is_pydantic(schema) else None
    if "tools" in requested:
        function = requested["tools"][0]["function"]
        value_schema = _value_schema(schema, function.get("parameters"))
        return StrictCallParser(tool=function["name"], pydantic_object=kind, value_schema=value_schema)
    if kind:
        return StrictPydanticParser(pydantic_object=kind)
    response_schema = requested["response_format"].get("json_schema", {}).get("schema")
    return StrictJsonParser(value_schema=_value_schema(schema, response_schema))


def _value_schema(schema: Any, sent_schema: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the schema that a value must fit.

    For a `TypedDict`, core's schema is narrower than the type: it has no null, and requires each key. Without a schema
    that pydantic can make of one, its values are not checked.
    """
    if is_object(schema) or sent_schema is None:
        return sent_schema
    try:
        sent = sent_schema.get("required", ())  # an annotation may have a default
        fields: dict[str, Any] = {}
        for name, hint in get_type_hints(schema, include_extras=True).items():
            member, is_required = required_member(schema, name, hint)
            fields[name] = for_pydantic(member), ... if is_required and name in sent else None
        value_schema: dict[str, Any] = create_model("Value", **fields).model_json_schema()
    except Exception:  # noqa: BLE001 - whatever the schema's annotations lead to
        return None
    return value_schema
