"""Prompts, messages, images and tools from the columns of a row."""

from typing import Any

import pytest

from lmstudio_integrations.errors import LMStudioValueError
from lmstudio_integrations.ray._inputs import Template, chat_of, images_of, string_in, tools_of
from lmstudio_integrations.types.chat import Chat

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def test_a_template_has_columns_in_braces() -> None:
    template = Template("{title:>5}: {first name} costs {price:.2f}, {{not}} {title}")
    assert template.columns == ("title", "first name", "price")
    row = {"title": "Tea", "first name": "Ada", "price": 2}
    assert template.render(row) == "  Tea: Ada costs 2.00, {not} Tea"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Hello", "names no column"),
        ("{", "is no template"),
        ("{} and {}", "must name a column"),
        ("{body!r}", "must name a column"),
        (7, "is no template"),
    ],
)
def test_a_template_that_cannot_be_filled_is_rejected(text: Any, message: str) -> None:
    with pytest.raises(LMStudioValueError, match=message):
        Template(text)


def test_a_template_reads_no_attributes() -> None:
    assert Template("{body.__class__}").columns == ("body.__class__",)


@pytest.mark.parametrize(("value", "message"), [(None, "column 'x' is null"), ("a", "cannot be formatted")])
def test_a_value_that_does_not_suit_the_template_is_an_error(value: Any, message: str) -> None:
    with pytest.raises(LMStudioValueError, match=message):
        Template("{x:.2f}").render({"x": value})


@pytest.mark.parametrize(("value", "message"), [(None, "is null"), (7, "must be a string; got int")])
def test_a_text_must_be_a_string(value: Any, message: str) -> None:
    with pytest.raises(LMStudioValueError, match=f"column 'body' {message}"):
        string_in(value, "body")


@pytest.mark.parametrize(
    "value",
    [
        [{"role": "system", "content": "Be brief", "name": None}, {"role": "user", "content": "Hi", "name": None}],
        '[{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]',
    ],
)
def test_messages_are_a_list_or_its_json(value: Any) -> None:
    chat = Chat("Be brief")
    chat.add_user_message("Hi")
    assert chat_of(value, "messages").to_history() == chat.to_history()


@pytest.mark.parametrize("value", [None, [], 7, "{", '{"role": "user"}', [{"role": "nobody", "content": ""}]])
def test_other_values_are_no_messages(value: Any) -> None:
    with pytest.raises(LMStudioValueError):
        chat_of(value, "messages")


def test_tools_are_a_list_or_its_json_and_arrow_s_nulls_are_removed() -> None:
    function = {**TOOL["function"], "description": None}  # type: ignore[dict-item]  # the table is a plain dict
    wire = tools_of([{"type": "function", "function": function}], "tools")
    assert wire is not None
    assert wire["type"] == "toolArray"
    assert wire["tools"][0]["function"]["name"] == "weather"
    assert "description" not in wire["tools"][0]["function"]
    assert tools_of('[{"type": "function", "function": {"name": "weather"}}]', "tools") is not None


@pytest.mark.parametrize("value", [None, [], "[]"])
def test_a_row_may_have_no_tools(value: Any) -> None:
    assert tools_of(value, "tools") is None


@pytest.mark.parametrize("value", [7, [7], [{"type": "function"}], "{"])
def test_other_values_are_no_tools(value: Any) -> None:
    with pytest.raises(LMStudioValueError, match="column 'tools'"):
        tools_of(value, "tools")


def test_images_are_bytes_or_urls_alone_or_in_a_list() -> None:
    assert images_of(None, "image") == []
    assert images_of(b"png", "image") == [b"png"]
    images = ["HTTPS://x.org/a.png", "data:image/png;base64,", {"bytes": b"png", "path": None}]
    assert images_of(images, "image", allow_download=True) == [*images[:2], b"png"]
    with pytest.raises(LMStudioValueError, match="column 'image'"):
        images_of(images, "image")


@pytest.mark.parametrize("value", ["/etc/passwd", [None], {"path": "a.png"}, 7])
def test_a_path_is_no_image_because_a_dataset_must_not_choose_files_of_the_worker(value: Any) -> None:
    with pytest.raises(LMStudioValueError, match="content of image files, or their URLs"):
        images_of(value, "image")
