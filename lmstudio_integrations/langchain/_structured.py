"""`with_structured_output`: requests responses that fit a schema, parses them, and has them corrected."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import reduce
from typing import Any, cast

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    convert_to_messages,
)
from langchain_core.messages.ai import add_usage
from langchain_core.outputs import ChatGeneration
from langchain_core.runnables import AddableDict, Runnable, RunnableConfig, RunnableGenerator
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.utils.function_calling import convert_to_json_schema

from lmstudio_integrations._adapters.response_attempts import Attempts
from lmstudio_integrations._support.suggestions import reason_of
from lmstudio_integrations._support.text import shown
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.langchain._batches import batch
from lmstudio_integrations.langchain._parsers import CORRECTION_ERROR, StreamedValue, StrictParser
from lmstudio_integrations.langchain._responses import combined_output
from lmstudio_integrations.langchain._tools import (
    json_schema,
    openai_tool,
    reject_type_of_field,
    response_schema,
)
from lmstudio_integrations.types.structured import (
    check_limits,
    reject_text,
    response_settings,
)

logger: logging.Logger = logging.getLogger(__name__)

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
            if is_object(schema):
                check_limits(json_schema(schema))  # as the dict of a tool, it may lack the schema of the arguments
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
            f"{shown(schema)} is not a valid schema for structured output by {method}: {reason_of(error)}; pass a "
            "pydantic class, a TypedDict, an OpenAI dict or a JSON schema; function_calling needs an object schema "
            "with a title"
        ) from error
    return {"response_format": response_format}


def tracing_kwargs(schema: Any, method: str, *, strict: bool | None) -> dict[str, Any]:
    """Return what langchain-core traces of the requested format; nothing if its conversion would fail in each call."""
    try:
        convert_to_json_schema(schema)
    except Exception:  # noqa: BLE001 - whatever the schema's annotations lead to
        return {}
    return {"ls_structured_output_format": {"kwargs": {"method": method, "strict": strict}, "schema": schema}}


def with_parser(
    model: Runnable[Any, Any],
    parser: StrictParser,
    *,
    include_raw: bool,
    include_confidence: bool = False,
    max_attempts: int = 1,
    other_tools: frozenset[str] = frozenset(),
    limited: Callable[[Sequence[Any], Any], Any] = lambda _, config: config,
) -> Runnable[Any, Any]:
    """Chain a model and a parser; with `include_raw`, the messages and errors of the parser are part of the result.

    So is, with `include_confidence`, the confidence of the fields.
    """
    if max_attempts > 1:
        model = _CorrectingModel(
            bound=model, parser=parser, max_attempts=max_attempts, other_tools=other_tools, limited=limited
        )
    if not include_raw:
        return model | parser

    def with_raw(chunks: Iterator[BaseMessage]) -> Iterator[dict[str, Any]]:
        streamed = StreamedValue(parser)
        for chunk in chunks:
            yield from _parts(streamed, chunk)
        yield from _last_parts(streamed, include_confidence=include_confidence)

    async def awith_raw(chunks: AsyncIterator[BaseMessage]) -> AsyncIterator[dict[str, Any]]:
        streamed = StreamedValue(parser)
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


def _parts(streamed: StreamedValue, chunk: BaseMessage) -> Iterator[_ResultPart]:
    yield _ResultPart(raw=chunk)
    for value in streamed.add(chunk):
        yield _ResultPart(parsed=value)


def _last_parts(streamed: StreamedValue, *, include_confidence: bool) -> Iterator[_ResultPart]:
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

    limited: Callable[[Sequence[Any], Any], Any]
    """Returns the config of a batch with the number of predictions that the model runs at once."""

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """`False`: langchain-core knows no such class."""
        return False

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002 - core's
        """Return the last response; an error of the model if there is none."""
        attempts = Attempts(input, self.max_attempts, self._read, _with_correction)
        while attempts.request is not None:
            with attempts.correcting():
                attempts.add(super().invoke(attempts.request, config, **kwargs))
        return _last_response(attempts)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002 - core's
        """Return the last response; see `invoke`."""
        attempts = Attempts(input, self.max_attempts, self._read, _with_correction)
        while attempts.request is not None:
            with attempts.correcting():
                attempts.add(await super().ainvoke(attempts.request, config, **kwargs))
        return _last_response(attempts)

    def _read(self, response: AIMessage) -> None:
        """Check a response, unless it calls a tool, after which there is another one."""
        if not any(call["name"] in self.other_tools for call in response.tool_calls):
            self.parser.parse_result([ChatGeneration(message=response)])

    # The base class would leave a batch to the model, which corrects nothing.

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """Return the last response to each input."""
        return batch(self, inputs, self.limited(inputs, config), **kwargs)

    async def abatch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """Return the last response to each input."""
        responses: list[Any] = await cast("Any", Runnable).abatch(self, inputs, self.limited(inputs, config), **kwargs)
        return responses


def _with_correction(request: LanguageModelInput, rejected: str, text: str) -> LanguageModelInput:
    messages = convert_to_messages([request] if isinstance(request, str) else cast("Any", request))
    return [*messages, *([AIMessage(rejected)] if rejected else []), HumanMessage(text)]


def _last_response(attempts: Attempts[LanguageModelInput, AIMessage, None]) -> AIMessage:
    """Return the last response, with the usage of all and their number, and with why there was no other one."""
    responses, update = attempts.responses, dict[str, Any]()
    last = responses[-1]
    metadata = dict(last.response_metadata)
    if attempts.failure is not None:
        logger.warning("the request for a correction failed: %s", attempts.failure)
        metadata[CORRECTION_ERROR] = str(attempts.failure)
    elif len(responses) == 1:
        return last
    if len(responses) > 1:
        each_metadata = [each.response_metadata for each in responses]
        token_usage = combined_output(each_metadata, None)["token_usage"]
        cached = [each["cached_tokens"] for each in each_metadata if "cached_tokens" in each]
        metadata |= {"token_usage": token_usage} if token_usage else {}
        metadata |= {"cached_tokens": sum(cached)} if cached else {}
        metadata["attempts"] = len(responses)
    if any(each.usage_metadata for each in responses):
        update["usage_metadata"] = reduce(add_usage, [each.usage_metadata for each in responses])
    return last.model_copy(update={**update, "response_metadata": metadata})  # a cache may hold the response itself
