"""A generator plugin of the emulator, for the tests of the native client and of both frameworks."""

from typing import Any

GENERATOR = "acme/writer"

_CALL = {"tool": "pier", "arguments": {"destination": "island"}, "id": "c1"}
_RULES: list[dict[str, Any]] = [
    {"when": {"role": "tool"}, "then": [{"text": "The tool said {last}."}]},
    {"when": {"last": "^count"}, "then": [{"text": "0 1 2 3"}]},
    {"when": {"last": "^think"}, "then": [{"reasoning": "Let me see."}, {"text": "Done."}]},
    {"when": {"last": "^call", "tools": ["pier"]}, "then": [{"text": "I look."}, _CALL]},
    {"when": {"last": "^broken", "tools": ["pier"]}, "then": [{**_CALL, "malformed": '{"destination": "is'}]},
    {
        "when": {"last": "^in the text", "tools": ["pier"]},
        "then": [{"text": '<tool_call>{"name": "pier", "arguments": {"destination": "island"}}</tool_call>'}],
    },
    {"when": {"last": "^city", "tools": ["City"]}, "then": [{"tool": "City", "arguments": {"name": "Oslo"}}]},
    {"when": {"last": "^stall"}, "then": [{"text": "so far "}, {"fault": "stall"}]},
    {"when": {"last": "^for ever"}, "then": [{"text": "on and on " * 100_000}]},
    {"when": {"last": "^drop"}, "then": [{"text": "going "}, {"fault": "drop"}]},
    {"when": {"last": "^break"}, "then": [{"text": "so far "}, {"error": "the pen is dry"}]},
    {
        "when": {"last": "^like a model"},
        "then": [{"error": 'No model found that fits the query "x"', "code": "generic.noModelMatchingQuery"}],
    },
]

PLUGINS: dict[str, Any] = {GENERATOR: {"generator": True, "rule": _RULES}}
"""The plugins of an `Emulator` with this generator."""


def pier(destination: str) -> str:
    """Return the pier of the ferries to a destination."""
    return f"pier 7, to the {destination}"


TOOL = {
    "type": "function",
    "function": {
        "name": "pier",
        "description": "Return the pier of the ferries to a destination.",
        "parameters": {
            "type": "object",
            "properties": {"destination": {"type": "string"}},
            "required": ["destination"],
        },
    },
}
"""The definition of `pier`, in wire form and in OpenAI's."""
