"""What a user may call, on every surface, and what is done with the results."""

import json
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple

from langchain_core.documents import Document
from langchain_core.exceptions import ModelError
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

import lmstudio_integrations as lms
from lmstudio_integrations import langchain, llama_index
from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings, LMStudioLLM
from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding
from lmstudio_integrations.types.results import PredictionResult

TIMEOUTS: dict[str, Any] = {"idle_timeout": 600.0, "first_token_timeout": 600.0, "load_timeout": 600.0}


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def weather(city: str, days: list[Any] | None = None) -> str:
    """Report the weather."""
    return f"sunny in {city} {days}"


PROMPT = PromptTemplate("Who?")
TOOL = FunctionTool.from_defaults(weather)
LONG_TEXT = "word " * 2_000
RERANKING = "{query} {text}"
"""Without a template, the server would have to render one."""

Call = Callable[[], Any]
Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Surface(NamedTuple):
    """The calls of one surface by name, and the class that each error must be an instance of, besides `LMStudioError`.

    What is async has the same decoder; a few calls of each surface are enough.
    """

    calls: dict[str, Call]
    error: type[Exception] = lms.LMStudioError


def surfaces(address: str, client: lms.Client, async_client: lms.AsyncClient, run: Run) -> dict[str, Surface]:
    """Return every surface on a server, with a client of each kind; `run` runs a coroutine."""
    return {
        "native": Surface(_native(client) | _native_async(async_client, run)),
        "langchain": Surface(_langchain(address, run), ModelError),
        "llama_index": Surface(_llama_index(address, run)),
    }


def _native(client: lms.Client) -> dict[str, Call]:
    def model() -> lms.LLM:
        return client.llm.lazy_model("m1")

    def vectors() -> lms.EmbeddingModel:
        return client.embedding.lazy_model("m1")

    def read(stream: Any) -> Any:
        list(stream)
        return stream.result()

    return {
        "respond": lambda: model().respond("hi", on_prompt_processing_progress=abs),
        "respond_stream": lambda: read(model().respond_stream("hi")),
        "structured": lambda: model().respond("hi", response_format=Person),
        "schema": lambda: model().respond("hi", response_format={"type": "object"}),
        "complete": lambda: model().complete("hi"),
        "act": lambda: model().act("hi", [weather], max_prediction_rounds=2),
        "tokens": lambda: [model().tokenize("hi"), model().count_tokens(["hi", "ho"])],
        "context_use": lambda: model().get_context_use("hi"),
        "info": lambda: [model().get_info(), model().get_load_config(), model().get_processing_state()],
        "base_config": lambda: model().get_base_config(),
        "list": lambda: [client.llm.list_loaded(), client.list_downloaded_models(), client.system.get_version()],
        "new_instance": lambda: client.llm.load_new_instance("m1", on_load_progress=abs),
        "model": lambda: client.llm.model("m1", config={"contextLength": 2048, "seed": 5}),
        "rerank": lambda: model().rerank("hi", ["a", "b"], template=RERANKING),
        "rerank by asking": lambda: model().rerank("hi", ["a", LONG_TEXT], errors="mark"),
        "embed": lambda: [vectors().embed("hi"), vectors().embed(["hi", "ho"])],
        "embed_info": lambda: [vectors().get_info(), vectors().get_load_config()],
    }


def _native_async(client: lms.AsyncClient, run: Run) -> dict[str, Call]:
    def model() -> lms.AsyncLLM:
        return client.llm.lazy_model("m1")

    async def stream() -> Any:
        stream = model().respond_stream("hi")
        async for _ in stream:
            pass
        return stream.result()

    return {
        "async respond": lambda: run(model().respond("hi")),
        "async respond_stream": lambda: run(stream()),
        "async act": lambda: run(model().act("hi", [weather], max_prediction_rounds=2)),
        "async embed": lambda: run(client.embedding.lazy_model("m1").embed(["hi", "ho"])),
    }


