"""`with_structured_output`: requests responses that fit a schema, and parses them.

The parsers are strict where langchain-core's are lenient: a response that was cut off is an error, not repaired.
"""

import json
import logging
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any, Self, get_type_hints

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolCall,
    ToolCallChunk,
    convert_to_messages,
)
from langchain_core.messages.ai import add_usage
from langchain_core.output_parsers import BaseCumulativeTransformOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import AddableDict, Runnable, RunnableConfig, RunnableGenerator
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import get_config_list
from langchain_core.utils.function_calling import convert_to_json_schema
from pydantic import BaseModel, create_model

from lmstudio_integrations._support.secrets import without_secrets
from lmstudio_integrations._support.text import REMEDIES, beginning, shortened
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.support.tracebacks import with_short_traceback
from lmstudio_integrations.errors import LMStudioError, LMStudioStructuredOutputError, LMStudioValueError
from lmstudio_integrations.langchain._errors import LangChainStructuredOutputError
from lmstudio_integrations.langchain._responses import combined_output
from lmstudio_integrations.langchain._tools import (
    is_pydantic,
    json_schema,
    openai_tool,
    reject_type_of_field,
    response_schema,
)
from lmstudio_integrations.types.confidence import FieldConfidence
from lmstudio_integrations.types.structured import (
    EXCERPT,
    PartialJson,
    correction,
    partial_json,
    read_response,
    reject_text,
    response_settings,
    schema_problems,
    uncorrected,
)

logger: logging.Logger = logging.getLogger(__name__)

CORRECTION_ERROR = "correction_error"
"""In the metadata of a response that does not fit: why the model could not correct it."""

METHODS = ("json_schema", "function_calling", "json_mode")


def bind_kwargs(schema: Any, method: str, *, strict: bool | None) -> dict[str, Any]:
    """Return the call arguments of a method: a response format, or one required tool.

    Raises:
        LMStudioValueError: If the method is unknown, or the schema is missing or invalid.
    """
    if method not in METHODS:
        raise LMStudioValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if schema is None and method != "json_mode":
        raise LMStudioValueError(f"method {method!r} needs a schema; only 'json_mode' works without")
    reject_text(schema, "a schema")
    try:
        reject_type_of_field(schema)
        if method == "json_mode":
            return {"response_format": {"type": "json_object"}}
        if method == "function_calling":
            tool = openai_tool(schema, strict=strict)
            kwargs = {"tools": [tool], "tool_choice": tool["function"]["name"], "parallel_tool_calls": False}
            # Partial values need the arguments as they arrive, and the parser has its own way to ask again.
            return {**kwargs, "repair_tool_calls": False}
        response_format = {"type": "json_schema", "json_schema": {"schema": json_schema(schema, strict=strict)}}
        response_settings(response_format, response_schema)  # what is wrong with it is reported here, not by each call
    except LMStudioValueError:
        raise
    except Exception as error:  # a schema's annotations may raise anything
        raise LMStudioValueError(
            f"{schema!r} is not a valid schema for structured output by {method}: {error}; pass a pydantic class, a "
            "TypedDict, an OpenAI dict or a JSON schema; function_calling needs an object schema with a title"
        ) from error
    return {"response_format": response_format}


def tracing_kwargs(schema: Any, method: str, *, strict: bool | None) -> dict[str, Any]:
    """Return what langchain-core traces of the requested format; nothing if its conversion would fail in each call."""
    try:
        convert_to_json_schema(schema)
    except Exception:  # noqa: BLE001 - whatever the schema's annotations lead to
        return {}
    return {"ls_structured_output_format": {"kwargs": {"method": method, "strict": strict}, "schema": schema}}


def _stop_reason(generation: Generation) -> str:
    if not isinstance(generation, ChatGeneration):
        return "unknown"
    metadata: dict[str, Any] = generation.message.response_metadata
    return str(metadata.get("stop_reason") or "unknown")


