"""Embedding models."""

import asyncio
import copy
import pickle

from tests.contract.langchain.integration import Integration, check_misspelled, contract
from tests.contract.models import EMBEDDING_LENGTH
from tests.contract.suite import SECRET
from tests.support.event_loop import ticks_during
from tests.support.listening import silence


@contract("embeddings: texts and queries return vectors, in order, sync and async")
async def _embed(integration: Integration) -> None:
    model = integration.embeddings()
    texts = [f"text {number}" for number in range(25)]
    found = model.embed_documents(texts)
    assert [len(vector) for vector in found] == [EMBEDDING_LENGTH] * 25
    assert all(type(number) is float for number in found[0])
    assert found[7] == model.embed_query(texts[7]) == await model.aembed_query(texts[7])
    assert await model.aembed_documents(texts) == found


@contract("embeddings: thousands of texts in one call return their vectors, in order")
def _many(integration: Integration) -> None:
    model = integration.embeddings()
    texts = [f"text {number}" for number in range(2500)]
    found = model.embed_documents(texts)
    assert len(found) == len(texts)
    assert [found[number] for number in (0, 1500, 2499)] == [model.embed_query(texts[n]) for n in (0, 1500, 2499)]


@contract("embeddings: no texts return no vectors, without a request")
async def _none(integration: Integration) -> None:
    model = integration.embeddings()
    assert model.embed_documents([]) == await model.aembed_documents([]) == []
    assert not integration.server.embedded


@contract("embeddings: texts are sent unchanged")
def _unchanged(integration: Integration) -> None:
    model = integration.embeddings()
    model.embed_documents(["two\nlines", ""])
    assert integration.server.embedded == ["two\nlines", ""]


@contract("embeddings: a long text is sent whole or raises an error")
def _long(integration: Integration) -> None:
    model, text = integration.embeddings(), "word " * 20_000
    try:
        model.embed_query(text)
    except Exception:  # noqa: BLE001 - peers raise all kinds
        return
    assert integration.server.embedded == [text]


@contract("embeddings: async calls do not block the event loop")
async def _native_async(integration: Integration) -> None:
    assert await ticks_during(integration.embeddings().aembed_query("slow rain")) > 20


@contract("embeddings: one object works in several event loops in turn")
def _event_loops(integration: Integration) -> None:
    model = integration.embeddings()
    for _ in range(2):
        assert len(asyncio.run(model.aembed_query("rain"))) == EMBEDDING_LENGTH


@contract("embeddings: a used object can be pickled and copied, without a warning")
def _pickle(integration: Integration) -> None:
    model = integration.embeddings()
    vector = model.embed_query("rain")
    with silence():
        others = pickle.loads(pickle.dumps(model)), copy.deepcopy(model)
    for other in others:
        assert other.embed_query("rain") == vector


@contract("embeddings: a misspelled setting raises an error or emits a warning")
def _misspelled(integration: Integration) -> None:
    check_misspelled(integration.embeddings, dimensoins=8)


@contract("embeddings: `repr` contains no secret")
def _repr(integration: Integration) -> None:
    model = integration.embeddings(api_key=SECRET)
    assert SECRET not in repr(model) + str(model)