def _langchain(address: str, run: Run) -> dict[str, Call]:
    settings: dict[str, Any] = {"model": "m1", "host": address, "timeouts": TIMEOUTS}

    def chat(**more: Any) -> ChatLMStudio:
        return ChatLMStudio(**settings, **more)

    def tools() -> Any:
        return chat().bind_tools([weather])

    def responses(**given: Any) -> Any:
        return chat().with_structured_output(Person, **given)

    def reranker() -> langchain.LMStudioReranker:
        return langchain.LMStudioReranker(**settings, template=RERANKING)

    def vectors(**more: Any) -> LMStudioEmbeddings:
        return LMStudioEmbeddings(**settings, **more)

    return {
        "invoke": lambda: chat(top_logprobs=1).invoke("hi"),
        "ainvoke": lambda: run(chat().ainvoke("hi")),
        "stream": lambda: _sum(chat(top_logprobs=1).stream("hi")),
        "v1": lambda: _sum(chat(output_version="v1").stream("hi")),
        "tools": lambda: tools().invoke("hi"),
        "tools stream": lambda: _sum(tools().stream("hi")),
        "again": lambda: chat().invoke(["hi", tools().invoke("hi"), "go on"]),
        "structured": lambda: responses().invoke("hi"),
        "structured stream": lambda: list(responses().stream("hi")),
        "structured raw": lambda: responses(include_raw=True).invoke("hi"),
        "structured call": lambda: responses(method="function_calling").invoke("hi"),
        "json_mode": lambda: responses(method="json_mode").invoke("hi"),
        "tokens": lambda: [chat().get_num_tokens("hi"), chat().get_token_ids("hi")],
        "message tokens": lambda: chat().get_num_tokens_from_messages([HumanMessage("hi")]),
        "profile": lambda: chat().load(),
        "llm": lambda: LMStudioLLM(**settings).invoke("hi"),
        "llm stream": lambda: list(LMStudioLLM(**settings).stream("hi")),
        "rerank": lambda: reranker().compress_documents([Document("a"), Document("b")], "hi"),
        "embed": lambda: [vectors().embed_query("hi"), vectors().embed_documents(["hi", "ho"])],
        "embed long": lambda: vectors(length_policy="truncate").embed_query(LONG_TEXT),
        "aembed": lambda: run(vectors(dimensions=2).aembed_documents(["hi", LONG_TEXT])),
    }


def _sum(chunks: Iterable[Any]) -> Any:
    whole = None
    for chunk in chunks:
        whole = chunk if whole is None else whole + chunk
    return whole


def _llama_index(address: str, run: Run) -> dict[str, Call]:
    settings: dict[str, Any] = {"model": "m1", "host": address, "timeouts": TIMEOUTS}
    messages = [ChatMessage(role="user", content="hi")]
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in ("a", "b")]

    def llm(**more: Any) -> LMStudio:
        return LMStudio(**settings, **more)

    def reranker() -> llama_index.LMStudioReranker:
        return llama_index.LMStudioReranker(**settings, template=RERANKING)

    def vectors(**more: Any) -> LMStudioEmbedding:
        return LMStudioEmbedding(**settings, **more)

    def called(response: Any) -> Any:
        return llm().get_tool_calls_from_response(response, error_on_no_tool_call=False)

    return {
        "chat": lambda: llm(top_logprobs=1).chat(messages),
        "achat": lambda: run(llm().achat(messages)),
        "stream_chat": lambda: list(llm(top_logprobs=1).stream_chat(messages)),
        "complete": lambda: llm().complete("hi"),
        "continue": lambda: llm().complete("hi", formatted=True),
        "stream_complete": lambda: list(llm().stream_complete("hi")),
        "tools": lambda: called(llm().chat_with_tools([TOOL], "hi")),
        "tools stream": lambda: [called(each) for each in llm().stream_chat_with_tools([TOOL], "hi")],
        "again": lambda: llm().chat([*messages, llm().chat_with_tools([TOOL], "hi").message, *messages]),
        "structured": lambda: llm().structured_predict(Person, PROMPT),
        "structured stream": lambda: list(llm().stream_structured_predict(Person, PROMPT)),
        "load": lambda: llm().load().metadata,
        "tokenize": lambda: llm().tokenize("hi"),
        "rerank": lambda: reranker().postprocess_nodes(nodes, QueryBundle("hi")),
        "embed": lambda: vectors().get_text_embedding_batch(["hi", "ho"]),
        "embed query": lambda: vectors(length_policy="truncate").get_query_embedding(LONG_TEXT),
        "aembed": lambda: run(vectors().aget_text_embedding_batch(["hi", LONG_TEXT])),
    }


def use(result: Any) -> None:
    """Do with a result what programs do: print it, look at its parts, write them as JSON."""
    repr(result)
    match result:
        case list():
            for each in result:
                use(each)
        case PredictionResult():
            for name in ("stats", "model_info", "load_config", "prediction_config"):
                str(getattr(result, name))
        case AIMessage():
            json.dumps([result.tool_calls, result.usage_metadata, result.content_blocks, result.response_metadata])
        case ChatResponse() | CompletionResponse():
            json.dumps([str(result), result.raw, result.additional_kwargs])
        case _:
            str(result)
