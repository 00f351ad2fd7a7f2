"""A generator plugin of the emulator, for the tests of the native client and of both frameworks."""

from typing import Any

from pydantic import BaseModel

from tests.support.endless import ENDLESS

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
    {"when": {"last": "^for ever"}, "then": [{"text": ENDLESS}]},
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


TOOL: dict[str, Any] = {
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

MODEL = f"plugin:{GENERATOR}"
"""What the adapters of both frameworks call it."""

OF_MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "a setting": ({"temperature": 0}, "temperature"),
    "one that is off": ({"enable_thinking": False}, "enable_thinking"),
    "several": ({"top_k": 3, "stop": ["."], "preset": "p"}, "top_k, stop, preset"),
    "a policy": ({"context_overflow_policy": "rollingWindow"}, "context_overflow_policy"),
    "wire keys": ({"extra": {"llm.prediction.seed": 1}}, "extra"),
    "reasoning": ({"reasoning_effort": "low"}, "reasoning_effort"),
    "log-probabilities": ({"top_logprobs": 0}, "logprobs"),
    "loading": (
        {"load_config": {"eval_batch_size": 1}, "context_length": 9, "ttl": 60, "load_policy": "explicit"},
        "load_config, context_length, ttl, load_policy",
    ),
    "hosts": ({"host": ["127.0.0.1:1", "127.0.0.1:2"]}, "several hosts"),
}
"""Settings of the adapters that only models have, and what the error calls them."""


class City(BaseModel):
    """A city."""

    name: str
