"""What may be shown of tool arguments, and how shown ones are made invalid."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.utils.json import parse_partial_json

from lmstudio_integrations.langchain._json_prefix import JsonPrefix, invalidator
from lmstudio_integrations.protocol.envelope import DEEPEST

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=8), VALUES, max_size=4)


@pytest.mark.slow
@settings(max_examples=30)
@given(OBJECTS, st.booleans())
def test_every_beginning_of_an_object_is_accepted_and_only_the_whole_is_complete(
    value: dict[str, Any], ascii_only: bool
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    scanner = JsonPrefix()
    for char in text[:-1]:
        assert scanner.feed(char)
        assert not scanner.complete
    assert scanner.feed(text[-1])
    assert scanner.complete


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "x",
        "{'",
        "{a",
        '{"a" 1',
        '{"a":1,}',
        '{"a":1]',
        '{"a":[1}',
        '{"a":[1,]',
        '{"a":[,',
        '{"a":,',
        '{"a":1 2',
        '{"a":01',
        '{"a":1.e',
        '{"a":-}',
        '{"a":tru}',
        '{"a":T',
        '{"a":nul,',
        '{"a":"\\x',
        '{"a":"\\u12g',
        '{"a":"\n',
        '{"a":1}}',
        '{"a":1} {',
        "{,",
    ],
)
def test_text_that_cannot_become_an_object_is_rejected_at_its_last_character(text: str) -> None:
    scanner = JsonPrefix()
    assert scanner.feed(text[:-1])
    assert not scanner.feed(text[-1])
    assert not scanner.feed("}")


@pytest.mark.parametrize(
    "text", ['{"a":1}\n', ' {"a" : [ 1 , {} , [] ] } ', '{"a":-1.5e+3,"b":0}', '{"\\u00e9":"\\n"}', '{"a b":"c d"}']
)
def test_space_numbers_and_escapes_are_part_of_json(text: str) -> None:
    scanner = JsonPrefix()
    assert scanner.feed(text)
    assert scanner.complete


@pytest.mark.parametrize("text", ['{"a": -' + "1" * 500_000, '{"a": 0.' + "1" * 500_000, '{"a": 1e' + "1" * 500_000])
def test_a_long_number_takes_linear_time(text: str) -> None:
    scanner = JsonPrefix()
    assert scanner.feed(text)
    assert scanner.feed("}")
    assert scanner.complete


def test_an_object_nests_no_deeper_than_its_readers_can_go() -> None:
    inner = DEEPEST - 1
    assert JsonPrefix().feed('{"a": ' + "[" * inner + "]" * inner + "}")
    assert not JsonPrefix().feed('{"a": ' + "[" * (inner + 1))
    assert not JsonPrefix().feed('{"a": ' * (inner + 2))


@pytest.mark.slow
@settings(max_examples=30)
@given(OBJECTS, st.booleans(), st.data())
def test_an_invalidated_beginning_is_a_valid_call_for_no_parser(
    value: dict[str, Any], ascii_only: bool, data: st.DataObject
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    shown = text[: data.draw(st.integers(0, len(text)))]
    invalid = shown + invalidator(shown)
    with pytest.raises(ValueError, match="char"):
        json.loads(invalid)
    assert parse_partial_json(invalid) is None
    chunk = AIMessageChunk(content="", tool_call_chunks=[tool_call_chunk(name="f", args=invalid, id="1", index=0)])
    assert chunk.tool_calls == []
    assert [call["id"] for call in chunk.invalid_tool_calls] == ["1"]
