"""`LMStudioLLM`: raw completion, without a chat template, over LM Studio's native protocol."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import closing, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.runnables import Runnable
from pydantic import ConfigDict

from lmstudio_integrations._adapters.request import CallArguments
from lmstudio_integrations._adapters.request_model import AdapterNames
from lmstudio_integrations._adapters.request_tools import ToolUse
from lmstudio_integrations._adapters.response import FinishedResponse
from lmstudio_integrations.client.concurrency.mailboxes import LoopMailbox
from lmstudio_integrations.client.predictions.async_readers import AsyncBatches
from lmstudio_integrations.client.predictions.prediction import Prediction
from lmstudio_integrations.langchain import _batches, _responses, _settings
from lmstudio_integrations.langchain._errors import AUXILIARY_ADAPTERS, translating_errors
from lmstudio_integrations.types.results import LlmPredictionFragment, PredictionEnd, PredictionEvent, PredictionResult


class LMStudioLLM(_settings.BaseLMStudio, BaseLLM):
    """Complete texts with a model in LM Studio, without a chat template.

    This is for base models, and for prompts that contain their own template. To chat, call tools or send images, use
    `ChatLMStudio`. The object holds settings, described in `model_fields`, and opens no connection before its first
    call. You can copy it, pickle it, and share it between threads and event loops. The page
    `docs/langchain/completion.md` goes on to streams and statistics.

    Setup:
        Install the package with its extra: `pip install "lmstudio-integrations[langchain]"`. Start LM Studio, or
        `lmsi serve`. `LMSTUDIO_HOST` and `LM_API_TOKEN` select another server.

    Example:
        ```python
        from lmstudio_integrations.langchain import LMStudioLLM

        llm = LMStudioLLM(model="qwen/qwen3-4b", temperature=0, max_tokens=40, stop=["."])
        print(llm.invoke("The capital of Norway is"))
        ```
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    _adapters: ClassVar[AdapterNames] = (("llm", "LMStudioLLM"), *AUXILIARY_ADAPTERS)
    _ls_model_type: ClassVar[str] = "llm"
    _call: ClassVar[CallArguments] = CallArguments(
        request=frozenset({"stream"}),
        framework=frozenset({"tags", "metadata", "run_name", "run_id"}),
        fields_of_object=_settings.FIELDS_OF_OBJECT,
    )

    streaming: _settings.Streaming = None

    # Settings of a call -----------------------------------------------------------------------------------------------

    def generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Continue texts. Takes the keyword arguments of `BaseLLM.generate` and the settings of the call."""
        called, others = self._as_called(stop, kwargs)
        return BaseLLM.generate(called, prompts, called.stop, callbacks, **others)

    async def agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Continue texts. Takes the keyword arguments of `BaseLLM.agenerate` and the settings of the call."""
        called, others = self._as_called(stop, kwargs)
        return await BaseLLM.agenerate(called, prompts, called.stop, callbacks, **others)

    def _as_called(self, stop: list[str] | None, kwargs: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """Return an object with the settings of a call as its own, and the arguments that are no settings.

        Core builds the cache key only from the object and the `stop` of the call.
        """
        with translating_errors():
            self._reject_secrets(kwargs)
            arguments, own = dict(_settings.arguments(stop, kwargs)), vars(self)
            others = {name: arguments.pop(name) for name in self._call.framework & arguments.keys()}
            if "stream" in arguments:  # core's name for it in a call
                arguments["streaming"] = arguments.pop("stream")
            changes = {name: value for name, value in self._merged(arguments).items() if value is not own[name]}
            if changes.get("model", self.model) is None:  # any loaded model may respond
                changes["cache"] = False
            if not changes:
                return self, others
            called = self.model_copy(update=changes)
            called._runtime = self._runtime  # noqa: SLF001 - a copy of our own kind
            return called, others

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        with translating_errors():
            call = self._resolve_call(_settings.arguments(stop, kwargs))
            if call.values["streaming"] and run_manager is not None and len(prompts) == 1:
                return self._result([list(self._stream(prompts[0], stop, run_manager, **kwargs))])
            if len(prompts) == 1:  # not in a thread, so that Ctrl-C stops it
                return self._result([[_generation(call.respond(None, prompts[0]))]])
            limit = _batches.concurrency(call.used, call.calling, call.values)
            with _batches.interruptible_executor({"max_concurrency": limit}) as (pool, context):
                results = list(context.run(pool.map, partial(call.respond, None), prompts))
            return self._result([[_generation(result)] for result in results])

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        with translating_errors():
            call = self._resolve_call(_settings.arguments(stop, kwargs))
            if call.values["streaming"] and run_manager is not None and len(prompts) == 1:
                return self._result([[chunk async for chunk in self._astream(prompts[0], stop, run_manager, **kwargs)]])
            limit = _batches.concurrency(call.used, call.calling, call.values)
            slots = nullcontext() if limit is None else asyncio.Semaphore(limit)

            async def respond(prompt: str) -> PredictionResult:
                async with slots:
                    return await call.arespond(None, prompt)

            tasks = [asyncio.create_task(respond(prompt)) for prompt in prompts]
            try:
                results = await asyncio.gather(*tasks)
            finally:
                for task in tasks:  # that still run if one has failed
                    task.cancel()
            return self._result([[_generation(result)] for result in results])

    if not TYPE_CHECKING:  # core's methods, whose types are those of runnables
        batch_as_completed = _batches.batch_as_completed

        # Core's own would put one error in the place of all responses.

        def batch(
            self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
        ) -> list[Any]:
            """Continue several texts; see `Runnable.batch`."""
            if return_exceptions:
                return _batches.batch(self, inputs, config, return_exceptions=True, **kwargs)
            return super().batch(inputs, config, **kwargs)

        async def abatch(
            self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
        ) -> list[Any]:
            """Continue several texts; see `Runnable.abatch`."""
            if return_exceptions:
                return await Runnable.abatch(self, inputs, config, return_exceptions=True, **kwargs)
            return await super().abatch(inputs, config, **kwargs)

    def _result(self, completions: list[list[GenerationChunk]]) -> LLMResult:
        """Return completions, each of which is given by its chunks."""
        infos = [chunks[-1].generation_info for chunks in completions]
        generations: list[Any] = [
            [Generation(text="".join(chunk.text for chunk in chunks), generation_info=info)]
            for chunks, info in zip(completions, infos, strict=True)
        ]
        return LLMResult(generations=generations, llm_output=_responses.combined_output(infos, self.model))

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        with translating_errors():
            call = self._resolve_call(_settings.arguments(stop, kwargs))
            prediction = call.prediction(None, prompt)
            for events in prediction.batches():
                for chunk in _chunks(events, prediction):
                    if run_manager is not None:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        with translating_errors():
            call = self._resolve_call(_settings.arguments(stop, kwargs))
            prediction = call.prediction(None, prompt, LoopMailbox)
            with closing(prediction):  # not when the iterator is collected: a task may still hold that
                async for events in AsyncBatches(prediction):
                    for chunk in _chunks(events, prediction):
                        if run_manager is not None:
                            await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                        yield chunk

    # Identity -------------------------------------------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "lmstudio"


def _chunks(events: Iterable[PredictionEvent], prediction: Prediction) -> Iterator[GenerationChunk]:
    """Yield the chunks of events; the last one has the metadata."""
    for event in events:
        if type(event) is LlmPredictionFragment:
            yield GenerationChunk(text=event.content)
        elif type(event) is PredictionEnd:
            yield _generation(prediction.result(), "")


def _generation(result: PredictionResult, text: str | None = None) -> GenerationChunk:
    """Return a completion with its metadata, or the last chunk of one, which has no more text."""
    metadata = _responses.response_metadata(FinishedResponse(result, ToolUse()))
    return GenerationChunk(
        text=result.raw_content if text is None else text,
        generation_info={**metadata, "usage_metadata": _responses.usage_metadata(result)},
    )
