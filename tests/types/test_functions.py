"""Python functions as tools: how they are described to the model, and how their arguments are checked."""

import functools
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated, Any, Literal, Required, TypedDict

import pytest
from pydantic import BaseModel, Field

import lmstudio_integrations as lms
from lmstudio_integrations.errors import LMStudioError, LMStudioValueError
from lmstudio_integrations.types.functions import parse_tools
from tests.support.strict.shapes import schema_of, wrong_with

TOOLS = schema_of("plugins", "generateWithGenerator", "creationParameter", "tools")


class City(BaseModel):
    """A place."""

    name: str


def add(a: int, b: int = 2) -> int:
    """Add two numbers."""
    return a + b


def weather(
    city: City, unit: Literal["C", "F"], days: Annotated[int, Field(ge=1)] = 1, *, why: str | None = None
) -> str:
    """Report the weather."""
    return f"{city.name} {unit} {days} {why}"


async def wait() -> None:
    """Wait."""


@pytest.mark.parametrize("function", [add, weather, wait])
def test_a_function_is_described_as_the_protocol_requires(function: Callable[..., Any]) -> None:
    tool = lms.ToolFunctionDef.from_callable(function).to_tool().to_dict()
    assert not list(wrong_with([tool], TOOLS, "tools"))
    assert tool["function"]["name"] == function.__name__
    assert tool["function"]["description"] == function.__doc__
    one = lms.ToolFunctionDef.from_callable(function, name="one", description="Give one.")
    assert (one.name, one.description) == ("one", "Give one.")


def test_types_and_defaults_are_part_of_the_description_and_contexts_are_not() -> None:
    add_, twice = lms.ToolFunctionDef.from_callable(add), lms.ToolFunctionDef.from_callable(contextual_twice)
    assert add_.to_tool().function.parameters == {
        "type": "object",
        "properties": {
            "a": {"title": "A", "type": "integer"},
            "b": {"default": 2, "title": "B", "type": "integer"},
        },
        "required": ["a"],
        "additionalProperties": False,
    }
    parameters = twice.to_tool().function.parameters
    assert parameters is not None
    assert parameters["properties"].keys() == {"a"}
    assert add_.check({"a": 1}) == {"a": 1}
    assert lms.ToolFunctionDef.from_callable(wait).check(None) == {}


def test_arguments_are_brought_into_the_types_of_the_function() -> None:
    tool = lms.ToolFunctionDef.from_callable(weather)
    arguments = tool.check({"city": {"name": "Oslo"}, "unit": "C", "days": "3"})
    assert arguments == {"city": City(name="Oslo"), "unit": "C", "days": 3}
    assert weather(**arguments) == "Oslo C 3 None"


class Place(TypedDict, total=False):
    """A place."""

    city: Required[str]
    near: Annotated[list["Nearby"] | None, "by ferry"]


class Nearby(TypedDict):
    name: str


def test_a_typed_dict_of_typing_may_be_a_parameter() -> None:
    def show(place: Place, others: dict[str, Nearby]) -> None:
        """Show it."""

    tool = lms.ToolFunctionDef.from_callable(show)
    schema: Any = tool.to_tool().function.parameters
    assert schema["properties"]["place"]["required"] == ["city"]
    assert schema["properties"]["place"]["description"] == "A place."
    arguments = {"place": {"city": "Oslo", "near": [{"name": "Nesodden"}]}, "others": {"a": {"name": "Moss"}}}
    assert tool.check(arguments) == arguments
    with pytest.raises(LMStudioValueError, match=r"place\.near\.0\.name"):
        tool.check({"place": {"city": "Oslo", "near": [{}]}, "others": {}})


class Node(TypedDict):
    children: list["Node"]


def test_a_typed_dict_of_typing_that_contains_itself_needs_a_newer_python() -> None:
    def show(node: Node) -> None:
        """Show it."""

    is_usable = sys.version_info >= (3, 12)
    with nullcontext() if is_usable else pytest.raises(LMStudioError, match=r"typing_extensions\.TypedDict"):
        lms.ToolFunctionDef.from_callable(show)


def _patterned(word: Annotated[str, Field(pattern=r"\S")], code: Annotated[str, Field(pattern="^[A-Z]+$")]) -> None:
    """Do it."""


PATTERNED = {
    "types": lms.ToolFunctionDef.from_callable(_patterned),
    "a schema": lms.ToolFunctionDef(
        "do",
        "Do it.",
        {
            "type": "object",
            "properties": {
                "word": {"type": "string", "pattern": r"\S"},
                "code": {"type": "string", "pattern": "^[A-Z]+$"},
            },
        },
        None,
    ),
}


