"""`LMStudioLLM`: raw completion, without a chat template, over LM Studio's native protocol."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Self, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM
from langchain_core.language_models.base import LangSmithParams
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from pydantic import ConfigDict, model_validator

from lmstudio_integrations._adapters.outcome import with_tokens
from lmstudio_integrations._adapters.predicting import Call
from lmstudio_integrations.langchain._batching import aresults, in_batch, results
from lmstudio_integrations.langchain._chunks import Counts, final_metadata, llm_output, note_progress, usage
from lmstudio_integrations.langchain._errors import translated
from lmstudio_integrations.langchain._predicting import Predicting, ls_params, own_version, refuse_several
from lmstudio_integrations.types.chat import WirePrompt
from lmstudio_integrations.types.results import (
    LlmPredictionFragment,
    PredictionEnd,
    PredictionEvent,
    PromptProgress,
)

_OF_CORE = ("tags", "metadata", "run_name", "run_id")
"""Arguments of `generate` that are no settings."""

_STREAM = {"stream": "streaming"}
"""Core's name for it in a call, and ours."""


class LMStudioLLM(Predicting, BaseLLM):
    """Continue texts with a model in LM Studio.

    For base models and prompts that bring their own template; to chat, use `ChatLMStudio`. The object is configuration
    only, as there.

    Example:
        ```python
        from lmstudio_integrations.langchain import LMStudioLLM

        llm = LMStudioLLM(model="qwen2.5-7b", max_tokens=40, stop=["."])
        print(llm.invoke("Once upon a time"))
        ```
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", defer_build=True)
    _no_settings: ClassVar[frozenset[str]] = frozenset({*_OF_CORE, "n", "stream"})

    @model_validator(mode="after")
    def _set_lmstudio_llm_version(self) -> Self:
        self._add_version(*own_version())
        return self

    def generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Continue texts. See `BaseLLM.generate`; its keyword arguments and the settings of the call may be mixed."""
        called, others = self._as_called(kwargs)
        stop = called.stop if stop is None else stop
        return BaseLLM.generate(called._as_cached({}), prompts, stop, callbacks, **others)  # noqa: SLF001 - our own

    async def agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Continue texts. See `BaseLLM.agenerate`; its keyword arguments and the settings of the call may be mixed."""
        called, others = self._as_called(kwargs)
        stop = called.stop if stop is None else stop
        return await BaseLLM.agenerate(called._as_cached({}), prompts, stop, callbacks, **others)  # noqa: SLF001 - our own

    def _as_called(self, given: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """Return an object that has the settings of a call as its own, and what is none.

        Core makes the cache's key of the object and the `stop` of the call, and of nothing else.
        """
        with translated():
            refuse_several(given.get("n"))
            others = {name: value for name, value in given.items() if name in _OF_CORE}
            settings = {_STREAM.get(name, name): value for name, value in given.items() if name not in {*_OF_CORE, "n"}}
            if not settings:
                return self, others
            values, own = self._call_values(None, settings), vars(self)
            called = self.model_copy(update={name: value for name, value in values.items() if value is not own[name]})
            called._runtime = self._runtime  # noqa: SLF001 - a copy of our own kind
            return called, others

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        with translated():
            call = self._settle(stop, kwargs)
            manager = run_manager if call.values["streaming"] and len(prompts) == 1 else None
            calls = [partial(self._answer, call, manager, prompt) for prompt in prompts]
            return self._result(results(calls, self._concurrency()))

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        with translated():
            call = self._settle(stop, kwargs)
            manager = run_manager if call.values["streaming"] and len(prompts) == 1 else None
            calls = [partial(self._aanswer, call, manager, prompt) for prompt in prompts]
            return self._result(await aresults(calls, self._concurrency()))

    def _result(self, completions: list[GenerationChunk]) -> LLMResult:
        infos = [each.generation_info for each in completions]
        generations = [
            [Generation(text=each.text, generation_info=info)] for each, info in zip(completions, infos, strict=True)
        ]
        return LLMResult(generations=cast("list[Any]", generations), llm_output=llm_output(infos, self.model))

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        with translated():
            call = self._settle(stop, kwargs)
            yield from self._chunks(call, run_manager, prompt)

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        with translated():
            call = self._settle(stop, kwargs)
            async for chunk in self._achunks(call, run_manager, prompt):
                yield chunk

    def _answer(self, call: Call, manager: CallbackManagerForLLMRun | None, prompt: str) -> GenerationChunk:
        if manager is not None:
            return _joined(list(self._chunks(call, manager, prompt)))
        with in_batch(call.model().complete_stream(WirePrompt(prompt), **call.options())) as stream:
            return _joined(list(self._chunks_of(call, stream.read_all(), Counts())))

    async def _aanswer(self, call: Call, manager: AsyncCallbackManagerForLLMRun | None, prompt: str) -> GenerationChunk:
        if manager is not None:
            return _joined([chunk async for chunk in self._achunks(call, manager, prompt)])
        async with call.async_model().complete_stream(WirePrompt(prompt), **call.options()) as stream:
            return _joined(list(self._chunks_of(call, await stream.read_all(), Counts())))

    def _chunks(self, call: Call, manager: CallbackManagerForLLMRun | None, prompt: str) -> Iterator[GenerationChunk]:
        counts = Counts()
        with in_batch(call.model().complete_stream(WirePrompt(prompt), **call.options())) as stream:
            for events in stream.batches():
                for chunk in self._chunks_of(call, events, counts):
                    if manager is not None:
                        manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    async def _achunks(
        self, call: Call, manager: AsyncCallbackManagerForLLMRun | None, prompt: str
    ) -> AsyncIterator[GenerationChunk]:
        counts = Counts()
        async with call.async_model().complete_stream(WirePrompt(prompt), **call.options()) as stream:
            async for events in stream.batches():
                for chunk in self._chunks_of(call, events, counts):
                    if manager is not None:
                        await manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def _chunks_of(self, call: Call, events: Iterable[PredictionEvent], counts: Counts) -> Iterator[GenerationChunk]:
        """Yield the chunks of events; the last one has all that is known of the prediction."""
        for event in events:
            if type(event) is LlmPredictionFragment:
                if event.reasoning_type != "none":
                    counts.reasoning = with_tokens(counts.reasoning, event)
                yield GenerationChunk(text=event.content)
            elif type(event) is PromptProgress:
                note_progress(event, counts)
            elif type(event) is PredictionEnd:
                self._learn(call, event)
                info = {**final_metadata(event, counts), "usage_metadata": usage(event, counts)}
                yield GenerationChunk(text="", generation_info=info)

    def _settle(self, stop: list[str] | None, given: dict[str, Any]) -> Call:
        refuse_several(given.pop("n", None))
        given.pop("stream", None)
        return self._settled(self._call_values(stop, given), {})

    @property
    def _llm_type(self) -> str:
        return "lmstudio"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        with translated():  # langchain-core calls this before its tracers get the arguments
            self._reject_secrets(kwargs)
        return cast("LangSmithParams", ls_params(vars(self), "llm", stop, kwargs))


def _joined(chunks: list[GenerationChunk]) -> GenerationChunk:
    return GenerationChunk(text="".join(chunk.text for chunk in chunks), generation_info=chunks[-1].generation_info)
