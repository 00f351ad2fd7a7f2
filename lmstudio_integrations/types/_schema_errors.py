"""Finds mistakes in JSON schemas that no server reports, and the errors about them. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from lmstudio_integrations._support.shortening import beginning
from lmstudio_integrations._support.typeguards import is_list, is_object
from lmstudio_integrations.errors import LMStudioValueError

_DATA = frozenset({"default", "const", "enum", "examples"})
"""Members of a schema whose values are data."""


def check_references(schema: Mapping[str, Any], name: str) -> None:
    """Reject references to parts that a schema does not have: servers ignore them, or fail in ways that do not help.

    Args:
        schema: The schema.
        name: What it is, for the error.

    Raises:
        LMStudioValueError: If there is one.
    """
    for reference in _references(schema):
        if reference.startswith("#/") and not _exists(reference, schema):
            raise LMStudioValueError(
                f"{name} refers to {reference!r}, which it does not contain; add that definition, or pass a pydantic "
                "class, whose schema is complete"
            )


def reject_text(given: object, name: str) -> None:
    """Reject a string in place of a schema.

    Raises:
        LMStudioValueError: If it is one.
    """
    if isinstance(given, str):
        raise LMStudioValueError(
            f"{name} must be a class or a dict, not a string; got {beginning(given)}; pass the class itself, "
            "json.loads(…) of a JSON schema, or {'type': 'object'} for any JSON object"
        )


def _references(node: object) -> Iterator[str]:
    if is_list(node):
        for item in node:
            yield from _references(item)
    elif is_object(node):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            elif key not in _DATA:
                yield from _references(value)


def _exists(reference: str, schema: Mapping[str, Any]) -> bool:
    """Whether a reference has a target: a JSON pointer (RFC 6901) in a fragment of a URL."""
    node: object = schema
    for part in unquote(reference).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if is_object(node) and name in node:
            node = node[name]
        elif is_list(node) and name.isdecimal() and int(name) < len(node):
            node = node[int(name)]
        else:
            return False
    return True
