"""Parses a JSON object that is still being generated into an instance of a pydantic class. Pure."""

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

_parse_partial = partial(from_json, allow_partial="trailing-strings")
"""Parses as much of a JSON value as there is."""


@lru_cache(maxsize=256)
def flexible(output_cls: type[BaseModel]) -> type[FlexibleModel]:
    """Return the class of partial instances: the same fields, all optional, of any type."""
    return create_flexible_model(output_cls)


class PartialParser(Generic[ModelT]):
    """Parses a response while it is generated."""

    def __init__(self, output_cls: type[ModelT]) -> None:
        self._output_cls = output_cls
        self._text = GrowingText()

    def feed(self, fragment: str) -> ModelT | FlexibleModel | None:
        """Add a fragment; return the instance so far, if the text was parsed again and is an object."""
        self._text.add(fragment)
        if not self._text.is_due():
            return None
        try:
            data = read_response(_parse_partial, self._text.read(), "none yet")
        except LMStudioStructuredOutputError:
            return None
        return self._instance(data) if is_object(data) else None

    @property
    def text(self) -> str:
        """All fragments, joined."""
        return self._text.read()

    def _instance(self, data: dict[str, Any]) -> ModelT | FlexibleModel:
        try:
            return self._output_cls.model_validate(data)
        except Exception:  # noqa: BLE001 - a user's validator may raise anything if fields are missing
            return flexible(self._output_cls).model_validate(data)


def complete_instance(output_cls: type[ModelT], text: str, stop_reason: str) -> ModelT:
    """Parse a complete response.

    Raises:
        LMStudioStructuredOutputError: If it is no instance of the class.
    """
    return read_response(output_cls.model_validate_json, text, stop_reason)
