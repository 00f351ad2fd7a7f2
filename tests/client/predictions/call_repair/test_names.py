"""Which tool or argument is meant by another name, and which is not."""

import pytest

from lmstudio_integrations.client.predictions.call_repair.names import (
    resembling_arguments,
    resembling_tools,
    same_spelling,
)

TOOLS = (
    "read_file",
    "write_file",
    "delete_file",
    "web_search",
    "get_weather",
    "set_user",
    "unload_model",
    "getTimeZone",
)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("readFile", "read_file"),
        ("READ-FILE", "read_file"),
        ("functions.read_file", "read_file"),
        ("server/read_file", "read_file"),
        ("mcp:read_file", "read_file"),
        ("functions.delete_file", "delete_file"),
        ("file_read", "read_file"),
        ("search_web", "web_search"),
        ("read", "read_file"),
        ("search", "web_search"),
        ("weather", "get_weather"),
        ("get_current_weather", "get_weather"),
        ("fetch_weather", "get_weather"),
        ("get_wether", "get_weather"),
        ("get_weahter", "get_weather"),
        ("wirte_file", "write_file"),
        ("delete_files", "delete_file"),
        ("get_time_zone", "getTimeZone"),
    ],
)
def test_a_tool_may_have_a_name_that_resembles_that_of_one(written: str, meant: str) -> None:
    assert resembling_tools(written, TOOLS) == [meant]


@pytest.mark.parametrize(
    "written",
    [
        "get_user",
        "reset_user",
        "remove_file",
        "delete",
        "delete_all_files",
        "delete_file_backup",
        "write",
        "append_file",
        "run_search",
        "upload_model",
        "load_model",
        "set_weather",
        "list_weather",
        "get_all_weather",
        "get_and_delete_weather",
        "reab_file",
        "open",
        "",
        "…",
    ],
)
def test_a_tool_of_another_meaning_is_another_tool(written: str) -> None:
    assert resembling_tools(written, TOOLS) == []


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("get_position", "open_position"),
        ("convert_usd_to_eur", "convert_eur_to_usd"),
        ("add_user_to_group", "add_group_to_user"),
        ("charge_card", "change_card"),
        ("close_issue", "clone_issue"),
        ("unlock_account", "unblock_account"),
        ("get_posts", "get_ports"),
        ("user_ban", "get_user"),
        ("account_close", "get_account"),
        ("get_queue", "get_and_purge_queue"),
        ("get_mail", "fetch_and_archive_mail"),
        ("delete_message", "delete_messages"),
        ("calendar.delete", "delete"),
        ("mail/send", "send"),
    ],
)
def test_a_tool_with_another_effect_is_not_meant(written: str, known: str) -> None:
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
    assert resembling_tools("read", ["read_file", "read_mail"]) == ["read_file", "read_mail"]
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
            }.items()
        ),
    ],
)
def test_an_argument_may_have_another_name(written: str, known: tuple[str, ...], meant: list[str]) -> None:
    assert resembling_arguments(written, known) == meant
