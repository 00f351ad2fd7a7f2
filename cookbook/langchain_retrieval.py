"""Retrieval: find the text that matches a question, and answer from it.

Connects to LM Studio on this machine, or to `LMSTUDIO_HOST`. Set `LMSTUDIO_MODEL`
and `LMSTUDIO_EMBEDDING_MODEL` to use other models.
"""

import os

from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from lmstudio_integrations.langchain import ChatLMStudio, LMStudioEmbeddings

MODEL = os.environ.get("LMSTUDIO_MODEL", "smollm2-135m-instruct")
EMBEDDING_MODEL = os.environ.get(
    "LMSTUDIO_EMBEDDING_MODEL", "text-embedding-all-minilm-l6-v2"
)

TEXTS = (
    "The town library is open from nine to six, and on Saturdays until one.",
    "The swimming pool costs four euros for adults. Small children swim for free.",
    "The ferry to the island leaves every hour. The crossing takes twenty minutes.",
)
QUESTION = "How much does the swimming pool cost for adults?"


def join(documents: list[Document]) -> str:
    """Join the texts of documents."""
    return "\n".join(document.page_content for document in documents)


def main() -> None:
    """Answer a question from one of three texts."""
    store = InMemoryVectorStore.from_texts(
        list(TEXTS), LMStudioEmbeddings(model=EMBEDDING_MODEL)
    )
    retriever = store.as_retriever(search_kwargs={"k": 1})
    assert join(retriever.invoke(QUESTION)) == TEXTS[1]

    prompt = ChatPromptTemplate.from_messages(
        [
            ("system", "Answer the question from the text."),
            ("human", "Text: {context}\n\nQuestion: {question}"),
        ]
    )
    model = ChatLMStudio(model=MODEL, temperature=0, max_tokens=60)
    chain = (
        {"context": retriever | join, "question": RunnablePassthrough()}
        | prompt
        | model
        | StrOutputParser()
    )
    response = chain.invoke(QUESTION)
    print(response)
    assert response.strip()


if __name__ == "__main__":
    main()
