"""The engine with real weights: llama.cpp in one worker process per loaded model.

A crash or a hang of the engine is an error of one model and never of the emulator; unloading gives all memory back;
cancelling is closing a connection. `worker.py` is the other end.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from lmstudio_integrations._typeguards import is_object
from lmstudio_integrations.emulator import weights
from lmstudio_integrations.emulator.engines import _events, _history, _loading, _request, _window
from lmstudio_integrations.emulator.engines._offload import is_large, is_large_request, offload, require_length
from lmstudio_integrations.emulator.engines._process import Worker
from lmstudio_integrations.emulator.engines._refusals import unsupported
from lmstudio_integrations.emulator.engines.base import (
    EngineError,
    EngineEvent,
    Finished,
    GenerateRequest,
    LoadRequest,
    ModelFacts,
    Progress,
)
from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.config import LlmPredictionConfig, ModelKind
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.tools import Tool

logger: logging.Logger = logging.getLogger(__name__)

LOAD_SECONDS = 600.0
"""The longest that loading may take."""

Json = dict[str, Any]


class LlamaCppEngine:
    """Loads GGUF models, the two bundled ones by their names.

    Args:
        threads: Threads of the computation; by default one less than there are cores.
        offline: Never fetch bundled weights.
        load_seconds: The longest that loading may take.
        announce: Takes the line that says what is being fetched; by default it goes to standard error.
        worker_memory: The most bytes that the process of one model may take; 0 for no limit.
    """

    name = "llama_cpp"

    def __init__(
        self,
        *,
        threads: int | None = None,
        offline: bool = False,
        load_seconds: float = LOAD_SECONDS,
        announce: Callable[[str], None] = weights.announce_on_stderr,
        worker_memory: int = 0,
    ) -> None:
        self._threads = threads or _loading.spare_threads()
        self._offline = offline
        self._load_seconds = load_seconds
        self._announce = announce
        self._memory = worker_memory

    def facts(self, weights: str | None, kind: ModelKind) -> ModelFacts:  # noqa: ARG002 - the file knows its kind
        """Return what the weights say, from the file's header.

        Raises:
            EngineError: If there are no such weights.
        """
        return _loading.facts_of(weights)

    async def load(self, request: LoadRequest, on_progress: Progress) -> "LlamaCppModel":
        """Load a model; a cancel ends the worker.

        llama.cpp tells nothing while it loads, so the progress is 0 and then 1.

        Raises:
            EngineError: If that is not possible, with a readable reason.
        """
        on_progress(0.0)
        try:
            path = await _loading.file_of(request.weights, offline=self._offline, announce=self._announce)
            header = await asyncio.to_thread(_loading.header_of, path)
        except EngineError as error:
            # The path is for whoever runs the server; clients know the key.
            logger.warning("the model %s cannot be loaded: %s", request.key, error.__cause__ or error.cause)
            error.cause = f"{request.key}: {error.cause}"
            raise
        parameters = _loading.parameters_of(request, path, header, threads=self._threads, memory=self._memory)
        worker = await Worker.start(parameters, seconds=self._load_seconds)
        try:
            properties = await worker.call("/props")
        except BaseException:
            await worker.close()
            raise
        on_progress(1.0)
        return LlamaCppModel(
            worker,
            context_length=parameters.context_length,
            slots=parameters.slots,
            embedding=parameters.embedding,
            abilities=Abilities.of(properties),
            seed=_loading.seed_of(request),
        )


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the loaded model can do beyond text."""

    tools: bool
    vision: bool

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> "Abilities":
        """Read llama.cpp's `/props`."""
        template, modalities = properties.get("chat_template_caps"), properties.get("modalities")
        return cls(
            tools=is_object(template) and bool(template.get("supports_tools")),
            vision=is_object(modalities) and bool(modalities.get("vision")),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """One prediction as llama.cpp is asked for it, and how its answer is read."""

    path: str
    body: Json
    answer: _events.Answer
    read: Callable[[Mapping[str, Any]], _events.Piece]


class LlamaCppModel:
    """One loaded model. Belongs to the event loop that loaded it."""

    def __init__(
        self,
        worker: Worker,
        *,
        context_length: int,
        slots: int,
        embedding: bool,
        abilities: Abilities,
        seed: int | None = None,
    ) -> None:
        self._worker = worker
        self._seed = seed
        self.context_length = context_length
        self.abilities = abilities
        self._embedding = embedding
        # A call that waits inside the engine cannot be seen; so no more go in than it works on at once.
        self._free = asyncio.Semaphore(slots)

    async def generate(self, request: GenerateRequest) -> AsyncIterator[EngineEvent]:
        """Yield the events of one prediction; the last is `Finished`. Closing the generator stops the engine.

        Generation ends when the window is full, whatever the policy: llama.cpp is not let to forget what it read.

        Raises:
            EngineError: If the engine refuses, or is gone.
        """
        async with self._free:
            plan = await self._plan(request)
            yield plan.answer.begin()
            async with aclosing(self._worker.stream(plan.path, plan.body)) as chunks:
                async for chunk in chunks:
                    for event in plan.answer.take(plan.read(chunk)):
                        yield event
                        if isinstance(event, Finished):
                            return
        raise EngineError("The model's answer broke off before its end")

    async def embed(self, text: str) -> list[float]:
        """Return the vector of a text; what is longer than the model reads is cut off, as it was trained."""
        tokens = await self.tokenize(text)
        if len(tokens) > self.context_length:
            logger.warning(
                "a text of %d tokens is cut to the %d that the model reads", len(tokens), self.context_length
            )
            tokens = [*tokens[: self.context_length - 1], tokens[-1]]
        async with self._free:
            answer = await self._worker.call("/v1/embeddings", {"input": tokens})
        vector: list[float] = answer["data"][0]["embedding"]
        return vector

    async def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text.

        Marks of the chat template count as what they are, so that a formatted prompt is counted right; embedding
        models add their start and end marks.
        """
        special = self._embedding
        body = {"content": require_length(text), "add_special": special, "parse_special": not special}
        tokens: list[int] = (await self._worker.call("/tokenize", body))["tokens"]
        return tokens

    async def apply_template(self, history: ChatHistory, tools: Sequence[Tool], config: LlmPredictionConfig) -> str:
        """Return the conversation as the model would read it, with the start of the next answer; pictures are left out.

        Raises:
            EngineError: If the template refuses the conversation, or it is too long.
        """
        large = is_large(history.messages, len(tools))
        await offload(partial(_request.check_tools, tools if self.abilities.tools else ()), large=large)
        messages = await offload(partial(self._messages, history, config), large=large)
        manual = _request.manual_template(config)
        if manual is not None:
            return await offload(partial(_history.render_manual, manual, messages), large=large)
        return str((await self._worker.call("/apply-template", self._chat(messages, tools, config)))["prompt"])

    async def close(self) -> None:
        """End the worker; predictions that still run fail."""
        await self._worker.close()

    async def _plan(self, request: GenerateRequest) -> Plan:
        if request.history is None:
            return await self._plan_text(request, request.prompt or "")
        return await self._plan_chat(request, request.history)

    async def _plan_text(self, request: GenerateRequest, prompt: str, *, forced: Sequence[Tool] = ()) -> Plan:
        whole = {"content": require_length(prompt), "add_special": True, "parse_special": True}
        tokens = (await self._worker.call("/tokenize", whole))["tokens"]
        tokens = _window.cut(tokens, self._window(request), request.config.context_overflow_policy)
        body = {"prompt": tokens or prompt, **await self._shape(request, forced)}
        return self._finish_plan(request, "/completions", body, len(tokens), forced=bool(forced))

    async def _plan_chat(self, request: GenerateRequest, history: ChatHistory) -> Plan:
        config = request.config
        forced = list(request.tools) if request.tool_choice == "required" else []
        offered = list(request.tools) if request.tool_choice == "auto" and self.abilities.tools else []
        large = is_large_request(request)
        await offload(partial(_request.check_tools, [*forced, *offered]), large=large)
        instructions = _history.instruct(forced) if forced else ""
        manual = _request.manual_template(config)
        self._check_pictures(history, manual=manual is not None)

        async def messages(some: ChatHistory) -> list[Json]:
            return await offload(partial(self._messages, some, config, request, instructions), large=large)

        if manual is not None:
            render = partial(_history.render_manual, manual, await messages(history))
            return await self._plan_text(request, await offload(render, large=large), forced=forced)

        async def body(some: ChatHistory) -> Json:
            return self._chat(await messages(some), offered, config)

        async def count(some: ChatHistory) -> int:
            answer = await self._worker.call("/v1/chat/completions/input_tokens", await body(some))
            return int(answer["input_tokens"])

        window = self._window(request)
        history, tokens = await _window.fit(history, count, window, config.context_overflow_policy)
        complete = {**await body(history), **await self._shape(request, forced)}
        return self._finish_plan(request, "/v1/chat/completions", complete, tokens, forced=bool(forced))

    async def _shape(self, request: GenerateRequest, forced: Sequence[Tool]) -> Json:
        return await offload(partial(_request.shape, request.config, forced), large=is_large_request(request))

    def _finish_plan(
        self, request: GenerateRequest, path: str, body: Json, tokens: int, *, forced: bool = False
    ) -> Plan:
        config, chat = request.config, path != "/completions"
        limit = config.max_tokens or None
        room = self._window(request) - tokens
        wanted = _request.log_probs(config)
        complete = {
            **({} if self._seed is None else {"seed": self._seed}),
            **_request.sampling(config),
            **body,
            "stop": _request.stop_strings(config),
            "max_tokens" if chat else "n_predict": min(limit or room, room),
            "stream": True,
            "return_progress": True,
            "timings_per_token": True,
            **_log_probs(wanted, chat=chat),
            **({"verbose": True, "reasoning_format": _reasoning_format(config)} if chat else {}),
        }
        answer = _events.Answer(
            _events.ForcedCall() if forced else _events.text_reader(config),
            tokens,
            max_tokens=limit if limit is not None and limit <= room else None,
            call_stops=config.tool_call_stop_strings or (),
            tags=_events.reasoning_tags(config) or (_events.START_TAG, _events.END_TAG),
            log_probs=wanted,
        )
        return Plan(path, complete, answer, _events.read_chat if chat else _events.read_completion)

    def _messages(
        self,
        history: ChatHistory,
        config: LlmPredictionConfig,
        request: GenerateRequest | None = None,
        instructions: str = "",
    ) -> list[Json]:
        return _history.to_messages(
            history,
            native_tools=self.abilities.tools,
            images=request.images if request else None,
            system_prompt=str((config.raw or {}).get("llm.prediction.systemPrompt") or ""),
            instructions=instructions,
        )

    def _chat(self, messages: Sequence[Json], tools: Sequence[Tool], config: LlmPredictionConfig) -> Json:
        offered = {"tools": [tool.to_dict() for tool in tools]} if tools and self.abilities.tools else {}
        return {"messages": messages, **offered, **_request.template_arguments(config)}

    def _window(self, request: GenerateRequest) -> int:
        return min(request.context_length, self.context_length)

    def _check_pictures(self, history: ChatHistory, *, manual: bool) -> None:
        shown = any(isinstance(part, FileHandle) for message in history.messages for part in message.content)
        if shown and not self.abilities.vision:
            raise unsupported("vision", "the model cannot see images", "Load a vision model, or leave the image out.")
        if shown and manual:
            raise unsupported("promptTemplate", "images under a manual template", "Leave promptTemplate out.")


def _log_probs(wanted: int | None, *, chat: bool) -> Json:
    if wanted is None:
        return {}
    return {"logprobs": True, "top_logprobs": max(1, wanted)} if chat else {"n_probs": max(1, wanted)}


def _reasoning_format(config: LlmPredictionConfig) -> str:
    """Let the engine tell thoughts apart where it knows the model's way; ours only knows the tags."""
    return "auto" if _events.reasoning_tags(config) else "none"
