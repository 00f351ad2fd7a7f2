"""`tools`: how it lists the tools of a plugin, calls them, and prints their results."""

import asyncio
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest

from lmstudio_integrations import ToolCallContext
from lmstudio_integrations.cli._tables import tool_lines
from lmstudio_integrations.cli._tools import find_tool, print_tools
from lmstudio_integrations.emulator import Emulator
from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.types.tools import ToolFunction
from tests.cli.terminal import TIMEOUT, interrupt, started

Call = Callable[..., tuple[int | str | None, str, str]]

PLUGIN = "mcp/sums"
RESULTS: dict[str, Any] = {
    "text": "One\ntwo",
    "number": 3,
    "object": {"a": ["é"]},
    "empty": "",
    "mcp": [{"type": "text", "text": "One"}, {"type": "image", "data": "aGk=", "mimeType": "image/png"}],
    "failed": {"content": [{"type": "text", "text": "no API key"}], "isError": True},
}
"""What the tool `say` returns."""


def add(a: int, b: int, unit: Literal["m", "km"] | None = None) -> str:
    """Add two lengths."""
    return f"{a + b} {unit}"


def say(what: str) -> Any:
    """Return one of several results."""
    return RESULTS[what]


async def wait(ctx: ToolCallContext) -> None:
    """Wait, and say so."""
    ctx.status("waiting\nfor you")
    ctx.warn("no end in sight")
    await asyncio.Event().wait()


def fail() -> None:
    """Fail."""
    raise ValueError("no API key")


@pytest.fixture
def server() -> Iterator[Emulator]:
    """A server with a plugin."""
    with Emulator([], plugins={PLUGIN: [add, say, wait, fail]}) as emulator:
        yield emulator


