"""LlamaIndex core's own recovery from responses that do not parse: it catches `ValueError`."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.base.response.schema import PydanticResponse
from llama_index.core.indices.property_graph import SchemaLLMPathExtractor
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import MarkdownElementNodeParser
from llama_index.core.node_parser.relational.base_element import Element
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import BaseModel

from lmstudio_integrations.emulator import ModelEntry
from lmstudio_integrations.llama_index import LMStudio
from tests.llama_index.scripted_server import CHAT, Server

TRIPLET = {
    "subject": {"type": "PERSON", "name": "Ann"},
    "relation": {"type": "HAS"},
    "object": {"type": "PRODUCT", "name": "a boat"},
}
WHOLE = "whole"
"""In a text: the response to it fits the schema; otherwise it is cut off in the middle."""


class Report(BaseModel):
    """A report."""

    city: str


def models_that_write(written: object) -> list[ModelEntry]:
    """Return a model that writes this JSON about texts with the word, and half of it about others."""
    text = json.dumps(written)
    rules: tuple[dict[str, Any], ...] = (
        {"when": {"last": WHOLE, "structured": True}, "then": [{"text": text}]},
        {"when": {"structured": True}, "then": [{"text": text[: len(text) // 2]}]},
        {"then": [{"text": "A table of boats."}]},
    )
    return [ModelEntry(key=CHAT, context_length=8192, rules=rules)]


@pytest.fixture
def llm(request: pytest.FixtureRequest) -> Iterator[LMStudio]:
    with Server(models_that_write(request.param)) as server, server.llm() as model:
        yield model


@pytest.mark.parametrize("llm", [{"triplets": [TRIPLET]}], indirect=True)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_one_truncated_response_does_not_end_an_ingestion(llm: LMStudio, asynchronous: bool) -> None:
    pipeline = IngestionPipeline(transformations=[SchemaLLMPathExtractor(llm, strict=False)])
    documents = [Document(text=f"{WHOLE}: Ann has a boat."), Document(text="Bob has a boat.")]
    nodes = asyncio.run(pipeline.arun(documents=documents)) if asynchronous else pipeline.run(documents=documents)
    assert [len(node.metadata["relations"]) for node in nodes] == [1, 0]


@pytest.mark.parametrize("llm", [{"summary": "Boats.", "columns": []}], indirect=True)
def test_a_parser_summarizes_in_plain_text_what_it_cannot_in_json(llm: LMStudio) -> None:
    tables = [Element(id=name, type="table", element=name) for name in (f"{WHOLE} | a |", "| b |")]
    MarkdownElementNodeParser(llm=llm).extract_table_summaries(tables)
    assert [table.table_output.summary for table in tables if table.table_output] == ["Boats.", "A table of boats."]


@pytest.mark.parametrize("llm", [{"city": "Oslo"}], indirect=True)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_refining_keeps_the_response_so_far(llm: LMStudio, asynchronous: bool) -> None:
    refine = get_response_synthesizer(llm=llm, response_mode=ResponseMode.REFINE, output_cls=Report)
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in (f"{WHOLE}: Oslo.", "Rome.")]
    response = asyncio.run(refine.asynthesize("Where?", nodes)) if asynchronous else refine.synthesize("Where?", nodes)
    assert isinstance(response, PydanticResponse)
    assert response.response == Report(city="Oslo")
