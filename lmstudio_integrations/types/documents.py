"""The text of documents, and passages of them that match a query (docs/protocol.md#file-endpoints)."""

from lmstudio_integrations.types._wire_model import WireModel


class DocumentParser(WireModel):
    """The parser of a document."""

    library: str
    version: str


class ParsedDocument(WireModel):
    """The text of a document."""

    content: str
    parser: DocumentParser


class RetrievalEntry(WireModel):
    """A passage that matches the query. `source_index` is the index of its file; a higher `score` is better."""

    content: str
    score: float
    source_index: int
    page_number: int | tuple[int, int] | None = None
    line_number: int | tuple[int, int] | None = None


class RetrievalResult(WireModel):
    """The passages, best first."""

    entries: list[RetrievalEntry]
