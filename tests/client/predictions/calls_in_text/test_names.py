"""Which tool or argument is meant by another name, and which is not."""

import pytest

from lmstudio_integrations.client.predictions.calls_in_text.call_arguments import (
    resembling_arguments,
    resembling_tools,
    same_spelling,
)

TOOLS = ("read_file", "delete_file", "getTimeZone")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("readFile", "read_file"),
        ("READ-FILE", "read_file"),
        ("functions.read_file", "read_file"),
        ("server/read_file", "read_file"),
        ("mcp:read_file", "read_file"),
        ("functions.delete_file", "delete_file"),
        ("get_time_zone", "getTimeZone"),
        ("read_files", "read_file"),
        ("functions.deleteFiles", "delete_file"),
        ("get_time_zones", "getTimeZone"),
    ],
)
def test_a_tool_may_be_named_in_another_spelling(written: str, meant: str) -> None:
    assert resembling_tools(written, TOOLS) == [meant]


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("get_user", "set_user"),
        ("read", "read_file"),
        ("file_read", "read_file"),
        ("raed_file", "read_file"),
        ("fetch_weather", "get_weather"),
        # An action is no look.
        ("transfer", "get_transfer"),
        ("refund", "get_refund"),
        ("order", "get_order"),
        ("get_grant_access", "get_access"),
        ("find_and_restart", "find"),
        ("look_up_sell", "look_up"),
        # A request need not offer all tools of a program.
        ("get_user_orders", "get_user"),
        ("find", "find_tools"),
        ("files", "file"),
        ("calendar.delete", "delete"),
        ("mail/send", "send"),
        ("", "read_file"),
        ("…", "read_file"),
        ("-" * 100_000, "read_file"),
    ],
    ids=lambda name: name[:20],
)
def test_no_other_tool_is_meant(written: str, known: str) -> None:
    assert resembling_tools(written, [known]) == []


@pytest.mark.parametrize(
    ("written", "known"),
    [("C++", "c"), ("C#", "c"), ("-1", "1"), ("-1", "+1"), ("3.11", "3.1.1"), ("1.15", "11.5")],
)
def test_signs_between_digits_and_symbols_are_part_of_a_value(written: str, known: str) -> None:
    assert same_spelling(written, [known]) == []


@pytest.mark.parametrize(
    ("written", "known"),
    [
        (" Celsius ", "celsius"),
        ("°C", "c"),
        ("gpt4", "GPT-4"),
        ("in progress", "in_progress"),
        ("new-york", "New York"),
    ],
)
def test_the_spelling_of_a_value_is_the_same_in_another_case(written: str, known: str) -> None:
    assert same_spelling(written, [known]) == [known]


def test_of_two_tools_that_may_be_meant_none_is_chosen() -> None:
    assert resembling_tools("read_file", ["readFile", "ReadFile"]) == ["readFile", "ReadFile"]


@pytest.mark.parametrize(
    ("written", "known", "meant"),
    [
        ("filePath", ("file_path", "content"), ["file_path"]),
        ("path", ("file_path", "content"), ["file_path"]),
        ("file", ("path", "content"), ["path"]),
        ("filename", ("file_path", "content"), ["file_path"]),
        ("cmd", ("command", "timeout"), ["command"]),
        ("q", ("query", "limit"), ["query"]),
        ("search_query", ("query", "limit"), ["query"]),
        ("max_results", ("query", "limit"), ["limit"]),
        ("location", ("city", "units"), ["city"]),
        ("text", ("path", "content"), ["content"]),
        ("querry", ("query", "limit"), ["query"]),
        ("units", ("city",), []),
        ("old_path", ("new_path",), []),
        ("start", ("end",), []),
        ("user_id", ("user_ids",), ["user_ids"]),
        ("id", ("user_id", "group_id"), ["user_id", "group_id"]),
        ("not_before", ("before",), []),
        ("lat", ("latitude", "longitude"), ["latitude"]),
        ("absolute_path", ("file_path", "content"), ["file_path"]),
        ("-" * 100_000, ("path",), []),
        ("path" * 30_000, ("path",), []),
        *(
            (written, (known,), [])
            for written, known in {
                "path": "patch",
                "file": "filter",
                "count": "country",
                "county": "country",
                "time": "timezone",
                "date": "database",
                "name": "namespace",
                "to": "topic",
                "end": "endpoint",
                "phone_number": "count",
                "system_prompt": "query",
                "output_file": "path",
                "api_key": "id",
                "exclude_tags": "tags",
                "min_price": "price",
                "old_name": "name",
                "user_password": "user",
                "account": "to_account",
                "city": "origin_city",
            }.items()
        ),
    ],
)
def test_an_argument_may_have_another_name(written: str, known: tuple[str, ...], meant: list[str]) -> None:
    assert resembling_arguments(written, known) == meant
