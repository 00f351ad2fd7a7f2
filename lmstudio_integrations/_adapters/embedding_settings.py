"""How to embed: the fields that the adapters of embedding models share, and the check of their texts."""

from typing import ClassVar

from pydantic import Field

from lmstudio_integrations._adapters.auxiliary_model_settings import AuxiliaryModelSettings
from lmstudio_integrations._adapters.field_types import EmbeddingLoadConfig
from lmstudio_integrations.client.embeddings import LengthPolicy
from lmstudio_integrations.client.support.arguments import list_of
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.config import ModelKind

LENGTH_POLICY = (
    "What to do with a text that is too long for the model. `error` raises, `truncate` embeds its beginning, "
    "`average` embeds its parts and averages their vectors, and `pass` leaves it to the server, which may cut it "
    "silently."
)
"""The description of `length_policy`, but for its default."""


class EmbeddingSettings(AuxiliaryModelSettings):
    """How to embed."""

    _kind: ClassVar[ModelKind] = "embedding"

    load_config: EmbeddingLoadConfig = None

    length_policy: LengthPolicy = Field(
        default="error",
        description=f"{LENGTH_POLICY} The default is `error`.",
    )


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
