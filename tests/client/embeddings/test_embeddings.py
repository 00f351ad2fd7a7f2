"""Vectors and tokens."""

from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.client.models.state import Instance
from tests.client.fake import Socket, authenticate, fake_server, receive


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


@pytest.mark.parametrize(
    ("vector", "finding"),
    [
        *(
            (vector, "sent no list of finite numbers for the text 'second'")
            for vector in ("[0.5, NaN]", "[0.5, -Infinity]", "[1e999]", "[0.5, null]", '["0.5"]', "null")
        ),
        ("[]", "sent an empty vector for the text 'second'"),
        ("[0.5, 1, 2]", "sent vectors of 2 and 3 numbers"),
    ],
)
async def test_what_is_no_vector_like_the_others_is_an_error(vector: str, finding: str) -> None:
    async def behave(socket: Socket) -> None:
        await authenticate(socket)
        for sent in ("[0.5, 1]", vector, "[0.5, 1]"):
            call = await receive(socket)
            result = f'{{"embedding": {sent}}}'
            await socket.send(f'{{"type": "rpcResult", "callId": {call["callId"]}, "result": {result}}}')

    async with fake_server(behave) as address, lms.AsyncClient(address) as client:
        model: Any = client.embedding.lazy_model("vectors")
        model._model.state.instance = Instance("vectors")
        with pytest.raises(lms.LMStudioProtocolError, match=finding):
            await model.embed(["first", "second", "third"])


async def test_an_embedding_model_reports_its_info_and_load_config(client: Any) -> None:
    model = await client.embedding.model("vectors", config={"contextLength": 256})
    info = await model.get_info()
    assert (info.type, info.context_length) == ("embedding", 256)
    assert (await model.get_load_config()).context_length == 256
