"""Tools and response formats: what is sent and what is returned."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field, RootModel
from pydantic.v1 import BaseModel as BaseModelV1

from lmstudio_integrations.errors import LMStudioValueError
from tests.langchain.conftest import CHAT, Invoke, Server


@tool
def weather(city: Annotated[str, "Where"]) -> str:
    """Report the weather."""
    return f"rain in {city}"


@tool
def now() -> str:
    """Report the time."""
    return "noon"


def shout(text: str) -> str:
    """Say it loudly.

    Args:
        text: What to say.
    """
    return text.upper()


class Street(BaseModel):
    name: str


class Address(BaseModel):
    """Where somebody lives."""

    street: Street
    second: Street | None = None
    number: int | str = Field(description="May have a letter")


class Strange:
    def __call__(self, text: str) -> str:
        """Repeat it."""
        return text


def calls_back(back: Callable[[int], int]) -> None:
    """Call back."""


def unresolved(thing: "Missing") -> None:  # type: ignore[name-defined] # noqa: F821 - the point
    """Take what nobody knows."""


class Tree(BaseModel):
    """A thing that contains itself."""

    children: list["Tree"]


class TreeV1(BaseModelV1):
    """A thing that contains itself."""

    children: list["TreeV1"]


TreeV1.update_forward_refs()


def sent(server: Server, *tools: Any, **settings: Any) -> list[Any]:
    """Offer tools; return their definitions as the server got them."""
    server.chat().bind_tools(tools, **settings).invoke("Hello")
    return server.predictions[-1].tools


def structured(server: Server, response_format: Any) -> dict[str, Any]:
    """Request a format; return it as the server got it."""
    server.chat().invoke("Hello", response_format=response_format)
    found: dict[str, Any] = server.predictions[-1].config["structured"]
    return found


# What is sent ---------------------------------------------------------------------------------------------------------


def test_tools_of_every_kind_become_definitions(server: Server) -> None:
    anthropic = {"name": "pick", "description": "Pick.", "input_schema": {"type": "object", "properties": {}}}
    place = {"type": "object", "description": "Where to.", "properties": {}}
    move = {"name": "move", "description": "Move.", "schema": place}
    definitions = sent(server, weather, shout, Street, anthropic, move)
    assert [each["function"]["name"] for each in definitions] == ["weather", "shout", "Street", "pick", "move"]
    assert definitions[-1]["function"]["description"] == "Move.", "its own, not that of the arguments"
    assert definitions[0] == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Report the weather.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Where"}},
                "required": ["city"],
            },
        },
    }


def test_references_are_resolved_and_unions_kept(server: Server) -> None:
    (definition,) = sent(server, Address)
    parameters = definition["function"]["parameters"]
    assert "$ref" not in str(parameters)
    assert parameters["properties"]["street"]["properties"] == {"name": {"type": "string"}}
    assert {"type": "null"} in parameters["properties"]["second"]["anyOf"]
    assert parameters["properties"]["number"]["anyOf"] == [{"type": "integer"}, {"type": "string"}]


@pytest.mark.parametrize("recursive", [Tree, TreeV1])
def test_a_recursive_class_keeps_what_it_contains(server: Server, recursive: Any) -> None:
    name = recursive.__name__
    itself = {"$ref": f"#/$defs/{name}"}
    children = {"children": {"type": "array", "items": itself}}
    plain = {"type": "object", "properties": children, "required": ["children"]}
    reported = {"description": "A thing that contains itself."}
    assert sent(server, recursive) == [
        {
            "type": "function",
            "function": {"name": name, **reported, "parameters": {**plain, "$defs": {name: {**plain, **reported}}}},
        }
    ]
    response = structured(server, recursive)["jsonSchema"]
    assert response["properties"]["children"]["items"] == itself
    assert response["$defs"][name]["properties"]["children"]["items"] == itself


def test_definitions_of_older_versions_are_sent_where_the_wire_keeps_them(server: Server) -> None:
    (definition,) = sent(server, {"type": "function", "function": {"name": "tree", "parameters": TreeV1.schema()}})
    parameters = definition["function"]["parameters"]
    assert parameters["properties"]["children"]["items"] == {"$ref": "#/$defs/TreeV1"}
    assert parameters["$defs"]["TreeV1"]["properties"]["children"]["items"] == {"$ref": "#/$defs/TreeV1"}


def test_tools_are_sent_without_titles_but_with_properties_of_that_name(server: Server) -> None:
    book = {
        "title": "book",
        "type": "object",
        "properties": {
            "title": {"title": "Title", "type": "string"},
            "by": {"anyOf": [{"title": "Author", "default": {"title": "Dr."}}, {"enum": [{"title": "Dr."}, None]}]},
        },
    }
    (definition,) = sent(server, book)
    assert definition["function"] == {
        "name": "book",
        "parameters": {
            "type": "object",
            "properties": {
                "title": {"type": "string"},
                "by": {"anyOf": [{"default": {"title": "Dr."}}, {"enum": [{"title": "Dr."}, None]}]},
            },
        },
    }


@pytest.mark.parametrize(
    ("tools", "match"),
    [
        ([{"type": "web_search"}], "web_search"),
        ([3], "3 cannot be a tool"),
        ([{"type": "object", "properties": {}}], "has no name"),
        ([RootModel[list[int]]], "arguments are an object"),
        ([Strange()], "Strange object at .* cannot be a tool"),
        ([partial(shout, text="a")], "shout.* cannot be a tool"),
        ([calls_back], "calls_back has no JSON schema: JSON does not have the type of 'back'"),
        ([unresolved], "unresolved .* cannot be a tool"),
        ([{"type": "function", "function": {"name": 5}}], "needs a string as name.*5"),
        ([{"type": "function", "function": {"name": "x", "parameters": "z"}}], "as parameters; got"),
        ([{"type": "function", "function": {"name": name}} for name in ("a.b", "a_b")], "both become 'a_b'"),
    ],
)
def test_impossible_tools_are_rejected(server: Server, tools: list[Any], match: str) -> None:
    with pytest.raises(LMStudioValueError, match=match):
        server.chat().bind_tools(tools)


def test_a_schema_that_is_nested_too_deeply_cannot_be_a_tool(server: Server) -> None:
    schema: dict[str, Any] = {}
    for _ in range(1_000):
        schema = {"title": "deep", "type": "object", "properties": {"a": schema}}
    with pytest.raises(LMStudioValueError, match=r"(too deeply|…).* cannot be a tool: "):  # Python 3.14 writes it
        server.chat().bind_tools([schema])


@pytest.mark.parametrize("tools", [5, weather, Street, {"type": "function"}])
def test_tools_that_are_no_list_are_rejected(server: Server, tools: Any) -> None:
    with pytest.raises(LMStudioValueError, match="tools must be a list of functions"):
        server.chat().bind_tools(tools)
    with pytest.raises(LMStudioValueError, match="tools must be a list of functions"):
        server.chat().invoke("weather?", tools=tools)


def test_strict_forbids_further_arguments(server: Server) -> None:
    (definition,) = sent(server, weather, strict=True)
    assert definition["function"]["parameters"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("given", "schema"),
    [
        ({"name": "x", "strict": True, "schema": {"type": "array"}}, {"type": "array"}),
        ({"type": "object", "properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}}),
        (
            {"title": "x", "type": "string", "strict": True, "enum": ["a"]},
            {"title": "x", "type": "string", "enum": ["a"]},
        ),
        ({"title": "x", "anyOf": [{"type": "null"}]}, {"title": "x", "anyOf": [{"type": "null"}]}),
        ({"title": "x", "$ref": "#/$defs/A", "$defs": {"A": {"type": "null"}}}, {"title": "x", "type": "null"}),
        ({"name": "x", "parameters": {"type": "object"}}, {"title": "x", "type": "object"}),
        (RootModel[list[int]], {"title": "RootModel[list[int]]", "type": "array", "items": {"type": "integer"}}),
    ],
)
def test_response_formats_become_schemas(server: Server, given: Any, schema: dict[str, Any]) -> None:
    assert structured(server, given) == {"type": "json", "jsonSchema": schema}


# What comes back ------------------------------------------------------------------------------------------------------


def test_a_call_comes_back_on_every_path(server: Server, generate: Invoke) -> None:
    message = generate(server.chat().bind_tools([weather, now]), "weather?")
    assert message.text.strip() == "I look."
    assert [(call["name"], call["args"], call["id"]) for call in message.tool_calls] == [
        ("weather", {"city": "Oslo"}, "c1")
    ]
    assert message.response_metadata["finish_reason"] == "tool_calls"
    assert sorted(each.function.name for each in server.last_request.tools) == ["now", "weather"]


def test_a_tool_whose_name_the_wire_does_not_take_is_found_again(server: Server, generate: Invoke) -> None:
    odd = {"type": "function", "function": {"name": "weather.now[int]", "parameters": {"type": "object"}}}
    llm = server.chat().bind_tools([odd], tool_choice="weather.now[int]")
    message = generate(llm, "What now?")
    assert [each.function.name for each in server.last_request.tools] == ["weather_now_int_"]
    assert [call["name"] for call in message.tool_calls] == ["weather.now[int]"]
    response = ToolMessage("rain", tool_call_id=str(message.tool_calls[0]["id"]))
    generate(server.chat().bind_tools([odd]), [HumanMessage("What now?"), message, response])
    assert server.last_request.history is not None
    assert "weather_now_int_" in str(server.last_request.history.to_dict()["messages"][1:])
    assert "weather.now" not in str(server.last_request.history.to_dict())


def test_a_response_without_the_required_call_is_returned_with_a_warning(
    server: Server, generate: Invoke, caplog: pytest.LogCaptureFixture
) -> None:
    llm = server.chat(required_tool_fallback=False).bind_tools([weather], tool_choice="weather")
    assert generate(llm, "weather?").tool_calls
    assert server.last_request.tool_choice == "required"
    assert "required" not in caplog.text
    message = generate(llm, "silent")
    assert message.content == "I will not."
    assert message.tool_calls == []
    missing = f"{CHAT!r}: a tool call was required, and the model responded without one (tool_choice='weather')"
    assert caplog.text.count(missing) == caplog.text.count("was required") == 1
