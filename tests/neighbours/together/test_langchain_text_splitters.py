"""A text is split into parts that the model counts."""

import pytest
from neighbour_servers import REAL_CHAT

from lmstudio_integrations.emulator import Emulator

pytestmark = pytest.mark.neighbour(
    "langchain-text-splitters",
    group="retrieval",
    job="splits a text into parts of at most so many of the model's own tokens",
)


def test_the_model_counts_the_tokens_of_parts(real: Emulator) -> None:
    from langchain_core.documents import Document
    from langchain_text_splitters import MarkdownHeaderTextSplitter, RecursiveCharacterTextSplitter

    from lmstudio_integrations.langchain import ChatLMStudio

    model = ChatLMStudio(model=REAL_CHAT)
    splitter = RecursiveCharacterTextSplitter(
        chunk_size=20, chunk_overlap=0, length_function=model.get_num_tokens, separators=[". ", " "]
    )
    sentences = [f"Ferry number {number} leaves the harbour at {number} o'clock" for number in range(1, 9)]
    parts = splitter.split_text(". ".join(sentences))
    assert "".join(parts) == ". ".join(sentences)
    counts = [model.get_num_tokens(part) for part in parts]
    assert (max(counts) <= 20, min(counts) > 5, len(parts) >= 8) == (True, True, True)

    by_header = MarkdownHeaderTextSplitter([("#", "place")]).split_text("# Town\nThe pool.\n# Harbour\nThe ferry.")
    documents = splitter.split_documents(by_header)
    assert documents == [
        Document("The pool.", metadata={"place": "Town"}),
        Document("The ferry.", metadata={"place": "Harbour"}),
    ]
    assert not real.predictions
