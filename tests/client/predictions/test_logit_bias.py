"""`logit_bias` by texts: the tokenizer of the instance that generates turns each into one id, on every way to generate.

A scripted model leaves out the words that are forbidden.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import lmstudio_integrations as lms
from lmstudio_integrations.emulator import Emulator, ModelEntry
from lmstudio_integrations.emulator.engines.scripted import words
from lmstudio_integrations.emulator.server.handlers import SERVED
from tests.client.prediction_frames import joined, weather
from tests.support.adapters import LANGUAGE_MODELS, Adapter
from tests.support.requested import chosen

FORBIDDEN = float("-inf")
BIAS: dict[int | str, float] = {" 3": FORBIDDEN, words.token_id(" 5"): FORBIDDEN, " 7": 2.5}
WIRE = [[words.token_id(" 3"), "-inf"], [words.token_id(" 5"), "-inf"], [words.token_id(" 7"), 2.5]]
WITHOUT = " ".join(str(n) for n in range(200) if n not in {3, 5})


async def responded(model: Any) -> str:
    return str(await model.respond("count", config={"logitBias": BIAS}))


async def completed(model: Any) -> str:
    return await joined(model.complete_stream("count", config=lms.LlmPredictionConfig(logit_bias=BIAS)))


async def acted(model: Any) -> str:
    messages: list[Any] = []
    await model.act("count", [weather], config={"logit_bias": BIAS}, on_message=messages.append)
    return str(messages[-1].content[0].text)


@pytest.mark.leaf
@pytest.mark.parametrize("way", [responded, completed, acted])
async def test_texts_are_sent_as_the_ids_of_the_model(
    model: Any, server: Emulator, way: Callable[[Any], Awaitable[str]]
) -> None:
    assert await way(model) == WITHOUT
    assert chosen(server.predictions[-1]) == {"logitBias": WIRE}


async def test_texts_are_sent_as_ids_to_a_server_without_raw_completion(
    model: Any, server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {name: endpoint for name, endpoint in SERVED["llm"].items() if name != "completeRawText"}
    monkeypatch.setitem(SERVED, "llm", old)
    assert await completed(model) == WITHOUT
    assert server.predictions[-1].config["logitBias"] == WIRE


@pytest.mark.parametrize(("text", "tokens"), [(" 3 4", "2 tokens"), ("", "0 tokens")])
async def test_a_text_that_is_not_one_token_is_rejected_with_its_number_and_nothing_is_generated(
    model: Any, server: Emulator, text: str, tokens: str
) -> None:
    with pytest.raises(lms.LMStudioValueError) as caught:
        await model.respond("count", config={"logit_bias": {" 3": 1.0, text: 1.0}})
    assert str(caught.value) == (
        f"logit_bias names {text!r}, which is {tokens} of this model, and not one; name each token by its id, which "
        "tokenize() returns"
    )
    assert not server.predictions


async def test_the_model_is_loaded_again_if_it_was_unloaded_before_its_tokenizer_is_asked(
    model: Any, server: Emulator
) -> None:
    await asyncio.to_thread(server.unload, "chatty")
    assert await responded(model) == WITHOUT


@pytest.mark.leaf
@pytest.mark.parametrize("adapter", LANGUAGE_MODELS.values(), ids=LANGUAGE_MODELS)
def test_the_adapters_send_ids_for_texts_on_several_hosts(adapter: Adapter) -> None:
    entry = ModelEntry(key="chat", rules=({"then": [{"text": "1 2 3 4"}]},))
    with Emulator([entry]) as first, Emulator([entry]) as second:
        biased = {"logit_bias": {" 2": FORBIDDEN, " 9": 1.0}}
        llm = adapter.make(model="chat", host=[first.address, second.address], prediction_config=biased)
        for bias, text in ((None, "1 2 3 4"), ({" 3": FORBIDDEN}, "1 2 4")):
            response = adapter.call(llm, "Hello", prediction_config={"logit_bias": bias})
            assert str(getattr(response, "content", response)) == text
        assert len(first.predictions) + len(second.predictions) == 2
        adapter.call(llm, "Hello")
        sent = [chosen(record) for each in (first, second) for record in each.predictions]
        assert {"logitBias": [[words.token_id(" 2"), "-inf"], [words.token_id(" 9"), 1.0]]} in sent
