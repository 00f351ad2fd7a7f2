"""References to a loaded model, and their specifiers (`docs/protocol.md#model-specifiers`)."""

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from lmstudio_integrations._support.typeguards import is_mapping
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types._config_base import reject_unknown_names
from lmstudio_integrations.types.models import (
    InstanceSpecifier,
    ModelQuery,
    ModelSpecifier,
    QuerySpecifier,
    by_identifier,
)

_SPECIFIERS: TypeAdapter[QuerySpecifier | InstanceSpecifier] = TypeAdapter(
    ModelSpecifier, config=ConfigDict(defer_build=True)
)


ModelReference = str | ModelQuery | QuerySpecifier | InstanceSpecifier | Mapping[str, Any]
"""A loaded model: an identifier, a query, a specifier, or one of these as a dict."""


def specifier_of(reference: ModelReference) -> QuerySpecifier | InstanceSpecifier:
    """Return the specifier of a reference.

    Raises:
        LMStudioValueError: If it is invalid.
    """
    if isinstance(reference, str):
        return by_identifier(reference)
    if isinstance(reference, QuerySpecifier | InstanceSpecifier):
        return reference
    if isinstance(reference, ModelQuery):
        return QuerySpecifier(query=reference)
    try:
        query = reference.get("query", {}) if "type" in reference else reference
        if is_mapping(query):  # a mistyped name would make an empty query, which matches any model
            reject_unknown_names(query, ModelQuery)
        if "type" not in reference:
            return QuerySpecifier(query=ModelQuery.from_dict(reference))
        return _SPECIFIERS.validate_python(reference)
    except (ValidationError, TypeError) as error:
        raise LMStudioValueError(f"{reference!r} does not say which model is meant: {error}") from error