class StrictParser(BaseCumulativeTransformOutputParser[Any]):
    """Yields partial values while a response is streamed, and parses the complete response strictly."""

    pydantic_object: Any = None
    """The class of the value; `None` for any JSON value."""

    value_schema: dict[str, Any] | None = None
    """The JSON schema of a value that is no instance of a class; `None` for any JSON value."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Return the value; with `partial`, as much of it as there is, or `None`."""
        if partial:
            return _partial_instance(self.pydantic_object, self._partial_value(result))
        try:
            return self._complete(*self._value(result))
        except LangChainStructuredOutputError as error:
            failure = getattr(_message(result), "response_metadata", {}).get(CORRECTION_ERROR)
            if failure is None:
                raise
            raise uncorrected(error, failure) from error.__cause__

    def _partial_value(self, result: list[Generation]) -> Any:
        return partial_json(result[0].text)

    def _value(self, result: list[Generation]) -> tuple[Any, str]:
        """Return the JSON value of a response, and what the model wrote.

        Raises:
            LangChainStructuredOutputError: If the response is not JSON, or was cut off.
        """
        generation = result[0]
        try:
            text, reason = generation.text, _stop_reason(generation)
            return read_response(json.loads, text, reason, _reasoning(result)), text
        except LMStudioStructuredOutputError as error:
            raise LangChainStructuredOutputError(str(error), text=generation.text) from error

    def _complete(self, value: Any, text: str) -> Any:
        """Return the complete value, as an instance of the class if there is one.

        Raises:
            LangChainStructuredOutputError: If it does not fit the class or the schema.
        """
        problems = "" if self.value_schema is None else schema_problems(self.value_schema, value)
        if problems:
            raise _error(f"the response does not fit the schema: {shortened(problems)}", text)
        return _instance(self.pydantic_object, value, text)

    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Any]:  # noqa: A002 - core's name
        streamed = _StreamedValue(self)
        for chunk in input:
            yield from streamed.add(chunk)
        yield from streamed.finish()

    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[Any]:  # noqa: A002 - core's
        streamed = _StreamedValue(self)
        async for chunk in input:
            for value in streamed.add(chunk):
                yield value
        for value in streamed.finish():
            yield value


_NOTHING: Any = object()
"""No value, not even JSON's `null`."""


class _StreamedValue:
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
            value = _partial_instance(self._parser.pydantic_object, self._text.value())
            if value is not None:
                yield from self._yield_if_new(value)

    def finish(self) -> Iterator[Any]:
        """Yield the complete value, unless the last partial one is the same or there was no chunk.

        Raises:
            LangChainStructuredOutputError: If the response does not fit.
        """
        if self._chunks:
            yield from self._yield_if_new(self._parser.parse_result([self._generation()]))

    def confidence(self) -> dict[str, FieldConfidence] | None:
        """Return the confidence of the fields, once all chunks are added; `None` if it is not known."""
        message = _message([self._generation()]) if self._chunks else None
        calls: list[ToolCall] = getattr(message, "tool_calls", [])
        if message is None or (self._tool or "") != (calls[0]["name"] if calls else ""):
            return None  # it is that of something else
        confidence: dict[str, Any] | None = message.response_metadata.get("confidence")
        return None if confidence is None else {path: FieldConfidence(**each) for path, each in confidence.items()}

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

    def _partial_value(self, result: list[Generation]) -> Any:
        return next((call["args"] for call in _calls(result) if call["name"] == self.tool), None)

    def _value(self, result: list[Generation]) -> tuple[Any, str]:
        arguments = self._partial_value(result)
        if arguments is None:
            raise _no_call(self.tool, _calls(result), result)
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


def _message(result: list[Generation]) -> BaseMessage | None:
    generation = result[0]
    return generation.message if isinstance(generation, ChatGeneration) else None


def _calls(result: list[Generation]) -> list[ToolCall]:
    return getattr(_message(result), "tool_calls", [])


def _reasoning(result: list[Generation]) -> str:
    reasoning = getattr(_message(result), "additional_kwargs", {}).get("reasoning_content")
    return reasoning if isinstance(reasoning, str) else ""


def _no_call(tool: str, calls: Sequence[ToolCall], result: list[Generation]) -> LangChainStructuredOutputError:
    """Return the error about a response without a complete call of the tool."""
    if calls:
        called = ", ".join(repr(call["name"]) for call in calls)
        problem = f"the model called {called} instead of {tool!r}; use a model that was trained for tool use"
        return _error(problem, json.dumps(calls[0]["args"]))
    invalid: Any = getattr(_message(result), "invalid_tool_calls", None)
    stop_reason, text = _stop_reason(result[0]), (invalid[0]["args"] or "") if invalid else result[0].text
    remedy = REMEDIES.get(stop_reason, "use a model that was trained for tool use, or method='json_schema'")
    problem = f"the response has no complete tool call (stop reason {stop_reason}); {remedy}"
    reasoning = _reasoning(result)
    if reasoning and not text.strip():
        problem = f"{problem}; the model only reasoned{EXCERPT}{beginning(reasoning)}"
        return LangChainStructuredOutputError(problem, text=text)
    return _error(problem, text)