@pytest.mark.parametrize("tool", PATTERNED.values(), ids=PATTERNED)
def test_a_pattern_that_the_engine_rejects_is_checked_here(tool: lms.ToolFunctionDef) -> None:
    properties: Any = tool.to_tool().function.parameters
    assert properties["properties"]["word"].keys() - {"title"} == {"type"}
    assert properties["properties"]["code"]["pattern"] == "^[A-Z]+$"
    assert tool.check({"word": " a", "code": "A"}) == {"word": " a", "code": "A"}
    with pytest.raises(LMStudioValueError, match="word: "):
        tool.check({"word": " ", "code": "A"})


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        (r"^(\w+\s?)+$", "a" * 50, True),
        (r"^(\w+\s?)+$", "a" * 50 + "!", False),  # over which Python never comes to an end
        ("^a$", "a\n", False),  # as in JavaScript
        ("^.$", "\ud800", True),
        ("^(?!b)", "a", True),
        ("^(?!b)", "b", False),
        (r"^\<b\>$", "<b>", True),
        ("^[a[b]]$", "[]", True),
        (r"^[\w-]{1,255}$", "a-b", True),  # too large for Rust
        (r"^[\w-]{1,255}$", "a b", False),
        (r"^(a|b)\1$", "aa", True),
        (r"^(a|b)\1$", "ab", False),
        (r"^(?=b?)(a+)+$", "a" * 50, True),
        (r"^(?=b?)(a+)+$", "a" * 50 + "!", False),  # over which Python never comes to an end
        (r"^(?=.*[A-Z])(?=.*\d)(?!.*(\s|-))\S{8,}$", "Abcdefg1", True),
        (r"^(?=.*[A-Z])(?=.*\d)(?!.*(\s|-))\S{8,}$", "Abcd-fg1", False),
        (r"^(?=.*[A-Z])(?=.*\d)(?!.*(\s|-))\S{8,}$", "abcdefg1", False),
        ("^(?=a)a|b", "cb", True),
        ("^(?=a)*b", "b", True),
        (r"^(?=(a)\1)a+$", "aa", True),
        (r"^(?=(a)\1)a+$", "a", False),
    ],
)
def test_a_pattern_of_a_json_schema_is_looked_for_in_linear_time(pattern: str, text: str, fits: bool) -> None:
    schema = {"type": "object", "properties": {"a": {"pattern": pattern}}}
    tool = lms.ToolFunctionDef("f", "Do.", schema, None)
    with nullcontext() if fits else pytest.raises(LMStudioValueError, match="does not match"):
        tool.check({"a": text})


@pytest.mark.parametrize("pattern", [r"^(a+)+(?=b?)$", r"^(a+)+\1b$", "^(?:a|a(?!b))*$", r"(a*)(a*)(a*)(a*)\1b"])
def test_a_pattern_is_not_checked_that_might_take_too_long(pattern: str, caplog: pytest.LogCaptureFixture) -> None:
    schema = {"type": "object", "properties": {"a": {"pattern": pattern}}}
    tool = lms.ToolFunctionDef("f", "Do.", schema, None)
    for _ in range(2):
        tool.check({"a": "a" * 50 + "!"})
    logged = [record.getMessage() for record in caplog.records]
    assert logged == [f"the pattern {pattern!r} is not checked: it might take too long to find out if it is met"]


