"""`LMStudio`: a LlamaIndex language model over LM Studio's native protocol."""

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self, TypeAlias, cast

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
from pydantic import ConfigDict, Field, SecretStr

from lmstudio_integrations._adapters import settings_types
from lmstudio_integrations._adapters.request import CHAT_ARGUMENTS, CallArguments, CallSettings
from lmstudio_integrations._adapters.request_messages import history_of
from lmstudio_integrations._adapters.request_model import AdapterNames
from lmstudio_integrations._adapters.settings_checks import ALIASES, with_effect
from lmstudio_integrations._adapters.settings_generation import ChatSettings
from lmstudio_integrations._support.text import shortened
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.client.concurrency.flows import arun, run
from lmstudio_integrations.client.concurrency.mailboxes import LoopMailbox
from lmstudio_integrations.client.files.uploads import PendingHistory
from lmstudio_integrations.client.predictions.language_model import Prefix
from lmstudio_integrations.client.support.arguments import checked_string, flag_of
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.llama_index import _callbacks, _messages, _settings, _tools
from lmstudio_integrations.llama_index._callbacks import (
    CORE_ARGUMENTS,
    ChunkT,
    MakeChunk,
    check_messages,
    reject_secrets_before_tracing,
    with_events,
)
from lmstudio_integrations.llama_index._errors import LlamaIndexToolCallError
from lmstudio_integrations.llama_index._responses import ResponseBuilder
from lmstudio_integrations.llama_index._settings import CORE_DESCRIPTIONS, ComponentSettings
from lmstudio_integrations.llama_index._structured import Structured
from lmstudio_integrations.types._numbers import Count
from lmstudio_integrations.types.chat import WireHistory
from lmstudio_integrations.types.config import LlmLoadModelConfig
from lmstudio_integrations.types.results import PredictionResult
from lmstudio_integrations.types.structured import partial_json

_Request: TypeAlias = tuple[CallSettings, WireHistory | PendingHistory | None, str]
"""The settings of a call, and its conversation; instead of one, there may be a text to continue."""


