"""`ChatLMStudio`: a LangChain chat model over LM Studio's native protocol."""

import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast, overload

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, PrivateAttr, model_validator

from lmstudio_integrations._adapters import images
from lmstudio_integrations._adapters.predicting import Call, alternatives
from lmstudio_integrations._adapters.signature import with_signature
from lmstudio_integrations._adapters.tool_settings import is_required, original_names, tool_settings, wire_tools
from lmstudio_integrations.errors import LMStudioConfigWarning
from lmstudio_integrations.langchain import _counting, _messages, _structured, _tools
from lmstudio_integrations.langchain._batching import acompleted, aresults, calls_of, completed, in_batch, results
from lmstudio_integrations.langchain._chunks import ChunkStream, Fold, Options, llm_output, reported
from lmstudio_integrations.langchain._errors import translated
from lmstudio_integrations.langchain._predicting import Predicting, ls_params, own_version, refuse_several
from lmstudio_integrations.types._numbers import LogProbs, OrOff
from lmstudio_integrations.types.config import LlmLoadModelConfig
from lmstudio_integrations.types.results import PredictionEnd, PredictionEvent

if TYPE_CHECKING:
    from lmstudio_integrations.client.asynchronous import AsyncLLM, AsyncPredictionStream
    from lmstudio_integrations.client.sync import LLM, PredictionStream

_EXTRAS = ("tools", "tool_choice", "parallel_tool_calls", "response_format", "n", "stream")
"""Call arguments that are no fields: what `bind_tools` and langchain-core pass."""


