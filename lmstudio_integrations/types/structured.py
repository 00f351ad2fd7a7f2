"""Parses structured output (`docs/protocol.md#structured-output`). Pure; results and both adapters call it."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import from_json

from lmstudio_integrations._support.shortening import beginning, shortened
from lmstudio_integrations._support.typeguards import is_object
from lmstudio_integrations.errors import LMStudioStructuredOutputError, LMStudioValueError

T = TypeVar("T")

_MARKER = re.compile(r"__LM_STUDIO_INTERNAL_LSEP_SYNTHETIC_REASONING_END_[0-9a-fA-F]*__")
"""Tags that LM Studio may leave in the text of reasoning models."""

_HINTS = {
    "maxPredictedTokensReached": "; raise max_tokens",
    "contextLengthReached": "; load the model with a larger context length, or shorten the prompt",
}
"""Remedies for a response that was cut off."""


def json_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object of a response; `None` for anything else, such as a list or text that a grammar shaped."""
    try:
        value = from_json(_cleaned(text))
    except ValueError:
        return None
    return value if is_object(value) else None


def read_response(parse: Callable[[str], T], text: str, stop_reason: str) -> T:
    """Return the value of a response.

    Args:
        parse: Parses the text; raises `ValueError` with the reason, or `RecursionError`.
        text: The response.
        stop_reason: Why it ended.

    Raises:
        LMStudioStructuredOutputError: If the text does not match the format.
    """
    try:
        return parse(_cleaned(text))
    except (ValueError, RecursionError) as error:
        raise LMStudioStructuredOutputError(
            f"the response is not the structured output that was requested: {shortened(_reason(error))} "
            f"(stop reason {stop_reason}){_HINTS.get(stop_reason, '')}; the model wrote {beginning(text)}",
            text=text,
        ) from error


def read_as(model: type[T], text: str, stop_reason: str) -> T:
    """Return a response as an instance of a type.

    Raises:
        LMStudioStructuredOutputError: If the text does not match the type.
        LMStudioValueError: If pydantic cannot validate the type.
    """
    try:
        adapter = TypeAdapter(model)
        adapter.rebuild(raise_errors=True)  # an unresolved forward reference fails here, not while it parses
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        reason = str(error).partition("\n")[0]
        raise LMStudioValueError(
            f"parsed_as needs a pydantic class, or another type that pydantic validates; got {model!r}: {reason}"
        ) from error
    return read_response(adapter.validate_json, text, stop_reason)


def _cleaned(text: str) -> str:
    return _MARKER.sub("", text).strip()


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'the value'}: {each['msg']}"
            for each in error.errors(include_url=False)
        )
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