@pytest.mark.parametrize(
    ("rules", "fits"),
    [
        ({"patternProperties": {"^(a+)+$": {"type": "string"}}}, True),
        ({"patternProperties": {"^(a+)+!$": {"type": "string"}}}, False),
        ({"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}, False),
        ({"patternProperties": {"^(a+)+!$": {}}, "additionalProperties": False}, True),
        ({"patternProperties": {"^(a+)+(?=b?)$": {}}, "additionalProperties": False}, True),  # it is not known
        ({"patternProperties": {"^(a+)+$": {}}, "unevaluatedProperties": False}, True),  # nor is this
        ({"unevaluatedProperties": False}, False),
        ({"additionalProperties": {"patternProperties": {"^a": {}}}}, True),  # a number has no names
    ],
)
def test_patterns_of_names_are_looked_for_in_linear_time(rules: dict[str, Any], fits: bool) -> None:
    tool = lms.ToolFunctionDef("f", "Do.", {"type": "object", **rules}, None)
    with nullcontext() if fits else pytest.raises(LMStudioValueError, match="Failed to parse arguments for tool f: "):
        tool.check({"a" * 50 + "!": 1})


@pytest.mark.parametrize(
    ("items", "fits"),
    [
        ([1, True, "1", [1], [True], {"a": 1}, {"a": True}, {}, [], None, 0, False], True),
        ([{"a": 1, "b": [2]}, 5, {"b": [2.0], "a": 1.0}], False),
        ([[1], [1]], False),
    ],
)
def test_items_that_must_differ_are_compared_as_json(items: list[Any], fits: bool) -> None:
    schema = {"type": "object", "properties": {"a": {"uniqueItems": True}}}
    tool = lms.ToolFunctionDef("f", "Do.", schema, None)
    with nullcontext() if fits else pytest.raises(LMStudioValueError, match="has non-unique elements"):
        tool.check({"a": items})


def test_arguments_that_do_not_fit_are_rejected_in_words_for_the_model() -> None:
    for arguments in ({}, {"a": "one"}, {"a": 1, "c": 2}):
        with pytest.raises(LMStudioValueError, match="Failed to parse arguments for tool add: "):
            lms.ToolFunctionDef.from_callable(add).check(arguments)


@pytest.mark.parametrize(
    "parameters", [{"a": list[int]}, {"type": "object", "properties": {"a": {"items": {"type": "integer"}}}}]
)
def test_what_is_wrong_with_very_many_values_is_shortened_for_the_model(parameters: dict[str, Any]) -> None:
    tool = lms.ToolFunctionDef("f", "Do.", parameters, None)
    with pytest.raises(LMStudioValueError, match="characters omitted") as caught:
        tool.check({"a": ["z"] * 5_000})
    assert len(str(caught.value)) < 10_000


def test_a_parameter_may_have_any_name() -> None:
    def odd(schema: int, _hidden: int, model_config: str) -> None:
        """Take odd names."""

    tool = lms.ToolFunctionDef.from_callable(odd)
    values = {"schema": 1, "_hidden": 2, "model_config": "x"}
    assert tool.check(values) == values
    parameters = tool.to_tool().function.parameters
    assert parameters is not None
    assert set(parameters["properties"]) == values.keys()


def test_a_definition_may_be_an_object_a_dict_or_a_function() -> None:
    made = lms.ToolFunctionDef("add", "Add.", {"a": int}, add)
    assert lms.ToolFunctionDef.parse(made) is made
    given: Any = {"name": "add", "description": "Add.", "parameters": {"a": int}, "implementation": add}
    assert lms.ToolFunctionDef.parse(given) == made
    assert list(parse_tools([add, weather])) == ["add", "weather"]
    repeatable = lms.ToolFunctionDef(**given, repeatable=True)
    assert lms.ToolFunctionDef.parse({**given, "repeatable": True}) == repeatable != made  # type: ignore[arg-type]
    assert lms.ToolFunctionDef.from_callable(add, repeatable=True).repeatable


@pytest.mark.parametrize(
    ("kind", "given", "checked"),
    [
        ({"type": int, "default": 5}, {}, {"b": 5}),
        ({"type": int}, {"b": 1}, {"b": 1}),
    ],
)
def test_a_parameter_may_be_given_with_its_default(
    kind: dict[str, Any], given: dict[str, Any], checked: dict[str, Any]
) -> None:
    tool = lms.ToolFunctionDef("f", "Do.", {"b": kind}, lambda b: b)
    assert tool.check(given) == checked
    parameters = tool.to_tool().function.parameters
    assert parameters is not None
    assert parameters["properties"]["b"].get("default") == kind.get("default")
    assert parameters.get("required", []) == ([] if "default" in kind else ["b"])


@pytest.mark.parametrize("default", [float("inf"), float("-inf"), float("nan")])
def test_a_default_that_json_cannot_hold_is_kept_from_the_model(default: float) -> None:
    def limit(most: float = default) -> None:
        """Limit something."""

    parameters = lms.ToolFunctionDef.from_callable(limit).to_tool().function.parameters
    assert parameters is not None
    assert parameters["properties"]["most"] == {"title": "Most", "type": "number"}
    assert "required" not in parameters
    given = lms.ToolFunctionDef("limit", "Limit.", {"most": {"type": float, "default": default}}, limit)
    assert repr(given.check({})["most"]) == repr(default)


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"$ref": "#/definitions/City"}, "days-ahead": {"type": "integer", "minimum": 1}},
    "required": ["city"],
    "definitions": {"City": {"type": "string", "minLength": 2}},
}


