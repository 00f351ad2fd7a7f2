"""How to embed, as both frameworks share it, and the check of texts."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from lmstudio_integrations._adapters.settings import AuxiliaryModelSettings
from lmstudio_integrations._adapters.settings_types import EmbeddingLoadConfig
from lmstudio_integrations.client.concurrency.flows import Flow, arun, run
from lmstudio_integrations.client.concurrency.mailboxes import LoopMailbox, Mailbox, ThreadMailbox
from lmstudio_integrations.client.embeddings import Embedder, EmbeddingRequest, LengthPolicy
from lmstudio_integrations.client.support.arguments import list_of
from lmstudio_integrations.errors import LMStudioProtocolError, LMStudioValueError
from lmstudio_integrations.types._numbers import Count
from lmstudio_integrations.types.config import ModelKind
from lmstudio_integrations.types.embedding_prefixes import NO_PREFIXES, EmbeddingPrefixes, prefixes_of_family

LENGTH_POLICY = (
    "What to do with a text that is too long for the model. `error` raises, `truncate` embeds its beginning, "
    "`average` embeds its parts and averages their vectors, and `pass` leaves it to the server, which may cut it "
    "silently."
)
"""The description of `length_policy`, but for its default."""

PREFIX = (
    "Text to put before each {}. If unset, that of the model card, for models of known families, else none. An empty "
    "text is none."
)
"""The description of the fields with prefixes."""


class EmbeddingSettings(AuxiliaryModelSettings):
    """How to embed."""

    _kind: ClassVar[ModelKind] = "embedding"
    _prefix_fields: ClassVar[tuple[str, str]]
    """The fields with what stands before queries and documents."""

    _batches_at_once: ClassVar[int | None] = None
    """How many calls on one model are in flight at once, of those that a framework makes of one."""

    load_config: EmbeddingLoadConfig = None

    length_policy: LengthPolicy = Field(
        default="error",
        description=f"{LENGTH_POLICY} The default is `error`.",
    )

    dimensions: Count | None = Field(
        default=None,
        description="Shorten vectors to this many numbers and normalize them again. Use it only with models that "
        "were trained for it. If unset, vectors keep their length.",
    )

    @property
    def prefixes(self) -> EmbeddingPrefixes:
        """What stands before each query and each document: as set, else as the family of the named model wants it.

        Vectors that were made with other prefixes do not fit: if these change, embed the documents again.
        """
        query, document = [getattr(self, name) for name in self._prefix_fields]
        of_family = prefixes_of_family(self.model) if query is None or document is None else NO_PREFIXES
        return EmbeddingPrefixes(
            of_family.query if query is None else query, of_family.document if document is None else document
        )

    @abstractmethod
    def _request(self, prefix: str, texts: list[str]) -> EmbeddingRequest:
        """Return the request for the vectors of texts, in the words of the framework."""

    def _embed(self, prefix: str, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts. For no text, no request is made."""
        return self._shortened(run(self._vectors(prefix, texts, ThreadMailbox)), texts) if texts else []

    async def _aembed(self, prefix: str, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts; see `_embed`."""
        return self._shortened(await arun(self._vectors(prefix, texts, LoopMailbox)), texts) if texts else []

    def _vectors(self, prefix: str, texts: list[str], mailbox_type: type[Mailbox]) -> Flow[list[list[float]]]:
        request = self._request(prefix, texts)
        return self._model(Embedder, mailbox_type).vectors_of_long(request, max_concurrency=self._batches_at_once)

    def _shortened(self, vectors: list[list[float]], texts: Sequence[str]) -> list[list[float]]:
        """Return vectors of as many numbers as `dimensions` says.

        Raises:
            LMStudioProtocolError: If there is not one for each text; the frameworks would silently drop texts.
            LMStudioValueError: If they have fewer numbers.
        """
        if len(vectors) != len(texts):
            raise LMStudioProtocolError(f"the server sent {len(vectors)} vectors for {len(texts)} texts")
        dimensions = self.dimensions
        return vectors if dimensions is None else [_shorten(vector, dimensions) for vector in vectors]


def _shorten(vector: Sequence[float], dimensions: int) -> list[float]:
    """Return the first numbers of a vector, normalized to length 1.

    Raises:
        LMStudioValueError: If it has fewer.
    """
    if dimensions > len(vector):
        raise LMStudioValueError(f"dimensions={dimensions}, but the model's vectors have {len(vector)} numbers")
    head = vector[:dimensions]
    length = math.hypot(*head) or 1.0
    return [number / length for number in head]


def check_texts(texts: object) -> list[str]:
    """Return texts as a list.

    Raises:
        LMStudioValueError: If they are not a list of strings. A single string would be embedded letter by letter.
    """
    listed = list_of(texts, "texts", of_texts=True)
    for index, text in enumerate(listed):
        if not isinstance(text, str):
            raise LMStudioValueError(f"text {index} must be a string; got {text!r}")
    return listed


def check_text(text: object, method_of_many: str) -> str:
    """Return a text.

    Raises:
        LMStudioValueError: If it is not a string; `method_of_many` takes a list.
    """
    if not isinstance(text, str):
        remedy = f"; for several texts use {method_of_many}" if isinstance(text, list | tuple) else ""
        raise LMStudioValueError(f"the text must be a string; got {text!r}{remedy}")
    return text
