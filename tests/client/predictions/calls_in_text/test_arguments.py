"""Arguments that do not fit a schema: which are mended without the model, and which never."""

import json
from contextlib import suppress
from typing import Any

import pytest

from lmstudio_integrations.client.predictions.calls_in_text.call_arguments import mend
from lmstudio_integrations.client.predictions.calls_in_text.formats import OfferedTool
from lmstudio_integrations.client.predictions.calls_in_text.lenient_json import NoCallError, number_of

TEXT, INTEGER = {"type": "string"}, {"type": "integer"}
ITEM: dict[str, Any] = {"type": "object", "properties": {"name": TEXT, "count": INTEGER}, "required": ["name"]}
PROPERTIES: dict[str, Any] = {
    "file_path": TEXT,
    "count": INTEGER,
    "ratio": {"type": "number"},
    "force": {"type": "boolean"},
    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
    "tags": {"type": "array", "items": TEXT},
    "items": {"type": "array", "items": ITEM},
    "options": ITEM,
    "scale": {"anyOf": [{"type": "string", "enum": ["kelvin", "rankine"]}, {"type": "null"}]},
    "filter": {"type": "string", "enum": ["none", "all"]},
    "limit": {"anyOf": [INTEGER, {"type": "null"}]},
}
PATH = {"file_path": "a.txt"}


def tool(required: tuple[str, ...] = ("file_path",), **more: Any) -> OfferedTool:
    parameters = {"type": "object", "properties": PROPERTIES, "required": list(required), **more}
    return OfferedTool({"name": "look", "parameters": parameters})


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"count": "5"}, {"count": 5}),
        ({"count": "5.0"}, {"count": 5}),
        ({"ratio": "5.0"}, {"ratio": 5.0}),
        ({"limit": "5"}, {"limit": 5}),
        ({"force": "False"}, {"force": False}),
        ({"unit": "Celsius"}, {"unit": "celsius"}),
        ({"scale": "KELVIN"}, {"scale": "kelvin"}),
        ({"unit": ["celsius"]}, {"unit": "celsius"}),
        ({"tags": "red"}, {"tags": ["red"]}),
        ({"tags": '["red", "blue"]'}, {"tags": ["red", "blue"]}),
        ({"tags": "['red']"}, {"tags": ["red"]}),
        ({"items": {"name": "a"}}, {"items": [{"name": "a"}]}),
        ({"items": '[{"name": "a", "count": "2"}]'}, {"items": [{"name": "a", "count": 2}]}),
        (
            {"items": [{"name": "a", "count": "2"}, {"Name": "b"}]},
            {"items": [{"name": "a", "count": 2}, {"name": "b"}]},
        ),
        ({"options": '{"name": "a"}'}, {"options": {"name": "a"}}),
        ({"options": [{"name": "a"}]}, {"options": {"name": "a"}}),
        ({"count": ["5"]}, {"count": 5}),
        ({"count": None}, {}),
        ({"count": ""}, {}),
        ({"tags": ""}, {}),
        ({"filter": None}, {}),
        ({"filter": "None"}, {"filter": "none"}),
    ],
)
def test_a_value_with_one_reading_is_read(given: dict[str, Any], meant: dict[str, Any]) -> None:
    mended = mend(tool(), {**PATH, **given})
    assert json.dumps(mended) == json.dumps({**PATH, **meant})  # `5` is not `5.0`


VERSION = {"version": TEXT, "tags": {"type": "array", "items": TEXT}, "options": ITEM}


@pytest.mark.parametrize("number", ["3.10", "1e3", "-0", "7", "12345678901234567890.0"])
@pytest.mark.parametrize("form", ['{"version": %s}', '{"tags": [%s, "a"]}', '{"options": {"name": %s}}'])
def test_a_number_for_a_text_is_what_the_model_wrote(form: str, number: str) -> None:
    given = json.loads(form % number, parse_float=number_of, parse_int=number_of)
    assert mend(tool((), properties=VERSION), given) == json.loads(form % json.dumps(number))
    encoded = {"options": json.dumps({"name": 1}).replace("1", number)}
    assert mend(tool((), properties=VERSION), encoded) == {"options": {"name": number}}


@pytest.mark.parametrize("number", [3.1, 3.0, 1e20])
def test_a_number_whose_text_is_not_known_is_no_text(number: float) -> None:
    """It may have been `3.10`."""
    assert mend(tool((), properties=VERSION), {"version": number}) is None
    assert mend(tool((), properties=VERSION), {"version": 3}) == {"version": "3"}


