"""Results of tools as texts and images."""

from typing import Any

import pytest

import lmstudio_integrations as lms

TEXT: dict[str, Any] = {"type": "text", "text": "a chart"}
IMAGE: dict[str, Any] = {"type": "image", "data": "aGk=", "mimeType": "image/png"}
READ_IMAGE = lms.ToolImage("aGk=", "image/png")


@pytest.mark.parametrize(
    ("result", "parts"),
    [
        ([TEXT], ("a chart",)),
        ([TEXT, IMAGE, TEXT], ("a chart", READ_IMAGE, "a chart")),
        ({"content": [IMAGE]}, (READ_IMAGE,)),
        ({"content": [TEXT], "structuredContent": {"a": 1}}, ("a chart",)),
        ({"content": [], "structuredContent": {"a": 1}}, ('{"a":1}',)),
        ({"content": []}, ()),
        ([{"type": "audio", "data": "aGk=", "mimeType": "audio/wav"}], ("[a sound of type audio/wav]",)),
        ([{"type": "resource", "resource": {"uri": "file:///a", "text": "inside"}}], ("inside",)),
        (
            [{"type": "resource", "resource": {"uri": "file:///a", "mimeType": "application/pdf", "blob": "aGk="}}],
            ("[a resource of type application/pdf: file:///a]",),
        ),
        ([{"type": "resource", "resource": {}}], ("[a resource of type unknown: without address]",)),
        ([{"type": "resource_link", "uri": "file:///a", "name": "a"}], ("[a resource: file:///a]",)),
    ],
)
def test_content_of_mcp_is_kept_apart(result: Any, parts: tuple[Any, ...]) -> None:
    content = lms.ToolContent.of(result)
    assert content.parts == parts
    assert content.images == tuple(part for part in parts if part == READ_IMAGE)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("text", "text"),
        (3, "3"),
        (None, "null"),
        ([], "[]"),
        ([1, TEXT], '[1,{"type":"text","text":"a chart"}]'),
        ({"content": "text"}, '{"content":"text"}'),
        ({"content": [{"type": "text"}]}, '{"content":[{"type":"text"}]}'),
        ([{"type": "image", "data": 5, "mimeType": "image/png"}], '[{"type":"image","data":5,"mimeType":"image/png"}]'),
        ([{"type": ["text"], "text": "a"}], '[{"type":["text"],"text":"a"}]'),
        ({"content": [TEXT], "page": 2}, '{"content":[{"type":"text","text":"a chart"}],"page":2}'),
        ({"é": "🙂"}, '{"é":"🙂"}'),
    ],
)
def test_any_other_value_is_one_text(result: Any, text: str) -> None:
    assert lms.ToolContent.of(result) == lms.ToolContent((text,))


def test_a_tool_may_say_that_it_has_failed() -> None:
    assert lms.ToolContent.of({"content": [TEXT], "isError": True}).is_error
    assert not lms.ToolContent.of({"content": [TEXT], "isError": "no"}).is_error


def test_images_are_lines_for_readers_who_do_not_see() -> None:
    assert lms.ToolContent.of([TEXT, IMAGE]).text == "a chart\n[an image of type image/png]"
    assert repr(READ_IMAGE) == "ToolImage('image/png', 4 characters)"
