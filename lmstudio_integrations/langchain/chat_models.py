"""`ChatLMStudio`: a LangChain chat model over LM Studio's native protocol."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, BaseMessage, MessageLikeRepresentation, convert_to_messages
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.tools import BaseTool
from pydantic import ConfigDict

from lmstudio_integrations._adapters.request import (
    CHAT_ARGUMENTS,
    CallArguments,
    CallSettings,
    with_signature,
)
from lmstudio_integrations._adapters.request_messages import history_of
from lmstudio_integrations._adapters.request_model import AdapterNames
from lmstudio_integrations._adapters.request_tools import tool_settings, wire_tools
from lmstudio_integrations._adapters.settings import load_config_of
from lmstudio_integrations._adapters.settings_generation import ChatSettings
from lmstudio_integrations._support.text import shortened
from lmstudio_integrations.client.concurrency.mailboxes import LoopMailbox, callers_loop
from lmstudio_integrations.client.files.uploads import PendingHistory
from lmstudio_integrations.client.predictions.async_readers import AsyncBatches
from lmstudio_integrations.client.predictions.language_model import Prefix
from lmstudio_integrations.client.predictions.plan import PromptParameters
from lmstudio_integrations.client.support.arguments import flag_of, list_of, whole_number
from lmstudio_integrations.errors import LMStudioError, LMStudioValueError
from lmstudio_integrations.langchain import (
    _batches,
    _messages,
    _responses,
    _settings,
    _tools,
)
from lmstudio_integrations.langchain._errors import AUXILIARY_ADAPTERS, translating_errors
from lmstudio_integrations.langchain._responses import ChunkStream
from lmstudio_integrations.langchain._settings import ABILITIES, reported_profile
from lmstudio_integrations.types.chat import WireHistory
from lmstudio_integrations.types.config import DEFAULT_PARALLEL, LlmLoadModelConfig
from lmstudio_integrations.types.results import PredictionResult
from lmstudio_integrations.types.structured import check_max_attempts


class ChatLMStudio(ChatSettings, _settings.BaseLMStudio, BaseChatModel):
    """Chat with a model in LM Studio.

    The object holds settings, described in `model_fields`, and opens no connection before its first call. You can copy
    it, pickle it, and share it between threads and event loops. Every setting can also be passed to a call, or bound
    with `bind`. To embed texts, use `LMStudioEmbeddings`. The page `docs/langchain/chat.md` shows more, and links to
    streams, tools, structured output, images and reasoning.

    Setup:
        Install the package with its extra: `pip install "lmstudio-integrations[langchain]"`. Start LM Studio, or
        `lmsi serve`. `LMSTUDIO_HOST` and `LM_API_TOKEN` select another server.

    Example:
        ```python
        from lmstudio_integrations.langchain import ChatLMStudio

        model = ChatLMStudio(model="qwen/qwen3-4b", temperature=0.2, ttl=600)
        response = model.invoke([("system", "Be brief."), ("user", "Why is the sky blue?")])
        print(response.text)
        print(response.usage_metadata)
        ```
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    if TYPE_CHECKING:
        profile: ModelProfile = {}  # pyright: ignore[reportIncompatibleVariableOverride] - it is never `None` here

    _adapters: ClassVar[AdapterNames] = (("llm", "ChatLMStudio"), *AUXILIARY_ADAPTERS)
    _ls_model_type: ClassVar[str] = "chat"
    _call: ClassVar[CallArguments] = CallArguments(
        request=CHAT_ARGUMENTS | {"stream"},
        framework=frozenset({"ls_structured_output_format"}),
        fields_of_object=_settings.FIELDS_OF_OBJECT,
        formats=_tools,
        fewest_top_logprobs=1,  # a server may take 0 for no log-probabilities at all
    )

    streaming: _settings.Streaming = None

    # Settings of a call -----------------------------------------------------------------------------------------------

    def _should_stream(self, *, async_api: bool, run_manager: Any = None, **kwargs: Any) -> bool:
        """Return whether to generate as a stream. In a call, core's own name for `streaming` is `stream`."""
        with translating_errors():
            if async_api:
                callers_loop()  # here, because core reports an error only in such a loop
            for name in ("streaming", "stream"):
                given = kwargs.get(name)
                if given is not None:
                    is_checked = isinstance(given, bool)
                    kwargs["stream"] = given if is_checked else self._validated({"streaming": given})["streaming"]
        return super()._should_stream(async_api=async_api, run_manager=run_manager, **kwargs)

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        """Return the settings of a call that tracers get; core's own have the object's `stop` as `None`."""
        return super()._get_invocation_params(stop or self.stop or None, **kwargs)

    def _chat_request(
        self, messages: Sequence[BaseMessage], arguments: Mapping[str, Any]
    ) -> tuple[CallSettings, WireHistory | PendingHistory]:
        """Return the settings of a call, and its conversation as the client sends it."""
        call = self._resolve_call(arguments)
        return call, history_of(_messages.convert(messages), call.values)

    # Non-streaming --------------------------------------------------------------------------------------------------

    @with_signature
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - only streams report tokens
        **kwargs: Any,
    ) -> ChatResult:
        with translating_errors():
            call, history = self._chat_request(messages, _settings.arguments(stop, kwargs))
            return self._result(call, call.respond(history))

    @with_signature
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002 - only streams report tokens
        **kwargs: Any,
    ) -> ChatResult:
        with translating_errors():
            call, history = self._chat_request(messages, _settings.arguments(stop, kwargs))
            return self._result(call, await call.arespond(history))

    def _result(self, call: CallSettings, result: PredictionResult) -> ChatResult:
        call.check_model(result.end)
        message = _responses.to_message(
            result,
            call.tool_use,
            call.alternatives,
            include_confidence=call.include_confidence,
        )
        metadata = message.response_metadata
        generation = ChatGeneration(message=message, generation_info=_responses.generation_info_of(metadata))
        combined = ("token_usage", "model_name", "model_provider")
        return ChatResult(
            generations=[generation], llm_output={name: metadata[name] for name in combined if name in metadata}
        )

    def _combine_llm_outputs(self, _llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        return _responses.combined_output(_llm_outputs, self.model)

    # Streaming ------------------------------------------------------------------------------------------------------

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with translating_errors():
            call, history = self._chat_request(messages, _settings.arguments(stop, kwargs))
            prediction = call.prediction(history)
            stream = ChunkStream(
                call.tool_use, prediction.result, call.alternatives, include_confidence=call.include_confidence
            )
            for batch in prediction.batches():
                for chunk in stream.chunks(batch):
                    if run_manager is not None:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
            call.check_model(prediction.result().end)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        with translating_errors():
            call, history = self._chat_request(messages, _settings.arguments(stop, kwargs))
            prediction = call.prediction(history, mailbox_type=LoopMailbox)
            stream = ChunkStream(
                call.tool_use, prediction.result, call.alternatives, include_confidence=call.include_confidence
            )
            with closing(prediction):  # not when the iterator is collected: a task may still hold that
                async for batch in AsyncBatches(prediction):
                    for chunk in stream.chunks(batch):
                        if run_manager is not None:
                            await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                        yield chunk
            call.check_model(prediction.result().end)

    # Model profile --------------------------------------------------------------------------------------------------

    def _resolve_profile(self) -> ModelProfile:
        """Return the profile: the user's entries, over what the model reported, over what the settings say."""
        fields = vars(self)
        config, profile = load_config_of(fields, self._kind), dict[str, Any](ABILITIES)
        if isinstance(config, LlmLoadModelConfig) and config.context_length:
            profile["max_input_tokens"] = config.context_length
        if "_runtime" in fields:  # there was a call
            with suppress(LMStudioError):  # of the settings; the next call raises it
                used, _ = self._resolve_model(fields)
                profile |= reported_profile({**used.info, **used.template_info})
        return cast("ModelProfile", {**profile, **(fields["profile"] or {})})

    def load(
        self,
        *,
        warm: LanguageModelInput | None = None,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool] = (),
        keep_warm: bool = False,
    ) -> Self:
        """Load the model if it is not loaded, and complete `profile` with what the server reports; return this object.

        Args:
            warm: What every conversation begins with, to be processed now: the system prompt, or messages. The first
                question then waits only for its own tokens. On several hosts, each that has the model does it.
            tools: The tools of the conversations, also to be processed now. `bind_tools` binds them to the calls.
            keep_warm: Whether the same is processed again, before the next call, when the instance is a new one: after
                its TTL, a crash or a restart. The default is `False`.

        Raises:
            LMStudioValueError: If a message or a tool cannot be sent.
            LMStudioServerError: If the server fails.
        """
        with translating_errors():
            call, prefix = self._warming(warm, tools)
            call.load(prefix, keep_warm=keep_warm)
        return self

    async def aload(
        self,
        *,
        warm: LanguageModelInput | None = None,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool] = (),
        keep_warm: bool = False,
    ) -> Self:
        """Load the model if it is not loaded, and complete `profile`; see `load`."""
        with translating_errors():
            call, prefix = self._warming(warm, tools)
            await call.aload(prefix, keep_warm=keep_warm)
        return self

    def _warming(
        self,
        warm: LanguageModelInput | None,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
    ) -> tuple[CallSettings, Prefix | None]:
        """Return the call of a warm start, and the messages of its prompt; `None` if nothing is to be processed."""
        settings = {"tools": _tools.openai_tools(tools)} if tools else {}
        if warm is None:
            return self._resolve_call(settings), WireHistory([]) if tools else None
        if isinstance(warm, str):
            return self._resolve_call(settings), warm
        try:
            messages = self._convert_input(warm).to_messages()
        except (LookupError, NotImplementedError, TypeError, ValueError) as error:
            raise LMStudioValueError(f"warm must be a string or messages; got {shortened(repr(warm))}") from error
        return self._chat_request(messages, settings)

    # Tools and structured output ------------------------------------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools to the model.

        Args:
            tools: Functions, pydantic classes, LangChain tools, or dicts in the form of OpenAI or Anthropic.
            tool_choice: `"auto"`, `"none"`, `"any"` or `"required"`, or the name of the one tool that must be called.
            strict: Whether the schemas forbid further arguments.
            parallel_tool_calls: `False` keeps only the first call of a response.
            kwargs: Further settings of the calls.

        Raises:
            LMStudioValueError: If a tool cannot be called by name with JSON arguments, two have one name, or the chosen
                one is missing.
        """
        with translating_errors():
            formatted = _tools.openai_tools(tools, strict=strict)
            # Only a call rejects a tool that is given twice: LangChain's standard tests bind a class beside its schema.
            tool_settings([tool for at, tool in enumerate(formatted) if tool not in formatted[:at]], tool_choice)
        choices = {"tool_choice": tool_choice, "parallel_tool_calls": parallel_tool_calls}
        return self.bind(
            tools=formatted, **{name: value for name, value in choices.items() if value is not None}, **kwargs
        )

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        include_raw: bool = False,
        include_confidence: bool = False,
        strict: bool | None = None,
        max_attempts: int = 1,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a model whose responses fit a schema.

        Args:
            schema: A pydantic class (version 2 or 1), a `TypedDict`, a JSON schema, or an OpenAI dict.
            method: With `json_schema`, the server's grammar allows nothing else. `function_calling` requires a tool
                call. `json_mode` allows any JSON object, which the prompt must describe.
            include_raw: Whether the result is a dict with `raw`, `parsed` and `parsing_error`. The parts of a stream
                have one of these members each; their sum is the result.
            include_confidence: Whether that dict also has `confidence`: a `FieldConfidence` for each field of the
                response, by its path, such as `items[0].price`. `None` if it is not known, as of a tool call that the
                server has parsed. See `docs/guides/confidence.md`.
            strict: Whether the schema forbids further members.
            max_attempts: How many predictions there are at most: the model is asked to correct a response that does not
                parse or does not fit. The usage of `raw` is that of all. Streams never ask again.
            kwargs: Further settings of the calls; they override those of the method.

        Raises:
            LMStudioValueError: If the method is unknown, the schema is missing or invalid, `max_attempts` is not an
                integer of at least 1, or `include_confidence` has no `include_raw`.
        """
        from lmstudio_integrations.langchain import _parsers, _structured  # noqa: PLC0415 - 20 ms, and many never ask for it

        with translating_errors():
            check_max_attempts(max_attempts)
            flag_of(include_raw, "include_raw")
            if flag_of(include_confidence, "include_confidence") and not include_raw:
                raise LMStudioValueError(
                    "include_confidence=True needs include_raw=True: the confidence is in the dict beside 'parsed'"
                )
            requested = _structured.bind_kwargs(schema, method, strict=strict)
            parser = _parsers.parser_of(schema, requested)
            others = _tools.openai_tools(kwargs.pop("tools", None) or ())
            tools = [*requested.pop("tools", ()), *others]
        if include_confidence:
            requested["include_confidence"] = True
        settings = {**requested, **_structured.tracing_kwargs(schema, method, strict=strict), **kwargs}
        model = self.bind_tools(tools, strict=strict, **settings) if tools else self.bind(**settings)
        return _structured.with_parser(
            model,
            parser,
            include_raw=include_raw,
            include_confidence=include_confidence,
            max_attempts=max_attempts,
            other_tools=frozenset(tool["function"]["name"] for tool in others),
            limited=partial(self._batch_config, kwargs=settings),
        )

    # Tokens ---------------------------------------------------------------------------------------------------------

    def get_num_tokens_from_messages(
        self,
        messages: Iterable[MessageLikeRepresentation],
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool] | None = None,
    ) -> int:
        """Return the number of tokens of a conversation in the model's own prompt template.

        A partial conversation that the template rejects is counted text by text. An image counts as 256 tokens. It is a
        `token_counter` of LangChain.
        """
        converted = convert_to_messages(messages)
        if not converted:
            return 0
        with translating_errors():
            pending = _messages.convert(converted)
            sent_tools = wire_tools(_tools.openai_tools(tools or ()))
            call = self._resolve_call({})
            parameters = PromptParameters(
                send_reasoning=self.send_reasoning, keep_reasoning=self.keep_reasoning, config=call.settings
            )
            return _messages.count_tokens(call.model(), pending, sent_tools, parameters)

    # Identity -------------------------------------------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "chat-lmstudio"

    # Caches of responses ----------------------------------------------------------------------------------------------

    def _call_values(self, stop: list[str] | None, kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the resolved settings of a call, without what it requests besides settings, such as tools."""
        others = self._call.request | self._call.framework
        return self._merged(_settings.arguments(stop, {name: kwargs[name] for name in kwargs.keys() - others}))

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """Return the cache key of a call: its resolved settings, whether they are fields or arguments."""
        # `stream` changes how a response arrives, not the response.
        others = (self._call.request | self._call.framework) - {"stream"}
        with translating_errors():
            values = self._call_values(stop, kwargs)
        parts = {
            "any_model": values["model"] is None and uuid4().hex,  # another one may respond next time
            "class": type(self).__name__,
            "output_version": values.get("output_version"),
            "settings": sorted(_settings.identity(values, type(self)).items()),
            "call": sorted((name, value) for name, value in kwargs.items() if name in others),
        }
        return repr(parts)

    # Batches --------------------------------------------------------------------------------------------------------

    def _batch_config(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None,
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Return configs that start no more predictions at once than the calls' model runs, unless they set a limit.

        Raises:
            LMStudioValueError: If the inputs are one text, which would be a batch of its characters, or if a limit is
                not at least 1, for which core's async batches would wait forever.
        """
        list_of(inputs, "the inputs of a batch", of_texts=True)
        if isinstance(config, Sequence):
            return [self._batch_config(inputs, one, kwargs) for one in config]
        limit = ensure_config(config).get("max_concurrency")  # given, or inherited from the calling runnable
        if whole_number(limit, "max_concurrency") is not None:
            return config
        try:
            values = self._call_values(None, kwargs)
            limit = _batches.concurrency(*self._resolve_model(values), values)
        except LMStudioError:  # each call raises it, and a batch may keep the errors of its calls
            limit = DEFAULT_PARALLEL["llm"]
        return {**(config or {}), "max_concurrency": limit}

    def batch(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Respond to several inputs, as many at once as the model runs, unless `max_concurrency` says otherwise."""
        limited = self._batch_config(inputs, config, kwargs)
        return _batches.batch(self, inputs, limited, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Respond to several inputs, as many at once as the model runs, unless `max_concurrency` says otherwise."""
        limited = self._batch_config(inputs, config, kwargs)
        return await super().abatch(list(inputs), limited, return_exceptions=return_exceptions, **kwargs)

    def batch_as_completed(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """Yield the index and the response of each input, as they finish. See `batch`."""
        limited = self._batch_config(inputs, config, kwargs)
        return _batches.batch_as_completed(self, inputs, limited, return_exceptions=return_exceptions, **kwargs)

    def abatch_as_completed(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Any]]:
        """Yield the index and the response of each input, as they finish. See `abatch`."""
        limited = self._batch_config(inputs, config, kwargs)
        return super().abatch_as_completed(inputs, limited, **kwargs)


class _ResolvedProfile:
    """Reads `profile` of a chat model. The field itself, in the object's `__dict__`, holds the user's entries alone."""

    def __get__(self, instance: ChatLMStudio | None, owner: type[ChatLMStudio]) -> ModelProfile:
        if instance is None:  # pydantic would take an attribute of the class for the default of a subclass's field
            raise AttributeError("profile is an attribute of the objects")
        return instance._resolve_profile()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - of this module

    def __set__(self, instance: ChatLMStudio, value: ModelProfile | None) -> None:
        # Only descriptors with this method take precedence over `__dict__`, which pydantic itself writes.
        vars(instance)["profile"] = value


cast("Any", ChatLMStudio).profile = _ResolvedProfile()  # pydantic forbids it in the body of the class