@pytest.mark.parametrize("optional", ["from_account", "account_id"])
def test_a_name_that_may_be_that_of_an_optional_argument_is_not_that_of_a_required_one(optional: str) -> None:
    transfer = tool(("account_number",), properties={"account_number": TEXT, optional: TEXT})
    meant = {"account_number": "A"} if optional == "from_account" else None
    assert mend(transfer, {"account": "A"}) == meant
    assert mend(tool(("to_account",), properties={"to_account": TEXT, optional: TEXT}), {"account": "A"}) is None


@pytest.mark.parametrize("unit", ["-", " ", "_", "/", ".", "[", '"', "{"])
def test_a_long_value_takes_linear_time(unit: str) -> None:
    """With quadratic time, it would be minutes."""
    for name in ("count", "unit", "tags"):
        value = mend(tool(), {**PATH, name: unit * 100_000})
        assert value is None or value == {**PATH, "tags": [unit * 100_000]}


@pytest.mark.parametrize(
    "given",
    [
        {"filePath": "a.txt"},
        {"path": "a.txt"},
        {"file": "a.txt"},
        {"file_path": ["a.txt"]},
        {"arguments": PATH},
        {"input": '{"file_path": "a.txt"}'},
        {"name": "look", "arguments": {"path": "a.txt"}},
        PATH,
    ],
)
def test_names_and_wrappers(given: dict[str, Any]) -> None:
    assert mend(tool(), given) == PATH


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"count": 5},
        {"units": "celsius"},
        {"file_path": None},
        {"file_path": ["a", "b"]},
        {"file_path": {"a": 1}},
        {**PATH, "count": "five"},
        {**PATH, "count": "5 or 6"},
        {**PATH, "count": "1,000"},
        {**PATH, "force": "yes"},
        {**PATH, "unit": "kelvin"},
        {**PATH, "unit": "c"},
        {**PATH, "tags": "red, blue"},
        {**PATH, "items": [{"count": 2}]},
        {"path": "a.txt", "filename": "b.txt"},
        {"arguments": PATH, "colour": "red"},
    ],
)
def test_a_value_is_never_invented(given: dict[str, Any]) -> None:
    assert mend(tool(), given) is None


def test_an_unknown_name_is_renamed_only_where_it_is_not_allowed() -> None:
    given = {**PATH, "Count": 5}
    assert mend(tool(), given) == given
    assert mend(tool(additionalProperties=False), given) == {**PATH, "count": 5}
    assert mend(tool(additionalProperties=False), {**PATH, "colour": "red"}) is None


def test_what_fits_stays_the_same_object() -> None:
    given = {**PATH, "count": 5, "more": "5", "data": {"count": 6}}
    assert mend(tool(), given) is given


@pytest.mark.parametrize(
    "given",
    [
        {"tags": "red and blue"},
        {"tags": "red|blue"},
        {"labels": {"a": None}},
        {"labels": {"b": "none", "c": None}},
        {"text": 1e20},
        {"args": {**PATH, "file_path": "b.txt", "count": 1}},
        {"name": "Bob", "data": {"count": 1}},
    ],
)
def test_what_may_mean_something_else_is_not_mended(given: dict[str, Any]) -> None:
    labels = {"type": "object", "additionalProperties": TEXT}
    properties = {**PROPERTIES, "labels": labels, "text": TEXT}
    strict = tool(("file_path",), properties=properties, additionalProperties=False)
    assert mend(strict, {**PATH, **given}) is None


@pytest.mark.parametrize("items", [{"$ref": "#/$defs/missing"}, INTEGER])
def test_no_other_error_is_raised_by_deep_values_and_references_to_nothing(items: dict[str, Any]) -> None:
    nested: Any = "a"
    for _ in range(600):
        nested = [nested]
    for value in ("a", nested):
        with suppress(NoCallError):
            assert mend(tool((), properties={"tags": {"type": "array", "items": items}}), {"tags": value}) is None


def test_the_meaning_of_many_unknown_names_is_not_looked_for() -> None:
    """Each is compared with each known one."""
    for others, expected in ((15, "a.txt"), (16, None)):
        given = {"filePath": "a.txt", **{f"other {number}": 1 for number in range(others)}}
        mended = mend(tool(), given)
        assert (mended and mended["file_path"]) == expected