def _error(problem: str, text: str) -> LangChainStructuredOutputError:
    return LangChainStructuredOutputError(f"{problem}{EXCERPT}{beginning(text)}", text=text)


def _partial_instance(kind: Any, value: Any) -> Any:
    """Return the instance of a partial value; `None` if it does not validate yet."""
    if value is None:
        return None
    try:
        return _validate(kind, value)
    except Exception:  # noqa: BLE001 - a user's validator may raise anything over a partial value
        return None


def _instance(kind: Any, value: Any, text: str) -> Any:
    """Return the instance of a value; without a class, the value.

    Raises:
        LangChainStructuredOutputError: If it does not validate.
    """
    try:
        return _validate(kind, value)
    except Exception as error:  # noqa: BLE001 - a user's validator may raise anything
        problem = without_secrets(error)
    reason = problem if isinstance(problem, ValueError) else repr(problem)
    raise _error(f"the response does not fit {kind.__name__}: {shortened(str(reason))}", text) from problem


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
        required = schema.__required_keys__ & set(sent_schema.get("required", ()))  # an annotation may have a default
        hints = get_type_hints(schema, include_extras=True)
        fields: dict[str, Any] = {name: (hint, ... if name in required else None) for name, hint in hints.items()}
        value_schema: dict[str, Any] = create_model("Value", **fields).model_json_schema()
    except Exception:  # noqa: BLE001 - whatever the schema's annotations lead to
        return None
    return value_schema


def with_parser(
    model: Runnable[Any, Any],
    parser: StrictParser,
    *,
    include_raw: bool,
    include_confidence: bool = False,
    max_attempts: int = 1,
    other_tools: frozenset[str] = frozenset(),
) -> Runnable[Any, Any]:
    """Chain a model and a parser; with `include_raw`, the messages and errors of the parser are part of the result.

    So is, with `include_confidence`, the confidence of the fields.
    """
    if max_attempts > 1:
        model = _CorrectingModel(bound=model, parser=parser, max_attempts=max_attempts, other_tools=other_tools)
    if not include_raw:
        return model | parser

    def with_raw(chunks: Iterator[BaseMessage]) -> Iterator[dict[str, Any]]:
        streamed = _StreamedValue(parser)
        for chunk in chunks:
            yield from _parts(streamed, chunk)
        yield from _last_parts(streamed, include_confidence=include_confidence)

    async def awith_raw(chunks: AsyncIterator[BaseMessage]) -> AsyncIterator[dict[str, Any]]:
        streamed = _StreamedValue(parser)
        async for chunk in chunks:
            for part in _parts(streamed, chunk):
                yield part
        for part in _last_parts(streamed, include_confidence=include_confidence):
            yield part

    return model | RunnableGenerator(with_raw, awith_raw)


class _ResultPart(AddableDict):
    """A part of a result with `raw`, `parsed` and `parsing_error`, in core's form.

    A sum has the last value in `parsed`: core's own would fail over the partial ones.
    """

    def __add__(self, other: AddableDict) -> AddableDict:
        total = _ResultPart({**self, **other})
        if "raw" in self and "raw" in other:
            total["raw"] = self["raw"] + other["raw"]
        return total


def _parts(streamed: _StreamedValue, chunk: BaseMessage) -> Iterator[_ResultPart]:
    yield _ResultPart(raw=chunk)
    for value in streamed.add(chunk):
        yield _ResultPart(parsed=value)


def _last_parts(streamed: _StreamedValue, *, include_confidence: bool) -> Iterator[_ResultPart]:
    error = None
    try:
        for value in streamed.finish():
            yield _ResultPart(parsed=value)
    except OutputParserException as raised:
        error = raised
        yield _ResultPart(parsed=None)
    yield _ResultPart(parsing_error=error)
    if include_confidence:
        yield _ResultPart(confidence=streamed.confidence())


# Attempts -------------------------------------------------------------------------------------------------------------


