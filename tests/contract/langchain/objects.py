"""A model as an object: pickled, copied, serialized, shown, cached, collected."""

import asyncio
import copy
import gc
import pickle
from typing import Any

from langchain_core.caches import InMemoryCache
from langchain_core.load import dumpd, dumps, load

from tests.contract.langchain.integration import Integration, collect, contract
from tests.contract.suite import NUMBERS, SECRET
from tests.support.listening import silence


@contract("a used object can be pickled, without a warning")
async def _pickle(integration: Integration) -> None:
    llm = integration.chat(temperature=0.25)
    await llm.ainvoke(llm.invoke("count").text)
    with silence():
        other = pickle.loads(pickle.dumps(llm))  # our own bytes
    assert other.invoke("count").text == NUMBERS
    assert integration.server.last_request.config.temperature == 0.25


@contract("a used object can be copied")
async def _copy(integration: Integration) -> None:
    llm = integration.chat()
    await llm.ainvoke(llm.invoke("count").text)
    assert copy.deepcopy(llm).invoke("count").text == NUMBERS


@contract("`repr` contains no secret")
def _repr(integration: Integration) -> None:
    llm = integration.chat(api_key=SECRET)
    assert SECRET not in repr(llm) + str(llm)


@contract("`dumps` contains no secret")
def _dumps(integration: Integration) -> None:
    assert SECRET not in dumps(integration.chat(api_key=SECRET))


@contract("`load` restores a model from `dumpd`, with its settings")
def _load(integration: Integration) -> None:
    llm = integration.chat(temperature=0.25)
    restored: Any = load(
        dumpd(llm),
        allowed_objects=[type(llm)],
        valid_namespaces=[type(llm).__module__.partition(".")[0]],
        secrets_map=dict.fromkeys(llm.lc_secrets.values(), "x"),
    )
    assert restored.invoke("count").text == NUMBERS
    assert integration.server.last_request.config.temperature == 0.25


@contract("a used object is collected without a warning")
def _collected(integration: Integration) -> None:
    gc.collect()
    with silence():
        llm = integration.chat()
        llm.invoke("count")
        list(llm.stream("count"))
        asyncio.run(_use(llm))
        del llm
        gc.collect()


async def _use(llm: Any) -> None:
    await llm.ainvoke("count")
    await collect(llm.astream("count"))


@contract("`InMemoryCache`: an equal call sends no request")
def _cache(integration: Integration) -> None:
    llm = integration.chat(cache=InMemoryCache())
    assert llm.invoke("count").text == llm.invoke("count").text == NUMBERS
    assert integration.server.prediction_count == 1


@contract("`InMemoryCache`: a call with another setting is not served from the cache")
def _cache_key(integration: Integration) -> None:
    cache = InMemoryCache()
    for settings in ({}, {"temperature": 0.1}, {"temperature": 0.9}, {"max_tokens": 5}):
        integration.chat(cache=cache, **settings).invoke("count")
    integration.chat(cache=cache).invoke("count", stop=["9"])
    integration.chat(cache=cache).bind_tools([len_of]).invoke("count")
    assert integration.server.prediction_count == 6


def len_of(text: str) -> int:
    """Return the length of a text."""
    return len(text)
