"""An adapter is configuration: using it changes neither what it equals nor what is made of it."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.load import dumps
from llama_index.core.callbacks import CallbackManager

from lmstudio_integrations.emulator import Emulator, ModelEntry
from tests.support.adapters import ADAPTERS
from tests.support.served import served

MODELS = [ModelEntry(key="text", context_length=4096), ModelEntry(key="embedding", kind="embedding")]

COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    lambda adapter: adapter.model_copy(),
    lambda adapter: pickle.loads(pickle.dumps(adapter)),
]
FORMS: list[Callable[[Any], Any]] = [
    repr,
    dumps,  # langchain-core's
    lambda adapter: adapter.model_dump(),
    lambda adapter: adapter.model_fields_set,
    lambda adapter: adapter.__getstate__(),
]

server = served(MODELS, auto_evict=False)


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_default_of_a_subclass_counts(name: str) -> None:
    make: Any = ADAPTERS[name].make
    subclass = type("Mine", (make,), {"__annotations__": {"model": str}, "model": "mine", "__module__": __name__})
    assert [subclass().model, subclass(ttl=5).model, subclass(model="other").model] == ["mine", "mine", "other"]
    assert not subclass(ttl=5).model_fields_set & {"model", "model_name"}


@pytest.mark.parametrize("name", ADAPTERS)
async def test_using_an_adapter_changes_nothing_that_is_made_of_it(server: Emulator, name: str) -> None:
    adapter = ADAPTERS[name]
    key = "embedding" if adapter.kind == "embedding" else "text"
    has_manager = "callback_manager" in adapter.make.model_fields  # each object gets another one by default
    shared = {"callback_manager": CallbackManager([])} if has_manager else {}
    unused, used = (adapter.make(model=key, host=server.address, **shared) for _ in range(2))
    forms = [make(used) for make in FORMS]
    adapter.call(used, "Hello")
    await adapter.acall(used, "Hello")
    assert used.load() is used
    assert await used.aload() is used
    assert used == unused
    assert [make(used) for make in FORMS] == forms
    for duplicate in COPIES:
        assert duplicate(used).model_dump() == unused.model_dump()
        assert getattr(duplicate(used), "profile", None) == getattr(unused, "profile", None)