@pytest.fixture
def call(server: Emulator, run: Callable[..., int | str | None], capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command; return its exit status or error, and what it printed on stdout and stderr."""

    def run_it(*arguments: str) -> tuple[int | str | None, str, str]:
        status = run("tools", *arguments, "--host", server.address)
        return status, *capsys.readouterr()

    return run_it


# The list -----------------------------------------------------------------------------------------------------------


def test_the_tools_are_listed_with_their_parameters(call: Call) -> None:
    status, out, err = call(PLUGIN)
    assert (status, err) == (0, "")
    assert out.splitlines()[:6] == [
        "TOOL      TYPE            DESCRIPTION",
        "add                       Add two lengths.",
        "  a       integer",
        "  b       integer",
        "  [unit]  string or null",
        "say                       Return one of several results.",
    ]


def test_the_tools_are_printed_as_json(call: Call) -> None:
    status, out, err = call(PLUGIN, "--json")
    assert (status, err) == (0, "")
    definitions = json.loads(out)
    assert [each["function"]["name"] for each in definitions] == ["add", "say", "wait", "fail"]
    assert definitions[0]["function"]["parameters"]["required"] == ["a", "b"]


def test_a_plugin_without_tools_is_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    print_tools(PLUGIN, [], as_json=False)
    assert capsys.readouterr() == ("", f"{PLUGIN} has no tools.\n")
    print_tools(PLUGIN, [], as_json=True)
    assert capsys.readouterr() == ("[]\n", "")
    with pytest.raises(LMStudioValueError, match="it has none"):
        find_tool(PLUGIN, [], "add")


FORECAST = ToolFunction(
    name="get_forecast",
    description="Get the forecast for a place.\n\nOne line for each day.",
    parameters={
        "properties": {
            "place": {"type": "string", "description": "A town, or its coordinates in decimal degrees"},
            "days": {"type": ["integer", "null"]},
        },
        "required": ["place"],
    },
)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (
            80,
            [
                "TOOL          TYPE             DESCRIPTION",
                "get_forecast                   Get the forecast for a place. One line for each",
                "                               day.",
                "  place       string           A town, or its coordinates in decimal degrees",
                "  [days]      integer or null",
            ],
        ),
        (
            50,
            [
                "TOOL          TYPE             DESCRIPTION",
                "get_forecast                   Get the forecast",
                "    for a place. One line for each day.",
                "  place       string           A town, or its",
                "    coordinates in decimal degrees",
                "  [days]      integer or null",
            ],
        ),
    ],
)
def test_long_descriptions_are_wrapped(width: int, expected: list[str]) -> None:
    assert tool_lines([FORECAST], width) == expected


@pytest.mark.parametrize(
    ("schema", "kind", "description"),
    [
        ({"type": "string"}, "string", ""),
        ({"type": "array", "items": {"type": "string"}}, "array of string", ""),
        ({"type": "array", "items": True}, "array", ""),
        ({"type": "array", "items": {"enum": [1]}}, "array of any", ""),
        ({"anyOf": [{"type": "integer"}, {"type": "integer"}, True]}, "integer or any", ""),
        ({"oneOf": [{"type": "integer"}, {"type": ["string", "null"]}]}, "integer or string or null", ""),
        ({"anyOf": 1, "type": 2, "description": 3, "enum": 4}, "2", ""),
        ({"enum": ["é", None]}, "any", '("é", null)'),
        ({"description": "One\ntwo", "enum": [1]}, "any", "One two (1)"),
        (True, "any", ""),
    ],
)
def test_types_are_in_words(schema: object, kind: str, description: str) -> None:
    tool = ToolFunction(name="t", parameters={"properties": {"p": schema}, "required": "p"})
    assert re.split(" {2,}", tool_lines([tool], 100)[2].strip()) == ["[p]", kind, *filter(None, [description])]


@pytest.mark.parametrize("parameters", [None, {}, {"properties": [1]}, {"properties": {}, "required": ["a"]}])
def test_a_tool_without_parameters_is_one_line(parameters: dict[str, Any] | None) -> None:
    assert tool_lines([ToolFunction(name="t", description="D", parameters=parameters)], 100) == [
        "TOOL  DESCRIPTION",
        "t     D",
    ]


# A call -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("text", "One\ntwo\n"),
        ("number", "3\n"),
        ("object", '{\n  "a": [\n    "é"\n  ]\n}\n'),
        ("empty", ""),
        ("mcp", "One\n[an image of type image/png]\n"),
    ],
)
def test_a_result_is_text_or_indented_json(call: Call, what: str, expected: str) -> None:
    arguments = json.dumps({"what": what})
    assert call(PLUGIN, "say", arguments) == (0, expected, "")
    status, out, err = call(PLUGIN, "say", arguments, "--json")
    assert (status, json.loads(out), err) == (0, RESULTS[what], "")


@pytest.mark.parametrize("json_flag", [(), ("--json",)])
def test_a_result_that_is_an_error_is_one_for_the_command_as_well(call: Call, json_flag: tuple[str, ...]) -> None:
    assert call(PLUGIN, "say", '{"what": "failed"}', *json_flag) == ("Error: no API key", "", "")


def test_the_arguments_come_from_stdin(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"a": 1, "b": 2,\n "unit": "km"}\n')))
    assert call(PLUGIN, "add", "-") == (0, "3 km\n", "")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("[1]", "it is not an object with the arguments by name, such as '{\"a\": 1}'"),
        ("{a: 1}", "it is not JSON: key must be a string at line 1 column 2"),
        ('{"a": NaN}', "it is not JSON: expected value at line 1 column 7"),
        ("", "it is not JSON: EOF while parsing a value at line 1 column 0"),
        ('{"a": "\udcff"}', "it is not JSON: invalid unicode code point at line 1 column 8"),
    ],
)
def test_arguments_that_are_no_json_object_are_wrong_usage(
    server: Emulator, call: Call, arguments: str, problem: str
) -> None:
    status, out, err = call(PLUGIN, "add", arguments)
    assert (status, out) == (2, "")
    assert err == f"Error: invalid value for JSON: {problem}; see `lmsi tools --help`\n"
    assert not server.connections, "it is seen at once"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([PLUGIN, "ad"], f"'{PLUGIN}' has no tool 'ad'; did you mean 'add'?"),
        ([PLUGIN, "xyz"], f"'{PLUGIN}' has no tool 'xyz'; it has add, say, wait, fail"),
        ([PLUGIN, "fail"], "no API key"),
        ([PLUGIN, "add", '{"a": 1}'], "Failed to parse arguments for tool add: arguments: 'b' is a required property"),
        ([PLUGIN, "wait", "--timeout", "0.01"],
         f"Tool 'wait' of '{PLUGIN}': it took too long in total: timeout expired after 0.01 s"),
        (["mcp/sum"], 'Cannot find a plugin with the identifier "mcp/sum"'),
    ],
)  # fmt: skip
def test_an_error_ends_it_with_status_1(call: Call, arguments: list[str], error: str) -> None:
    status, out, _ = call(*arguments)
    assert isinstance(status, str), "the exit status is 1"
    assert (status.partition("\n")[0], out) == (f"Error: {error}", "")


@pytest.mark.parametrize(
    ("plugin", "suggestion"), [("mcp/sum", "check the identifier: "), ("mcp/My_Sums", "did you mean 'mcp/my-sums'?")]
)
def test_an_unknown_plugin_is_an_error_with_those_that_the_server_names(
    call: Call, plugin: str, suggestion: str
) -> None:
    status, _, _ = call(plugin)
    assert f"\n  cause: This server has {PLUGIN}.\n  suggestion: {suggestion}" in str(status)


@pytest.mark.slow
def test_status_and_warnings_are_printed_on_stderr_and_ctrl_c_aborts_the_call(server: Emulator) -> None:
    with started("tools", PLUGIN, "wait", "--host", server.address) as process:
        assert process.stderr
        assert process.stderr.readline() == "wait: waiting for you\n"
        assert process.stderr.readline() == "Warning: wait: no end in sight\n"
        assert interrupt(process) == (130, "", "")
    server.wait_for(lambda: server.tool_calls[0].state == "aborted", timeout=TIMEOUT)
