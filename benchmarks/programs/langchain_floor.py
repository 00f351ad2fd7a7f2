"""LangChain by itself: a model that has its tokens at hand, and sleeps between those of a paced response."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from benchmarks.meter import Cases
from benchmarks.programs._langchain import program
from benchmarks.programs._parts import CANCELLATIONS
from benchmarks.script import response_of, vector


class Floor(BaseChatModel):
    """Implements only what LangChain requires of a model."""

    model: str

    @property
    def _llm_type(self) -> str:
        return "floor"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = AIMessage("".join(response_of(self.model).tokens))
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        response = response_of(self.model)
        for token in response.tokens:
            if response.gap:
                time.sleep(response.gap)
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=token))
            if run_manager is not None:
                run_manager.on_llm_new_token(token, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        response = response_of(self.model)
        for token in response.tokens:
            if response.gap:
                await asyncio.sleep(response.gap)
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=token))
            if run_manager is not None:
                await run_manager.on_llm_new_token(token, chunk=chunk)
            yield chunk


def cases(address: str) -> Cases:
    """Return what is measured; no server could notice a cancellation."""
    body = json.dumps({"embedding": vector()})

    def embed(texts: list[str]) -> list[list[float]]:
        return [json.loads(body)["embedding"] for _ in texts]

    floor = program(lambda model: Floor(model=model), {"": embed}).cases(address)
    return {name: case for name, case in floor.items() if name not in CANCELLATIONS}
