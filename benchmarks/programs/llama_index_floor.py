"""LlamaIndex by itself: a model that has its tokens at hand, and core's own way to structured responses."""

import json
from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback

from benchmarks.meter import Cases
from benchmarks.programs._llama_index import program
from benchmarks.script import response_of, vector


class Floor(CustomLLM):
    """Implements only what LlamaIndex requires of a model."""

    model: str

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.model, is_chat_model=True)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text="".join(response_of(self.model).tokens))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        def gen() -> CompletionResponseGen:
            text = ""
            for token in response_of(self.model).tokens:
                text += token
                yield CompletionResponse(text=text, delta=token)

        return gen()

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return _response("".join(response_of(self.model).tokens), None)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return _response("".join(response_of(self.model).tokens), None)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        def gen() -> ChatResponseGen:
            text = ""
            for token in response_of(self.model).tokens:
                text += token
                yield _response(text, token)

        return gen()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        async def gen() -> ChatResponseAsyncGen:
            text = ""
            for token in response_of(self.model).tokens:
                text += token
                yield _response(text, token)

        return gen()


def _response(text: str, delta: str | None) -> ChatResponse:
    return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=text), delta=delta)


def cases(address: str) -> Cases:
    """Return what is measured; no server could pace it or notice a cancellation."""
    body = json.dumps({"embedding": vector()})

    def embed(texts: list[str]) -> list[list[float]]:
        return [json.loads(body)["embedding"] for _ in texts]

    floor = program(lambda model: Floor(model=model), {"": embed}).cases(address)
    return {name: case for name, case in floor.items() if name not in {"paced", "apaced", "cancel", "acancel"}}
