"""The rules of a scripted model that calls every tool as the row `tools` wants it."""

import re
from collections.abc import Iterator
from typing import Any

from lmstudio_integrations.client.certify.rows.tools import DEFINITIONS, REQUESTS, Request

Rule = dict[str, Any]


def _filled(schema: dict[str, Any], needed: Any) -> Any:
    """Return a value of a schema that has what is needed."""
    if schema["type"] == "object":
        return {name: _filled(each, (needed or {}).get(name)) for name, each in schema["properties"].items()}
    if schema["type"] == "array":
        return [_filled(schema["items"], each) for each in needed]
    if needed is None:
        return "text" if schema["type"] == "string" else 1
    return needed


_PARAMETERS = {each["function"]["name"]: each["function"]["parameters"] for each in DEFINITIONS}


def calls_of(request: Request) -> list[Rule]:
    """Return the steps that make the calls of a request."""
    return [
        {"tool": name, "arguments": _filled(_PARAMETERS[name], dict(arguments))} for name, arguments in request.calls
    ]


def _rules() -> Iterator[Rule]:
    for request in REQUESTS:
        last, role = (request.prompt, "user") if request.made is None else (request.made[2], "tool")
        then = calls_of(request) or [{"text": f"{request.says} is what I can say."}]
        yield {"when": {"last": f"(^|\\. ){re.escape(last)}", "role": role}, "then": then}


RULES = tuple(_rules())
