"""Retrieval chains and retrievers that ask the model, over a Chroma store with a real embedding model."""

from typing import TYPE_CHECKING

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

if TYPE_CHECKING:
    from langchain_chroma import Chroma

pytestmark = pytest.mark.neighbour(
    "langchain-classic",
    "langchain-chroma",
    "lark",
    group="retrieval",
    job="answers from documents, in a conversation too, and lets the model write queries and filters",
    settings="`SelfQueryRetriever` needs `structured_query_translator=ChromaTranslator()`: what looks one up for the "
    "store imports a class that langchain-community 0.4.2 no longer has",
)

EMBEDDINGS = (f"{REAL_EMBEDDING}={REAL_EMBEDDING}",)
TEXTS = ["The ferry takes twenty minutes.", "The swimming pool costs four euros.", "The library opens at nine."]
FERRY, POOL, LIBRARY = TEXTS


def _store(name: str) -> "Chroma":
    from langchain_chroma import Chroma

    from lmstudio_integrations.langchain import LMStudioEmbeddings

    places = [{"place": "harbour"}, {"place": "town"}, {"place": "town"}]
    embeddings = LMStudioEmbeddings(model=REAL_EMBEDDING)
    return Chroma.from_texts(TEXTS, embeddings, places, collection_name=name)


async def test_chains_answer_from_documents(serve: Serve) -> None:
    from langchain_classic.chains import create_history_aware_retriever, create_retrieval_chain
    from langchain_classic.chains.combine_documents import create_stuff_documents_chain
    from langchain_core.prompts import ChatPromptTemplate

    from lmstudio_integrations.langchain import ChatLMStudio

    server = serve(
        {"when": {"last": "^Rephrase"}, "then": "What does a swim cost?"},
        {"then": "Read: {last}"},
        models=EMBEDDINGS,
    )
    model = ChatLMStudio(model=CHAT)
    prompt = ChatPromptTemplate([("system", "Answer from this: {context}"), ("user", "{input}")])
    retriever = _store("chains").as_retriever(search_kwargs={"k": 1})
    chain = create_retrieval_chain(retriever, create_stuff_documents_chain(model, prompt))
    answered = chain.invoke({"input": "How long does the ferry take?"})
    assert answered["answer"] == "Read: How long does the ferry take?"
    assert [document.page_content for document in answered["context"]] == [FERRY]
    assert server.predictions[0].messages[0]["content"] == f"Answer from this: {FERRY}"

    rephrase = ChatPromptTemplate([("placeholder", "{chat_history}"), ("user", "Rephrase: {input}")])
    aware = create_history_aware_retriever(model, retriever, rephrase)
    conversation = create_retrieval_chain(aware, create_stuff_documents_chain(model, prompt))
    history = [("user", "Can I swim?"), ("assistant", "Yes.")]
    followed = await conversation.ainvoke({"input": "What does it cost?", "chat_history": history})
    assert [document.page_content for document in followed["context"]] == [POOL]
    _, asked, told = server.predictions
    assert [each["role"] for each in asked.messages] == ["user", "assistant", "user"]
    assert told.messages[0]["content"] == f"Answer from this: {POOL}"
    queries = [record.text for record in server.embedded_texts][3:]
    assert queries == ["How long does the ferry take?", "What does a swim cost?"]


async def test_older_chains_keep_a_conversation(serve: Serve) -> None:
    from langchain_classic.chains import ConversationalRetrievalChain, RetrievalQA
    from langchain_classic.chains.conversation.base import ConversationChain
    from langchain_classic.memory import ConversationSummaryMemory

    from lmstudio_integrations.langchain import ChatLMStudio, LMStudioLLM

    server = serve(
        {"when": {"last": "standalone question"}, "then": "What does a swim cost?"},
        {"when": {"last": "summarize the lines"}, "then": "The human wants to swim."},
        {"then": "As you say."},
        models=EMBEDDINGS,
    )
    model = ChatLMStudio(model=CHAT)
    retriever = _store("older").as_retriever(search_kwargs={"k": 1})
    assert RetrievalQA.from_chain_type(LMStudioLLM(model=CHAT), retriever=retriever).invoke(
        "When does the library open?"
    ) == {
        "query": "When does the library open?",
        "result": "As you say.",
    }
    (raw,) = server.predictions
    assert raw.raw
    assert LIBRARY in str(raw.prompt)

    chain = ConversationalRetrievalChain.from_llm(model, retriever, return_source_documents=True)
    asked = {"question": "What does it cost?", "chat_history": [("Can I swim?", "Yes.")]}
    answered = await chain.ainvoke(asked)
    assert (answered["answer"], answered["source_documents"][0].page_content) == ("As you say.", POOL)

    talk = ConversationChain(llm=model, memory=ConversationSummaryMemory(llm=model))
    talk.invoke("I want to swim.")
    talk.invoke("Now.")
    summary, second = server.predictions[-3], server.predictions[-2]
    assert "Human: I want to swim.\nAI: As you say." in summary.messages[0]["content"]
    assert "Current conversation:\nThe human wants to swim.\nHuman: Now." in second.messages[0]["content"]


async def test_retrievers_let_the_model_write_queries(serve: Serve) -> None:
    from langchain_classic.chains.query_constructor.schema import AttributeInfo
    from langchain_classic.retrievers import MultiQueryRetriever, SelfQueryRetriever
    from langchain_community.query_constructors.chroma import ChromaTranslator

    from lmstudio_integrations.langchain import ChatLMStudio

    written = '```json\n{"query": "opens", "filter": "eq(\\"place\\", \\"town\\")", "limit": 1}\n```'
    server = serve(
        {"when": {"last": "different versions"}, "then": "ferry crossing\nswimming pool price"},
        {"when": {"last": "Structured Request"}, "then": written},
        models=EMBEDDINGS,
    )
    model, store = ChatLMStudio(model=CHAT), _store("queries")
    retriever = MultiQueryRetriever.from_llm(store.as_retriever(search_kwargs={"k": 1}), model)
    for found in (retriever.invoke("What is there?"), await retriever.ainvoke("What is there?")):
        assert [document.page_content for document in found] == [FERRY, POOL]

    about = [AttributeInfo(name="place", description="where it is", type="string")]
    asking = SelfQueryRetriever.from_llm(
        model, store, "Sights", about, structured_query_translator=ChromaTranslator(), enable_limit=True
    )
    for found in (asking.invoke("What opens in the town?"), await asking.ainvoke("What opens in the town?")):
        assert [document.page_content for document in found] == [LIBRARY]
    texts = [record.text for record in server.embedded_texts]
    assert texts[3:] == ["ferry crossing", "swimming pool price"] * 2 + ["opens"] * 2
    assert [record.stop_reason for record in server.predictions] == ["eosFound"] * 4
