"""Which tool or argument is meant by another name, and which is not."""

import pytest

from lmstudio_integrations.client.predictions.call_repair.names import resembling_arguments, resembling_tools

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
        "open",
        "",
        "…",
    ],
)
def test_a_tool_of_another_meaning_is_another_tool(written: str) -> None:
    assert resembling_tools(written, TOOLS) == []


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
    ],
)
def test_an_argument_may_have_another_name(written: str, known: tuple[str, ...], meant: list[str]) -> None:
    assert resembling_arguments(written, known) == meant
