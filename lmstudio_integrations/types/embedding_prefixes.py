"""What stands before queries and documents for embedding models that were trained with prefixes, by their families."""

import logging
import re
from functools import lru_cache
from typing import Literal, NamedTuple

logger: logging.Logger = logging.getLogger(__name__)


Purpose = Literal["query", "document"]
"""What the vector of a text is for."""


class EmbeddingPrefixes(NamedTuple):
    """What stands before each query, and before each document.

    Attributes:
        query: Before a query.
        document: Before a document.
    """

    query: str = ""
    document: str = ""


_RETRIEVE = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
_REPRESENT = "Represent this sentence for searching relevant passages: "

_FAMILIES: tuple[tuple[str, EmbeddingPrefixes], ...] = (
    (r"nomic-embed-text", EmbeddingPrefixes("search_query: ", "search_document: ")),
    (r"qwen3-(vl-)?embedding", EmbeddingPrefixes(_RETRIEVE)),
    (r"e5-[\w.-]*instruct|gte-qwen2-[\w.-]*instruct", EmbeddingPrefixes(f"{_RETRIEVE} ")),
    (r"(?<![a-z])e5-(small|base|large)", EmbeddingPrefixes("query: ", "passage: ")),
    (r"snowflake-arctic-embed-[\w.-]*v2|snowflake-arctic-embed2", EmbeddingPrefixes("query: ")),
    (r"snowflake-arctic-embed|mxbai-embed-large-v1|bge-(small|base|large)-en-v1\.5", EmbeddingPrefixes(_REPRESENT)),
    (r"embedding-?gemma", EmbeddingPrefixes("task: search result | query: ", "title: none | text: ")),
)
"""The prefixes in the model cards, by a part of the key in lower case; the first match counts."""

NO_PREFIXES = EmbeddingPrefixes()


@lru_cache(maxsize=64)
def prefixes_of_family(key: str | None) -> EmbeddingPrefixes:
    """Return the prefixes of the family of a model; none for other models. Logs them once for each key."""
    name = (key or "").casefold().replace("_", "-")
    for pattern, prefixes in _FAMILIES:
        if re.search(pattern, name):
            logger.info(
                "%r: queries get the prefix %r and documents %r, as its model card says; others, or none, are settings "
                "of the embedding model",
                key,
                *prefixes,
            )
            return prefixes
    return NO_PREFIXES
