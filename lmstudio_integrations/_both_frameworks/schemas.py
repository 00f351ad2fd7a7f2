"""Brings the names of tools and response formats into the form of the wire. Pure.

See `docs/protocol.md#tool-definitions` and `docs/protocol.md#structured-output`.
"""

import re
from collections.abc import Callable
from typing import Any

from lmstudio_integrations.types._schema_errors import check_references, reject_text

_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]")


def wire_name(name: str) -> str:
    """Return a tool's name as it is sent: every server accepts letters, digits, `_` and `-`."""
    return _UNSAFE.sub("_", name)


def response_settings(response_format: Any, schema_of: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Return the setting of a response format; empty for plain text.

    Args:
        response_format: An OpenAI dict, the wire's own form, or what `schema_of` accepts.
        schema_of: Returns the JSON schema in any other form of a response format.
    """
    match response_format:
        case None | {"type": "text"}:
            return {}
        case {"type": "gbnf" | "json"}:  # the wire's own form
            structured = dict[str, Any](response_format)
        case {"type": "json_object"}:
            structured = {"type": "json", "jsonSchema": {"type": "object"}}
        case _:
            reject_text(response_format, "response_format")
            schema = schema_of(response_format)
            check_references(schema, "the schema of the response")
            structured = {"type": "json", "jsonSchema": schema}
    return {"structured": structured}