class _CorrectingModel(RunnableBindingBase[Any, Any]):
    """A model that is asked to correct a response that the parser rejects; a stream is the model's own.

    Like the model, it returns a message; the parser that follows it in the chain parses that once more.
    """

    parser: StrictParser
    max_attempts: int
    other_tools: frozenset[str]
    """The names of the tools that the model may call before it responds."""

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """`False`: langchain-core knows no such class."""
        return False

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002 - core's
        """Return the last response; an error of the model if there is none."""
        attempts = _Attempts(self, [input])
        while pending := attempts.pending:
            with attempts.adding_errors():
                attempts.add([super().invoke(pending[0], config, **kwargs)])
        return attempts.results()[0]

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002 - core's
        """Return the last response; see `invoke`."""
        attempts = _Attempts(self, [input])
        while pending := attempts.pending:
            with attempts.adding_errors():
                attempts.add([await super().ainvoke(pending[0], config, **kwargs)])
        return attempts.results()[0]

    @with_short_traceback
    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Return the last response to each input. All next attempts are a batch of the model."""
        attempts, configs = _Attempts(self, inputs), get_config_list(config, len(inputs))
        while pending := attempts.pending:
            batch, of_each = [*pending.values()], [configs[index] for index in pending]
            kwargs["return_exceptions"] = return_exceptions or attempts.is_correction
            attempts.add(super().batch(batch, of_each, **kwargs))
        return attempts.results(return_exceptions=return_exceptions)

    @with_short_traceback
    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Return the last response to each input; see `batch`."""
        attempts, configs = _Attempts(self, inputs), get_config_list(config, len(inputs))
        while pending := attempts.pending:
            batch, of_each = [*pending.values()], [configs[index] for index in pending]
            kwargs["return_exceptions"] = return_exceptions or attempts.is_correction
            attempts.add(await super().abatch(batch, of_each, **kwargs))
        return attempts.results(return_exceptions=return_exceptions)


class _Attempts:
    """The responses of a model to several inputs, and the inputs of the next attempts.

    Args:
        model: The model.
        inputs: The inputs.
    """

    def __init__(self, model: _CorrectingModel, inputs: Sequence[LanguageModelInput]) -> None:
        self._model = model
        self._responses: list[list[Any]] = [[] for _ in inputs]
        self._failures: dict[int, str] = {}
        self.pending: dict[int, LanguageModelInput] = dict(enumerate(inputs))
        """The next input of each conversation that is not finished, by its index."""

    @property
    def is_correction(self) -> bool:
        """Whether the next responses correct earlier ones."""
        return any(self._responses)

    @contextmanager
    def adding_errors(self) -> Generator[None]:
        """Add an error of the model, which the block raises, as the response to the only input."""
        try:
            yield
        except LMStudioError as error:
            self.add([error])

    def add(self, responses: Sequence[AIMessage | Exception]) -> None:
        """Add the responses to the pending inputs; errors of the model itself are not corrected.

        After a response that was rejected, such an error is only logged: the response is the result.
        """
        pending, self.pending = self.pending, {}
        parser = self._model.parser
        for (index, request), response in zip(pending.items(), responses, strict=True):
            if isinstance(response, LMStudioError) and self._responses[index]:
                logger.warning("the request for a correction failed: %s", response)
                self._failures[index] = str(response)
                continue
            self._responses[index].append(response)
            if isinstance(response, Exception) or len(self._responses[index]) == self._model.max_attempts:
                continue
            if any(call["name"] in self._model.other_tools for call in response.tool_calls):
                continue  # it is not the response yet
            try:
                parser.parse_result([ChatGeneration(message=response)])
            except LangChainStructuredOutputError as error:
                messages = convert_to_messages([request] if isinstance(request, str) else request)
                rejected = [AIMessage(error.text)] if error.text else []
                self.pending[index] = [*messages, *rejected, HumanMessage(correction(error))]

    def results(self, *, return_exceptions: bool = False) -> list[Any]:
        """Return the last response to each input, or the error of the model.

        Raises:
            Exception: The first error, unless they are returned.
        """
        results = [
            _with_all_usage(responses, self._failures.get(index)) for index, responses in enumerate(self._responses)
        ]
        for error in results:
            if isinstance(error, Exception) and not return_exceptions:
                raise error
        return results


def _with_all_usage(responses: Sequence[Any], failure: str | None) -> Any:
    """Return the last response, with the usage of all and their number, and with why there was no other one."""
    last = responses[-1]
    if isinstance(last, Exception) or (len(responses) == 1 and failure is None):
        return last
    update: dict[str, Any] = {
        "response_metadata": {**last.response_metadata, **({} if failure is None else {CORRECTION_ERROR: failure})}
    }
    if len(responses) > 1:
        metadata = [each.response_metadata for each in responses]
        token_usage = combined_output(metadata, None)["token_usage"]
        cached = [each["cached_tokens"] for each in metadata if "cached_tokens" in each]
        update["response_metadata"] |= {
            **({"token_usage": token_usage} if token_usage else {}),
            **({"cached_tokens": sum(cached)} if cached else {}),
            "attempts": len(responses),
        }
    if any(each.usage_metadata for each in responses):
        update["usage_metadata"] = reduce(add_usage, [each.usage_metadata for each in responses])
    return last.model_copy(update=update)  # a cache may hold the response itself
