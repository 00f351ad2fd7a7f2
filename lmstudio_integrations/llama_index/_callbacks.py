"""Core's callback decorators with types, the checks of arguments that run before them, and the chunks of a stream.

Core's events validate messages and prompts. What they reject would be a pydantic error about an event.
"""

import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from functools import partial, wraps
from typing import Any, Literal, TypeVar, cast

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import callbacks
from llama_index.core.prompts import BasePromptTemplate

from lmstudio_integrations._adapters.request import with_signature
from lmstudio_integrations._adapters.settings_generation import GenerationSettings
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.predictions.async_readers import AsyncBatches
from lmstudio_integrations.client.predictions.prediction import Prediction
from lmstudio_integrations.client.support.arguments import checked_string
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.llama_index._responses import ResponseBuilder, Step

ChunkT = TypeVar("ChunkT")
MakeChunk = Callable[[ResponseBuilder, Step], ChunkT]
Watch = AbstractContextManager[None, bool | None]


def chunks(
    prediction: Prediction, builder: ResponseBuilder, make: MakeChunk[ChunkT], watch: Watch
) -> Generator[ChunkT]:
    """Yield the chunks of a response. An error about its tool calls is raised after the last one.

    Args:
        prediction: The prediction.
        builder: Builds the response from its events.
        make: Makes a chunk of what is new.
        watch: Gets the errors of the prediction.
    """
    with watch:
        for batch in prediction.batches():
            for event in batch:
                step = builder.add(event)
                if step is not None:
                    yield make(builder, step)
        builder.check()


async def achunks(
    prediction: Prediction, builder: ResponseBuilder, make: MakeChunk[ChunkT], watch: Watch
) -> AsyncGenerator[ChunkT]:
    """Yield the chunks of a response; see `chunks`."""
    with closing(prediction), watch:  # not when the iterator is collected: a task may still hold that
        async for batch in AsyncBatches(prediction):
            for event in batch:
                step = builder.add(event)
                if step is not None:
                    yield make(builder, step)
        builder.check()


FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
ModelT = TypeVar("ModelT", bound=GenerationSettings)

_CHAT = ("chat", "achat", "stream_chat", "astream_chat")
_COMPLETION = ("complete", "acomplete", "stream_complete", "astream_complete")
_STRUCTURED = (
    *("structured_predict", "astructured_predict"),
    *("stream_structured_predict", "astream_structured_predict"),
)
_TOOLS = ("predict_and_call", "apredict_and_call")

CORE_ARGUMENTS = frozenset(
    {"messages", "prompt", "formatted", "user_msg", "chat_history", "verbose"}
    | {"allow_parallel_tool_calls", "error_on_no_tool_call"}
)
"""Arguments of these methods, besides tools, that are no settings. A text among them may look like a secret."""


def check_messages(messages: object) -> None:
    """Check a conversation.

    Raises:
        LMStudioValueError: If it is not a list of `ChatMessage`.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        remedy = "; write [ChatMessage(text)]" if isinstance(messages, str) else ""
        raise LMStudioValueError(f"messages must be a list of ChatMessage; got {messages!r}{remedy}")
    for index, message in enumerate(cast("Sequence[object]", messages)):
        if not isinstance(message, ChatMessage):
            remedy = "; write ChatMessage(**message)" if is_object(message) else ""
            raise LMStudioValueError(f"message {index} must be a ChatMessage; got {message!r}{remedy}")


def _check_template(prompt: object) -> None:
    if not isinstance(prompt, BasePromptTemplate):
        remedy = "; write PromptTemplate(text)" if isinstance(prompt, str) else ""
        raise LMStudioValueError(f"the prompt must be a PromptTemplate; got {prompt!r}{remedy}")


_INPUTS: dict[str, tuple[int, str, Callable[[object], object]]] = {
    **dict.fromkeys(_CHAT, (0, "messages", check_messages)),
    **dict.fromkeys(_COMPLETION, (0, "prompt", partial(checked_string, name="the prompt"))),
    **dict.fromkeys(_STRUCTURED, (1, "prompt", _check_template)),
    **dict.fromkeys(_TOOLS, (2, "chat_history", lambda history: check_messages([] if history is None else history))),
}
"""Position and name of the argument that a method sends to the model, and its check."""


def reject_secrets_before_tracing(model: type[ModelT]) -> type[ModelT]:
    """Decorate a class: invalid input, and secrets among the settings of a call, are rejected before core's events."""
    for name in _INPUTS:
        setattr(model, name, _with_checks(getattr(model, name), name))
    return model


def _with_checks(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return the method with checks of its arguments. `wraps` keeps core's mark that it already has a span."""
    position, argument, check = _INPUTS[name]

    @wraps(method)
    def call(self: GenerationSettings, *args: Any, **kwargs: Any) -> Any:
        call_settings: Mapping[str, Any] | None = kwargs
        if name in _STRUCTURED:
            call_settings = kwargs.get("llm_kwargs") or next(iter(args[2:]), None)
        if call_settings:
            self._reject_secrets(call_settings)  # pyright: ignore[reportPrivateUsage]
        check(args[position] if len(args) > position else kwargs.get(argument))
        # Bound: the signature of a bound method is read from `__signature__`; else, core's span computes one.
        return method.__get__(self)(*args, **kwargs)

    @wraps(method)
    async def acall(self: GenerationSettings, *args: Any, **kwargs: Any) -> Any:
        return await call(self, *args, **kwargs)

    return acall if inspect.iscoroutinefunction(method) else call


def with_events(kind: Literal["chat", "completion"]) -> Callable[[FunctionT], FunctionT]:
    """Decorate a method: the events of each call are emitted, and of each chunk of a streamed one."""
    decorate: Callable[[FunctionT], FunctionT] = getattr(callbacks, f"llm_{kind}_callback")()
    return lambda function: with_signature(decorate(function))
