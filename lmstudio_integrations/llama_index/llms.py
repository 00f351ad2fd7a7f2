"""`LMStudio`: a LlamaIndex language model over LM Studio's native protocol."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, overload

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
    ToolCallBlock,
)
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW, DEFAULT_NUM_OUTPUTS
from llama_index.core.llms.llm import ToolSelection, default_completion_to_prompt
from llama_index.core.tools import BaseTool
from pydantic import ConfigDict
from pydantic_core import from_json

from lmstudio_integrations._adapters import images
from lmstudio_integrations._adapters.predicting import Call, Predicting, alternatives
from lmstudio_integrations._adapters.tool_settings import is_required, original_names, tool_settings
from lmstudio_integrations._typeguards import is_object
from lmstudio_integrations.errors import LMStudioConfigWarning, LMStudioValueError
from lmstudio_integrations.llama_index import _messages, _tools, _windows
from lmstudio_integrations.llama_index._callbacks import (
    CORE_ARGUMENTS,
    checked_before_spans,
    observed_chat,
    observed_completion,
)
from lmstudio_integrations.llama_index._chunks import Answer, Options
from lmstudio_integrations.llama_index._errors import LlamaIndexToolCallError
from lmstudio_integrations.llama_index._names import with_timeouts
from lmstudio_integrations.llama_index._pickling import PickleMixin
from lmstudio_integrations.llama_index._streams import AsyncChunks, chunks
from lmstudio_integrations.llama_index._structured import Structured
from lmstudio_integrations.types._numbers import Count, LogProbs, OrOff
from lmstudio_integrations.types.chat import WireHistory, WirePrompt
from lmstudio_integrations.types.config import LlmLoadModelConfig
from lmstudio_integrations.types.pending import PendingHistory
from lmstudio_integrations.types.results import PredictionEvent

if TYPE_CHECKING:
    from lmstudio_integrations.client.asynchronous import AsyncLLM, AsyncPredictionStream
    from lmstudio_integrations.client.sync import LLM, PredictionStream
    from lmstudio_integrations.types.models import ModelInstanceInfo

_EXTRAS = ("tools", "tool_choice", "parallel_tool_calls", "response_format")
"""Call arguments that are no fields."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A prediction that is ready to be asked for: a conversation, or a text to be continued.

    Attributes:
        call: The settings.
        options: What is wanted of the answer.
        history: The conversation; `None` if a text is to be continued.
        prompt: The text.
    """

    call: Call
    options: Options
    history: WireHistory | PendingHistory | None = None
    prompt: str = ""


@checked_before_spans
class LMStudio(PickleMixin, Predicting, Structured):
    """A language model in LM Studio.

    The object is configuration only: making one costs no connection, and it can be copied, pickled, shared by threads
    and by event loops. Every setting may also be given to a call.

    LlamaIndex copies the context window when an engine, an agent or a memory is built; call `load()` before that, or
    say `context_length` or `context_window`.

    Example:
        ```python
        from lmstudio_integrations.llama_index import LMStudio

        llm = LMStudio(model="qwen2.5-7b-instruct", temperature=0.2, ttl=600).load()
        for chunk in llm.stream_complete("Why is the sky blue?"):
            print(chunk.delta, end="")
        ```
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", defer_build=True)

    _no_settings: ClassVar[frozenset[str]] = CORE_ARGUMENTS.union(_EXTRAS)
    _not_in_call: ClassVar[frozenset[str]] = frozenset(
        {"callback_manager", "rate_limiter", "system_prompt", "messages_to_prompt", "completion_to_prompt"}
        | {"output_parser", "pydantic_program_mode", "query_wrapper_prompt"}
        | {"context_window", "is_function_calling_model", "unload_on_close"}
    )

    send_reasoning: bool = False
    """Whether earlier thoughts are sent back to the model, in `<think>` tags."""

    logprobs: bool | None = None
    """Whether responses have the tokens' log-probabilities."""

    top_logprobs: OrOff[LogProbs] | None = None
    """For how many alternatives of each token, 0 to 100; implies `logprobs`, unless it is `False`."""

    allow_image_download: bool = False
    """Whether images with an http or https URL are downloaded, by this process, and uploaded. At most 20 MB and five
    redirects each, from public addresses only; within `timeout` if that is set, else 30 seconds each."""

    allow_private_image_hosts: bool = False
    """Whether they are downloaded from addresses that are not public, too: this machine, the local network. Only for
    messages that you trust."""

    context_window: Count | None = None
    """The window that LlamaIndex is to reckon with, in tokens. Without it: that of the loaded model once it is known,
    else `context_length`, else LlamaIndex's default of 3,900."""

    is_function_calling_model: bool = True
    """Whether LlamaIndex may offer tools. `False` makes it choose ReAct agents and programs in plain text."""

    @classmethod
    def _under_own_names(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Accept the names that other LlamaIndex integrations have for our fields."""
        given = dict(values)
        more: Any = given.pop("additional_kwargs", None) or {}
        if not is_object(more):
            raise LMStudioValueError(f"additional_kwargs must be a dict of settings, got {more!r}")
        return super()._under_own_names(with_timeouts({**more, **given}))

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which `to_dict` and traces know this class."""
        return "LMStudio"

    # What LlamaIndex wants to know ----------------------------------------------------------------------------------

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex goes by. Never asks the server; see `load`."""
        return LLMMetadata(**self._described(_windows.hand_out(self._window_key(), self._window())))

    def to_payload(self) -> dict[str, Any]:
        """Return what events and traces show of this object: no secrets."""
        known = self._described(self._window())
        return {"class_name": self.class_name(), **known, "model": self.model, "temperature": self.temperature}

    def _described(self, window: int) -> dict[str, Any]:
        """Return the fields of the metadata."""
        return {
            "context_window": window,
            # What is left of the window is LlamaIndex's room for the prompt; without any, its engines refuse to work.
            "num_output": min(self.max_tokens or DEFAULT_NUM_OUTPUTS, window // 2),
            "is_chat_model": True,
            "is_function_calling_model": self.is_function_calling_model,
            "model_name": self.model or "unknown",
            "system_role": MessageRole.SYSTEM,
        }

    def _window(self) -> int:
        config = self.load_config
        asked = self.context_length or (config.context_length if isinstance(config, LlmLoadModelConfig) else None)
        return self.context_window or _windows.learnt(self._window_key()) or asked or DEFAULT_CONTEXT_WINDOW

    def _window_key(self) -> _windows.Key:
        return _windows.key_of(self.host, self.model)

    def load(self) -> Self:
        """Get the model, loading it if need be, and learn its context window; return this object.

        Raises:
            LMStudioServerError: If the server cannot.
        """
        call = self._own()
        return self._learnt(call.model().get_info(load=True))

    async def aload(self) -> Self:
        """Get the model, loading it if need be, and learn its context window; return this object.

        Raises:
            LMStudioServerError: If the server cannot.
        """
        call = self._own()
        return self._learnt(await call.async_model().get_info(load=True))

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text, as the model has them.

        Raises:
            LMStudioServerError: If the server cannot answer.
        """
        return self._own().model().tokenize(text)

    async def atokenize(self, text: str) -> list[int]:
        """Return the tokens of a text, as the model has them.

        Raises:
            LMStudioServerError: If the server cannot answer.
        """
        return await self._own().async_model().tokenize(text)

    def _own(self) -> Call:
        """Return a call with nothing but the object's own settings."""
        return self._settled(self.__dict__, {})

    def _learnt(self, info: "ModelInstanceInfo") -> Self:
        _windows.learn(self._window_key(), info.context_length)
        return self

    def _learn(self, call: Call, answer: Answer) -> None:
        assert answer.end is not None, "a prediction ends with its statistics, or with an exception"
        info = answer.end.model_info
        window = info.get("contextLength")
        if isinstance(window, int):
            _windows.learn(_windows.key_of(call.values["host"], call.values["model"]), window)
        if call.config.raw_tools and info.get("trainedForToolUse") is False:
            self._tell_untrained(call, info)

    def _tell_untrained(self, call: Call, info: Mapping[str, Any]) -> None:
        """Warn once that a model was not taught what it is asked for."""
        facts = call.runtime.learn(call.server, call.wanted, info)
        if not facts.warned:
            facts.warned = True
            warnings.warn(
                f"{info.get('modelKey')} was not trained for tool use; its calls may be wrong or missing",
                LMStudioConfigWarning,
                stacklevel=2,
            )

    # Chat -----------------------------------------------------------------------------------------------------------

    @observed_chat
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Ask for the next message of a conversation.

        Args:
            messages: The conversation.
            kwargs: Settings of this call by the names of the fields, and `tools`, `tool_choice`,
                `parallel_tool_calls`, `response_format`.

        Raises:
            LMStudioValueError: If a setting is unknown, or a message cannot be sent.
            LMStudioServerError: If the server cannot answer.
            LlamaIndexToolCallError: If a tool call failed, or was required and did not come.
        """
        return self._answer(self._chat_job(messages, kwargs)).chat_response()

    @observed_chat
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Ask for the next message of a conversation; see `chat`."""
        return (await self._aanswer(self._chat_job(messages, kwargs))).chat_response()

    @observed_chat
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Ask for the next message of a conversation, piece by piece; see `chat`. Leaving it stops the server."""
        job = self._chat_job(messages, kwargs)
        return chunks(
            self._open(job, job.call.model()), Answer(job.options), Answer.chat_chunk, partial(self._learn, job.call)
        )

    @observed_chat
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Ask for the next message of a conversation, piece by piece; see `chat`. Leaving it stops the server."""
        job = self._chat_job(messages, kwargs)
        return AsyncChunks(
            self._open(job, job.call.async_model()),
            Answer(job.options),
            Answer.chat_chunk,
            partial(self._learn, job.call),
        )

    # Completion -----------------------------------------------------------------------------------------------------

    @observed_completion
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:  # noqa: FBT001, FBT002 - core's
        """Answer a prompt.

        Args:
            prompt: The prompt.
            formatted: Whether it is a text to be continued as it stands. Otherwise it is one turn of a user, in the
                model's chat template, unless `completion_to_prompt` formats it.
            kwargs: See `chat`.

        Raises:
            LMStudioValueError: If a setting is unknown, or the prompt is no string.
            LMStudioServerError: If the server cannot answer.
        """
        return self._answer(self._completion_job(prompt, formatted, kwargs)).completion_response()

    @observed_completion
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:  # noqa: FBT001, FBT002 - core's
        """Answer a prompt; see `complete`."""
        return (await self._aanswer(self._completion_job(prompt, formatted, kwargs))).completion_response()

    @observed_completion
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:  # noqa: FBT001, FBT002 - core's
        """Answer a prompt, piece by piece; see `complete`. Leaving it stops the server."""
        job = self._completion_job(prompt, formatted, kwargs)
        return chunks(
            self._open(job, job.call.model()),
            Answer(job.options),
            Answer.completion_chunk,
            partial(self._learn, job.call),
        )

    @observed_completion
    async def astream_complete(
        self,
        prompt: str,
        formatted: bool = False,  # noqa: FBT001, FBT002 - core's
        **kwargs: Any,
    ) -> CompletionResponseAsyncGen:
        """Answer a prompt, piece by piece; see `complete`. Leaving it stops the server."""
        job = self._completion_job(prompt, formatted, kwargs)
        return AsyncChunks(
            self._open(job, job.call.async_model()),
            Answer(job.options),
            Answer.completion_chunk,
            partial(self._learn, job.call),
        )

    # How a call is made: none of this is decorated, so that every call is told once ---------------------------------

    def _chat_job(self, messages: Sequence[ChatMessage], given: Mapping[str, Any]) -> _Job:
        call, options = self._settle(given)
        drafts = _messages.draft(messages, send_reasoning=call.values["send_reasoning"])
        return _Job(call, options, images.to_history(drafts, call.values))

    def _completion_job(self, prompt: str, formatted: bool, given: Mapping[str, Any]) -> _Job:  # noqa: FBT001 - core's
        if not isinstance(prompt, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise LMStudioValueError(f"the prompt must be a string; got {prompt!r}")
        to_prompt = self.completion_to_prompt
        if not (formatted or to_prompt is None or to_prompt is default_completion_to_prompt):
            prompt, formatted = to_prompt(prompt), True
        if not formatted:
            return self._chat_job([ChatMessage(role=MessageRole.USER, content=prompt)], given)
        call, options = self._settle(given)
        return _Job(call, options, prompt=prompt)

    def _settle(self, given: Mapping[str, Any]) -> tuple[Call, Options]:
        """Settle the settings of a call."""
        extras = {name: given[name] for name in _EXTRAS if name in given}
        values = self._values({name: value for name, value in given.items() if name not in extras})
        more: dict[str, Any] = {}
        options = Options()
        if extras:
            offered = _tools.openai_tools(extras.get("tools") or ())
            more = tool_settings(offered, extras.get("tool_choice"))
            options = Options(
                required=is_required(more),
                parallel=extras.get("parallel_tool_calls") is not False,
                names=original_names(offered),
            )
            more |= _tools.response_settings(extras.get("response_format"))
        top = alternatives(values)
        if top is not None:
            more["log_probs"] = top
        return self._settled(values, more), options

    def _answer(self, job: _Job) -> Answer:
        with self._open(job, job.call.model()) as stream:
            return self._answered(job, stream.read_all())

    async def _aanswer(self, job: _Job) -> Answer:
        async with self._open(job, job.call.async_model()) as stream:
            return self._answered(job, await stream.read_all())

    def _answered(self, job: _Job, events: list[PredictionEvent]) -> Answer:
        answer = Answer(job.options)
        answer.take_all(events)
        self._learn(job.call, answer)
        return answer

    @overload
    def _open(self, job: _Job, model: "LLM") -> "PredictionStream": ...
    @overload
    def _open(self, job: _Job, model: "AsyncLLM") -> "AsyncPredictionStream": ...
    def _open(self, job: _Job, model: "LLM | AsyncLLM") -> "PredictionStream | AsyncPredictionStream":
        if job.history is None:
            return model.complete_stream(WirePrompt(job.prompt), **job.call.options())
        return model.respond_stream(job.history, **job.call.options())

    # Tools ----------------------------------------------------------------------------------------------------------

    def _prepare_chat_with_tools(  # noqa: PLR0917 - core's
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,  # noqa: ARG002, FBT001, FBT002 - core's
        allow_parallel_tool_calls: bool = False,  # noqa: FBT001, FBT002 - core's
        tool_required: bool = False,  # noqa: FBT001, FBT002 - core's
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the arguments for `chat` that offer tools; the history is copied."""
        messages = list(chat_history or ())
        if user_msg is not None:
            message = ChatMessage(role=MessageRole.USER, content=user_msg) if isinstance(user_msg, str) else user_msg
            messages.append(message)
        choice = kwargs.pop("tool_choice", None)
        if choice is None and tool_required:
            choice = "required"
        prepared: dict[str, Any] = {"messages": messages, **kwargs}
        if tools or choice is not None:
            prepared |= {
                "tools": _tools.openai_tools(tools),
                "tool_choice": choice,
                "parallel_tool_calls": allow_parallel_tool_calls,
            }
        return prepared

    def get_tool_calls_from_response(
        self,
        response: ChatResponse,
        error_on_no_tool_call: bool = True,  # noqa: FBT001, FBT002 - core's
        **kwargs: Any,  # noqa: ARG002 - core's
    ) -> list[ToolSelection]:
        """Return the tool calls of a response, or of a chunk; unfinished arguments are read as far as they go.

        Raises:
            LlamaIndexToolCallError: If there are none, unless `error_on_no_tool_call` is false.
        """
        calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        if not calls and error_on_no_tool_call:
            raise LlamaIndexToolCallError("the model called no tool", text=response.message.content or "")
        return [
            ToolSelection(
                tool_id=call.tool_call_id or "", tool_name=call.tool_name, tool_kwargs=_so_far(call.tool_kwargs)
            )
            for call in calls
        ]


def _so_far(arguments: dict[str, Any] | str) -> dict[str, Any]:
    """Return the arguments of a call, of an unfinished one as far as they have come."""
    if not isinstance(arguments, str):
        return arguments
    try:
        found = from_json(arguments, allow_partial="trailing-strings")
    except ValueError:
        return {}
    return found if is_object(found) else {}
