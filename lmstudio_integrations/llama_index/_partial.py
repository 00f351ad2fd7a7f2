"""A JSON object that is still being written, read as an instance of a pydantic class as far as it goes. Pure."""

from functools import lru_cache, partial
from typing import Any, Generic, TypeVar

from llama_index.core.program.utils import FlexibleModel, create_flexible_model
from pydantic import BaseModel
from pydantic_core import from_json

from lmstudio_integrations._narrow import is_object
from lmstudio_integrations.client._structured import Format
from lmstudio_integrations.errors import LMStudioStructuredOutputError

ModelT = TypeVar("ModelT", bound=BaseModel)

_SMALL = 4096
"""Characters up to which every piece is read; beyond, reading each time would cost the square of the length."""

_GROWTH = 1.01
"""By how much a longer text must have grown to be read again."""

_BEGINNING = Format({}, partial(from_json, allow_partial="trailing-strings"))
"""As much of a JSON value as there is; read like a whole one, without what LM Studio may leave around it."""


@lru_cache(maxsize=256)
def flexible(output_cls: type[BaseModel]) -> type[FlexibleModel]:
    """Return the class of unfinished instances: the same fields, all optional, of any kind."""
    return create_flexible_model(output_cls)


class Growing(Generic[ModelT]):
    """Reads an answer while it grows."""

    def __init__(self, output_cls: type[ModelT]) -> None:
        self._output_cls = output_cls
        self._read = 0
        self.text = ""

    def feed(self, piece: str) -> ModelT | FlexibleModel | None:
        """Take a piece in; return what there is so far, if it was read again and is an object."""
        self.text += piece
        length = len(self.text)
        if length > _SMALL and length < self._read * _GROWTH:
            return None
        self._read = length
        try:
            data = _BEGINNING.read(self.text, "none yet")
        except LMStudioStructuredOutputError:
            return None
        return self._instance(data) if is_object(data) else None

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
    instance: ModelT = Format({}, output_cls.model_validate_json).read(text, stop_reason)
    return instance
