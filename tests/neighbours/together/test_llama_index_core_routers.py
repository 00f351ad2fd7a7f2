"""Routers let the model choose a query engine, by its text and by a tool call, and count the tokens."""

import pytest
from neighbour_servers import CHAT, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-core",
    group="llama-index",
    job="a router chooses query engines by text or by a tool call, with the tokens counted",
    settings="`Settings.callback_manager = CallbackManager([TokenCountingHandler()])` counts what the server counted, "
    "also of streams (query engines replace the `callback_manager` of the model by it); embeddings are counted with "
    "the tokenizer of OpenAI, which is part of the package, or with `LMStudioTokenizer`",
)

ONE = {"index": 1, "reason": "ferries"}
MANY = {"selections": [{"index": 2, "reason": "pools"}, {"index": 1, "reason": "ferries"}]}
SELECT = "Some choices are given below"


@pytest.mark.parametrize("kind", ["text", "call", "several"])
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_router_chooses_an_engine(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, kind: str, is_async: bool
) -> None:
    from llama_index.core import Settings, SummaryIndex
    from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
    from llama_index.core.query_engine import RouterQueryEngine
    from llama_index.core.response_synthesizers import TreeSummarize
    from llama_index.core.schema import TextNode
    from llama_index.core.selectors import LLMSingleSelector, PydanticMultiSelector, PydanticSingleSelector
    from llama_index.core.tools import QueryEngineTool

    from lmstudio_integrations.llama_index import LMStudio

    choose = {
        "text": '[{"choice": 1, "reason": "ferries"}]',
        "call": [{"tool": "SingleSelection", "arguments": ONE}],
        "several": [{"tool": "MultiSelection", "arguments": MANY}],
    }[kind]
    server = serve(
        {"when": {"last": SELECT}, "then": choose},
        {"when": {"last": "twenty minutes"}, "then": "twenty"},
        {"when": {"last": "four euros"}, "then": "four"},
        {"then": "both"},
    )
    counter = TokenCountingHandler()
    monkeypatch.setattr(Settings, "callback_manager", CallbackManager([counter]))
    llm = LMStudio(model=CHAT, callback_manager=Settings.callback_manager).load()
    texts = {"ferry": "The ferry takes twenty minutes.", "pool": "The pool costs four euros."}
    tools = [
        QueryEngineTool.from_defaults(
            SummaryIndex([TextNode(text=text)]).as_query_engine(llm=llm), name=name, description=f"about the {name}"
        )
        for name, text in texts.items()
    ]
    selector = {
        "text": LLMSingleSelector.from_defaults(llm=llm),
        "call": PydanticSingleSelector.from_defaults(llm=llm),
        "several": PydanticMultiSelector.from_defaults(llm=llm),
    }[kind]
    engine = RouterQueryEngine(selector=selector, query_engine_tools=tools, llm=llm, summarizer=TreeSummarize(llm=llm))
    response = await engine.aquery("How long?") if is_async else engine.query("How long?")
    assert str(response) == ("both" if kind == "several" else "twenty")
    result = response.metadata["selector_result"]
    assert [each.index for each in result.selections] == ([1, 0] if kind == "several" else [0])
    first, *rest = server.predictions
    assert len(rest) == (3 if kind == "several" else 1)
    offered = [each["function"]["name"] for each in first.tools]
    assert offered == {"text": [], "call": ["SingleSelection"], "several": ["MultiSelection"]}[kind]
    assert first.tool_choice == ("auto" if kind == "text" else "required")
    stats = [each.stats for each in server.predictions]
    assert counter.prompt_llm_token_count == sum(each["promptTokensCount"] for each in stats)
    assert counter.completion_llm_token_count == sum(each["predictedTokensCount"] for each in stats)


def test_the_tokens_of_streams_are_counted(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    from llama_index.core import Document, Settings, SummaryIndex, VectorStoreIndex
    from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
    from neighbour_servers import EMBEDDING

    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding, LMStudioTokenizer

    server = serve({"then": "It takes twenty minutes."})
    tokenizer = LMStudioTokenizer(LMStudio(model=CHAT))
    counter = TokenCountingHandler(tokenizer=tokenizer)
    monkeypatch.setattr(Settings, "callback_manager", CallbackManager([counter]))
    llm = LMStudio(model=CHAT)
    documents = [Document(text="The ferry takes twenty minutes.")]
    engine = SummaryIndex.from_documents(documents).as_query_engine(llm=llm, streaming=True)
    assert str(engine.query("How long?")) == "It takes twenty minutes."
    (asked,) = server.predictions
    assert counter.prompt_llm_token_count == asked.stats["promptTokensCount"]
    assert counter.completion_llm_token_count == asked.stats["predictedTokensCount"]
    embed_model = LMStudioEmbedding(model=EMBEDDING, callback_manager=Settings.callback_manager)
    VectorStoreIndex.from_documents(documents, embed_model=embed_model)
    (embedded,) = server.embedded_texts
    assert counter.total_embedding_token_count == len(tokenizer(embedded.text))
