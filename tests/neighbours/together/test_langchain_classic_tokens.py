"""Long texts and long conversations are summarized where the model counts too many tokens."""

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "langchain-classic",
    group="retrieval",
    job="summarizes a long text in parts, and a conversation beyond a number of the model's tokens; caches embeddings",
    weekly=True,
)


async def test_what_has_too_many_tokens_is_summarized(serve: Serve) -> None:
    from langchain_classic.chains.summarize import load_summarize_chain
    from langchain_classic.memory import ConversationSummaryBufferMemory
    from langchain_core.documents import Document

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {"when": {"last": "New lines of conversation"}, "then": "They greet."},
        {"when": {"last": "(?s)concise summary.*A{5}.*B{5}"}, "then": "A and B."},
        {"when": {"last": "(?s)concise summary.*A{5}"}, "then": "AAAAA"},
        {"when": {"last": "(?s)concise summary.*B{5}"}, "then": "BBBBB"},
        {"then": "Both."},
    )
    model = ChatLMStudio(model=CHAT)
    pages = [Document(letter * 5 + " and more" * 40) for letter in "AB"]
    assert model.get_num_tokens(pages[0].page_content) > 30
    chain = load_summarize_chain(model, chain_type="map_reduce", token_max=30)
    for summary in (chain.invoke(pages), await chain.ainvoke(pages)):
        assert summary["output_text"] == "A and B."
    assert len(server.predictions) == 6  # the parts, then both summaries, which fit

    memory = ConversationSummaryBufferMemory(llm=model, max_token_limit=20, return_messages=True)
    memory.save_context({"input": "Hello"}, {"output": "Hello, Ada"})
    assert len(server.predictions) == 6
    await memory.asave_context({"input": "What does a swim in the pool cost?"}, {"output": "It costs four euros."})
    assert len(server.predictions) == 7
    first, *kept = memory.load_memory_variables({})["history"]
    assert (first.type, first.text) == ("system", "They greet.")
    assert 0 < model.get_num_tokens_from_messages(kept) <= 20


async def test_embeddings_are_cached_and_made_from_written_answers(serve: Serve) -> None:
    from langchain_classic.chains import HypotheticalDocumentEmbedder
    from langchain_classic.embeddings import CacheBackedEmbeddings
    from langchain_classic.retrievers import ParentDocumentRetriever
    from langchain_classic.storage import InMemoryStore
    from langchain_core.documents import Document
    from langchain_core.stores import InMemoryByteStore
    from langchain_core.vectorstores import InMemoryVectorStore
    from langchain_text_splitters import CharacterTextSplitter

    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

    written = "The crossing takes twenty minutes."
    server = serve({"then": written}, models=(f"{REAL_EMBEDDING}={REAL_EMBEDDING}",))
    embeddings = LMStudioEmbeddings(model=REAL_EMBEDDING)
    cached = CacheBackedEmbeddings.from_bytes_store(
        embeddings, InMemoryByteStore(), namespace=embeddings.model, key_encoder="sha256"
    )
    sights = Document("The ferry sails at noon.\n\nIt is red.")
    pool = Document("The pool costs four euros.\n\nIt is blue.")
    splitter = CharacterTextSplitter(chunk_size=30, chunk_overlap=0)
    for _ in range(2):
        retriever = ParentDocumentRetriever(
            vectorstore=InMemoryVectorStore(cached),
            docstore=InMemoryStore(),
            child_splitter=splitter,
            search_kwargs={"k": 1},
        )
        retriever.add_documents([sights, pool])
        assert retriever.invoke("When does the boat go?") == [sights]
    texts = [record.text for record in server.embedded_texts]
    parts = [part for page in (sights, pool) for part in page.page_content.split("\n\n")]
    assert texts == [*parts, *["When does the boat go?"] * 2]

    hypothetical = HypotheticalDocumentEmbedder.from_llm(ChatLMStudio(model=CHAT), embeddings, "web_search")
    assert hypothetical.embed_query("How long is it?") == pytest.approx(embeddings.embed_query(written), abs=1e-5)
    assert "Question: How long is it?" in str(server.predictions[0].messages[0]["content"])
