"""How to embed: the fields that the adapters of embedding models share, and the check of their texts."""

from typing import ClassVar, Self, cast

from pydantic import Field

from lmstudio_integrations._both_frameworks.connection_settings import ConnectionSettings
from lmstudio_integrations._both_frameworks.field_types import EmbeddingLoadConfig
from lmstudio_integrations.client.api.asynchronous import AsyncEmbeddingModel
from lmstudio_integrations.client.api.sync import EmbeddingModel
from lmstudio_integrations.client.embeddings.long_texts import LengthPolicy
from lmstudio_integrations.client.support.arguments import list_of
from lmstudio_integrations.client.support.tracebacks import with_short_traceback
from lmstudio_integrations.client.transport.flows import arun, run
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.config import LoadPolicy, ModelKind

LENGTH_POLICY = (
    "What to do with a text that is too long for the model. `error` raises, `truncate` embeds its beginning, "
    "`average` embeds its parts and averages their vectors, and `pass` leaves it to the server, which may cut it "
    "silently."
)
"""The description of `length_policy`, but for its default."""


class EmbeddingSettings(ConnectionSettings):
    """How to embed."""

    _kind: ClassVar[ModelKind] = "embedding"

    load_config: EmbeddingLoadConfig = None

    load_policy: LoadPolicy = Field(
        default="explicit",
        description="How the model is found or loaded; see `load_policy` of the language models. The default is "
        "`explicit`, so that no language model evicts the embedding model.",
    )

    length_policy: LengthPolicy = Field(
        default="error",
        description=f"{LENGTH_POLICY} The default is `error`.",
    )

    @with_short_traceback
    def load(self) -> Self:
        """Load the model if it is not loaded; return this object.

        Raises:
            LMStudioServerError: If the server fails.
        """
        run(self._model().model.load_all())
        return self

    @with_short_traceback
    async def aload(self) -> Self:
        """Load the model if it is not loaded; see `load`."""
        await arun(self._async_model().model.load_all())
        return self

    def _model(self) -> EmbeddingModel:
        return cast("EmbeddingModel", self._runtime.model(self._resolve_model(vars(self))))

    def _async_model(self) -> AsyncEmbeddingModel:
        return cast("AsyncEmbeddingModel", self._runtime.async_model(self._resolve_model(vars(self))))


def prefixed(prefix: str, texts: object) -> list[str]:
    """Return texts, each with a prefix.

    Raises:
        LMStudioValueError: If they are not a list of strings. A single string would be embedded letter by letter.
    """
    found = list_of(texts, "texts", of_texts=True)
    for index, text in enumerate(found):
        if not isinstance(text, str):
            raise LMStudioValueError(f"text {index} must be a string; got {text!r}")
    return [prefix + text for text in found] if prefix else found


def one_prefixed(prefix: str, text: object, method_of_many: str) -> list[str]:
    """Return one text with a prefix, in a list.

    Raises:
        LMStudioValueError: If it is not a string; `method_of_many` takes a list.
    """
    if not isinstance(text, str):
        remedy = f"; for several texts use {method_of_many}" if isinstance(text, list | tuple) else ""
        raise LMStudioValueError(f"the text must be a string; got {text!r}{remedy}")
    return [prefix + text]
