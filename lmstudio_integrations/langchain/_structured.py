"""`with_structured_output`: how the answer is made to fit a schema, and how it is read. Knows no model.

The parsers are strict where langchain-core's are lenient: half an answer is never repaired into a whole one.
"""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.output_parsers import BaseCumulativeTransformOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from pydantic import ValidationError
from pydantic.v1 import ValidationError as ValidationErrorV1
from pydantic_core import from_json

from lmstudio_integrations.client._structured import Format
from lmstudio_integrations.errors import LMStudioStructuredOutputError, LMStudioValueError
from lmstudio_integrations.langchain._errors import LangChainStructuredOutputError
from lmstudio_integrations.langchain._tools import is_pydantic, json_schema, schema_name

METHODS = ("json_schema", "function_calling", "json_mode")


def response_format(schema: Any, method: str, *, strict: bool | None) -> dict[str, Any] | None:
    """Return the answer format that a method sends; `None` for tool calls.

    Raises:
        LMStudioValueError: If the method is unknown, or the schema is missing.
    """
    if method not in METHODS:
        raise LMStudioValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if method == "json_mode":
        return {"type": "json_object"}
    if schema is None:
        raise LMStudioValueError(f"method {method!r} needs a schema; only 'json_mode' works without")
    if method == "function_calling":
        return None
    try:
        return {"type": "json_schema", "json_schema": {"schema": json_schema(schema, strict=strict)}}
    except (ValueError, TypeError) as error:
        raise LMStudioValueError(f"{schema!r} is no schema of a structured answer: {error}") from error


_JSON = Format({}, json.loads)


def _whole(result: list[Generation]) -> Any:
    """Return the JSON value of an answer.

    Raises:
        LangChainStructuredOutputError: If the answer is no JSON, or was cut off.
    """
    generation = result[0]
    try:
        return _JSON.read(generation.text, _stop_reason(generation))
    except LMStudioStructuredOutputError as error:
        raise LangChainStructuredOutputError(str(error), text=generation.text) from error


def _stop_reason(generation: Generation) -> str:
    if not isinstance(generation, ChatGeneration):
        return "unknown"
    metadata: dict[str, Any] = generation.message.response_metadata
    return str(metadata.get("stop_reason"))


class _Seen:
    """What has come of an answer that is being streamed."""

    def __init__(self) -> None:
        self._chunks: list[Any] = []
        self.text = ""
        self.told: Any = None

    def add(self, chunk: str | BaseMessage) -> bool:
        """Take a chunk in; return whether more must come."""
        self._chunks.append(chunk)
        self.text += chunk if isinstance(chunk, str) else chunk.text
        return isinstance(chunk, AIMessageChunk) and chunk.chunk_position is None

    def generation(self) -> Generation:
        """Return all of it as one."""
        first, rest = self._chunks[0], self._chunks[1:]
        if not isinstance(first, AIMessageChunk):
            return ChatGeneration(message=first) if isinstance(first, BaseMessage) else Generation(text=self.text)
        return ChatGeneration(message=first + rest if rest else first)

    def __bool__(self) -> bool:
        return bool(self._chunks)


class _StrictParser(BaseCumulativeTransformOutputParser[Any]):
    """Tells what there is so far while the answer streams, and reads the whole strictly."""

    def _so_far(self, seen: _Seen) -> Any:
        return self.parse_result([seen.generation()], partial=True)

    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Any]:  # noqa: A002 - core's name
        seen = _Seen()
        for chunk in input:
            if seen.add(chunk):
                yield from self._news(seen)
        yield from self._end(seen)

    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[Any]:  # noqa: A002 - core's
        seen = _Seen()
        async for chunk in input:
            if seen.add(chunk):
                for value in self._news(seen):
                    yield value
        for value in self._end(seen):
            yield value

    def _news(self, seen: _Seen) -> Iterator[Any]:
        value = self._so_far(seen)
        if value is not None and value != seen.told:
            seen.told = value
            yield value

    def _end(self, seen: _Seen) -> Iterator[Any]:
        if seen:
            value = self.parse_result([seen.generation()])
            if value != seen.told:
                yield value


class StrictJsonParser(_StrictParser, JsonOutputParser):
    """Reads the answer as JSON."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Return the value; with `partial`, as much of it as there is."""
        return _beginning(result[0].text) if partial else _whole(result)

    def _so_far(self, seen: _Seen) -> Any:
        return _beginning(seen.text)


class StrictPydanticParser(_StrictParser, PydanticOutputParser[Any]):
    """Reads the answer as an instance of a pydantic class."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Return the instance; with `partial`, `None` as long as there is none."""
        if partial:
            return self._instance(_beginning(result[0].text))
        value = _whole(result)
        try:
            return self._parse_obj(value)
        except ValueError as error:
            raise LangChainStructuredOutputError(
                f"the answer does not fit {self.pydantic_object.__name__}: {error}", text=result[0].text
            ) from error

    def _so_far(self, seen: _Seen) -> Any:
        return self._instance(_beginning(seen.text))

    def _instance(self, value: Any) -> Any:
        try:
            return self._parse_obj(value)
        except ValueError:
            return None


class StrictCallParser(_StrictParser, JsonOutputKeyToolsParser):
    """Reads the arguments of the one tool call."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Return the arguments."""
        return _called(super().parse_result(result, partial=partial), result, partial=partial)


class StrictPydanticCallParser(_StrictParser, PydanticToolsParser):
    """Reads the arguments of the one tool call as an instance of a pydantic class."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Return the instance."""
        try:
            return _called(super().parse_result(result, partial=partial), result, partial=partial)
        except (ValidationError, ValidationErrorV1) as error:
            name = self.tools[0].__name__
            raise LangChainStructuredOutputError(f"the tool call does not fit {name}: {error}") from error


def _called(value: Any, result: list[Generation], *, partial: bool) -> Any:
    """Return the value of a tool call.

    Raises:
        LangChainStructuredOutputError: If there is none, because the call was broken or cut off.
    """
    if value is None and not partial:
        generation = result[0]
        invalid: Any = getattr(getattr(generation, "message", None), "invalid_tool_calls", None)
        written = invalid[0]["args"] if invalid else generation.text
        raise LangChainStructuredOutputError(
            f"the answer has no whole tool call (stop reason {_stop_reason(generation)}); if it was cut off, "
            "raise max_tokens or the context length",
            text=written,
        )
    return value


def _beginning(text: str) -> Any:
    """Return as much of a JSON value as there is; `None` if there is nothing yet."""
    try:
        return from_json(text, allow_partial="trailing-strings")
    except ValueError:
        return None


def answer_parser(schema: Any) -> Runnable[Any, Any]:
    """Return what reads an answer that was generated by grammar."""
    return StrictPydanticParser(pydantic_object=schema) if is_pydantic(schema) else StrictJsonParser()


def call_parser(schema: Any) -> Runnable[Any, Any]:
    """Return what reads the arguments of a tool call as the answer."""
    if is_pydantic(schema):
        return StrictPydanticCallParser(tools=[schema], first_tool_only=True)
    return StrictCallParser(key_name=schema_name(schema), first_tool_only=True)


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
