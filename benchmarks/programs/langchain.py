"""LangChain. The floor is a model that has its tokens in memory, so that only the framework's own cost remains."""

import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from langchain_core._api import LangChainBetaWarning
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import SecretStr

from benchmarks.programs import FLOOR, MODELS, OURS, PROMPT, Embed, Program, parsed_vectors
from benchmarks.server import tokens_of

warnings.simplefilter("ignore", LangChainBetaWarning)  # event streaming is in beta


def program(make: Callable[[str], BaseChatModel], embed: Embed, *, only_embeds: bool = False) -> Program:
    """Return the program of what makes a chat model for a name."""
    models = {name: make(name) for name in MODELS}
    prompt = [HumanMessage(PROMPT)]
    return Program(
        stream=lambda model: models[model].stream(prompt),
        astream=lambda model: models[model].astream(prompt),
        respond=lambda model: models[model].invoke(prompt),
        arespond=lambda model: models[model].ainvoke(prompt),
        embed=embed,
        only_embeds=only_embeds,
        events=lambda model: models[model].stream_events(prompt, version="v3"),
    )


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
        return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(tokens_of(self.model))))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for token in tokens_of(self.model):
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
        for token in tokens_of(self.model):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=token))
            if run_manager is not None:
                await run_manager.on_llm_new_token(token, chunk=chunk)
            yield chunk


def _floor(_address: str) -> Program:
    return program(lambda model: Floor(model=model), parsed_vectors)


def ours(address: str) -> Program:
    """Return the program of the LangChain adapter of this package."""
    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

    embeddings = LMStudioEmbeddings(model="vector", host=address)
    return program(lambda model: ChatLMStudio(model=model, host=address), embeddings.embed_documents)


def _ollama(address: str) -> Program:
    from langchain_ollama import ChatOllama, OllamaEmbeddings

    url = f"http://{address}"
    embeddings = OllamaEmbeddings(model="vector", base_url=url)
    return program(lambda model: ChatOllama(model=model, base_url=url), embeddings.embed_documents)


def _openai(address: str, path: str = "") -> Program:
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    key = SecretStr("none")
    url = f"http://{address}{path}/v1"
    # Without the check, which needs the tokenizer of OpenAI's own models.
    embeddings = OpenAIEmbeddings(model="vector", base_url=url, api_key=key, check_embedding_ctx_length=False)
    return program(
        lambda model: ChatOpenAI(model=model, base_url=url, api_key=key),
        embeddings.embed_documents,
        only_embeds=bool(path),
    )


PROGRAMS: Mapping[str, Callable[[str], Program]] = {
    FLOOR: _floor,
    OURS: ours,
    "Ollama": _ollama,
    "OpenAI": _openai,
    "OpenAI (base64)": lambda address: _openai(address, "/base64"),
}
"""What makes the program of each role, for the address of the scripted server."""
