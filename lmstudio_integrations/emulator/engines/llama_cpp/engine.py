"""The engine with real weights: llama.cpp in one worker process per loaded model.

A crash or a hang of the engine is an error of one model and never of the emulator; unloading releases all memory;
cancelling closes a connection. Built on `worker_client`, which runs `worker_main.py`, and pure translations:
`load_parameters`, `request_body`, `constraints`, `context_window` and `responses`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from lmstudio_integrations._support.text import dumps
from lmstudio_integrations.emulator.engines import generation
from lmstudio_integrations.emulator.engines.base import (
    EngineError,
    EngineEvent,
    Finished,
    GenerateRequest,
    Image,
    LoadRequest,
    ModelMetadata,
    OnBytes,
    Progress,
    Weights,
)
from lmstudio_integrations.emulator.engines.generation import is_large, is_large_request, run_in_thread
from lmstudio_integrations.emulator.engines.llama_cpp import (
    constraints,
    context_window,
    load_parameters,
    request_body,
    responses,
)
from lmstudio_integrations.emulator.engines.llama_cpp.slots import Slots, parts_of
from lmstudio_integrations.emulator.engines.llama_cpp.weights import download
from lmstudio_integrations.emulator.engines.llama_cpp.worker_client import Worker, memory_limit
from lmstudio_integrations.types.chat import ChatHistory
from lmstudio_integrations.types.config import LlmPredictionConfig, ModelKind
from lmstudio_integrations.types.files import FileHandle
from lmstudio_integrations.types.functions import Tool

logger: logging.Logger = logging.getLogger(__name__)

LOAD_SECONDS = 600.0
"""The timeout of a load."""

Json = dict[str, Any]


class LlamaCppEngine:
    """Loads GGUF models, the two bundled ones by their names.

    Args:
        threads: Threads of the computation; by default one less than there are cores.
        offline: Never fetch bundled weights.
        load_seconds: The timeout of a load.
        worker_memory: The memory limit of the process of one model, in bytes; three quarters of the memory by default.

    Raises:
        LMStudioValueError: If the limit is invalid, or this system does not support one.
    """

    name = "llama_cpp"

    def __init__(
        self,
        *,
        threads: int | None = None,
        offline: bool = False,
        load_seconds: float = LOAD_SECONDS,
        worker_memory: int | None = None,
    ) -> None:
        self._threads = threads or load_parameters.spare_threads()
        self._offline = offline
        self._load_seconds = load_seconds
        self._memory = memory_limit(worker_memory)

    def metadata(self, weights: str | None, kind: ModelKind) -> ModelMetadata:  # noqa: ARG002 - the file knows its kind
        """Return the metadata in the header of the file.

        Raises:
            EngineError: If the weights do not exist.
        """
        return load_parameters.metadata_of(weights)

    def identify(self, weights: str) -> Weights:
        """Return what is known of weights, a bundled name or a path, without loading them."""
        return load_parameters.identify(weights)

    def find(self, folder: Path) -> list[Path]:
        """Return the GGUF files of a folder, and of folders in it."""
        return load_parameters.find(folder)

    async def download(self, weights: str, on_bytes: OnBytes) -> None:
        """Fetch bundled weights into the user's cache, where they stay; a file is used where it is.

        Raises:
            OSError: If they are not available, or cannot be read or stored.
        """
        await download(weights, on_bytes, offline=self._offline)

    async def load(self, request: LoadRequest, on_progress: Progress) -> "LlamaCppModel":
        """Load a model; cancelling ends the worker.

        Neither llama.cpp nor a package manager that fetches weights reports progress, so it is 0 and then 1.

        Raises:
            EngineError: If that fails, with a readable reason.
        """
        on_progress(0.0)
        try:
            path = await load_parameters.file_of(request.weights, offline=self._offline)
            header = await asyncio.to_thread(load_parameters.header_of, path)
        except EngineError as error:
            # The log, which the operator of the server reads, has the path; clients only get the key.
            logger.warning("the model %s cannot be loaded: %s", request.key, error.__cause__ or error.cause)
            error.cause = f"{request.key}: {error.cause}"
            raise
        parameters = load_parameters.parameters_of(request, path, header, threads=self._threads, memory=self._memory)
        worker = await Worker.start(parameters, seconds=self._load_seconds)
        try:
            properties = await worker.call("/props")
            abilities: Json = properties.get("chat_template_caps") or {}
            modalities: Json = properties.get("modalities") or {}
        except BaseException:
            await worker.close()
            raise
        on_progress(1.0)
        return LlamaCppModel(
            worker,
            context_length=parameters.context_length,
            slots=parameters.slots,
            embedding=parameters.embedding,
            tools=bool(abilities.get("supports_tools")),
            calls=bool(abilities.get("supports_tool_calls")),
            vision=bool(modalities.get("vision")),
            chat_template="" if parameters.embedding else str(properties.get("chat_template") or ""),
            seed=load_parameters.seed_of(request),
        )


def _base_fields(chat_template: str) -> Json:
    """Return the settings of predictions that a chat template decides."""
    tags = responses.known_tags(chat_template)
    if tags is None:
        return {}
    parsing = {"enabled": True, "startString": tags.start, "endString": tags.end}
    return {"llm.prediction.reasoning.parsing": parsing}


@dataclass(frozen=True, slots=True)
class Plan:
    """One prediction: the request to llama.cpp, the parts of its prompt, and how its response is read."""

    path: str
    body: Json
    parts: Sequence[str]
    reader: responses.ResponseReader
    read_chunk: Callable[[Mapping[str, Any]], responses.Delta]


class LlamaCppModel:
    """One loaded model. Belongs to the event loop that loaded it."""

    def __init__(
        self,
        worker: Worker,
        *,
        context_length: int,
        slots: int,
        embedding: bool,
        tools: bool,
        calls: bool,
        vision: bool,
        chat_template: str = "",
        seed: int | None = None,
    ) -> None:
        self._worker = worker
        self.chat_template: str = chat_template
        self.base_fields: Mapping[str, Any] = _base_fields(chat_template)
        self._seed = seed
        self.context_length = context_length
        self.tools = tools
        self._calls = calls
        self.vision = vision
        self._embedding = embedding
        # A call that waits inside the engine cannot be seen, so no more are sent than it processes at once.
        self._free_slots = asyncio.Semaphore(slots)
        self._slots = Slots(slots)

    async def generate(self, request: GenerateRequest) -> AsyncIterator[EngineEvent]:
        """Yield the events of one prediction; the last is `Finished`. Closing the generator stops the engine.

        Generation ends when the context window is full, whatever the policy: llama.cpp's own way of dropping old
        tokens is switched off.

        Raises:
            EngineError: If the engine rejects the request, or has crashed.
        """
        async with self._free_slots:
            if request.history is None:
                plan = await self._plan_text(request, request.prompt or "")
            else:
                plan = await self._plan_chat(request, request.history)
            yield plan.reader.begin()
            with self._slots.take(plan.parts) as slot:
                async with aclosing(self._worker.stream(plan.path, {**plan.body, "id_slot": slot})) as chunks:
                    async for chunk in chunks:
                        for event in plan.reader.read(plan.read_chunk(chunk)):
                            yield event
                            if isinstance(event, Finished):
                                return
        raise EngineError("The model's response ended before it was complete")

    async def embed(self, text: str) -> list[float]:
        """Return the vector of a text; a text that is longer than the context is cut off, as in training."""
        # A second call for a short text would take a considerable part of the time of the first.
        text_or_tokens = text if request_body.fits(text, self.context_length) else await self._tokens_to_embed(text)
        async with self._free_slots:
            return request_body.vector_of(
                await self._worker.call("/v1/embeddings", request_body.embedding(text_or_tokens))
            )

    async def decide(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answers to the questions of a request; only decision models have any."""
        decided: dict[str, Any] = await self._worker.call("/v1/systemone", request)
        return decided

    async def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text.

        The special tokens of a chat template are recognized, so that a formatted prompt is counted correctly; embedding
        models add their start and end tokens.
        """
        special = self._embedding
        body = {"content": text, "add_special": special, "parse_special": not special}
        tokens: list[int] = (await self._worker.call("/tokenize", body))["tokens"]
        return tokens

    async def apply_template(self, history: ChatHistory, tools: Sequence[Tool], config: LlmPredictionConfig) -> str:
        """Return the conversation as the model would read it, without images.

        Raises:
            EngineError: If the template fails on the conversation, or it is too long.
        """
        large = is_large(history.messages, len(tools))
        await run_in_thread(partial(constraints.check_tools, tools), when=large)
        return await self._render(await run_in_thread(partial(self._chat, history, tools, config), when=large))

    async def close(self) -> None:
        """End the worker; predictions that still run fail."""
        await self._worker.close()

    async def _tokens_to_embed(self, text: str) -> list[int]:
        tokens = await self.tokenize(text)
        if len(tokens) <= self.context_length:
            return tokens
        logger.warning("a text of %d tokens is cut to the %d that the model reads", len(tokens), self.context_length)
        return [*tokens[: self.context_length - 1], tokens[-1]]

    async def _plan_text(self, request: GenerateRequest, prompt: str) -> Plan:
        body = {"content": prompt, "add_special": True, "parse_special": True}
        tokens = (await self._worker.call("/tokenize", body))["tokens"]
        tokens = context_window.truncate(tokens, self._limit(request), request.config.context_overflow_policy)
        body = {"prompt": tokens or prompt, **await self._constraint(request)}
        text = responses.TextParser(generation.reasoning_tags(request.config))
        return self._finish_plan(request, "/completions", body, len(tokens), text, parts=parts_of(prompt))

    async def _plan_chat(self, request: GenerateRequest, history: ChatHistory) -> Plan:
        config = request.config
        # A forced call has the same prompt as any other, so that the prompts of an agent that forces some begin alike.
        offered = list(request.tools) if request.tool_choice != "none" else []
        forced = offered if request.tool_choice == "required" else []
        large = is_large_request(request)
        await run_in_thread(partial(constraints.check_tools, offered), when=large)
        self._check_images(history)

        async def body(some: ChatHistory) -> Json:
            return await run_in_thread(partial(self._chat, some, offered, config, request.images), when=large)

        async def count(some: ChatHistory) -> int:
            response = await self._worker.call("/v1/chat/completions/input_tokens", await body(some))
            return int(response["input_tokens"])

        history, tokens = await context_window.fit(history, count, self._limit(request), config.context_overflow_policy)
        chat, constraint = await body(history), await self._constraint(request, forced)
        messages = cast("list[Json]", chat["messages"])
        parts = [dumps({**chat, "messages": []}), *map(dumps, messages)]
        if forced and not request.images:
            # As a chat, the engine lets the model write a code block around the call, and removes it from the text.
            completion = {"prompt": await self._render(chat), **constraint}
            return self._finish_plan(request, "/completions", completion, tokens, responses.JsonCall(), parts=parts)
        chat |= constraint
        text: responses.TextParser | responses.JsonCall = responses.JsonCall()
        reasoning_format = "auto"
        if forced or (offered and "grammar" in constraint):
            chat["tool_choice"] = "none"  # the tools are in the prompt, and the grammar has another form of calls
        if not forced:
            text, reasoning_format = await self._text_parser(config, chat)
        chat |= {"verbose": True, "reasoning_format": reasoning_format}
        return self._finish_plan(request, "/v1/chat/completions", chat, tokens, text, parts=parts)

    async def _text_parser(self, config: LlmPredictionConfig, chat: Json) -> tuple[responses.TextParser, str]:
        """Return what separates the reasoning in the text of a chat, and what llama.cpp does about it before.

        llama.cpp drops tags and white space, so it only separates reasoning for which the chat template has other tags
        than the settings, or that precedes what a schema constrains; the tags of the settings then stand for the
        model's own. Where it does not, a call that the reasoning spells out is one to llama.cpp.
        """
        tags, calls = generation.reasoning_tags(config), chat.get("tool_choice") == "none"
        if not tags.enabled:
            return responses.TextParser(tags, calls=calls), "none"
        if "json_schema" in chat or not responses.knows(self.chat_template, tags):
            return responses.TextParser(tags, calls=calls), "auto"
        end_of_prompt = responses.end_of_prompt(await self._render(chat), tags)
        return responses.TextParser(tags, end_of_prompt, calls=calls), "none"

    async def _constraint(self, request: GenerateRequest, forced: Sequence[Tool] = ()) -> Json:
        build = partial(constraints.output_constraint, request.config, forced)
        return await run_in_thread(build, when=is_large_request(request))

    def _finish_plan(
        self,
        request: GenerateRequest,
        path: str,
        body: Json,
        tokens: int,
        text: responses.TextParser | responses.JsonCall,
        *,
        parts: Sequence[str],
    ) -> Plan:
        config, chat = request.config, path != "/completions"
        limit, remaining = config.max_tokens or None, self._limit(request) - tokens
        candidates = generation.candidate_count(config)
        complete = {
            **({} if self._seed is None else {"seed": self._seed}),
            **request_body.sampling(config),
            **body,
            "stop": generation.stop_strings(config),
            "max_tokens" if chat else "n_predict": min(limit or remaining, remaining),
            "stream": True,
            "return_progress": True,
            "timings_per_token": True,
            **request_body.log_probs(candidates, chat=chat),
        }
        reader = responses.ResponseReader(
            text,
            tokens,
            max_tokens=limit if limit is not None and limit <= remaining else None,
            call_stops=config.tool_call_stop_strings or (),
            tags=generation.reasoning_tags(config),
            log_probs=candidates,
        )
        return Plan(path, complete, parts, reader, responses.read_chat if chat else responses.read_completion)

    async def _render(self, chat: Json) -> str:
        return str((await self._worker.call("/apply-template", chat))["prompt"])

    def _chat(
        self,
        history: ChatHistory,
        tools: Sequence[Tool],
        config: LlmPredictionConfig,
        images: Mapping[str, Image] | None = None,
    ) -> Json:
        """Return a conversation as llama.cpp reads it."""
        messages = request_body.to_messages(
            history,
            native_tools=self.tools,
            native_calls=self._calls,
            images=images,
            system_prompt=str((config.raw or {}).get("llm.prediction.systemPrompt") or ""),
            instructions=request_body.tool_instructions(tools) if tools and not self.tools else "",
        )
        return {
            "messages": request_body.with_thoughts(messages, config, self.chat_template),
            **({"tools": [tool.to_dict() for tool in tools]} if tools and self.tools else {}),
            **request_body.template_arguments(config, self.chat_template),
        }

    def _limit(self, request: GenerateRequest) -> int:
        return min(request.context_length, self.context_length)

    def _check_images(self, history: ChatHistory) -> None:
        shown = any(isinstance(part, FileHandle) for message in history.messages for part in message.content)
        if shown and not self.vision:
            raise responses.without_vision()
