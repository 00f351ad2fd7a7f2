"""Structured output by grammar, instead of core's forced tool call. Knows only what every LlamaIndex model has.

Core dispatches the events of `structured_predict` in the methods that are overridden here, so this module dispatches
them, too. The spans come from the base class. The streams are core's, except for the call itself.
"""

from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any, TypeVar, cast

import llama_index.core.instrumentation as instrument
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole, ThinkingBlock
from llama_index.core.instrumentation.events.llm import LLMStructuredPredictEndEvent, LLMStructuredPredictStartEvent
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.program.utils import FlexibleModel, create_flexible_model
from llama_index.core.prompts import BasePromptTemplate, ChatPromptTemplate, PromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel

from lmstudio_integrations._adapters.response_attempts import Attempts
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.llama_index._settings import without_span
from lmstudio_integrations.types._json_schemas import class_schema
from lmstudio_integrations.types.structured import (
    PartialJson,
    check_max_attempts,
    read_response,
    uncorrected,
)

ModelT = TypeVar("ModelT", bound=BaseModel)

_MAX_ATTEMPTS = "max_attempts"

_PROGRAM_ARGUMENTS = (_MAX_ATTEMPTS, "tool_required", "tool_choice", "allow_parallel_tool_calls")
"""Arguments of our program and of core's programs, which a chat does not get. Core's have no effect on a grammar."""

_dispatcher = cast("Any", instrument).get_dispatcher(__name__)