def test_the_parameters_may_be_a_json_schema() -> None:
    tool = lms.ToolFunctionDef("forecast", "Report the weather.", SCHEMA, lambda **arguments: arguments)
    sent = tool.to_tool().to_dict()
    assert not list(wrong_with([sent], TOOLS, "tools"))
    assert sent["function"]["parameters"] == {
        "type": "object",
        "properties": {"city": {"type": "string", "minLength": 2}, "days-ahead": {"type": "integer", "minimum": 1}},
        "required": ["city"],
    }
    assert tool.check({"city": "Oslo", "days-ahead": 2}) == {"city": "Oslo", "days-ahead": 2}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (None, "arguments: 'city' is a required property"),
        ({"city": "X"}, "city: 'X' is too short"),
        ({"city": 5, "days-ahead": 0}, "city: 5 is not of type 'string'; days-ahead: 0 is less than the minimum of 1"),
    ],
)
def test_arguments_are_checked_against_the_json_schema(arguments: Any, problem: str) -> None:
    tool = lms.ToolFunctionDef("forecast", "Report the weather.", SCHEMA, None)
    with pytest.raises(LMStudioValueError) as caught:
        tool.check(arguments)
    assert str(caught.value) == f"Failed to parse arguments for tool forecast: {problem}"


def test_a_json_schema_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("it was downloaded"))
    schema = {"type": "object", "properties": {"a": {"$ref": "https://example.org/a.json"}}}
    with pytest.raises(LMStudioValueError, match=r"refers to 'https://example.org/a.json', which it does not contain"):
        lms.ToolFunctionDef("f", "Do.", schema, None).check({"a": 1})


def test_a_json_schema_is_of_the_draft_that_it_names() -> None:
    number = {"type": "number", "minimum": 1, "exclusiveMinimum": True}
    schema = {"$schema": "http://json-schema.org/draft-04/schema#", "type": "object", "properties": {"a": number}}
    with pytest.raises(LMStudioValueError, match="a: 1 is less than or equal to the minimum of 1"):
        lms.ToolFunctionDef("f", "Do.", schema, None).check({"a": 1})


def test_arguments_for_a_json_schema_with_an_address_that_is_none_are_rejected() -> None:
    schema = {"type": "object", "$id": "http://[a", "properties": {"a": {"$ref": "b"}}}
    with pytest.raises(LMStudioValueError, match="the schema of the tool cannot be used: Invalid IPv6 URL"):
        lms.ToolFunctionDef("f", "Do.", schema, None).check({"a": 1})


def test_arguments_that_are_nested_too_deeply_for_a_json_schema_are_rejected() -> None:
    node: dict[str, Any] = {}
    for _ in range(5_000):
        node = {"node": node}
    schema = {"type": "object", "properties": {"node": {"$ref": "#"}}}
    with pytest.raises(LMStudioValueError, match="nested too deeply"):
        lms.ToolFunctionDef("f", "Do.", schema, None).check(node)


def _unknown_hint(a: "Missing") -> None:  # type: ignore[name-defined]  # noqa: F821 - the fault is the point
    """Do."""


class Contextual:
    """A tool that is an object."""

    def __call__(self, a: int, ctx: "lms.ToolCallContext | None" = None) -> None:
        """Take a context."""


def contextual_twice(a: int, ctx: lms.ToolCallContext, other: "Annotated[lms.ToolCallContext, 'again']") -> None:
    """Take a context, twice."""


@pytest.mark.parametrize(
    ("implementation", "names"),
    [
        (contextual_twice, ("ctx", "other")),
        (Contextual(), ("ctx",)),
        (functools.partial(contextual_twice, 1), ("ctx", "other")),
        (functools.wraps(contextual_twice)(lambda **given: given), ("ctx", "other")),
        (add, ()),
        (_unknown_hint, ()),
        (min, ()),
        (None, ()),
    ],
)
def test_it_is_known_which_parameters_get_a_context(implementation: Any, names: tuple[str, ...]) -> None:
    assert lms.ToolFunctionDef("f", "Do.", {"a": int}, implementation).context_parameters == names


class AsyncCallable:
    """A tool that is an object."""

    async def __call__(self) -> None:
        await wait()


