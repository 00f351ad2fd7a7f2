"""LlamaIndex. The floor is a model that has its tokens in memory, so that only the framework's own cost remains."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
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
from llama_index.core.llms import LLM
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.llms.custom import CustomLLM

from benchmarks.programs import FLOOR, MODELS, OURS, PROMPT, Embed, Program, parsed_vectors
from benchmarks.server import tokens_of


def program(make: Callable[[str], LLM], embed: Embed | None, *, only_embeds: bool = False) -> Program:
    """Return the program of what makes a language model for a name."""
    models = {name: make(name) for name in MODELS}
    prompt = [ChatMessage(PROMPT)]

    async def astream(model: str) -> AsyncIterator[object]:
        async for chunk in await models[model].astream_chat(prompt):
            yield chunk

    return Program(
        stream=lambda model: models[model].stream_chat(prompt),
        astream=astream,
        respond=lambda model: models[model].chat(prompt),
        arespond=lambda model: models[model].achat(prompt),
        embed=embed,
        only_embeds=only_embeds,
    )


class Floor(CustomLLM):
    """Implements only what LlamaIndex requires of a model."""

    model: str

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.model, is_chat_model=True)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        raise NotImplementedError

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        raise NotImplementedError

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return _response("".join(tokens_of(self.model)), None)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return _response("".join(tokens_of(self.model)), None)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        def gen() -> ChatResponseGen:
            text = ""
            for token in tokens_of(self.model):
                text += token
                yield _response(text, token)

        return gen()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        async def gen() -> ChatResponseAsyncGen:
            text = ""
            for token in tokens_of(self.model):
                text += token
                yield _response(text, token)

        return gen()


def _response(text: str, delta: str | None) -> ChatResponse:
    return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=text), delta=delta)


def _floor(_address: str) -> Program:
    return program(lambda model: Floor(model=model), parsed_vectors)


def ours(address: str) -> Program:
    """Return the program of the LlamaIndex adapter of this package."""
    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    embedding = LMStudioEmbedding(model="vector", host=address)
    return program(lambda model: LMStudio(model=model, host=address), embedding.get_text_embedding_batch)


def _ollama(address: str) -> Program:
    from llama_index.embeddings.ollama import OllamaEmbedding
    from llama_index.llms.ollama import Ollama

    url = f"http://{address}"
    embedding = OllamaEmbedding("vector", base_url=url, embed_batch_size=100)
    return program(lambda model: Ollama(model=model, base_url=url), embedding.get_text_embedding_batch)


def _lmstudio(address: str) -> Program:
    from llama_index.llms.lmstudio import LMStudio

    return program(lambda model: LMStudio(model_name=model, base_url=f"http://{address}/v1"), None)


def _openai_like(address: str, path: str = "") -> Program:
    from llama_index.embeddings.openai import OpenAIEmbedding
    from llama_index.llms.openai_like import OpenAILike

    url = f"http://{address}{path}/v1"
    embedding = OpenAIEmbedding(model_name="vector", api_base=url, api_key="none", embed_batch_size=100)
    return program(
        lambda model: OpenAILike(model=model, api_base=url, api_key="none", is_chat_model=True),
        embedding.get_text_embedding_batch,
        only_embeds=bool(path),
    )


PROGRAMS: Mapping[str, Callable[[str], Program]] = {
    FLOOR: _floor,
    OURS: ours,
    "Ollama": _ollama,
    "lmstudio": _lmstudio,
    "openai-like": _openai_like,
    "openai-like (base64)": lambda address: _openai_like(address, "/base64"),
}
"""What makes the program of each role, for the address of the scripted server."""
