"""What reads texts of servers, models and tools takes time in proportion to their length, whatever they are made of.

Time is not measured. A text of twice the length takes twice the steps, which are counted: calls of functions. A single
pattern takes one, however long it searches, so each reader gets a text of a megabyte as well: a search that takes the
square of the length would take an hour, and the test would be ended.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest

from lmstudio_integrations._adapters.request_messages import decoded_text, stored_arguments
from lmstudio_integrations._adapters.request_tools import wire_name, with_warning
from lmstudio_integrations._support import secrets, text
from lmstudio_integrations.client.files.uploads import decode_base64, decode_data_url, missing_prefix
from lmstudio_integrations.langchain._json_prefix import JsonPrefix
from lmstudio_integrations.protocol.errors import to_exception
from lmstudio_integrations.types._json_schemas import ArgumentSchema
from lmstudio_integrations.types.structured import json_object, partial_json, without_markers
from tools.leaves import has_leaf

TOOLS: list[dict[str, Any]] = [
    {"function": {"name": "look", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
]
_FRAGMENT = 7
"""Characters of a fragment of a stream."""


def fragments(text: str) -> Iterator[str]:
    return (text[at : at + _FRAGMENT] for at in range(0, len(text), _FRAGMENT))


def tokens(text: str) -> list[dict[str, Any]]:
    return [{"text": each, "logProb": -1.0} for each in fragments(text)]


def describe(description: str) -> None:
    with_warning({"name": "f", "description": f"f() -> None\nLooks.{description}", "parameters": {}})


def rows(written: str) -> dict[str, Any]:
    return {"rows": [{"at": at, "text": written[at : at + 20], "note": None} for at in range(0, len(written), 20)]}


def watch(written: str, tools: "OfferedTools", *, repairs: bool) -> None:
    from lmstudio_integrations.client.predictions.calls_in_text.parser import StreamingToolParser

    parser = StreamingToolParser(tools, marked_only=False, repairs=repairs)
    for fragment in fragments(written):
        parser.add(fragment)
    parser.finish()


def check_prefix(written: str) -> None:
    scanner = JsonPrefix()
    all(map(scanner.feed, fragments(written)))


READERS: dict[str, Callable[[str], object]] = {
    "the description of a tool": describe,
    "the name of a tool": wire_name,
    "the type of a file": lambda written: decoded_text(b"x", written),
    "base64": lambda written: decode_base64(written, "it"),
    "a data URL": lambda written: decode_data_url(f"data:image/png;base64,{written}"),
    "what may be base64": missing_prefix,
    "an error of the server": lambda written: to_exception({"title": written, "cause": written}, "RPC"),
    "secrets in a text": secrets.redact,
    "secrets in JSON": secrets.redact_members,
    "secrets in an address": secrets.redact_address,
    "a URL": secrets.redacted_url,
    "a text for a terminal": text.printable,
    "a text for a message": text.shown,
    "tags in a response": without_markers,
    "JSON": json_object,
    "JSON that is cut off": partial_json,
    "arguments of a message": stored_arguments,
    "JSON as it grows": check_prefix,
    "items of calls, of which none is equal": lambda written: ArgumentSchema(
        {"properties": {"rows": {"uniqueItems": True}}}, "save"
    ).problems(rows(written)),
}

if has_leaf("tool_contents"):
    from lmstudio_integrations.types.plugins import ToolContent

    READERS["the result of a tool"] = ToolContent.of

if has_leaf("confidence"):
    from lmstudio_integrations.types.confidence import confidence_of, confidence_of_arguments

    READERS |= {
        "the confidence of JSON": lambda written: confidence_of(written, tokens(written), {}),
        "the confidence of arguments": lambda written: confidence_of_arguments(
            written, tokens(written), {"city": "Oslo"}, {}
        ),
    }

if has_leaf("calls_in_text"):
    from lmstudio_integrations.client.predictions.calls_in_text.call_arguments import mend
    from lmstudio_integrations.client.predictions.calls_in_text.call_repair import (
        MeantTools,
        calls_in,
        name_in,
        split_calls,
    )
    from lmstudio_integrations.client.predictions.calls_in_text.formats import OfferedTool, OfferedTools, values_of

    ROW = {"type": "object", "properties": {"at": {}, "text": {"type": "string"}, "note": {"type": "string"}}}
    SAVE = OfferedTool({"name": "save", "parameters": {"properties": {"rows": {"type": "array", "items": ROW}}}})

    READERS |= {
        "a value of an argument": values_of,
        "calls in a stream": lambda written: watch(written, OfferedTools(TOOLS), repairs=False),
        "calls in a stream that are mended": lambda written: watch(written, MeantTools(TOOLS), repairs=True),
        "calls that cannot be read": lambda written: calls_in(written, MeantTools(TOOLS), "look"),
        "several calls": lambda written: list(split_calls(written, MeantTools(TOOLS))),
        "arguments of calls with nothing in them": lambda written: mend(SAVE, rows(written)),
        "the name of a tool in a text": lambda written: name_in(written, MeantTools(TOOLS)),
    }

UNITS = (
    *(
        "a",
        "1",
        " ",
        "\n",
        '"',
        "'",
        "\\",
        "`",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "<",
        "=",
        "-",
        ".",
        "é",
        "\ud800",
        "\u200b",
    ),
    *("a(", "a(a(", "a.", "a=", "A=", "a: ", "a='", 'a="', '{"a":', '{"', '"a": ', "[1, ", "1e", "\\u", "\\ud8", '\\"'),
    *("```json\n", "\n```", "~~~", "> ", "# ", "<a>", "</", "look(", "look\n", "look(city=", "functions."),
    *("://", "a@", "a:b@", "?token=", "bearer ", "sk-", "eyJa.", "-----BEGIN ", "API_KEY=", "password: "),
    *("__LM_STUDIO_INTERNAL_LSEP_SYNTHETIC_REASONING_END_", "n_keep", "text/", "+json"),
)
"""What a text is made of. None of it ends what it begins."""

OF_CALLS = (
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<function=look>", "<parameter=city>", "<arg_key>"),
    *("<|open|>", "<|sep|>", "<|open|>call tool=", "]<]minimax[>[", "<|tool_arg:start|>", "call:look{city:", ",city:"),
    *("<|im_end|>", "<|im_start|>assistant", "[THINK]", "[/THINK]", "<item>", "</arg_value>", "<a:invoke name=", "</a"),
    *("[TOOL_CALLS]", "<|channel|>", "to=functions.", "<｜tool▁call▁begin｜>", "<![CDATA[", "<param", 'name="'),
    *("<ifm|tool_call>", "<ifm|arg_key>", "<ifm|arg_type>a", "<|plamo:begin_tool_name:plamo|>", "to=user<|message|>"),
    *("<|start|>assistant to=", "<|eom|>", "<call>", "<user>", ' string="false"', "<a></a>", "</a>"),
)

BEGINNINGS = ("", '<tool_call>{"name": "look", "arguments": {"city": "', '{"city": "')
"""What stands before, so that the rest is read as a value."""


def read(reader: Callable[[str], object], written: str) -> None:
    with suppress(ValueError, RecursionError):
        reader(written)


def steps(reader: Callable[[str], object], written: str) -> int:
    """Return how many functions are called."""
    count = 0

    def record(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(record)
    try:
        read(reader, written)
    finally:
        sys.setprofile(before)
    return count


_SHORT, _LONGER = 400, 4
"""The length of a text, and how many times as long the other is: a limit or two may lie between."""


@pytest.mark.slow
@pytest.mark.sampled(9)
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_longer_text_takes_as_many_more_steps(reader: Callable[[str], object]) -> None:
    for beginning in BEGINNINGS:
        for unit in UNITS + OF_CALLS:
            few, many = (
                steps(reader, beginning + unit * (length // len(unit))) for length in (_SHORT, _SHORT * _LONGER)
            )
            assert many <= 2 * _LONGER * few + _SHORT, (beginning, unit)


BY_STEPS = {name for name in READERS if "calls" in name}
"""What reads character by character. It looks at 250,000 characters at most, and a megabyte would take it long."""

BY_PATTERNS = {name: reader for name, reader in READERS.items() if name not in BY_STEPS}


@pytest.mark.slow
@pytest.mark.sampled(len(BY_PATTERNS))
@pytest.mark.parametrize("reader", BY_PATTERNS.values(), ids=BY_PATTERNS)
@pytest.mark.parametrize("unit", UNITS)
def test_a_text_of_a_megabyte_is_read(reader: Callable[[str], object], unit: str) -> None:
    read(reader, unit * (1_000_000 // len(unit)))
