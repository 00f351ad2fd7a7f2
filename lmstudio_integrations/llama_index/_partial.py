"""A JSON object that is still being written, read as an instance of a pydantic class as far as it goes. Pure."""

from functools import lru_cache, partial
from typing import Any, Generic, TypeVar

from llama_index.core.program.utils import FlexibleModel, create_flexible_model
from pydantic import BaseModel
from pydantic_core import from_json

from lmstudio_integrations._adapters.growing import GrowingText
from lmstudio_integrations._typeguards import is_object
from lmstudio_integrations.errors import LMStudioStructuredOutputError
from lmstudio_integrations.types.structured import read_response

ModelT = TypeVar("ModelT", bound=BaseModel)

_parse_beginning = partial(from_json, allow_partial="trailing-strings")
"""As much of a JSON value as there is; read like a whole one, without what LM Studio may leave around it."""


@lru_cache(maxsize=256)
def flexible(output_cls: type[BaseModel]) -> type[FlexibleModel]:
    """Return the class of unfinished instances: the same fields, all optional, of any kind."""
    return create_flexible_model(output_cls)


class Growing(Generic[ModelT]):
    """Reads an answer while it grows."""

    def __init__(self, output_cls: type[ModelT]) -> None:
        self._output_cls = output_cls
        self._text = GrowingText()

    def feed(self, piece: str) -> ModelT | FlexibleModel | None:
        """Take a piece in; return what there is so far, if it was read again and is an object."""
        self._text.add(piece)
        if not self._text.is_due():
            return None
        try:
            data = read_response(_parse_beginning, self._text.read(), "none yet")
        except LMStudioStructuredOutputError:
            return None
        return self._instance(data) if is_object(data) else None

    @property
    def text(self) -> str:
        """All that has come."""
        return self._text.read()

    def _instance(self, data: dict[str, Any]) -> ModelT | FlexibleModel:
        try:
            return self._output_cls.model_validate(data)
        except Exception:  # noqa: BLE001 - a validator of the user's may trip over what is not there yet in any way
            return flexible(self._output_cls).model_validate(data)


def whole(output_cls: type[ModelT], text: str, stop_reason: str) -> ModelT:
    """Return the instance that an answer is.

    Raises:
        LMStudioStructuredOutputError: If it is none.
    """
    return read_response(output_cls.model_validate_json, text, stop_reason)