@pytest.mark.parametrize(
    ("function", "awaited"),
    [(add, False), (wait, True), (functools.partial(wait), True), (AsyncCallable(), True), (AsyncCallable, False)],
)
def test_it_is_known_which_functions_must_be_awaited(function: Callable[..., Any], awaited: bool) -> None:
    assert lms.ToolFunctionDef("f", "Do.", {}, function).is_async is awaited


def _no_docstring(a: int) -> int:
    return a


def _no_hint(a) -> None:  # type: ignore[no-untyped-def]  # the fault is the point
    """Do."""


def _many(*numbers: int) -> None:
    """Do."""


class _Unusable:
    pass


def _broken_hint(a: Any) -> None:
    """Do."""


_broken_hint.__annotations__["a"] = "int["


def _unusable_hint(a: _Unusable) -> None:
    """Do."""


def _callable_hint(a: Callable[[int], int]) -> None:
    """Do."""


def _contextual(ctx: lms.ToolCallContext) -> None:
    """Do."""


def _ctx_schema() -> dict[str, Any]:
    return {"type": "object", "properties": {"ctx": {"type": "string"}}}


def _defined(**members: Any) -> dict[str, Any]:
    return {"name": "f", "description": "Do.", "parameters": {}, "implementation": add, **members}


@pytest.mark.parametrize(
    ("tool", "finding"),
    [
        (_no_docstring, "'_no_docstring' has no docstring"),
        (lambda city: city, "a lambda has no name by which a model could call it"),
        (_no_hint, "parameter 'a' has no type hint"),
        (_many, "parameter 'numbers' cannot be passed by name"),
        (_unknown_hint, "its type hints cannot be read"),
        (_broken_hint, "its type hints cannot be read"),
        (_unusable_hint, "has a parameter of unusable type"),
        (_callable_hint, "has a parameter of unusable type; use what JSON can hold"),
        (functools.partial(add, 1), "a partial has no type hints"),
        ({"name": "add"}, "a tool needs name, description, parameters, implementation"),
        (5, "a tool must be a function or a ToolFunctionDef, got 5"),
        (_defined(name=5), "the name of a tool must be a string; got 5"),
        (_defined(description=None), "the description of a tool must be a string; got None"),
        (_defined(parameters=5), "the parameters of a tool must be a dict of types by name; got 5"),
        (_defined(parameters=None), "the parameters of a tool must be a dict of types by name; got None"),
        (_defined(parameters={5: int}), "the parameters of a tool must be a dict of types by name; got {5: "),
        (_defined(parameters={"a": "integer"}), "has a parameter of unusable type"),
        (_defined(parameters={"$ref": "#"}), "has a parameter of unusable type; use what JSON can hold: Forward"),
        (_defined(parameters={"a": {"description": "x"}}), "parameter 'a' needs a Python type as 'type'; got {'desc"),
        (_defined(parameters={"a": {"type": "string"}}), "a JSON schema describes all parameters: {'type': 'object'"),
        (_defined(parameters={"properties": {"a": {"type": "string"}}}), "{'type': 'object', 'properties': …}"),
        (_defined(parameters={"type": "object", "properties": {"a": int}}), "parameters['properties']['a']: <class"),
        (_defined(parameters={"type": "object", "properties": 5}), "'f' are not a JSON schema: parameters['proper"),
        (_defined(parameters={"type": "object", "$ref": "#/$defs/A"}), "'f' refers to '#/$defs/A', which it does not"),
        (_defined(implementation=5), "the implementation of a tool must be a function, or None; got 5"),
        (_defined(repeatable=None), "the repeatable of a tool must be True or False; got None"),
        (_defined(parameters={"ctx": int}, implementation=_contextual), "'ctx' gets the ToolCallContext, so the model"),
        (_defined(parameters=_ctx_schema(), implementation=_contextual), "'ctx' gets the ToolCallContext, so the mod"),
    ],
)
def test_what_cannot_be_a_tool_is_rejected(tool: Any, finding: str) -> None:
    with pytest.raises(LMStudioValueError) as caught:
        lms.ToolFunctionDef.parse(tool)
    assert finding in str(caught.value)


@pytest.mark.parametrize(
    ("tools", "finding"), [([], "at least one tool"), ([add, add], "duplicate tool names are not permitted ('add'")]
)
def test_a_set_of_tools_has_one_at_least_and_each_name_once(tools: list[Any], finding: str) -> None:
    with pytest.raises(LMStudioValueError) as caught:
        parse_tools(tools)
    assert finding in str(caught.value)
