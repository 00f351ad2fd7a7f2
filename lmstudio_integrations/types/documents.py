"""What the server reads out of uploaded documents, and finds in them (protocol §4.6)."""

from lmstudio_integrations.types._base import WireModel


class DocumentParser(WireModel):
    """Which parser read a document."""

    library: str
    version: str


class ParsedDocument(WireModel):
    """The text of a document."""

    content: str
    parser: DocumentParser


class RetrievalEntry(WireModel):
    """A passage that bears on the query. `source_index` counts the files as given; a higher `score` is better."""

    content: str
    score: float
    source_index: int
    page_number: int | tuple[int, int] | None = None
    line_number: int | tuple[int, int] | None = None


class RetrievalResult(WireModel):
    """The passages, best first."""

    entries: list[RetrievalEntry]