class ChatLMStudio(Predicting, BaseChatModel):
    """Chat with a model in LM Studio.

    The object is configuration only: making one costs no connection, and it can be copied, pickled, shared by threads
    and by event loops. Every setting may also be given to a call, or with `bind`.

    Example:
        ```python
        from lmstudio_integrations.langchain import ChatLMStudio

        llm = ChatLMStudio(model="qwen2.5-7b-instruct", temperature=0.2, ttl=600)
        for chunk in llm.stream("Why is the sky blue?"):
            print(chunk.content, end="")
        ```
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", defer_build=True)
    _no_settings: ClassVar[frozenset[str]] = frozenset({*_EXTRAS, "ls_structured_output_format"})

    send_reasoning: bool = False
    """Whether earlier thoughts are sent back to the model, in `<think>` tags."""

    logprobs: bool | None = None
    """Whether `response_metadata["logprobs"]` has the tokens' log-probabilities."""

    top_logprobs: OrOff[LogProbs] | None = None
    """For how many alternatives of each token, 0 to 100; implies `logprobs`, unless it is `False`."""

    stream_usage: bool = True
    """Whether the last chunk of a stream has the token counts."""

    allow_image_download: bool = False
    """Whether images with an http or https URL are downloaded, by this process, and uploaded. At most 20 MB and five
    redirects each, from public addresses only; within `timeout` if that is set, else 30 seconds each."""

    allow_private_image_hosts: bool = False
    """Whether they are downloaded from addresses that are not public, too: this machine, the local network. Only for
    messages that you trust."""

    _own_profile: ModelProfile = PrivateAttr(default_factory=ModelProfile)
    _learnt_profile: ModelProfile | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _set_lmstudio_chat_version(self) -> Self:
        self._add_version(*own_version())
        return self

    def _should_stream(self, *, async_api: bool, run_manager: Any = None, **kwargs: Any) -> bool:
        """Tell core whether to generate as a stream; its own name for that in a call is `stream`."""
        if kwargs.get("streaming") is not None:
            kwargs.setdefault("stream", kwargs["streaming"])
        return super()._should_stream(async_api=async_api, run_manager=run_manager, **kwargs)

    # One answer -----------------------------------------------------------------------------------------------------

    @with_signature
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - tokens are told by streams only
        **kwargs: Any,
    ) -> ChatResult:
        with translated():
            call, options = self._settle(stop, kwargs)
            with in_batch(self._open(call, call.model(), messages)) as stream:
                return self._result(call, options, stream.read_all())

    @with_signature
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002 - tokens are told by streams only
        **kwargs: Any,
    ) -> ChatResult:
        with translated():
            call, options = self._settle(stop, kwargs)
            async with self._open(call, call.async_model(), messages) as stream:
                return self._result(call, options, await stream.read_all())

    def _result(self, call: Call, options: Options, events: list[PredictionEvent]) -> ChatResult:
        folded = Fold(options)
        folded.add_all(events)
        message = folded.message()
        self._note(call, folded.end)
        generations = [ChatGeneration(message=message)]
        return ChatResult(generations=generations, llm_output=reported(message.response_metadata))

    def _combine_llm_outputs(self, _llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        return llm_output(_llm_outputs, self.model)

    # A stream -------------------------------------------------------------------------------------------------------

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with translated():
            call, options = self._settle(stop, kwargs)
            stream = ChunkStream(options)
            with in_batch(self._open(call, call.model(), messages)) as source:
                for batch in source.batches():
                    for chunk in stream.chunks(batch):
                        if run_manager is not None:
                            run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                        yield chunk
            self._note(call, stream.end)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        with translated():
            call, options = self._settle(stop, kwargs)
            stream = ChunkStream(options)
            async with self._open(call, call.async_model(), messages) as source:
                async for batch in source.batches():
                    for chunk in stream.chunks(batch):
                        if run_manager is not None:
                            await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                        yield chunk
            self._note(call, stream.end)

    # What is sent ---------------------------------------------------------------------------------------------------

    def _settle(self, stop: list[str] | None, given: dict[str, Any]) -> tuple[Call, Options]:
        """Settle a call's settings; takes what is no setting out of `given`."""
        extras = {name: given.pop(name) for name in _EXTRAS if name in given}
        values = self._call_values(stop, given)
        more: dict[str, Any] = {}
        tools: list[dict[str, Any]] = []
        if extras:
            refuse_several(extras.get("n"))
            tools = _tools.openai_tools(extras.get("tools") or ())
            more = tool_settings(tools, extras.get("tool_choice"))
            more |= _tools.response_settings(extras.get("response_format"))
        top = alternatives(values)
        if top is not None:
            more["log_probs"] = top or 1  # 0 might mean none at all
        options = Options(
            usage=values["stream_usage"],
            required=is_required(more),
            parallel=extras.get("parallel_tool_calls") is not False,
            alternatives=top or 0,
            names=original_names(tools),
        )
        return self._settled(values, more), options

    @overload
    def _open(self, call: Call, model: "LLM", messages: Sequence[BaseMessage]) -> "PredictionStream": ...
    @overload
    def _open(self, call: Call, model: "AsyncLLM", messages: Sequence[BaseMessage]) -> "AsyncPredictionStream": ...
    def _open(
        self, call: Call, model: "LLM | AsyncLLM", messages: Sequence[BaseMessage]
    ) -> "PredictionStream | AsyncPredictionStream":
        drafts = _messages.draft(messages, keep_reasoning=call.values["send_reasoning"])
        return model.respond_stream(images.to_history(drafts, call.values), **call.options())

    # What is learnt -------------------------------------------------------------------------------------------------

    def _note(self, call: Call, end: PredictionEnd | None) -> None:
        """Keep what the server said of the model; warn of tools for a model that was not taught any."""
        if end is None:
            return
        facts, runtime = self._learn(call, end), call.runtime
        if facts is not runtime.profiled and (call.values["model"], call.values["host"]) == (self.model, self.host):
            runtime.profiled = facts
            self._take_profile(facts.info)
        if call.config.raw_tools and not facts.warned and facts.info.get("trainedForToolUse") is False:
            facts.warned = True
            warnings.warn(
                f"{facts.info.get('modelKey')} was not trained for tool use; its calls may be wrong or missing",
                LMStudioConfigWarning,
                stacklevel=2,
            )

    def _take_profile(self, info: Mapping[str, Any]) -> ModelProfile:
        """Complete the profile; what the user wrote into it stays, what was learnt of another model goes."""
        if self.profile != self._learnt_profile:
            told = self.profile is None or self.profile == self._resolve_model_profile()
            self._own_profile = ModelProfile() if told else cast("ModelProfile", self.profile)
        profile = cast("ModelProfile", {**_profile(info), **self._own_profile})
        self.profile: ModelProfile | None = profile
        self._learnt_profile = profile
        return profile

    def _resolve_model_profile(self) -> ModelProfile | None:
        """Return what the user told us; the rest comes with `load_profile` or the first answer."""
        config = self._load_config(self.__dict__)
        window = config.context_length if isinstance(config, LlmLoadModelConfig) else None
        return ModelProfile(max_input_tokens=window) if window else None

    def load_profile(self) -> ModelProfile:
        """Ask the server what the model can do, loading it if need be; the result is also in `profile`."""
        with translated():
            info = self._own().model().get_info(load=True)
        return self._take_profile(info.to_dict())

    async def aload_profile(self) -> ModelProfile:
        """Ask the server what the model can do, loading it if need be; the result is also in `profile`."""
        with translated():
            info = await self._own().async_model().get_info(load=True)
        return self._take_profile(info.to_dict())

    # Tools and structured answers -----------------------------------------------------------------------------------

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
            parallel_tool_calls: `False` keeps only the first call of an answer.
            kwargs: Further settings of the calls.

        Raises:
            LMStudioValueError: If a tool cannot be called by name with JSON arguments, or the choice is none of them.
        """
        with translated():
            formatted = _tools.openai_tools(tools, strict=strict)
            tool_settings(formatted, tool_choice)
        given = {"tool_choice": tool_choice, "parallel_tool_calls": parallel_tool_calls}
        return self.bind(
            tools=formatted, **{name: value for name, value in given.items() if value is not None}, **kwargs
        )

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a model whose answers fit a schema.

        Args:
            schema: A pydantic class (version 2 or 1), a `TypedDict`, a JSON schema, or an OpenAI dict.
            method: `json_schema` lets the server's grammar allow nothing else; `function_calling` asks for a tool
                call; `json_mode` allows any JSON object, and the prompt must describe it.
            include_raw: Whether the result is a dict with `raw`, `parsed` and `parsing_error`.
            strict: Whether the schema forbids further members.
            kwargs: Further settings of the calls; they take the place of what the method asks for.

        Raises:
            LMStudioValueError: If the method is unknown, or the schema is missing or none.
        """
        with translated():
            asked = _structured.request(schema, method, strict=strict)
            tools = [*asked.pop("tools", ()), *_tools.openai_tools(kwargs.pop("tools", None) or ())]
        given = {**asked, **_structured.traced(schema, method, strict=strict), **kwargs}
        model = self.bind_tools(tools, strict=strict, **given) if tools else self.bind(**given)
        by_call = method == "function_calling"
        parser = _structured.call_parser(schema, asked["tool_choice"]) if by_call else _structured.answer_parser(schema)
        return _structured.with_parser(model, parser, include_raw=include_raw)

    # Tokens ---------------------------------------------------------------------------------------------------------

    def get_num_tokens_from_messages(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool] | None = None,
    ) -> int:
        """Return the number of tokens of a conversation, with the model's own template.

        A partial conversation that the template refuses is counted text by text. A picture counts as 256 tokens.
        """
        if not messages:
            return 0
        with translated():
            drafts = _messages.draft(messages, keep_reasoning=self.send_reasoning)
            offered = wire_tools(_tools.openai_tools(tools or ()))
            return _counting.count(self._own().model(), drafts, offered)

    # What identifies the object -------------------------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "chat-lmstudio"

    def _generate_with_cache(self, *args: Any, **kwargs: Any) -> ChatResult:
        generate = BaseChatModel._generate_with_cache  # noqa: SLF001 - the overridden method, which reads `cache`
        return generate(self._as_cached(kwargs), *args, **kwargs)

    async def _agenerate_with_cache(self, *args: Any, **kwargs: Any) -> ChatResult:
        agenerate = BaseChatModel._agenerate_with_cache  # noqa: SLF001 - the overridden method, which reads `cache`
        return await agenerate(self._as_cached(kwargs), *args, **kwargs)

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        return self._cache_key(stop, kwargs)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        with translated():  # langchain-core calls this before its tracers get the arguments
            self._reject_secrets(kwargs)
        return cast("LangSmithParams", ls_params(self.__dict__, "chat", stop, kwargs))

    # Many inputs ----------------------------------------------------------------------------------------------------

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Respond to several inputs, as many at once as the model runs, unless `max_concurrency` says otherwise.

        The first error and Ctrl-C stop the generations that still run.
        """
        calls, limit = calls_of(self.invoke, inputs, self._bounded(config), kwargs)
        return results(calls, limit, keep_errors=return_exceptions)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Respond to several inputs, as many at once as the model runs, unless `max_concurrency` says otherwise.

        The first error stops the generations that still run, and so does cancelling the task.
        """
        calls, limit = calls_of(self.ainvoke, inputs, self._bounded(config), kwargs)
        return await aresults(calls, limit, keep_errors=return_exceptions)

    def batch_as_completed(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """Yield the place of each input and its response as they come. See `batch`; closing this stops the rest."""
        calls, limit = calls_of(self.invoke, inputs, self._bounded(config), kwargs)
        return completed(calls, limit, keep_errors=return_exceptions)

    def abatch_as_completed(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Any]]:
        """Yield the place of each input and its response as they come. See `abatch`; closing this stops the rest."""
        calls, limit = calls_of(self.ainvoke, inputs, self._bounded(config), kwargs)
        return acompleted(calls, limit, keep_errors=return_exceptions)


def _profile(info: Mapping[str, Any]) -> ModelProfile:
    """Return what the server knows of a model in langchain-core's words.

    `structured_output` stays unset: it would make agents send a grammar and tools at once.
    """
    profile = ModelProfile(
        text_inputs=True,
        text_outputs=True,
        image_url_inputs=False,
        audio_inputs=False,
        video_inputs=False,
        pdf_inputs=False,
        tool_choice=True,
        tool_call_streaming=True,
        temperature=True,
        open_weights=True,
    )
    if info.get("contextLength"):
        profile["max_input_tokens"] = info["contextLength"]
    if info.get("displayName"):
        profile["name"] = info["displayName"]
    if "vision" in info:
        profile["image_inputs"] = profile["image_tool_message"] = bool(info["vision"])
    if "trainedForToolUse" in info:
        profile["tool_calling"] = bool(info["trainedForToolUse"])
    return profile