class Structured(FunctionCallingLLM):
    """Responses that are instances of pydantic classes.

    With the default `pydantic_program_mode`, the server's grammar allows nothing but the schema of the class. The other
    modes are core's own programs.
    """

    def structured_predict(
        self,
        output_cls: type[ModelT],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> ModelT:
        """Return an instance of a pydantic class.

        Args:
            output_cls: The class.
            prompt: The prompt.
            llm_kwargs: Settings of this call. With `max_attempts` of more than 1, the model is asked to correct a
                response that is no such instance, in up to so many predictions in all. Streams ignore it.
            prompt_args: The values of the prompt's variables.

        Raises:
            LMStudioStructuredOutputError: If the last response is no such instance, for example because it was cut off.
            LMStudioValueError: If `max_attempts` is not an integer of at least 1, or more than 1 without a grammar, or
                `include_confidence` is set.
        """
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            core_settings = self._core_settings(output_cls, llm_kwargs)
            result: ModelT = without_span(super().structured_predict)(output_cls, prompt, core_settings, **prompt_args)
            return result
        arguments, attempts = self._attempts(output_cls, prompt, llm_kwargs, prompt_args)
        while attempts.request is not None:
            with attempts.correcting():
                attempts.add(self.chat(attempts.request, **arguments))
        return _last_instance(attempts)

    async def astructured_predict(
        self,
        output_cls: type[ModelT],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> ModelT:
        """Return an instance of a pydantic class; see `structured_predict`."""
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            core_settings = self._core_settings(output_cls, llm_kwargs)
            is_by_call = self.pydantic_program_mode is PydanticProgramMode.FUNCTION
            if is_by_call and self.system_prompt:  # core's awaited program for tool calls drops it
                messages = self._messages_of(prompt, prompt_args)
                prompt, prompt_args = cast("PromptTemplate", ChatPromptTemplate(message_templates=messages)), {}
            result: ModelT = await without_span(super().astructured_predict)(
                output_cls, prompt, core_settings, **prompt_args
            )
            return result
        arguments, attempts = self._attempts(output_cls, prompt, llm_kwargs, prompt_args)
        while attempts.request is not None:
            with attempts.correcting():
                attempts.add(await self.achat(attempts.request, **arguments))
        return _last_instance(attempts)

    def _structured_stream_call(
        self,
        output_cls: type[ModelT],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            return super()._structured_stream_call(
                output_cls, prompt, self._core_settings(output_cls, llm_kwargs), **prompt_args
            )
        _max_attempts(output_cls, llm_kwargs)
        stream = self.stream_chat(self._messages_of(prompt, prompt_args), **_call_arguments(output_cls, llm_kwargs))
        return instances(output_cls, stream)

    async def _structured_astream_call(
        self,
        output_cls: type[ModelT],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        if self.pydantic_program_mode is not PydanticProgramMode.DEFAULT:
            core_settings = self._core_settings(output_cls, llm_kwargs)
            return await super()._structured_astream_call(output_cls, prompt, core_settings, **prompt_args)
        _max_attempts(output_cls, llm_kwargs)
        messages = self._messages_of(prompt, prompt_args)
        stream = await self.astream_chat(messages, **_call_arguments(output_cls, llm_kwargs))
        return ainstances(output_cls, stream)

    def _core_settings(self, output_cls: type[BaseModel], llm_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the settings for one of core's programs, which make one attempt.

        Raises:
            LMStudioValueError: If there may be more attempts, or the confidence is requested.
        """
        max_attempts = _max_attempts(output_cls, llm_kwargs)
        if max_attempts > 1:
            mode, default = self.pydantic_program_mode, PydanticProgramMode.DEFAULT
            used, remedy = f"pydantic_program_mode={mode.name}", f"set pydantic_program_mode={default}"
            raise LMStudioValueError(
                f"max_attempts={max_attempts} needs a grammar, which {used} does not use; {remedy}"
            )
        return {name: value for name, value in (llm_kwargs or {}).items() if name != _MAX_ATTEMPTS}

    def _attempts(
        self,
        output_cls: type[ModelT],
        prompt: PromptTemplate,
        llm_kwargs: Mapping[str, Any] | None,
        prompt_args: dict[str, Any],
    ) -> tuple[dict[str, Any], Attempts[list[ChatMessage], ChatResponse, ModelT]]:
        """Begin a prediction, and dispatch that it has begun; return the arguments of `chat`, and the attempts."""
        max_attempts = _max_attempts(output_cls, llm_kwargs)
        _dispatcher.event(
            LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=prompt_args)
        )
        attempts = Attempts(
            self._messages_of(prompt, prompt_args), max_attempts, partial(_instance, output_cls), _with_correction
        )
        return _call_arguments(output_cls, llm_kwargs), attempts

    def _messages_of(self, prompt: BasePromptTemplate, prompt_args: Mapping[str, Any]) -> list[ChatMessage]:
        """Return the messages of a prompt, the system prompt first."""
        return self._extend_messages(prompt.format_messages(llm=self, **prompt_args))


def _with_correction(messages: list[ChatMessage], rejected: str, text: str) -> list[ChatMessage]:
    answer = [ChatMessage(rejected, role=MessageRole.ASSISTANT)] if rejected else []
    return [*messages, *answer, ChatMessage(text)]


def _max_attempts(output_cls: type[BaseModel], llm_kwargs: Mapping[str, Any] | None) -> int:
    """Check the settings of our own; return how many predictions there are at most.

    Raises:
        LMStudioValueError: If that is invalid, or if the confidence is requested, for which an instance has no place.
    """
    _check_class(output_cls)
    settings = llm_kwargs or {}
    if settings.get("include_confidence"):
        name = output_cls.__name__
        raise LMStudioValueError(
            f"include_confidence=True has no effect here: only an instance of {name} is returned; use "
            f"chat(…, response_format={name}, include_confidence=True), which has raw['confidence']"
        )
    max_attempts: int = settings.get(_MAX_ATTEMPTS, 1)
    check_max_attempts(max_attempts)
    return max_attempts


def _check_class(output_cls: object) -> None:
    if not (isinstance(output_cls, type) and issubclass(output_cls, BaseModel)):
        raise LMStudioValueError(f"output_cls must be a pydantic class; got {output_cls!r}")


def _call_arguments(output_cls: type[BaseModel], llm_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the arguments of `chat`, with a format that is plain data, which events may show."""
    response_format = {
        "type": "json_schema",
        "json_schema": {"name": output_cls.__name__, "schema": class_schema(output_cls)},
    }
    settings = {name: value for name, value in (llm_kwargs or {}).items() if name not in _PROGRAM_ARGUMENTS}
    return {**settings, "response_format": response_format}


def _last_instance(attempts: Attempts[list[ChatMessage], ChatResponse, ModelT]) -> ModelT:
    """Return the instance, and dispatch it.

    Raises:
        LMStudioStructuredOutputError: If the last response is none.
    """
    if attempts.rejection is not None:
        if attempts.failure is not None:
            raise uncorrected(attempts.rejection, attempts.failure) from attempts.failure
        raise attempts.rejection
    assert attempts.value is not None, "what is not rejected is an instance"
    _dispatcher.event(LLMStructuredPredictEndEvent(output=attempts.value))
    return attempts.value


def _instance(output_cls: type[ModelT], response: ChatResponse) -> ModelT:
    thoughts = [block.content or "" for block in response.message.blocks if isinstance(block, ThinkingBlock)]
    stats = response.raw.get("stats") if is_object(response.raw) else None  # only the last chunk of a stream has any
    reason = str(stats.get("stop_reason")) if is_object(stats) else "unknown"
    return read_response(output_cls.model_validate_json, response.message.content or "", reason, "".join(thoughts))


# Streams --------------------------------------------------------------------------------------------------------------


def instances(
    output_cls: type[ModelT], stream: Generator[ChatResponse, None, None]
) -> Generator[ModelT | FlexibleModel, None, None]:
    """Yield the partial instance as it grows, then the instance.

    Raises:
        LMStudioStructuredOutputError: If the response is no instance of the class.
    """
    text, chunk = PartialJson(), ChatResponse(message=ChatMessage())
    for chunk in stream:
        yield from partial_instances(output_cls, text, chunk)
    yield _instance(output_cls, chunk)


async def ainstances(
    output_cls: type[ModelT], stream: AsyncGenerator[ChatResponse, None]
) -> AsyncGenerator[ModelT | FlexibleModel, None]:
    """Yield the partial instance as it grows, then the instance."""
    text, chunk = PartialJson(), ChatResponse(message=ChatMessage())
    async for chunk in stream:
        for instance in partial_instances(output_cls, text, chunk):
            yield instance
    yield _instance(output_cls, chunk)


_flexible: Callable[[type[BaseModel]], type[FlexibleModel]] = lru_cache(maxsize=256)(create_flexible_model)
"""Returns the class of partial instances: the same fields, all optional, of any type."""


def partial_instances(
    output_cls: type[ModelT], text: PartialJson, chunk: ChatResponse
) -> Iterator[ModelT | FlexibleModel]:
    """Add a chunk to the text; yield the instance so far, if the text was parsed again and is an object."""
    text.add(chunk.delta or "")
    value = text.value()
    if is_object(value):
        try:
            instance: ModelT | FlexibleModel = output_cls.model_validate(value)
        except Exception:  # noqa: BLE001 - a user's validator may raise anything if fields are missing
            instance = _flexible(output_cls).model_validate(value)
        yield instance
