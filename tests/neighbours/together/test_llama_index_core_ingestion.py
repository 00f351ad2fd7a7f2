"""Documents go through a pipeline with all extractors and the embedding model; what did not change is not run again."""

import pytest
from neighbour_servers import CHAT, REAL_EMBEDDING, Serve

pytestmark = pytest.mark.neighbour(
    "llama-index-core",
    group="llama-index",
    job="an ingestion pipeline with all extractors, a cache and a document store",
    settings="nothing is downloaded: the package has the tokenizers of `tiktoken` and `nltk` that it needs",
)

RULES = (
    {"when": {"last": "Give a title"}, "then": "The ferry"},
    {"when": {"last": "comprehensive title"}, "then": "Ferries and pools"},
    {"when": {"last": "unique keywords"}, "then": "ferry, pier"},
    {"when": {"last": "generate 2 questions"}, "then": "How long does it take?"},
    {"when": {"last": "Summarize the key topics"}, "then": "A ferry."},
    {"when": {"last": "extract out a Place object"}, "then": '{"name": "pier", "number": 7}'},
    {"when": {"last": "situate"}, "then": "The first part."},
)

TEXT = "The ferry to the island takes twenty minutes. It leaves from pier 7."


async def test_a_pipeline_extracts_embeds_and_caches(serve: Serve) -> None:
    from llama_index.core import Document
    from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
    from llama_index.core.extractors import (
        DocumentContextExtractor,
        KeywordExtractor,
        PydanticProgramExtractor,
        QuestionsAnsweredExtractor,
        SummaryExtractor,
        TitleExtractor,
    )
    from llama_index.core.ingestion import IngestionCache, IngestionPipeline
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.core.program import LLMTextCompletionProgram
    from llama_index.core.storage.docstore import SimpleDocumentStore
    from llama_index.core.vector_stores import SimpleVectorStore
    from pydantic import BaseModel

    from lmstudio_integrations.llama_index import LMStudio, LMStudioEmbedding

    class Place(BaseModel):
        """A place."""

        name: str
        number: int

    server = serve(*RULES, models=[f"{REAL_EMBEDDING}={REAL_EMBEDDING}"])
    counter = TokenCountingHandler()
    llm = LMStudio(model=CHAT, callback_manager=CallbackManager([counter]))
    document = Document(text=TEXT, id_="ferry")
    documents = SimpleDocumentStore()
    documents.add_documents([document])
    program = LLMTextCompletionProgram.from_defaults(output_cls=Place, llm=llm, prompt_template_str="{input}")
    pipeline = IngestionPipeline(
        transformations=[
            SentenceSplitter(chunk_size=256),
            TitleExtractor(llm=llm),
            KeywordExtractor(llm=llm, keywords=2),
            QuestionsAnsweredExtractor(llm=llm, questions=2),
            SummaryExtractor(llm=llm),
            PydanticProgramExtractor(program=program),
            DocumentContextExtractor(llm=llm, docstore=documents, max_output_tokens=64),
            LMStudioEmbedding(model=REAL_EMBEDDING),
        ],
        cache=IngestionCache(),
        docstore=SimpleDocumentStore(),
        vector_store=SimpleVectorStore(),
    )
    (node,) = await pipeline.arun(documents=[document])
    assert node.metadata == {
        "document_title": "Ferries and pools",
        "excerpt_keywords": "ferry, pier",
        "questions_this_excerpt_can_answer": "How long does it take?",
        "section_summary": "A ferry.",
        "name": "pier",
        "number": 7,
        "context": "The first part.",
    }
    assert len(node.embedding or []) == 384
    assert await pipeline.arun(documents=[document]) == [], "the document store has it"
    asked = server.predictions
    assert len(asked) == 7, "once each, and two for the title"
    assert asked[-1].config["maxTokens"] == 64
    assert f"<document>{TEXT}</document>" in str(asked[-1].messages)
    (embedded,) = server.embedded_texts
    assert TEXT in embedded.text
    assert "section_summary: A ferry." in embedded.text
    prompts = [each.stats["promptTokensCount"] for each in asked]
    assert sum(each.prompt_token_count for each in counter.llm_token_counts) == sum(prompts)