@reject_secrets_before_tracing
class LMStudio(ChatSettings, ComponentSettings, Structured):
    """Chat with a model in LM Studio, or complete texts with it.

    The object holds settings, described in `model_fields`, and opens no connection before its first call. You can copy
    it, pickle it, and share it between threads and event loops. Every setting can also be passed to a call. To embed
    texts, use `LMStudioEmbedding`. LlamaIndex reads the context window once, when you build an engine, an agent or a
    memory. Call `load()` before that, or set `context_length` or `context_window`. The page `docs/llama-index/llm.md`
    goes on to streams, images and reasoning.

    Setup:
        Install the package with its extra: `pip install "lmstudio-integrations[llama-index]"`. Start LM Studio, or
        `lmsi serve`. `LMSTUDIO_HOST` and `LM_API_TOKEN` select another server.

    Example:
        ```python
        from llama_index.core.llms import ChatMessage

        from lmstudio_integrations.llama_index import LMStudio

        llm = LMStudio(model="qwen/qwen3-4b", temperature=0.2, ttl=600).load()
        messages = [ChatMessage("Be brief.", role="system"), ChatMessage("Hello!")]
        response = llm.chat(messages)
        print(llm.complete("Why is the sky blue?"), response.message.content)
        print(response.raw)
        ```
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    _adapters: ClassVar[AdapterNames] = (("llm", "LMStudio"), ("embedding", "LMStudioEmbedding"))
    _framework_descriptions: ClassVar[Mapping[str, str]] = CORE_DESCRIPTIONS
    _call: ClassVar[CallArguments] = CallArguments(
        request=CHAT_ARGUMENTS,
        framework=CORE_ARGUMENTS,
        fields_of_object=frozenset(
            {"callback_manager", "rate_limiter", "system_prompt", "messages_to_prompt", "completion_to_prompt"}
            | {"output_parser", "pydantic_program_mode", "query_wrapper_prompt"}
            | {"context_window", "is_function_calling_model", "unload_on_close"}
        ),
        formats=_tools,
    )

    api_token: SecretStr | None = settings_types.api_token_field(exclude=True)  # `to_dict` has what a dump has

    context_window: Count | None = Field(
        default=None,
        description="Context window that LlamaIndex assumes, in tokens. If unset, it is the loaded model's once that "
        "is known, else `context_length`, else LlamaIndex's default of 3,900.",
    )

    is_function_calling_model: bool = Field(
        default=True,
        description="Whether LlamaIndex may pass tools to the model. The default is `True`; `False` makes it use "
        "ReAct agents and plain-text programs.",
    )

    @classmethod
    def _resolve_aliases(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Accept the names of our fields in other LlamaIndex integrations."""
        others = dict(values)
        more: Any = others.pop("additional_kwargs", None) or {}
        if not is_object(more):
            raise LMStudioValueError(f"additional_kwargs must be a dict of settings, got {more!r}")
        for name in sorted(more.keys() & others.keys()):
            raise LMStudioValueError(f"{name!r} is given twice: also in additional_kwargs; give it once")
        more = with_effect(more, {*cls.model_fields, *ALIASES})  # elsewhere, these are arguments of every call
        return super()._resolve_aliases({**more, **others})

    @classmethod
    def class_name(cls) -> str:
        """Return the name of this class in `to_dict` and traces."""
        return "LMStudio"

    # Metadata -------------------------------------------------------------------------------------------------------

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex assumes about the model. Makes no request; see `load`."""
        fields, is_known = self._metadata_fields()
        _settings.advertise(_settings.key_of(vars(self)), fields["context_window"], is_known=is_known)
        return LLMMetadata(**fields)

    def to_payload(self) -> dict[str, Any]:
        """Return what events and traces show of this object: no secrets."""
        fields, _ = self._metadata_fields()
        return {"class_name": self.class_name(), **fields, "model": self.model, "temperature": self.temperature}

    def _metadata_fields(self) -> tuple[dict[str, Any], bool]:
        """Return the fields of `metadata`, and whether the context window is known."""
        window, config = _settings.window_of(_settings.key_of(vars(self))), self.load_config
        configured = self.context_length or (config.context_length if isinstance(config, LlmLoadModelConfig) else None)
        known = self.context_window or window.reported or configured
        context_window, output = known or DEFAULT_CONTEXT_WINDOW, self.max_tokens or DEFAULT_NUM_OUTPUTS
        fields = {
            "context_window": context_window,
            # LlamaIndex subtracts this from the context window to get the room for the texts of the prompt. Its engines
            # fail without any.
            "num_output": min(output + window.template, context_window // 2),
            "is_chat_model": True,
            "is_function_calling_model": self.is_function_calling_model,
            "model_name": self.model or "unknown",
            "system_role": MessageRole.SYSTEM,
        }
        return fields, known is not None

    def load(
        self,
        *,
        warm: str | Sequence[ChatMessage] | None = None,
        tools: Sequence[BaseTool] = (),
        keep_warm: bool = False,
    ) -> Self:
        """Record the context window and the chat template's tokens of the model; return this object.

        The model is loaded if necessary.

        Args:
            warm: What every conversation begins with, to be processed now: the system prompt, or messages. The first
                question then waits only for its own tokens. On several hosts, each that has the model does it.
            tools: The tools of the conversations, also to be processed now.
            keep_warm: Whether the same is processed again, before the next call, when the instance is a new one: after
                its TTL, a crash or a restart. The default is `False`.

        Raises:
            LMStudioValueError: If a message or a tool cannot be sent.
            LMStudioServerError: If the server fails.
        """
        call, prefix = self._warming(warm, tools)
        info, template = call.load(prefix, keep_warm=keep_warm)
        _settings.record(_settings.key_of(vars(self)), info["contextLength"], template.added_tokens)
        return self

    async def aload(
        self,
        *,
        warm: str | Sequence[ChatMessage] | None = None,
        tools: Sequence[BaseTool] = (),
        keep_warm: bool = False,
    ) -> Self:
        """Record the context window and the chat template's tokens of the model; see `load`."""
        call, prefix = self._warming(warm, tools)
        info, template = await call.aload(prefix, keep_warm=keep_warm)
        _settings.record(_settings.key_of(vars(self)), info["contextLength"], template.added_tokens)
        return self

    def _warming(
        self, warm: str | Sequence[ChatMessage] | None, tools: Sequence[BaseTool]
    ) -> tuple[CallSettings, Prefix | None]:
        """Return the call of a warm start, and the messages of its prompt; `None` if nothing is to be processed."""
        settings = {"tools": _tools.openai_tools(tools)} if tools else {}
        if warm is None:
            return self._resolve_call(settings), WireHistory([]) if tools else None
        if isinstance(warm, str):
            return self._resolve_call(settings), warm
        given = cast("object", warm)  # callers may be untyped
        listed = cast("Sequence[object]", given) if isinstance(given, Sequence) else (None,)
        if not all(isinstance(each, ChatMessage) for each in listed):
            raise LMStudioValueError(f"warm must be a string or a list of ChatMessage; got {shortened(repr(warm))}")
        call, history, _ = self._chat_request(warm, settings)
        return call, history

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text, from the model's own tokenizer.

        Raises:
            LMStudioServerError: If the server fails.
        """
        checked_string(text, "the text")
        return cast("list[int]", run(self._resolve_call({}).model().tokenize(text)))

    async def atokenize(self, text: str) -> list[int]:
        """Return the tokens of a text; see `tokenize`."""
        checked_string(text, "the text")
        return cast("list[int]", await arun(self._resolve_call({}).model(LoopMailbox).tokenize(text)))

    # Chat -----------------------------------------------------------------------------------------------------------

    @with_events("chat")
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Generate the next message of a conversation.

        Args:
            messages: The conversation.
            kwargs: Settings of this call by the names of the fields, and `tools`, `tool_choice`,
                `parallel_tool_calls`, `response_format`. With `include_confidence=True`, `raw["confidence"]` says how
                sure the model was of each field of a structured response; see `docs/guides/confidence.md`.

        Raises:
            LMStudioValueError: If a setting is unknown, or a message cannot be sent.
            LMStudioServerError: If the server fails.
            LlamaIndexToolCallError: If a tool call failed, or was required and is missing.
        """
        return self._generate(self._chat_request(messages, kwargs), ResponseBuilder.chat_response)

    @with_events("chat")
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Generate the next message of a conversation; see `chat`."""
        return await self._agenerate(self._chat_request(messages, kwargs), ResponseBuilder.chat_response)

    @with_events("chat")
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Stream the next message of a conversation; see `chat`. Closing the stream stops the server."""
        return self._chunks(self._chat_request(messages, kwargs), ResponseBuilder.chat_response)

    @with_events("chat")
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Stream the next message of a conversation; see `chat`. Closing the stream stops the server."""
        return self._achunks(self._chat_request(messages, kwargs), ResponseBuilder.chat_response)

    # Completion -----------------------------------------------------------------------------------------------------

    @with_events("completion")
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:  # noqa: FBT001, FBT002 - core's
        """Respond to a prompt.

        Args:
            prompt: The prompt.
            formatted: Whether the prompt is a text to continue as it is. Otherwise it becomes a user's message in the
                model's chat template, unless `completion_to_prompt` formats it.
            kwargs: See `chat`.

        Raises:
            LMStudioValueError: If a setting is unknown, or the prompt is not a string.
            LMStudioServerError: If the server fails.
        """
        return self._generate(self._completion_request(prompt, formatted, kwargs), ResponseBuilder.completion_response)

    @with_events("completion")
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:  # noqa: FBT001, FBT002 - core's
        """Respond to a prompt; see `complete`."""
        request = self._completion_request(prompt, formatted, kwargs)
        return await self._agenerate(request, ResponseBuilder.completion_response)

    @with_events("completion")
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:  # noqa: FBT001, FBT002 - core's
        """Stream the response to a prompt; see `complete`. Closing the stream stops the server."""
        return self._chunks(self._completion_request(prompt, formatted, kwargs), ResponseBuilder.completion_response)

    @with_events("completion")
    async def astream_complete(
        self,
        prompt: str,
        formatted: bool = False,  # noqa: FBT001, FBT002 - core's
        **kwargs: Any,
    ) -> CompletionResponseAsyncGen:
        """Stream the response to a prompt; see `complete`. Closing the stream stops the server."""
        return self._achunks(self._completion_request(prompt, formatted, kwargs), ResponseBuilder.completion_response)

    # Requests. Nothing here is decorated, so that callbacks see each call once --------------------------------------

    def _chat_request(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> _Request:
        call = self._resolve_call(kwargs)
        return call, history_of(_messages.convert(messages), call.values), ""

    def _completion_request(self, prompt: str, formatted: bool, kwargs: Mapping[str, Any]) -> _Request:  # noqa: FBT001 - core's
        to_prompt = self.completion_to_prompt
        if not (formatted or to_prompt is None or to_prompt is default_completion_to_prompt):
            prompt, formatted = to_prompt(prompt), True
        if not formatted:
            return self._chat_request([ChatMessage(role=MessageRole.USER, content=prompt)], kwargs)
        return self._resolve_call(kwargs), None, prompt

    def _generate(self, request: _Request, make: MakeChunk[ChunkT]) -> ChunkT:
        call, history, prompt = request
        with _recording_window(call):
            result = call.respond(history, prompt)
        builder = _builder(call, lambda: result)
        return make(builder, builder.add_all())

    async def _agenerate(self, request: _Request, make: MakeChunk[ChunkT]) -> ChunkT:
        call, history, prompt = request
        with _recording_window(call):
            result = await call.arespond(history, prompt)
        builder = _builder(call, lambda: result)
        return make(builder, builder.add_all())

    def _chunks(self, request: _Request, make: MakeChunk[ChunkT]) -> Generator[ChunkT]:
        call, history, prompt = request
        prediction = call.prediction(history, prompt)
        return _callbacks.chunks(prediction, _builder(call, prediction.result), make, _recording_window(call))

    def _achunks(self, request: _Request, make: MakeChunk[ChunkT]) -> AsyncGenerator[ChunkT]:
        call, history, prompt = request
        prediction = call.prediction(history, prompt, LoopMailbox)
        return _callbacks.achunks(prediction, _builder(call, prediction.result), make, _recording_window(call))

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
        """Return the arguments of `chat` with the tools; the history is copied."""
        if chat_history is not None:
            check_messages(chat_history)
        messages = list(chat_history or ())
        if user_msg is not None:
            messages.append(
                ChatMessage(role=MessageRole.USER, content=user_msg) if isinstance(user_msg, str) else user_msg
            )
        choice = kwargs.pop("tool_choice", None)
        if flag_of(tool_required, "tool_required") and choice is None:
            choice = "required"
        flag_of(allow_parallel_tool_calls, "allow_parallel_tool_calls")
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
        """Return the tool calls of a response or a chunk; unfinished arguments are parsed as far as possible.

        Raises:
            LlamaIndexToolCallError: If there are none, unless `error_on_no_tool_call` is false.
        """
        calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        if not calls and error_on_no_tool_call:
            raise LlamaIndexToolCallError("the model called no tool", text=response.message.content or "")
        return [
            ToolSelection(
                tool_id=call.tool_call_id or "", tool_name=call.tool_name, tool_kwargs=_arguments(call.tool_kwargs)
            )
            for call in calls
        ]


def _builder(call: CallSettings, result: Callable[[], PredictionResult]) -> ResponseBuilder:
    return ResponseBuilder(call.tool_use, result, call.check_model, include_confidence=call.include_confidence)


@contextmanager
def _recording_window(call: CallSettings) -> Generator[None]:
    """Record the context window that the server has reported, also with an error about it, for `metadata`."""
    try:
        yield
    finally:
        context_length = call.used.info.get("contextLength")
        if isinstance(context_length, int):
            _settings.record(_settings.key_of(call.values), context_length)


def _arguments(arguments: dict[str, Any] | str) -> dict[str, Any]:
    """Return the arguments of a call, of an unfinished one as far as possible."""
    if not isinstance(arguments, str):
        return arguments
    value = partial_json(arguments)
    return value if is_object(value) else {}
