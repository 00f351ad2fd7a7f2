"""Vectors and tokens."""

import re
from typing import Any

import pytest

import lmstudio_integrations as lms


async def test_a_text_gives_a_vector_and_a_list_gives_a_list(client: Any) -> None:
    model = await client.embedding.model("vectors")
    one = await model.embed("a text")
    many = await model.embed([f"text {number}" for number in range(100)] + ["a text"])
    assert len(one) == 16
    assert all(type(number) is float for number in one)
    assert len(many) == 101
    assert many[-1] == one
    assert many[0] != many[1]
    assert await model.embed([]) == []


async def test_tokens_of_one_text_and_of_several(client: Any) -> None:
    model = await client.llm.model("chatty")
    tokens = await model.tokenize("one two three")
    assert len(tokens) == await model.count_tokens("one two three") == 3
    assert await model.tokenize(["one two three", "four"]) == [tokens, await model.tokenize("four")]
    assert await model.count_tokens(["one two", "three"]) == [2, 1]


@pytest.mark.parametrize("texts", [5, b"ab", ["a", None]])
async def test_what_is_not_a_list_of_strings_is_rejected(client: Any, texts: Any) -> None:
    wrong = texts[-1] if isinstance(texts, list) else texts
    with pytest.raises(lms.LMStudioValueError, match=f"got {re.escape(repr(wrong))}"):
        await client.embedding.lazy_model("vectors").embed(texts)


async def test_an_embedding_model_reports_its_info_and_load_config(client: Any) -> None:
    model = await client.embedding.model("vectors", config={"contextLength": 256})
    info = await model.get_info()
    assert (info.type, info.context_length) == ("embedding", 256)
    assert (await model.get_load_config()).context_length == 256
