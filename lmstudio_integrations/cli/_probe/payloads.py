"""What the probe sends: prompts, tools, files and the parameters of requests in wire form."""

import base64
from collections.abc import Mapping
from typing import Any

from lmstudio_integrations.protocol.kv_config import layer_of
from lmstudio_integrations.types._config_base import checked
from lmstudio_integrations.types.chat import WireHistory

JsonDict = dict[str, Any]

FEW = 4
"""Tokens of a response whose content does not matter."""

SOME = 64
"""Tokens of a response that may come to its own end."""

OVERFLOWING = 400
"""Tokens of a response that does not fit into the small context window."""

COUNT = "Count from 1 to 1000 in words, one number a line."

PATTERN = "tick tock " * 20
"""A text that models continue without an end, so that the response fills a small context window."""

STORY = "Tell a very long story about a ferry."
"""A prompt whose response goes on until it is canceled."""

GREETING = "Say hello."
WEATHER = "What is the weather in Oslo? Use the tool."
CITY = "Name a city."

LONG_TEXT = " ".join(f"The ferry number {number} leaves from pier {number % 7}." for number in range(1, 61))
"""More tokens than the small context window has, for any tokenizer."""

TOOL: JsonDict = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Return the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
"""A tool that is only described. It does not exist, so no response can run it."""

TOOLS: JsonDict = {"type": "toolArray", "tools": [TOOL]}

CITY_FORMAT: JsonDict = {
    "type": "json",
    "jsonSchema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
YES_OR_NO: JsonDict = {"type": "gbnf", "gbnfGrammar": 'root ::= "yes" | "no"'}

THINK = "Think about the ferry, then say hello."
THINKING: JsonDict = {"type": "gbnf", "gbnfGrammar": r'root ::= "<think>\nA ferry.\n</think>\n\nHello."'}
"""Makes any model write reasoning between tags, with white space."""

THOUGHT = "which pier"
"""Reasoning in the history, which nothing else contains."""

THOUGHTFUL: list[JsonDict] = [
    {"role": "user", "content": [{"type": "text", "text": "Where does it land?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": f"<think>\n{THOUGHT}\n</think>\n\nAt pier 7."}]},
    {"role": "user", "content": [{"type": "text", "text": GREETING}]},
]
"""A conversation with reasoning in the text of the assistant."""

CONSTANT = PATTERN * 5
"""A template that shows nothing of a conversation, and at least `CONSTANT_TOKENS` tokens, more than a greeting has."""

CONSTANT_TOKENS = 200

IMAGES: Mapping[str, bytes] = {
    "dot.png": base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    ),
    "dot.jpg": base64.b64decode(
        "/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP//////////////////////////////////////////////////////////////////////////"
        "////////////wgALCAABAAEBAREA/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQABPxA="
    ),
    "dot.webp": base64.b64decode("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA=="),
    "dot.gif": base64.b64decode("R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw=="),
}
"""One pixel in each format."""

FILES: Mapping[str, bytes] = {
    "note.txt": b"The ferry leaves at noon.",
    "note.md": b"# Ferry\n\nIt leaves at noon.",
    "table.csv": b"pier,time\n7,12:00\n",
    "data.json": b'{"pier": 7}',
    "page.pdf": b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n",
    "letter.docx": b"PK\x05\x06" + bytes(18),
    "image.txt": IMAGES["dot.png"],
    "bytes": bytes(range(256)),
}
"""Small files of several types; a name that contradicts the content, and none that says anything."""


def by_identifier(identifier: str) -> JsonDict:
    """Return the specifier of an instance by its identifier."""
    return {"type": "query", "query": {"identifier": identifier}}


def by_reference(reference: str) -> JsonDict:
    """Return the specifier of one loaded instance, which no reload has again."""
    return {"type": "instanceReference", "instanceReference": reference}


def config_stack(fields: Mapping[str, Any]) -> JsonDict:
    """Return settings, by their full keys, as the one layer of a stack."""
    return {"layers": [layer_of("apiOverride", fields)]}


def template_of_request(template: str) -> JsonDict:
    """Return the setting that gives a request a Jinja template of its own, by its full key."""
    jinja: JsonDict = {"type": "jinja", "stopStrings": [], "jinjaPromptTemplate": {"template": template}}
    return {"llm.prediction.promptTemplate": jinja}


def prediction(
    specifier: JsonDict, prompt: str, max_tokens: int, fields: Mapping[str, Any] | None = None, **members: Any
) -> JsonDict:
    """Return the parameter of `predict`.

    Args:
        specifier: The model.
        prompt: The message of the user.
        max_tokens: The most tokens of the response.
        fields: Settings by their full keys.
        members: More members of the parameter.
    """
    limit = {"llm.prediction.maxPredictedTokens": checked(max_tokens)}
    return {
        "modelSpecifier": specifier,
        "history": WireHistory.of_prompt(prompt).to_dict(),
        "predictionConfigStack": config_stack({**limit, **(fields or {})}),
        **members,
    }
